"""Execution providers by their short names, and the check that a session really runs on the one asked for."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnxruntime as ort

from prunegraph.errors import PruneGraphError, UsageError
from prunegraph.runtime.plugin import Plugin

CPU_EP = "CPUExecutionProvider"
CPU = (CPU_EP,)


@dataclass(frozen=True, slots=True)
class Provider:
    """One execution provider and how the benchmark asks ONNX Runtime for it.

    Attributes:
        name: Short name, as on the command line.
        ep: ONNX Runtime's name.
        install: What brings it; completes the sentence "this needs ...".
        options: Provider options; ``{threads}`` in a value becomes the number of threads.
        after: Providers for the nodes that this one does not take, before the CPU provider.
        device: Where inputs and outputs live, so that copies stay out of the time: ``cpu`` or ``cuda``.
        precision: The narrowest numbers that it computes float32 models with, a key of `bench.parity.TOLERANCES`.
        plugin: What brings it to an onnxruntime that was built without it; None where nothing does.
        cache: Options that keep compiled models in a folder, written ``{folder}`` in the values.
    """

    name: str
    ep: str
    install: str
    options: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    device: str = "cpu"
    precision: str = "float32"
    plugin: Plugin | None = None
    cache: Mapping[str, str] = field(default_factory=dict)

    def requested(self, threads: int) -> list[tuple[str, dict[str, str]]]:
        """The ``providers`` argument of ``onnxruntime.InferenceSession``."""
        options = {key: value.replace("{threads}", str(threads)) for key, value in self.options.items()}
        return [(self.ep, options), *((name, {}) for name in self.after)]

    def with_cache(self, folder: Path) -> Provider:
        """The same, its compiled models kept in a folder; itself where it compiles none."""
        cached = {key: value.replace("{folder}", str(folder)) for key, value in self.cache.items()}
        return replace(self, options={**self.options, **cached}) if cached else self


# One environment per wheel: these all unpack into the same package `onnxruntime`, and the last one installed wins.
_OWN = "pip install {} onnx onnx-ir in an environment of its own, without the package onnxruntime; bench --python PATH"
_GPU = _OWN.format('"onnxruntime-gpu[cuda,cudnn]"')
_TENSORRT = _GPU + ", and TensorRT 10"
_OPENVINO = (
    f"pip install onnxruntime-ep-openvino (processors of Intel); elsewhere {_OWN.format('onnxruntime-openvino')}"
)


def _tensorrt(name: str, precision: str, options: Mapping[str, str]) -> Provider:
    return Provider(
        name,
        "TensorrtExecutionProvider",
        _TENSORRT,
        options,
        after=("CUDAExecutionProvider",),
        device="cuda",
        precision=precision,
        cache={
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": "{folder}",
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": "{folder}",
        },
    )


PROVIDERS: Mapping[str, Provider] = {
    provider.name: provider
    for provider in (
        Provider("cpu", CPU_EP, "pip install onnxruntime"),
        # TF32 off: a float32 model is timed in float32, or precision would pass for speed.
        Provider("cuda", "CUDAExecutionProvider", _GPU, {"use_tf32": "0"}, device="cuda"),
        _tensorrt("tensorrt", "float32", {}),
        _tensorrt("tensorrt-fp16", "float16", {"trt_fp16_enable": "1"}),
        # Left to itself it computes float32 models in bfloat16, where the processor has that.
        Provider(
            "openvino",
            "OpenVINOExecutionProvider",
            _OPENVINO,
            {"device_type": "CPU", "precision": "FP32", "num_of_threads": "{threads}", "num_streams": "1"},
            plugin=Plugin(
                "onnxruntime_ep_openvino",
                {"ov_device": "CPU"},
                {"CPU": {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "{threads}", "NUM_STREAMS": "1"}},
                "processors of Intel alone",
            ),
        ),
        Provider("coreml", "CoreMLExecutionProvider", "pip install onnxruntime on macOS"),
        Provider("dml", "DmlExecutionProvider", _OWN.format("onnxruntime-directml") + ", on Windows"),
        Provider("qnn", "QNNExecutionProvider", _OWN.format('"onnxruntime-qnn<2"') + ", on Windows on Arm"),
        Provider("migraphx", "MIGraphXExecutionProvider", _OWN.format("onnxruntime-migraphx") + ", with ROCm"),
        Provider("cann", "CANNExecutionProvider", _OWN.format("onnxruntime-cann") + ", with an Ascend NPU"),
        Provider(
            "xnnpack",
            "XnnpackExecutionProvider",
            "build onnxruntime from source with --use_xnnpack",
            {"intra_op_num_threads": "{threads}"},
        ),
    )
}


def find_provider(name: str) -> Provider:
    """The provider of a short name (``cuda``) or of ONNX Runtime's own (``CUDAExecutionProvider``).

    Raises:
        UsageError: No such provider is known.
    """
    key = name.strip().lower()
    for provider in PROVIDERS.values():
        if key in (provider.name, provider.ep.lower()):
            return provider
    for full in ort.get_all_providers():  # those that nobody has timed yet
        short = full.removesuffix("ExecutionProvider").lower()
        if key in (short, full.lower()):
            return Provider(short, full, f"an onnxruntime built with {full}")
    raise UsageError(f"unknown execution provider {name!r}", hint=f"known are: {', '.join(PROVIDERS)}")


def require_available(provider: Provider) -> None:
    """Check that this onnxruntime was built with the provider.

    Raises:
        UsageError: It was not; the hint names what to install.
    """
    available = ort.get_available_providers()
    if provider.ep in available or (provider.plugin is not None and provider.plugin.is_installed()):
        return
    hint = provider.install
    if provider.device == "cuda" and _is_jetson():
        hint = "on a Jetson take onnxruntime-gpu from the Jetson AI Lab index: the PyPI wheel has no code for its GPU"
    raise UsageError(
        f"the provider {provider.name} is not in this onnxruntime {ort.__version__} (it has {', '.join(available)})",
        hint=hint,
    )


def execution_providers(names: Sequence[str]) -> tuple[str, ...]:
    """ONNX Runtime's names of providers, the CPU last for the nodes that no other takes.

    >>> execution_providers(["cpu"]), execution_providers([])
    (('CPUExecutionProvider',), ('CPUExecutionProvider',))

    Args:
        names: `cuda` or `CUDAExecutionProvider`, the first choice first; empty for the CPU.

    Raises:
        UsageError: no such provider is known, or this onnxruntime was built without it.
    """
    chosen = []
    for name in names:
        provider = find_provider(name)
        require_available(provider)
        chosen.append(provider.ep)
    return tuple(dict.fromkeys([*chosen, *CPU]))


def nodes_per_provider(session: ort.InferenceSession) -> dict[str, int]:
    """How many nodes each provider was given; empty where ONNX Runtime is too old to tell.

    The session must have been made with ``session.record_ep_graph_assignment_info`` set to 1.
    """
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return {}
    counts: Counter[str] = Counter()
    for part in session.get_provider_graph_assignment_info():
        counts[part.ep_name] += len(part.get_nodes())
    return dict(counts)


def check_actual(session: ort.InferenceSession, provider: Provider, model: str) -> dict[str, int]:
    """Refuse a session that fell back: ONNX Runtime only warns, and the figure would be the CPU's.

    Returns:
        Nodes per provider, see `nodes_per_provider`.

    Raises:
        PruneGraphError: The provider is not the session's first, or it was given no node.
    """
    actual = session.get_providers()
    if not actual or actual[0] != provider.ep:
        raise PruneGraphError(
            f"asked for {provider.name}, but ONNX Runtime runs {model} on {', '.join(actual) or 'nothing'}",
            hint=f"its message on stderr says which library did not load; {provider.name} needs: {provider.install}",
        )
    nodes = nodes_per_provider(session)
    if nodes and not nodes.get(provider.ep):
        raise PruneGraphError(
            f"{provider.name} took none of the {sum(nodes.values())} nodes of {model}: all run on {', '.join(nodes)}",
            hint=f"time it on another provider; {provider.name} supports none of its operators or types",
        )
    return nodes


def _is_jetson() -> bool:
    return platform.machine() == "aarch64" and Path("/etc/nv_tegra_release").exists()
