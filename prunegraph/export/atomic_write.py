"""The former place of `prunegraph.atomic_write`; whoever imports it is told so."""

from prunegraph.atomic_write import check_room as check_room
from prunegraph.atomic_write import check_target as check_target
from prunegraph.atomic_write import make_folder as make_folder
from prunegraph.atomic_write import stage as stage
from prunegraph.atomic_write import write_text as write_text
