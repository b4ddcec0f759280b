"""Cleanup: share small constants again and drop what nothing uses."""

from __future__ import annotations

import logging

import onnx_ir as ir
from onnx_ir.passes.common import DeduplicateInitializersPass, RemoveUnusedNodesPass


def cleanup(model: ir.Model) -> ir.Model:
    """Tidy a shrunk model, in place; weights, names and results stay."""
    logger = logging.getLogger("onnx_ir.passes.common.initializer_deduplication")
    level = logger.level
    logger.setLevel(logging.ERROR)  # an initializer that is also an input is none of its business, and no reason to warn
    try:
        DeduplicateInitializersPass(size_limit=1024)(model)
    finally:
        logger.setLevel(level)
    RemoveUnusedNodesPass()(model)
    return model
