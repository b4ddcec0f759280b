"""Old import paths: modules that have moved are still found under their former names for one release."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "amounts": "passes.choose.amounts",
    "options": "passes.choose.request",
    "analysis.outline": "cli.outline",
    "analysis.positions": "analysis.router_indices",
    "analysis.sizes": "analysis.slots",
    "analysis.wording": "cli.wording",
    "bench.inputs": "runtime.inputs",
    "bench.providers": "runtime.providers",
    "bench.sessions": "runtime.on_provider",
    "bench.table": "cli.latency_table",
    "export.atomic_write": "atomic_write",
    "export.backward": "torch_twin.backward",
    "export.doors": "export.convert",
    "export.external": "export.external_data",
    "export.from_torch": "export.torch_module",
    "export.onnx": "export.onnx_file",
    "export.stage": "atomic_write",
    "export.to_torch": "torch_twin",
    "export.torch_axes": "export.torch_dynamic_shapes",
    "export.unreadable": "export.diagnose",
    "observe.feeds": "runtime.feeds",
    "observe.fused": "observe.decompose_attention",
    "observe.gates": "observe.head_mask",
    "observe.plans": "runtime.trial_sizes",
    "observe.positions": "observe.padding",
    "observe.providers": "runtime.providers",
    "observe.session": "runtime.session",
    "observe.tapped": "observe.with_outputs",
    "observe.taps": "observe.attention_sites",
    "passes.budget": "passes.choose.budget",
    "passes.cleanup": "passes.rewrite.cleanup",
    "passes.constants": "runtime.edit",
    "passes.counts": "passes.choose.targets",
    "passes.empty": "passes.rewrite.remove_groups",
    "passes.evaluate": "runtime.run_node",
    "passes.filter": "passes.choose.head_filter",
    "passes.fold": "passes.rewrite.fold_empty",
    "passes.layers": "passes.choose.whole_layers",
    "passes.marks": "passes.rewrite.provenance",
    "passes.mask": "passes.prove.mask",
    "passes.metric": "observe.metric",
    "passes.preservation": "observe.attention_similarity",
    "passes.score.gradients": "observe.gradients",
    "passes.select": "passes.choose.rank",
    "passes.shrink": "passes.rewrite.shrink",
    "passes.unrounded": "passes.prove.float_reference",
    "passes.verify": "passes.prove.verify",
}
"""From old to new, both within the package; what lies below a moved package is found below its new place."""


class Forward(MetaPathFinder, Loader):
    """Finds a module under its former name, and says what it is called now."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A spec of what has moved; None for everything else."""
        return ModuleSpec(fullname, self) if new_path(fullname) else None

    def exec_module(self, module: ModuleType) -> None:
        """Put the module that is meant in the place of the empty one."""
        new = new_path(module.__name__)
        assert new is not None
        warnings.warn(f"{module.__name__} is now {new}", DeprecationWarning, stacklevel=2)
        sys.modules[module.__name__] = importlib.import_module(new)


def new_path(name: str) -> str | None:
    """What a module is called now; None for what has not moved.

    >>> new_path("prunegraph.export.to_torch.build"), new_path("prunegraph.api")
    ('prunegraph.torch_twin.build', None)
    """
    package, _, inner = name.partition(".")
    if package != "prunegraph":
        return None
    parts = inner.split(".")
    for count in range(len(parts), 0, -1):
        new = MOVED.get(".".join(parts[:count]))
        if new is not None:
            return ".".join((package, new, *parts[count:]))
    return None


def former_names(module: str, **names: object) -> Callable[[str], object]:
    """What a module's `__getattr__` is that still gives things under the names that they had.

    Args:
        module: The name of the module.
        names: By former name what is meant.
    """

    def get(name: str) -> object:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        now = getattr(names[name], "__name__", "")
        warnings.warn(f"{module}.{name} is now called {now}", DeprecationWarning, stacklevel=2)
        return names[name]

    return get


def forward_old_paths() -> None:
    """Have old import paths found, once a process."""
    if not any(isinstance(finder, Forward) for finder in sys.meta_path):
        sys.meta_path.insert(0, Forward())
