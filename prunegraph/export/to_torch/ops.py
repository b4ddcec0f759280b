"""All families of torch functions; importing this module fills the registry."""

from importlib import import_module
from pkgutil import iter_modules

import prunegraph.export.to_torch as package

MACHINERY = {"build", "calls", "dtypes", "hosts", "ops", "registry", "ties", "trained", "weights"}
FAMILIES = tuple(sorted(m.name for m in iter_modules(package.__path__) if m.name not in MACHINERY))

for family in FAMILIES:
    import_module(f"{package.__name__}.{family}")
