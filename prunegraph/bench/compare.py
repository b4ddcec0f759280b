"""Compare models over execution providers: load, make inputs, time side by side, summarise."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prunegraph.arrays import Array
from prunegraph.bench.energy import Meter, joules_a_run
from prunegraph.bench.environment import environment
from prunegraph.bench.latency import PROTOCOLS, interleave
from prunegraph.bench.parity import check_parity
from prunegraph.bench.results import Comparison, Latency
from prunegraph.bench.shapes import Shapes, sizes_of
from prunegraph.bench.stats import MIN_ROUNDS, paired_ratio
from prunegraph.errors import ModelError, UsageError
from prunegraph.runtime.feeds import ID_BOUNDS, random_feeds
from prunegraph.runtime.inputs import check_same_inputs, session_inputs
from prunegraph.runtime.on_provider import LoadedModel, ModelSource, bytes_of, load
from prunegraph.runtime.providers import Provider, find_provider, require_available
from prunegraph.runtime.sizes_by_role import resolve_sizes

_NO_ENERGY = "counters of x86 processors are for root alone: sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj"

ProgressCallback = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


def compare(
    models: Sequence[ModelSource],
    *,
    providers: Sequence[str | Provider] = ("cpu",),
    batch: int = 1,
    sequence: int = 128,
    sizes: Mapping[str, int] | None = None,
    shapes: Sequence[Shapes] = (),
    threads: int = 1,
    warmup: int = 10,
    rounds: int = 100,
    max_seconds: float = 60.0,
    protocol: str = "turns",
    energy_seconds: float = 0.0,
    seed: int = 0,
    names: Sequence[str] | None = None,
    progress: ProgressCallback | None = None,
) -> Comparison:
    """Time one or several models side by side on each execution provider.

    On a provider all models are alive in this process and run once a round in a random order, on the same inputs. The
    first model is the one that the others are compared with.

    Args:
        models: Paths, serialized models, or ModelProtos; versions of one model, with the same inputs.
        providers: Short names (see `PROVIDERS`), ONNX Runtime's names, or a `Provider` with options of your own.
        batch: Size of dynamic batch dims.
        sequence: Size of dynamic sequence dims.
        sizes: Size of dynamic dims by name; wins over ``batch`` and ``sequence``.
        shapes: Of inputs, by name; one entry for each size that is timed. They win over ``sizes``.
        threads: Threads inside an operator; operators run one after the other.
        warmup: Rounds thrown away; up to four times as many until times are steady, at most a quarter of
            ``max_seconds``.
        rounds: Rounds timed, at least 6.
        max_seconds: For warm-up and rounds of one size on one provider; 6 rounds are timed in any case.
        protocol: "turns", where the models run one after the other, or "blocks", where each runs several times before
            the next, see `latency.PROTOCOLS`: with weights that fit into the caches these are two different figures.
        energy_seconds: For each model by itself after it was timed, to tell what a run uses; 0 for not at all.
        seed: Of inputs, orders and intervals.
        names: What to call the models; file names by default, with their folder where two are alike.
        progress: Called between rounds, outside the timed part. Whatever it starts in another thread runs beside the
            timed part: let ``rich.progress.Progress`` have ``auto_refresh=False`` and refresh it here.

    Raises:
        UsageError: An unknown provider or one that this onnxruntime lacks, a dynamic dim whose size cannot be told,
            models with different inputs, a number out of range.
        ModelError: ONNX Runtime cannot load or run a model.
        PruneGraphError: A session fell back to another provider than asked for, or a model has other outputs on one
            than on the CPU.
    """
    sources = [models] if isinstance(models, str) else list(models)
    labels = labels_of(sources, names)
    if energy_seconds > 0 and not Meter():
        raise UsageError("this machine does not tell what energy it uses", hint=_NO_ENERGY)
    settings = _Settings(
        batch,
        sequence,
        sizes,
        shapes,
        threads,
        warmup,
        rounds,
        max_seconds,
        protocol,
        energy_seconds,
        seed,
        progress or _no_progress,
    )
    chosen = choose_providers(providers)
    for provider in chosen:
        require_available(provider)
    parts = [_compare_on(provider, dict(zip(labels, sources, strict=True)), settings) for provider in chosen]
    return Comparison(
        results=tuple(row for part in parts for row in part.rows),
        inputs={name: value.shape for name, value in parts[0].feeds.items()},
        sizes=parts[0].sizes,
        threads=threads,
        warmup=warmup,
        seed=seed,
        environment=environment(),
        protocol=protocol,
    )


@dataclass(frozen=True, slots=True)
class _Settings:
    batch: int
    sequence: int
    sizes: Mapping[str, int] | None
    shapes: Sequence[Shapes]
    threads: int
    warmup: int
    rounds: int
    max_seconds: float
    protocol: str
    energy_seconds: float
    seed: int
    progress: ProgressCallback

    def __post_init__(self) -> None:
        least = {"batch": 1, "sequence": 1, "threads": 1, "warmup": 0, "rounds": MIN_ROUNDS}
        for name, minimum in least.items():
            if getattr(self, name) < minimum:
                raise UsageError(f"{name} is {getattr(self, name)}", hint=f"give {minimum} or more")
        if not self.max_seconds > 0:  # so that NaN is refused as well
            raise UsageError(f"max_seconds is {self.max_seconds}", hint="give more than 0")
        if self.protocol not in PROTOCOLS:
            raise UsageError(f"there is no protocol {self.protocol!r}", hint=f"choose {' or '.join(PROTOCOLS)}")
        if self.energy_seconds < 0:
            raise UsageError(f"energy_seconds is {self.energy_seconds}", hint="give 0 or more")


@dataclass(frozen=True, slots=True)
class _Part:
    """What one provider gave."""

    rows: Sequence[Latency]
    feeds: Mapping[str, Array]
    sizes: Mapping[str, int]


def _compare_on(provider: Provider, models: Mapping[str, ModelSource], settings: _Settings) -> _Part:
    loaded: list[LoadedModel] = []
    for label, source in models.items():
        settings.progress(f"{provider.name}: load {label}", len(loaded), len(models))
        loaded.append(load(source, label, provider, settings.threads))
    parts = [_compare_at(shapes, loaded, list(models.values()), settings) for shapes in settings.shapes or ({},)]
    rows = [row for part in parts for row in part.rows]
    return _Part(rows, parts[0].feeds, parts[0].sizes)


def _compare_at(
    shapes: Shapes, loaded: Sequence[LoadedModel], sources: Sequence[ModelSource], settings: _Settings
) -> _Part:
    specs = session_inputs(loaded[0].session)
    named = {**(settings.sizes or {}), **sizes_of(specs, shapes)}
    sizes = resolve_sizes(specs, batch=settings.batch, sequence=settings.sequence, sizes=named)
    started, feeds = start_all(loaded, sizes, settings.seed, lambda feeds: _gate(loaded, sources, feeds, settings))
    provider = loaded[0].provider.name
    samples = interleave(
        [run_once for run_once, _ in started],
        warmup=settings.warmup,
        rounds=settings.rounds,
        max_seconds=settings.max_seconds,
        block=PROTOCOLS[settings.protocol],
        rng=np.random.default_rng(settings.seed),
        on_round=lambda done: settings.progress(f"{provider}: time", done, settings.rounds),
    )
    joules = _joules([run_once for run_once, _ in started], settings.energy_seconds)
    rows = [
        Latency.from_samples(
            samples[:, arm],
            provider=provider,
            ep=model.provider.ep,
            model=model.label,
            load_seconds=model.load_seconds,
            first_run_ms=started[arm][1],
            nodes=model.nodes,
            ratio=paired_ratio(samples[:, 0], samples[:, arm], seed=settings.seed) if arm else None,
            inputs={name: array.shape for name, array in feeds.items()},
            bytes=bytes_of(source),
            joules=joules[arm],
        )
        for arm, (model, source) in enumerate(zip(loaded, sources, strict=True))
    ]
    return _Part(rows, feeds, sizes)


def _joules(arms: Sequence[Callable[[], None]], seconds: float) -> Sequence[Mapping[str, float]]:
    """Joules of a run by rail, for every arm."""
    return joules_a_run(arms, seconds, Meter())[0] if seconds > 0 else [{} for _ in arms]


def start_all(
    loaded: Sequence[LoadedModel],
    sizes: Mapping[str, int],
    seed: int,
    check: Callable[[Mapping[str, Array]], None] = lambda feeds: None,
) -> tuple[list[tuple[Callable[[], None], float]], Mapping[str, Array]]:
    """Run every model once on inputs that all of them take.

    Args:
        loaded: The models.
        sizes: Of all dynamic dims.
        seed: Of the inputs.
        check: Called with them once all models ran.

    Returns:
        For each model what runs it once more, and milliseconds of its first run; the inputs.

    Raises:
        UsageError: The models have different inputs.
        ModelError: One cannot be run.
    """
    specs = session_inputs(loaded[0].session)
    for bound in ID_BOUNDS:
        feeds = random_feeds(specs, sizes, seed, id_bound=bound, whole_masks=True)
        for other in loaded[1:]:
            check_same_inputs(session_inputs(other.session), feeds, other.label, loaded[0].label)
        try:
            started = [model.start(feeds) for model in loaded]
            check(feeds)
            break
        except ModelError:
            if bound == ID_BOUNDS[-1]:
                raise
    return started, feeds


def _gate(
    loaded: Sequence[LoadedModel], sources: Sequence[ModelSource], feeds: Mapping[str, Array], settings: _Settings
) -> None:
    for model, source in zip(loaded, sources, strict=True):
        check_parity(model, source, feeds, settings.threads)


def choose_providers(providers: Sequence[str | Provider]) -> list[Provider]:
    """The providers that are named, each once.

    Raises:
        UsageError: One is unknown, or there is none.
    """
    given = providers.split(",") if isinstance(providers, str) else providers
    chosen = [provider if isinstance(provider, Provider) else find_provider(provider) for provider in given]
    if not chosen:
        raise UsageError("no execution provider is named", hint='name one, for example providers=["cpu"]')
    return list({provider.name: provider for provider in chosen}.values())


def labels_of(sources: Sequence[ModelSource], names: Sequence[str] | None) -> list[str]:
    """One label per model, all different; of a path only the file name, and its folders where two are alike."""
    if not sources:
        raise UsageError("there is no model to time", hint="give at least one ONNX file")
    if names is not None and len(names) != len(sources):
        raise UsageError(f"{len(names)} names for {len(sources)} models", hint="give one name per model")
    titles = names or _titles(sources)
    labels: list[str] = []
    for name in titles:
        label, copy = name, 1
        while label in labels:
            copy += 1
            label = f"{name} ({copy})"
        labels.append(label)
    return labels


def _titles(sources: Sequence[ModelSource]) -> list[str]:
    """File names, with as many of their folders as tell apart what has the same name; a number for what is no file."""
    paths = [Path(source).resolve() if isinstance(source, str | os.PathLike) else None for source in sources]
    titles = []
    for number, path in enumerate(paths, 1):
        if path is None:
            titles.append(f"model {number}")
            continue
        alike = [other.parts for other in paths if other is not None and other != path and other.name == path.name]
        depths = range(1, len(path.parts))
        parts = next((end for n in depths if (end := path.parts[-n:]) not in [each[-n:] for each in alike]), path.parts)
        titles.append("/".join(parts))
    return titles


def _no_progress(what: str, done: int, total: int) -> None:
    """A progress callback that shows nothing."""
