"""What counts as rounding: a table of arrays, what may differ in them and what may not."""

from __future__ import annotations

import numpy as np
import pytest

from prunegraph.passes.prove.compare import are_apart, compare, noisier, slice_noise

RNG = np.random.default_rng(0)
BOXES = np.concatenate([RNG.uniform(0, 640, (2, 4, 7)), RNG.uniform(0, 0.01, (2, 5, 7))], axis=1).astype("f4")
"""Detections of two images: four coordinates beside five scores, in seven places."""
EVEN = RNG.standard_normal((3, 4, 5)).astype("f4")
ZERO_COLUMN = EVEN * np.array([1, 1, 0, 1, 1], "f4")
ODD = np.array([np.nan, np.inf, -np.inf, 1.0], "f4")


def changed(array: np.ndarray, at: tuple[object, ...], by: float) -> np.ndarray:
    """The array with other numbers in one place."""
    other = array.copy()
    other[at] += np.float32(by)
    return other


CASES: dict[str, tuple[np.ndarray, np.ndarray, bool]] = {
    "the same": (EVEN, EVEN, True),
    "rounding": (EVEN, EVEN * np.float32(1 + 1e-6), True),
    "all of it a little off": (EVEN, EVEN * np.float32(1.01), False),
    "rounding of boxes": (BOXES, changed(BOXES, (0, 2, 3), 1e-3), True),
    "scores as wrong as boxes may be": (BOXES, changed(BOXES, (0, 6, 3), 1e-3), False),
    "scores in another order": (BOXES, np.concatenate([BOXES[:, :4], np.roll(BOXES[:, 4:], 1, 1)], 1), False),
    "scores at the end of the last axis": (
        BOXES.transpose(0, 2, 1),
        changed(BOXES, (1, 8, 0), 1e-3).transpose(0, 2, 1),
        False,
    ),
    "a small one of two images": (
        EVEN * [[[1]], [[1e-3]], [[1]]],
        changed(EVEN, (1, 0, 0), 1e-1) * [[[1]], [[1e-3]], [[1]]],
        False,
    ),
    "a column of zeros that stays one": (ZERO_COLUMN, ZERO_COLUMN.copy(), True),
    "a column of zeros that is none": (ZERO_COLUMN, changed(ZERO_COLUMN, (0, 0, 2), 1e-6), False),
    "nothing": (np.zeros((0, 3), "f4"), np.zeros((0, 3), "f4"), True),
    "another shape": (EVEN, EVEN[:2], False),
    "one shape that broadcasts": (EVEN, EVEN[:1], False),
    "NaN and Inf in the same places": (ODD, ODD.copy(), True),
    "NaN in one of them": (EVEN, changed(EVEN, (0, 0, 0), np.nan), False),
    "Inf of another sign": (ODD, ODD * np.array([1, -1, 1, 1], "f4"), False),
    "one number": (np.float32(2.0) * np.ones(()), np.float32(2.00001) * np.ones(()), True),
    "another number": (np.float32(2.0) * np.ones(()), np.float32(2.1) * np.ones(()), False),
    "whole numbers": (np.array([3, 1, 2]), np.array([3, 1, 2]), True),
    "other whole numbers": (np.array([3, 1, 2]), np.array([1, 3, 2]), False),
    "truths": (np.array([True, False]), np.array([True, True]), False),
    "texts": (np.array(["a", "b"]), np.array(["a", "b"]), True),
    "other texts": (np.array(["a", "b"]), np.array(["b", "a"]), False),
    "below what float32 can tell": (np.array([1e-38, 0], "f4"), np.array([1.1e-38, 0], "f4"), True),
}


@pytest.mark.parametrize("case", CASES)
def test_what_counts_as_rounding(case: str) -> None:
    expected, actual, equal = CASES[case]
    gap = compare(expected, actual)
    assert gap.rounding == equal, gap
    assert (gap.excess > 1) == (not equal) == are_apart(expected, actual)


def test_what_a_cancellation_leaves_is_rounding_as_far_as_a_second_run_differs_there() -> None:
    """`x - x` in two orders of summing: nothing but rounding is left, and its size is no scale."""
    left = np.array([[1.0, -2.0, 3e-7], [0.5, 4.0, -2e-7]], "f4")
    again = np.array([[1.0, -2.0, 1e-7], [0.5, 4.0, 1e-7]], "f4")
    other = np.array([[1.0, -2.0, -3e-7], [0.5, 4.0, 3e-7]], "f4")
    assert not compare(left, other).rounding
    assert compare(left, other, slice_noise(left, again)).rounding


def test_noise_never_allows_more_than_a_whole_output_did() -> None:
    """A model that amplifies everything does not make the proof blind."""
    wild = slice_noise(EVEN, EVEN * np.float32(1.5))
    assert not compare(EVEN, changed(EVEN, (1, 1, 1), 1e-3), wild).rounding


def test_of_two_measurements_the_larger_counts() -> None:
    calm, rough = (slice_noise(EVEN, EVEN * np.float32(1 + by)) for by in (1e-7, 1e-5))
    both = noisier([calm, None, rough])
    assert both is not None and rough is not None
    assert all(np.array_equal(a, b) for a, b in zip(both, rough, strict=True))
    assert noisier([None]) is None


def test_the_slice_at_fault_is_named() -> None:
    gap = compare(BOXES, changed(BOXES, (0, 6, 3), 1e-3))
    assert (gap.axis, gap.index) == (1, 6)
