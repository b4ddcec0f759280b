"""The copies of the models that a proof runs: made comparable, and the original with what was removed masked."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from prunegraph.analysis.analyze import Analysis
from prunegraph.analysis.slots import Keeps
from prunegraph.passes.prove.float_reference import unrounded
from prunegraph.passes.prove.inner import rewritten_weights
from prunegraph.passes.prove.mask import masked
from prunegraph.passes.prove.same_noise import with_same_noise
from prunegraph.runtime.widen import widened


@dataclass(frozen=True, slots=True)
class Copies:
    """The models as they are compared: in float32, activations not rounded, the same noise in all.

    `given`, `plain` and `small`, the original, the normalized and the slim model, have their activations rounded.
    """

    given: ir.Model
    plain: ir.Model
    small: ir.Model
    original: ir.Model
    normalized: ir.Model
    oracle: ir.Model
    slim: ir.Model
    weights: tuple[str, ...]

    @staticmethod
    def of(original: ir.Model, normalized: ir.Model, slim: ir.Model, analysis: Analysis, keeps: Keeps) -> Copies:
        """Copies of the models that are compared, and the oracle made of the normalized one."""
        wide = [widened(model) for model in (original, normalized, slim)]
        given, plain, small = (with_same_noise(model) for model in wide)
        return Copies(
            given=given,
            plain=plain,
            small=small,
            original=unrounded(given),
            normalized=unrounded(plain),
            oracle=unrounded(with_same_noise(masked(wide[1], analysis.solution, keeps))),
            slim=unrounded(small),
            weights=tuple(rewritten_weights(wide[2].graph, wide[1].graph)),
        )

    @property
    def rounded(self) -> bool:
        """Whether the models are compared without the rounding of activations."""
        return self.slim is not self.small or self.original is not self.given
