"""Estimate how long a model takes on hardware that is not here: a roofline per node.

A node takes as long as its arithmetic at the peak rate or its memory traffic at the peak bandwidth, whichever is
longer, and what starting it costs (Williams et al., CACM 2009).  Peaks are those of data sheets: real kernels stay
below them, so that ratios of two models are nearer to the truth than milliseconds are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from prunegraph.analysis.groups import Group
from prunegraph.analysis.lengths import Lengths
from prunegraph.analysis.slots import Keep, Keeps
from prunegraph.analyzed import Analyzed
from prunegraph.bench.device_table import LatencyTable, TimedCut
from prunegraph.bench.stats import PairedRatio
from prunegraph.errors import UsageError
from prunegraph.observe.fingerprint import fingerprint
from prunegraph.passes.rewrite.remove_groups import remove_whole_groups
from prunegraph.speed.blocks import TimedBlock, units_of
from prunegraph.speed.cuts import table_cuts


@dataclass(frozen=True, slots=True)
class Device:
    """What a data sheet says.

    Attributes:
        name: Short, for the command line.
        title: The product.
        gflops: Peak billions of float32 operations a second; an addition and a multiplication are two.
        gbytes: Peak bandwidth of its memory, billions of bytes a second.
        start_us: What starting one node costs, in microseconds; a guess.
    """

    name: str
    title: str
    gflops: float
    gbytes: float
    start_us: float


DEVICES = (
    Device("jetson-nano", "NVIDIA Jetson Nano, GPU", 236, 25.6, 15),
    Device("orin-nano", "NVIDIA Jetson Orin Nano 8 GB, GPU", 1280, 68, 8),
    Device("agx-orin", "NVIDIA Jetson AGX Orin 64 GB, GPU", 5325, 204.8, 8),
    Device("raspberry-pi-4", "Raspberry Pi 4, four Cortex-A72 at 1.8 GHz", 57.6, 12.8, 2),
    Device("raspberry-pi-5", "Raspberry Pi 5, four Cortex-A76 at 2.4 GHz", 153.6, 17.1, 1.5),
    Device("rtx-3090", "NVIDIA GeForce RTX 3090", 35580, 936, 4),
    Device("h100", "NVIDIA H100 SXM", 66900, 3350, 3),
    Device("x86-core", "one core of an x86 server with AVX2 at 3 GHz", 96, 20, 0.5),
)

FREE = ("Constant", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Shape")
"""Ops that move nothing: the runtime passes the same memory on."""


def find_device(name: str) -> Device:
    """The device of this name.

    Raises:
        UsageError: there is none.
    """
    for device in DEVICES:
        if device.name == name:
            return device
    hint = f"choose one of {', '.join(device.name for device in DEVICES)}"
    raise UsageError(f"nothing is known of the device {name!r}", hint=hint)


def estimate_ms(analyzed: Analyzed, device: Device, kept: Mapping[str, int] | None = None) -> float:
    """Milliseconds that a model would take, at the sizes that it is counted at (`Normalized.sizes`).

    Args:
        analyzed: The model.
        device: What it would run on.
        kept: By group id how many units stay; groups not named stay whole.
    """
    groups = {group.id: group for group in analyzed.analysis.groups}
    keeps: dict[int, Keep] = {}
    for name, count in (kept or {}).items():
        group = groups[name]
        mask = np.broadcast_to(np.arange(group.units) < count, group.shape).copy()
        keeps[group.dim] = Keep(group.outer, mask, count)
    gone = _gone(analyzed, keeps)
    lengths = Lengths(analyzed.analysis.solution, keeps)
    return sum(_nodes_us(analyzed, device, lengths, gone)) / 1000


def estimated_table(
    analyzed: Analyzed,
    blocks: Sequence[TimedBlock],
    device: Device,
    *,
    align: int | None = None,
    widths: Sequence[Group] = (),
    whole_ms: float | None = None,
) -> LatencyTable:
    """A latency table of estimates; its provider says that it is one.

    Args:
        analyzed: The model.
        blocks: What may get smaller.
        device: What it would run on.
        align: To which multiples widths are rounded.
        widths: Residual widths that are narrowed, see `width_groups`.
        whole_ms: What the whole model takes there, where that was measured.
    """
    whole = estimate_ms(analyzed, device)
    cuts = []
    for cut in table_cuts(blocks, align, widths):
        ratio = whole / max(estimate_ms(analyzed, device, cut.kept), 1e-9)
        cuts.append(TimedCut(cut.name, dict(cut.kept), PairedRatio(ratio, ratio, ratio)))
    groups = units_of(blocks, widths)
    return LatencyTable(
        model=fingerprint(analyzed.original),
        groups=groups,
        provider=f"estimate for {device.name}",
        ep="",
        threads=0,
        sizes=dict(analyzed.normalized.sizes),
        protocol="estimate",
        whole_ms=whole if whole_ms is None else whole_ms,
        cuts=tuple(cuts),
        environment={"device": device.title, "gflops": int(device.gflops), "gbytes_per_second": int(device.gbytes)},
    )


def _gone(analyzed: Analyzed, keeps: Keeps) -> frozenset[int]:
    """Positions of nodes that are not there any more where whole groups go."""
    if all(keep.count for keep in keeps.values()):
        return frozenset()
    return remove_whole_groups(analyzed.normalized.model, analyzed.analysis.solution, keeps).gone


def _nodes_us(analyzed: Analyzed, device: Device, lengths: Lengths, gone: frozenset[int]) -> list[float]:
    solution, graph = analyzed.analysis.solution, analyzed.normalized.model.graph
    macs: dict[int, int] = {}
    for site in solution.contractions():
        sizes = [lengths.both(axis)[1][0] for axis in site.macs]
        macs[site.node] = macs.get(site.node, 0) + math.prod(sizes)

    def moved(value: ir.Value | None) -> float:
        if value is None or value.name is None or value.name not in solution.axes:
            return 0.0
        numbers = math.prod(lengths.both(axis)[1][0] for axis in solution.resolve(value.name))
        return numbers * (value.dtype.itemsize if value.dtype is not None else 4)

    times = []
    for position, node in enumerate(graph):
        if position in gone or (node.op_type in FREE and node.domain in ("", "ai.onnx")):
            continue
        if all(value.name in solution.weights for value in node.outputs):
            continue  # the runtime computes it once
        traffic = sum(moved(value) for value in (*node.inputs, *node.outputs))
        if node.op_type in ("Gather", "GatherElements"):  # it reads what it takes, not the table
            traffic = 2 * sum(moved(value) for value in node.outputs)
        compute = 2 * macs.get(position, 0) / (device.gflops * 1e3)
        times.append(device.start_us + max(compute, traffic / (device.gbytes * 1e3)))
    return times
