"""All families of torch functions; importing this module fills the registry."""

from importlib import import_module
from pkgutil import iter_modules

FAMILIES = tuple(sorted(module.name for module in iter_modules(__path__)))

for family in FAMILIES:
    import_module(f"{__name__}.{family}")
