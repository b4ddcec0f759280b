"""Every provider in a process of its own, in the Python that has it; only files and the protocol are shared."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prunegraph import errors
from prunegraph.bench.compare import ProgressCallback, choose_providers, labels_of
from prunegraph.bench.optimized import optimize_all
from prunegraph.bench.results import Alone, Comparison
from prunegraph.errors import PruneGraphError, UsageError
from prunegraph.installed import installed_version
from prunegraph.runtime.providers import Provider, require_available

_BOOT = """
import importlib.util, sys
package, request, answer = sys.argv[1:]
path = package + "/__init__.py"
spec = importlib.util.spec_from_file_location("prunegraph", path, submodule_search_locations=[package])
sys.modules["prunegraph"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["prunegraph"])
from prunegraph.bench.child import main
main(request, answer)
"""
"""This very package in another Python, whatever is installed there; nothing else of this environment goes with it."""

_NEEDS = "numpy onnx onnx-ir ml_dtypes"


def compare_apart(
    models: Sequence[str | os.PathLike[str]],
    *,
    providers: Sequence[str | Provider],
    pythons: Mapping[str, str | os.PathLike[str]] | None = None,
    alone: bool = False,
    optimized: bool = False,
    names: Sequence[str] | None = None,
    progress: ProgressCallback = lambda what, done, total: None,
    **settings: Any,
) -> Comparison:
    """Compare models as `compare` does, each provider in a process of its own.

    Args:
        models: ONNX files; versions of one model.
        providers: See `compare`.
        pythons: By name of a provider the Python of an environment that has it; by "" that of all providers which this
            environment lacks.
        alone: Load each model once more, in a fresh process, to see what that takes of time and memory.
        optimized: Time each model also as `onnxruntime.transformers.optimizer` leaves it.
        names: See `compare`.
        progress: See `compare`.
        settings: Further arguments of `compare`.

    Raises:
        UsageError: A provider is not in its environment, or the environment lacks a package.
        PruneGraphError: Its process crashed; or what `compare` raises.
    """
    chosen = choose_providers(providers)
    paths = dict(pythons or {})
    if unknown := paths.keys() - {"", *(provider.name for provider in chosen)}:
        raise UsageError(f"--python names {', '.join(sorted(unknown))}, which is not timed", hint="name it in --ep too")
    python_of = {provider.name: _python_for(provider, paths) for provider in chosen}
    for provider in chosen:
        if python_of[provider.name] != sys.executable:
            _ask(python_of[provider.name], provider, progress, do="probe")
    labels, files = labels_of(models, names), [Path(model).resolve() for model in models]
    fused: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory(prefix="prunegraph-bench-") as folder:
        if optimized:
            progress("optimize", 0, 1)
            more, more_labels, fused = optimize_all(files, labels, Path(folder))
            files, labels = [*files, *more], [*labels, *more_labels]
        parts = [
            _on(provider.with_cache(Path(folder)), python_of[provider.name], files, labels, alone, progress, settings)
            for provider in chosen
        ]
    rows = [dataclasses.replace(row, fused=fused.get(row.model, {})) for part in parts for row in part.results]
    version = {"prunegraph": installed_version(otherwise="unknown")}  # of this package, also in another Python
    machines = {provider.name: {**part.environment, **version} for provider, part in zip(chosen, parts, strict=True)}
    first = machines[chosen[0].name]
    return dataclasses.replace(parts[0], results=tuple(rows), environment=first, environments=machines)


def _on(
    provider: Provider,
    python: str,
    files: Sequence[Path],
    labels: Sequence[str],
    alone: bool,
    progress: ProgressCallback,
    settings: Mapping[str, Any],
) -> Comparison:
    """All models on one provider."""
    stated = {"models": list(map(str, files)), "names": list(labels), "settings": dict(settings)}
    comparison = Comparison.from_dict(_ask(python, provider, progress, do="time", **stated))
    if not alone:
        return comparison
    alone_by_model: dict[str, Alone] = {}
    for number, (file, label) in enumerate(zip(files, labels, strict=True)):
        progress(f"{provider.name}: load {label} alone", number, len(files))
        fresh = {"threads": comparison.threads, "seed": comparison.seed}
        request = {"model": str(file), "name": label, "sizes": dict(comparison.sizes), "settings": fresh}
        with tempfile.TemporaryDirectory(prefix="prunegraph-bench-") as folder:  # so that it compiles anew
            alone_by_model[label] = Alone(
                **_ask(python, provider.with_cache(Path(folder)), progress, do="weigh", **request)
            )
    rows = tuple(dataclasses.replace(row, alone=alone_by_model[row.model]) for row in comparison.results)
    return dataclasses.replace(comparison, results=rows)


def _python_for(provider: Provider, paths: Mapping[str, str | os.PathLike[str]]) -> str:
    """The Python that a provider is run with.

    Raises:
        UsageError: it is no file, or none is given and this onnxruntime lacks the provider.
    """
    path = paths.get(provider.name)
    if path is None:
        try:
            require_available(provider)
            return sys.executable
        except UsageError:
            if "" not in paths:
                raise
            path = paths[""]
    if not Path(path).is_file():
        raise UsageError(f"--python: there is no file {path}", hint="give the python of a virtual environment")
    return os.fspath(path)


def _ask(python: str, provider: Provider, progress: ProgressCallback, **request: Any) -> dict[str, Any]:
    """What the child answers.

    Raises:
        PruneGraphError: what it refused, or how it ended.
    """
    with tempfile.TemporaryDirectory(prefix="prunegraph-bench-") as folder:
        asking, answering, log = (Path(folder) / name for name in ("request.json", "answer.json", "log"))
        asking.write_text(json.dumps({**request, "provider": dataclasses.asdict(provider)}), encoding="utf-8")
        package = Path(errors.__file__).parent
        command = [python, "-c", _BOOT, str(package), str(asking), str(answering)]
        with log.open("wb") as errors_of_child, _child(command, _variables(provider, python), errors_of_child) as child:
            assert child.stdout is not None and child.stdin is not None
            for line in child.stdout:
                if line.startswith('{"progress"'):
                    progress(*json.loads(line)["progress"])
                    with contextlib.suppress(OSError):  # it is gone
                        print(file=child.stdin, flush=True)
            code = child.wait()
        if code or not answering.is_file():
            raise _crash(provider, python, code, log.read_text(encoding="utf-8", errors="replace"))
        answer = json.loads(answering.read_text(encoding="utf-8"))
    if "error" in answer:
        kind, message, hint = answer["error"]
        raise getattr(errors, kind, PruneGraphError)(message, hint=hint)
    result: dict[str, Any] = answer["result"]
    return result


def _variables(provider: Provider, python: str) -> dict[str, str]:
    """The environment variables of a child: none that would lead another Python to packages of this one."""
    variables = dict(os.environ)
    if python != sys.executable:
        variables = {name: value for name, value in variables.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    if provider.device == "cuda" and provider.precision == "float32":
        variables["NVIDIA_TF32_OVERRIDE"] = "0"  # TensorRT has no option for it
    return variables


@contextlib.contextmanager
def _child(command: Sequence[str], variables: Mapping[str, str], log: Any) -> Iterator[subprocess.Popen[str]]:
    """The process, ended with the caller."""
    child = subprocess.Popen(
        command,
        env=dict(variables),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        encoding="utf-8",
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def _crash(provider: Provider, python: str, code: int, log: str) -> PruneGraphError:
    """What the end of a child that gave no answer means."""
    lines = [line for line in log.splitlines() if line.strip()] or [""]
    if lines[-1].startswith("ModuleNotFoundError"):
        module = lines[-1].rpartition(" ")[2].strip("'")
        message = f"the environment of {python} lacks {module}"
        return UsageError(message, hint=f"{python} -m pip install {_NEEDS}, and the onnxruntime of {provider.name}")
    how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
    hint = f"it said: {lines[-1][:300]}" if lines[-1] else "time on another provider"
    return PruneGraphError(f"the process that ran {provider.name} {how}", hint=hint)
