"""Functions that a model brings along and that import other opsets than the model itself."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from prunegraph.errors import ModelError


def align_opsets(model: ir.Model) -> None:
    """Let every function import the model's opsets, in place, where that changes nothing.

    ONNX Runtime reads the body of a function by the model's opset, whatever the function states.

    Raises:
        ModelError: An op of a function is another one in the model's opset.
    """
    for function in model.functions.values():
        for domain, version in list(function.opset_imports.items()):
            own = model.opset_imports.get(domain)
            if own is None or own == version:
                continue
            for node in function.all_nodes():
                if (node.domain or "") == domain and _since(node, version) != _since(node, own):
                    raise ModelError(
                        f"the function {function.name!r} is of opset {version} of {domain or 'ONNX'}, the model of "
                        f"{own}, in which {node.op_type} is another op",
                        hint="write it in the model's opset, or convert the model: "
                        "onnx.inliner.inline_local_functions(model, convert_version=True)",
                    )
            function.opset_imports[domain] = own


def _since(node: ir.Node, opset: int) -> int:
    """In which opset the op became what it is in this one; 0 where onnx does not know it."""
    try:
        return int(onnx.defs.get_schema(node.op_type, opset, node.domain or "").since_version)
    except onnx.defs.SchemaError:
        return 0
