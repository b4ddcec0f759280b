"""Names for people: where in the model a group is, as far as node scopes and weight names tell."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from prunegraph.analysis.solve import Solution


def scopes(
    graph: ir.Graph, solution: Solution, places: Mapping[int, Sequence[tuple[str, int]]]
) -> Mapping[int, str]:
    """A scope for every leaf that weights hold: the longest one that the nodes using these weights share."""
    users: dict[str, list[str]] = {}
    for node in graph:
        for value in node.inputs:
            if value is not None and value.name in graph.initializers:
                users.setdefault(value.name or "", []).append(node_scope(node) or _parent(value.name or ""))
    return {leaf: _common([scope for name, _ in held for scope in users.get(name, ())]) for leaf, held in places.items()}


def node_scope(node: ir.Node) -> str:
    """The module a node was exported from, "" where its exporter did not say."""
    recorded = node.metadata_props.get("pkg.torch.onnx.name_scopes")
    if recorded:
        try:
            names = [str(name) for name in ast.literal_eval(recorded) if name]
        except (ValueError, SyntaxError):
            names = []
        return names[-2] if len(names) > 1 else ""
    name = (node.name or "").strip("/")
    return name.rpartition("/")[0].replace("/", ".") if "/" in name else ""


def _parent(weight: str) -> str:
    return weight.rpartition(".")[0] if re.search(r"[A-Za-z_]\.", weight) else ""


def _common(names: Sequence[str]) -> str:
    """The longest dotted prefix of most names: one odd user does not spoil it."""
    named = [name.split(".") for name in names if name]
    best: list[str] = []
    while named:
        heads = Counter(parts[len(best)] for parts in named if len(parts) > len(best))
        if not heads:
            break
        head, count = heads.most_common(1)[0]
        if count * 2 <= len(named):
            break
        best.append(head)
        named = [parts for parts in named if len(parts) >= len(best) and parts[len(best) - 1] == head]
    return ".".join(best)
