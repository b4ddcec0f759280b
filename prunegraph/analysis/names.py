"""Readable names of weights and groups: where in the model they are, as weight names and node scopes tell."""

from __future__ import annotations

import ast
import fnmatch
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import onnx_ir as ir

from prunegraph.analysis.ops import traits_of
from prunegraph.errors import UsageError

_LOST = re.compile(r"onnx::\w+|_?v(al)?_?\d+|\d+|_?(tensor_)?constant_?\d*|const_fold_opt__\d+", re.IGNORECASE)
"""Names that exporters give to weights whose own name they lost."""

_COPY = re.compile(r"/(use|part)\d+$|/frozen$")
"""What normalizing adds to the names of what it makes several of, or froze."""

_PART = re.compile(r"/part(\d+)")
_ROLES = {"Add": "bias", "Sub": "bias", "Mul": "scale", "Div": "scale"}


def matches(names: Iterable[str], patterns: Sequence[str]) -> bool:
    """Whether any of the names matches any of the patterns (`*`, `?`, `[…]`; case counts)."""
    return any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in patterns)


def as_patterns(given: str | Iterable[str] | None) -> tuple[str, ...]:
    """Patterns as a tuple; a plain string is one pattern.

    >>> as_patterns("ffn.0"), as_patterns(["ffn.0", "ffn.1"]), as_patterns(None)
    (('ffn.0',), ('ffn.0', 'ffn.1'), ())
    """
    if given is None:
        return ()
    return (given,) if isinstance(given, str) else tuple(given)


def check_patterns(patterns: Iterable[str], names: Sequence[str], what: str, *, hint: str) -> None:
    """Refuse a pattern that matches nothing: it is a slip that would change the result without a word.

    Raises:
        UsageError: a pattern matches no name.
    """
    for pattern in patterns:
        if names and not matches(names, [pattern]):
            raise UsageError(f"no {what} matches {pattern!r}", hint=hint)


def readable_names(graph: ir.Graph) -> dict[str, str]:
    """Every initializer's name for people, in the order in which nodes use them.

    That is its own name, or, where the exporter lost it, one after the module whose node uses it or after the bias
    beside it: `onnx::MatMul_470` is `encoder.layer.0.query.weight`.
    """
    names: dict[str, str] = {}
    for node in graph:
        for index, value in enumerate(node.inputs):
            name = value.name if value is not None else None
            if name and name in graph.initializers and name not in names:
                names[name] = _readable(name, node, index, graph)
    return names


def module_of(readable: str) -> str:
    """The module that a weight belongs to; of a fused weight that was taken apart also which part it is.

    >>> module_of("blocks.0.attn.qkv.weight/part2"), module_of("pos_embed")
    ('blocks.0.attn.qkv.part2', 'pos_embed')
    """
    part = _PART.search(readable)
    name = _strip(readable)
    module = name.rpartition(".")[0] or name
    return f"{module}.part{part[1]}" if part else module


def scopes(names: Mapping[str, str], places: Mapping[int, Sequence[tuple[str, int]]]) -> Mapping[int, str]:
    """A scope for every leaf that weights hold: the longest one that most of these weights share.

    Args:
        names: What `readable_names` says.
        places: By leaf, the weights that hold it.
    """
    return {
        leaf: _common([module_of(_PART.sub("", names.get(name, name))) for name, _ in holding])
        for leaf, holding in places.items()
    }


def node_scope(node: ir.Node) -> str:
    """The module a node was exported from, "" where its exporter did not say."""
    recorded = node.metadata_props.get("pkg.torch.onnx.name_scopes")
    if recorded:
        try:
            names = [str(name) for name in ast.literal_eval(recorded) if name]
        except (ValueError, SyntaxError):
            names = []
        return names[-2] if len(names) > 1 else ""
    return dotted(_strip(node.name or "").rpartition("/")[0])


def dotted(path: str) -> str:
    """A path of modules with dots; exporters write `blocks/blocks.0` for the child `0` of `blocks`.

    >>> dotted("/blocks/blocks.0/attn/MatMul"), dotted("node_conv2d")
    ('blocks.0.attn.MatMul', 'node_conv2d')
    """
    parts = path.split("/")
    kept = [part for part, after in zip(parts, [*parts[1:], ""], strict=True) if not after.startswith(f"{part}.")]
    return ".".join(part for part in kept if part)


def _readable(name: str, node: ir.Node, index: int, graph: ir.Graph) -> str:
    own = _strip(name)
    copy = name[len(own) :]
    if not _LOST.fullmatch(own):
        return (dotted(own.split(":")[0]) if "/" in own else own) + copy
    scope = node_scope(node)
    if scope:
        role = "bias" if index == traits_of(node).bias else "weight"
        return f"{scope}.{_ROLES.get(node.op_type, role)}{copy}"
    beside = _bias_beside(node, graph)
    return f"{beside}.weight{copy}" if beside else name


def _bias_beside(node: ir.Node, graph: ir.Graph) -> str:
    """The module of the bias that is added to what a node makes, or that the node itself is given."""
    users = [user for value in node.outputs for user, _ in value.uses()]
    near = [*node.inputs, *(value for user in users if user.op_type == "Add" for value in user.inputs)]
    named = (_strip(value.name or "") for value in near if value is not None and value.name in graph.initializers)
    return next((name.removesuffix(".bias") for name in named if name.endswith(".bias")), "")


def _strip(name: str) -> str:
    while (shorter := _COPY.sub("", name)) != name:
        name = shorter
    return name


def _common(names: Sequence[str]) -> str:
    """The longest dotted prefix that more than half of the names share: one odd weight does not spoil it."""
    named = [name.split(".") for name in names if name]
    total, best = len(named), list[str]()
    while True:
        heads = Counter(parts[len(best)] for parts in named if len(parts) > len(best))
        head, count = heads.most_common(1)[0] if heads else ("", 0)
        if count * 2 <= total:
            return ".".join(best)
        best.append(head)
        named = [parts for parts in named if parts[: len(best)] == best]
