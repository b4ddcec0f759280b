"""In tests a bug in an axis rule is an error; a user gets a pin with that reason, and a warning."""

from __future__ import annotations

import os

os.environ["PRUNEGRAPH_STRICT"] = "1"
