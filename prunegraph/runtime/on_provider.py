"""A model on the execution provider that was asked for, checked, as something that can be run and timed."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort

from prunegraph.arrays import Array
from prunegraph.errors import ModelError
from prunegraph.runtime.plugin import add_plugin
from prunegraph.runtime.providers import Provider, check_actual

logger = logging.getLogger(__name__)

ModelSource = str | os.PathLike[str] | bytes | onnx.ModelProto
"""A path (also with external data), a serialized model, or a ModelProto below 2 GB."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in a session on one provider.

    Attributes:
        label: What the model is called in the results.
        session: Runs on the provider that was asked for: checked.
        provider: That provider.
        load_seconds: What making the session took: reading, optimising, and compiling where the provider does.
        nodes: Nodes per execution provider; empty where ONNX Runtime cannot tell.
    """

    label: str
    session: ort.InferenceSession
    provider: Provider
    load_seconds: float
    nodes: Mapping[str, int]

    def start(self, feeds: Mapping[str, Array]) -> tuple[Callable[[], None], float]:
        """Bind inputs, and run once: shapes and values are tried for the first time, and some providers compile.

        Inputs are copied to the provider's device now and outputs stay there, so that copies are not timed.

        Returns:
            A function that runs the model once and returns when the outputs are there; milliseconds of the first run.

        Raises:
            ModelError: ONNX Runtime cannot run the model on these inputs.
        """
        binding = self.session.io_binding()
        run, synchronize = self.session.run_with_iobinding, binding.synchronize_outputs

        def run_once() -> None:
            try:
                run(binding)
                synchronize()
            except Exception as error:  # onnxruntime's error classes have no base of their own
                raise self._cannot_run(error) from error

        try:
            for name, value in feeds.items():
                binding.bind_ortvalue_input(name, _to_ort(value, self.provider.device))
            for output in self.session.get_outputs():
                binding.bind_output(output.name, self.provider.device)
        except Exception as error:
            raise self._cannot_run(error) from error
        start = time.perf_counter()
        run_once()
        return run_once, (time.perf_counter() - start) * 1e3

    def outputs(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs, by name.

        Raises:
            ModelError: ONNX Runtime cannot run the model on these inputs.
        """
        names = [output.name for output in self.session.get_outputs()]
        try:
            return dict(zip(names, map(np.asarray, self.session.run(names, dict(feeds))), strict=True))
        except Exception as error:  # onnxruntime's error classes have no base of their own
            raise self._cannot_run(error) from error

    def _cannot_run(self, error: Exception) -> ModelError:
        return ModelError(
            f"ONNX Runtime cannot run {self.label} on random inputs: {_one_line(error)}",
            hint="if a shape is to blame, set batch, sequence, or sizes={dim name: size}",
        )


def load(source: ModelSource, label: str, provider: Provider, threads: int) -> LoadedModel:
    """Make a session, with every optimisation on, and check that it runs on the provider.

    Raises:
        ModelError: ONNX Runtime cannot load the model.
        PruneGraphError: The session fell back to another provider.
    """
    model = _readable(source, label)
    if provider.device == "cuda" and hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(sys.stderr):  # it prints what it cannot find
            ort.preload_dlls()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4  # every error of a session comes back as an exception too
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    providers: list[tuple[str, dict[str, str]]] | None = provider.requested(threads)
    if provider.plugin is not None and provider.ep not in ort.get_available_providers():
        add_plugin(options, provider.ep, provider.plugin, {}, threads)
        providers = None
    start = time.perf_counter()
    try:
        session = ort.InferenceSession(model, options, providers=providers, enable_fallback=0)
    except Exception as error:  # as above
        raise ModelError(
            f"ONNX Runtime cannot load {label} on {provider.name}: {_one_line(error)}",
            hint="onnx.checker.check_model(path) tells whether the file itself is sound"
            if provider.name == "cpu"
            else f"if it loads on cpu, the provider is to blame, which needs: {provider.install}",
        ) from error
    seconds = time.perf_counter() - start
    logger.info("loaded %s on %s in %.2f s", label, provider.name, seconds)
    return LoadedModel(label, session, provider, seconds, check_actual(session, provider, label))


def _readable(source: ModelSource, label: str) -> str | bytes:
    """What InferenceSession takes; a path stays a path, because external data lies beside it."""
    if isinstance(source, bytes):
        return source
    if isinstance(source, onnx.ModelProto):
        try:
            return bytes(source.SerializeToString())
        except Exception as error:  # protobuf's own class, and ValueError in other versions of it
            raise ModelError(
                f"{label} cannot be serialized: {_one_line(error)}",
                hint="a model over 2 GB must be saved with external data: pass its path",
            ) from error
    path = Path(source)
    if not path.is_file():
        raise ModelError(f"there is no file {path}", hint="pass the path of an ONNX file")
    return str(path)


def bytes_of(source: ModelSource) -> int:
    """Size of a model, with the weights that lie in files beside it."""
    if isinstance(source, bytes):
        return len(source)
    if isinstance(source, onnx.ModelProto):
        return source.ByteSize()
    path = Path(source)
    graph = onnx.load(path, load_external_data=False).graph
    beside = {
        entry.value
        for weight in graph.initializer
        for entry in weight.external_data
        if entry.key == "location" and weight.data_location == onnx.TensorProto.EXTERNAL
    }
    return sum(file.stat().st_size for file in (path, *(path.parent / name for name in sorted(beside))))


def _to_ort(value: Array, device: str) -> ort.OrtValue:
    if value.dtype == ml_dtypes.bfloat16:  # unknown to numpy proper, so it travels as its bits
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(value.view(np.uint16), onnx.TensorProto.BFLOAT16)
    return ort.OrtValue.ortvalue_from_numpy(value, device, 0)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
