"""Laws of the benchmark: statistics, interleaving, inputs, and that no provider is passed off as another."""

from __future__ import annotations

import gc
import io
import json
import platform
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console

from prunegraph.bench import PROVIDERS, PairedRatio, Provider, compare
from prunegraph.bench.environment import cpu_model
from prunegraph.bench.latency import PROTOCOLS, interleave
from prunegraph.bench.parity import check_parity, number_format
from prunegraph.bench.results import Comparison, Latency
from prunegraph.bench.stats import MIN_ROUNDS, paired_ratio
from prunegraph.cli.latency_table import latency_table
from prunegraph.errors import ModelError, PruneGraphError, UsageError
from prunegraph.runtime.feeds import random_feeds
from prunegraph.runtime.inputs import InputSpec
from prunegraph.runtime.on_provider import load
from prunegraph.runtime.providers import check_actual, execution_providers, find_provider
from prunegraph.runtime.sizes_by_role import resolve_sizes

INT64, FLOAT = TensorProto.INT64, TensorProto.FLOAT
QUICK: dict[str, Any] = {"warmup": 1, "rounds": MIN_ROUNDS, "sequence": 8}


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, tuple[int, Sequence[int | str | None]]],
    weights: dict[str, np.ndarray[Any, Any]] | None = None,
) -> onnx.ModelProto:
    """A model whose one output is ``y``."""
    graph = helper.make_graph(
        list(nodes),
        "tiny",
        [helper.make_tensor_value_info(name, *info) for name, info in inputs.items()],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def embedding(rows: int, width: int = 4) -> onnx.ModelProto:
    """``y = table[ids]``, which fails for ids that the table has no row for."""
    table = np.ones((rows, width), np.float32)
    node = helper.make_node("Gather", ["table", "ids"], ["y"])
    return model([node], {"ids": (INT64, ["batch", "seq"])}, {"table": table})


def relu(*shape: int | str | None, name: str = "x") -> onnx.ModelProto:
    return model([helper.make_node("Relu", [name], ["y"])], {name: (FLOAT, shape)})


# --- statistics ---------------------------------------------------------------------------------------------------


def test_ratio_is_the_median_of_the_ratios_not_the_ratio_of_the_medians() -> None:
    first, second = np.array([2.0, 30.0, 4.0]), np.array([1.0, 10.0, 8.0])
    assert paired_ratio(first, second).median == 2.0
    assert np.median(first) / np.median(second) == 0.5


def test_a_constant_ratio_has_an_interval_without_width_however_the_machine_drifts() -> None:
    first = np.random.default_rng(0).lognormal(0, 2, 50)
    ratio = paired_ratio(first, first / 1.5)
    assert (ratio.low, ratio.median, ratio.high) == pytest.approx((1.5, 1.5, 1.5))


@pytest.mark.slow
def test_the_interval_covers_the_true_ratio_as_often_as_it_says() -> None:
    rng, covered, trials = np.random.default_rng(0), 0, 200
    for trial in range(trials):
        second = rng.lognormal(0, 1, 30)
        ratio = paired_ratio(second * 1.4 * rng.lognormal(0, 0.2, 30), second, seed=trial, resamples=300)
        assert ratio.low <= ratio.median <= ratio.high
        covered += ratio.low <= 1.4 <= ratio.high
    assert 0.90 <= covered / trials < 1


def test_the_interval_repeats_with_the_seed_and_narrows_with_more_rounds() -> None:
    noise = np.random.default_rng(1).lognormal(0, 0.3, 400)
    few, many = paired_ratio(noise[:20], np.ones(20)), paired_ratio(noise, np.ones(400))
    assert few == paired_ratio(noise[:20], np.ones(20), seed=0)
    assert many.high - many.low < (few.high - few.low) / 2


def test_summary_of_known_samples() -> None:
    rest = {"load_seconds": 0.0, "first_run_ms": 0.0, "nodes": {}, "ratio": None}
    row = Latency.from_samples(np.arange(1.0, 102.0)[::-1], provider="cpu", ep="", model="m", **rest)
    assert (row.median_ms, row.p95_ms, row.min_ms, len(row.samples_ms)) == (51.0, 96.0, 1.0, 101)


@pytest.mark.parametrize(("count", "p90", "p99"), [(63, False, False), (64, True, False), (662, True, True)])
def test_percentiles_are_told_where_the_samples_carry_them(count: int, p90: bool, p99: bool) -> None:
    rest = {"load_seconds": 0.0, "first_run_ms": 0.0, "nodes": {}, "ratio": None}
    row = Latency.from_samples(np.arange(1.0, count + 1), provider="cpu", ep="", model="m", **rest)
    assert (row.p90_ms is not None, row.p99_ms is not None) == (p90, p99)
    assert row.p90_ms is None or row.p90_ms == pytest.approx(0.9 * (count - 1) + 1)


# --- parity -------------------------------------------------------------------------------------------------------


@dataclass
class Skewed:
    """A session on a provider whose outputs are a little off."""

    session: ort.InferenceSession
    factor: float

    def get_outputs(self) -> Any:
        return self.session.get_outputs()

    def run(self, names: Any, feeds: Any) -> Any:
        return [array * np.float32(self.factor) for array in self.session.run(names, feeds)]


@pytest.mark.parametrize(
    ("provider", "factor", "refused"), [("cuda", 1.00001, False), ("cuda", 1.001, True), ("cpu", 1.001, False)]
)
def test_a_model_with_other_outputs_than_on_the_cpu_is_not_timed(provider: str, factor: float, refused: bool) -> None:
    source = relu(2, 3)
    plain = load(source, "m", PROVIDERS["cpu"], 1)
    skewed = replace(plain, session=Skewed(plain.session, factor), provider=PROVIDERS[provider])  # type: ignore[arg-type]
    feeds = {"x": np.ones((2, 3), np.float32)}
    with pytest.raises(PruneGraphError, match=r"'y' of m on cuda differs by 0\.001") if refused else nullcontext():
        check_parity(skewed, source, feeds, threads=1)


def test_the_gate_is_passed_before_anything_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []
    steps: list[str] = []

    def check(model: Any, *_: object) -> None:
        checked.append(model.label)
        assert not any("time" in step for step in steps)

    monkeypatch.setattr(sys.modules["prunegraph.bench.compare"], "check_parity", check)
    compare([relu(1), relu(1)], progress=lambda what, *_: steps.append(what), **QUICK)
    assert checked == ["model 1", "model 2"]


def test_tolerances_go_by_the_narrowest_numbers() -> None:
    half = model([helper.make_node("Identity", ["w"], ["y"])], {"x": (FLOAT, [1])})
    half.graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float16), "w"))
    int8 = model([helper.make_node("DynamicQuantizeLinear", ["x"], ["y", "s", "z"])], {"x": (FLOAT, [1])})
    assert [number_format(each) for each in (relu(1), half, int8)] == ["float32", "float16", "int8"]


# --- the interleaved loop -----------------------------------------------------------------------------------------


class FakeMachine:
    """Arms of known cost on a machine that only slows down; its clock is the only one."""

    def __init__(self, *costs_ms: float, slowdown: float = 1.0) -> None:
        self.now, self.order, self.factor = 0.0, list[int](), 1.0
        self.arms: list[Callable[[], None]] = [
            lambda number=number, cost=cost: self.run(number, cost, slowdown)  # type: ignore[misc]
            for number, cost in enumerate(costs_ms)
        ]

    def run(self, number: int, cost_ms: float, slowdown: float) -> None:
        self.order.append(number)
        self.now += cost_ms * 1e6 * self.factor
        self.factor *= slowdown

    def clock(self) -> int:
        return round(self.now)

    def time(self, **settings: Any) -> np.ndarray[Any, Any]:
        defaults: dict[str, Any] = {"warmup": 0, "rounds": 50, "max_seconds": 1e9, "rng": np.random.default_rng(0)}
        return interleave(self.arms, clock=self.clock, **defaults | settings)


def test_samples_are_milliseconds_by_round_and_arm() -> None:
    assert FakeMachine(3.0, 1.5).time(rounds=7) == pytest.approx(np.tile([3.0, 1.5], (7, 1)))


def test_every_round_runs_every_arm_once_and_orders_vary() -> None:
    machine = FakeMachine(1.0, 1.0, 1.0)
    machine.time(warmup=3, rounds=60)
    by_round = [tuple(machine.order[start : start + 3]) for start in range(0, len(machine.order), 3)]
    assert len(by_round) == 63
    assert all(sorted(order) == [0, 1, 2] for order in by_round)
    assert len(set(by_round)) == 6


def test_drift_does_not_reach_the_paired_ratio() -> None:
    samples = FakeMachine(2.0, 1.0, slowdown=1.01).time(rounds=200)
    assert samples[-1, 0] > 20 * samples[0, 0]
    assert paired_ratio(samples[:, 0], samples[:, 1]).median == pytest.approx(2.0, rel=0.02)


@pytest.mark.parametrize(("max_seconds", "expected"), [(1e-9, MIN_ROUNDS), (0.1, 10), (1e9, 50)])
def test_time_limit_ends_the_rounds_but_never_below_the_minimum(max_seconds: float, expected: int) -> None:
    done: list[int] = []
    samples = FakeMachine(7.0, 3.0).time(max_seconds=max_seconds + 1e-6, on_round=done.append)
    assert abs(len(samples) - expected) <= 1
    assert done == list(range(1, len(samples) + 1))


def test_warm_up_takes_at_most_a_quarter_of_the_time() -> None:
    machine = FakeMachine(10.0)
    samples = machine.time(warmup=1000, rounds=1000, max_seconds=1.0)
    assert 24 <= len(machine.order) - len(samples) <= 27


def test_in_blocks_a_run_that_finds_foreign_caches_does_not_count() -> None:
    last: list[int] = []
    now = [0.0]

    def arm(number: int) -> None:
        now[0] += 1e6 * (number + 1) * (3 if last[-1:] != [number] else 1)
        last.append(number)

    settings: dict[str, Any] = {"warmup": 0, "rounds": 20, "max_seconds": 1e9, "clock": lambda: round(now[0])}
    arms: list[Callable[[], None]] = [lambda: arm(0), lambda: arm(1)]
    blocks = interleave(arms, block=PROTOCOLS["blocks"], rng=np.random.default_rng(0), **settings)
    assert blocks == pytest.approx(np.tile([1.0, 2.0], (20, 1)))
    last.clear()
    turns = interleave(arms, block=PROTOCOLS["turns"], rng=np.random.default_rng(0), **settings)
    assert turns.mean() > 1.5 * blocks.mean()


def test_a_comparison_names_its_protocol_and_knows_no_other() -> None:
    timed = compare([relu(2, 3)], protocol="blocks", **QUICK)
    assert timed.protocol == "blocks" and Comparison.from_dict(timed.to_dict(samples=True)).protocol == "blocks"
    with pytest.raises(UsageError, match="there is no protocol 'warm'"):
        compare([relu(2, 3)], protocol="warm", **QUICK)


def test_warm_up_goes_on_until_times_are_steady_and_not_for_ever() -> None:
    settling, restless = FakeMachine(1.0), FakeMachine(1.0, slowdown=1.1)
    costs = iter([9.0, 7.0, 5.0, 3.0])
    settle = settling.arms[0]
    settling.arms[0] = lambda: (settle(), setattr(settling, "now", settling.now + 1e6 * next(costs, 0.0)))[0]  # type: ignore[func-returns-value]
    assert len(settling.order) == 0 and len(settling.time(warmup=3, rounds=10)) == 10
    assert len(settling.order) == 10 + 9  # four slow runs, five steady ones
    restless.time(warmup=3, rounds=10)
    assert len(restless.order) == 10 + 12


def test_garbage_collection_is_off_while_timing_and_back_on_after_an_error() -> None:
    calls: list[bool] = []

    def arm() -> None:
        calls.append(gc.isenabled())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interleave([arm], warmup=0, rounds=6, max_seconds=1, rng=np.random.default_rng(0))
    assert (calls, gc.isenabled()) == ([False], True)


# --- sizes of dynamic dims ----------------------------------------------------------------------------------------


def spec(*shape: int | str, name: str = "x", dtype: str = "float32") -> InputSpec:
    return InputSpec(name, np.dtype(dtype), shape)


@pytest.mark.parametrize(
    ("shape", "given", "expected"),
    [
        ((2, 3), {}, {}),
        (("batch", "sequence"), {}, {"batch": 5, "sequence": 7}),
        (("batch_size", 12, "past_seq_len", 64), {}, {"batch_size": 5, "past_seq_len": 7}),
        (("s77", "s26"), {}, {"s77": 5, "s26": 7}),
        (("N", 3, 8, 8), {}, {"N": 5}),
        (("num_tokens",), {}, {"num_tokens": 7}),
        (("batch", "seq"), {"seq": 9}, {"batch": 5, "seq": 9}),
        (("batch", "past_len + seq_len"), {}, {"batch": 5, "past_len + seq_len": 14}),
        (("batch", "past_len + 1"), {"past_len": 3}, {"batch": 5, "past_len + 1": 4}),
        (("batch", "w", "h"), {"w": 2, "h": 0}, {"batch": 5, "w": 2, "h": 0}),
    ],
)
def test_sizes(shape: tuple[int | str, ...], given: dict[str, int], expected: dict[str, int]) -> None:
    assert resolve_sizes([spec(*shape)], batch=5, sequence=7, sizes=given) == expected


@pytest.mark.parametrize(
    ("given", "message", "hint"),
    [
        ({}, "height, width", "sizes={'height': 224}"),
        ({"height": 8}, "width", "sizes={'width': 224}"),
        ({"height": 8, "widht": 8}, "widht", "batch, height, width"),
        ({"height": 8, "width": -1}, "'width' is negative", "0 or more"),
    ],
)
def test_sizes_that_cannot_be_told_are_asked_for_by_name(given: dict[str, int], message: str, hint: str) -> None:
    image = relu("batch", 3, "height", "width")
    with pytest.raises(UsageError, match=message) as caught:
        compare([image], sizes=given, **QUICK)
    assert hint in caught.value.hint


def test_named_sizes_make_the_model_run() -> None:
    comparison = compare([relu("batch", 3, "height", "width")], sizes={"height": 4, "width": 6}, batch=2, **QUICK)
    assert comparison.inputs == {"x": (2, 3, 4, 6)}


def test_a_dim_without_a_name_goes_by_input_and_axis() -> None:
    unnamed = relu(None, 3, None)
    with pytest.raises(UsageError, match=r"x\.2"):
        compare([unnamed], **QUICK)
    assert compare([unnamed], sizes={"x.2": 4}, **QUICK).inputs == {"x": (1, 3, 4)}


# --- values -------------------------------------------------------------------------------------------------------


def test_values_by_kind_of_input() -> None:
    specs = [
        spec(200, 10, name="pixels"),
        spec(2, 500, name="ids", dtype="int64"),
        spec(2, 4, name="attention_mask", dtype="int64"),
        spec(3, name="flag", dtype="bool"),
        spec(name="temperature", dtype="float16"),
    ]

    def timed(seed: int = 0, id_bound: int = 100) -> dict[str, Any]:
        return random_feeds(specs, {}, seed, id_bound=id_bound, whole_masks=True)

    feeds = timed()
    assert feeds["pixels"].dtype == np.float32
    assert abs(feeds["pixels"].mean()) < 0.1 < 0.9 < feeds["pixels"].std() < 1.1
    assert (feeds["ids"].min(), feeds["ids"].max()) == (0, 99)
    assert timed(id_bound=2)["ids"].max() == 1
    assert feeds["attention_mask"].tolist() == [[1] * 4] * 2
    assert feeds["flag"].tolist() == [True] * 3
    assert (feeds["temperature"].shape, feeds["temperature"].dtype) == ((), np.dtype(np.float16))
    again = timed()
    assert all(np.array_equal(feeds[name], again[name]) for name in feeds)
    assert not np.array_equal(feeds["ids"], timed(seed=1)["ids"])


@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "float16", ml_dtypes.bfloat16, "bool", "int8", "uint8", "int32", "int64", "uint64"]
)
def test_every_element_type_can_be_fed(dtype: Any) -> None:
    onnx_type = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    cast = helper.make_node("Cast", ["x"], ["y"], to=FLOAT)
    assert compare([model([cast], {"x": (onnx_type, [2, 3])})], **QUICK).inputs == {"x": (2, 3)}


def test_strings_cannot_be_made_up() -> None:
    node = helper.make_node("Cast", ["x"], ["y"], to=FLOAT)
    with pytest.raises(UsageError, match=r"'x' of type tensor\(string\)"):
        compare([model([node], {"x": (TensorProto.STRING, [1])})], **QUICK)


def test_ids_that_the_model_has_no_row_for_are_drawn_again_smaller() -> None:
    assert compare([embedding(rows=100), embedding(rows=2)], **QUICK).results[1].ratio is not None
    with pytest.raises(ModelError, match="cannot run model 1"):
        compare([embedding(rows=1)], **QUICK)


def test_models_must_take_the_same_inputs() -> None:
    for other, message in (
        (relu("batch", 4, name="z"), "x, z"),
        (relu("batch", 5), r"float32\['batch', 5\], but model 1 is timed with float32\[1, 4\]"),
        (relu(4), "'x' of model 2"),
    ):
        with pytest.raises(UsageError, match=message):
            compare([relu("batch", 4), other], **QUICK)


# --- providers ----------------------------------------------------------------------------------------------------


def test_providers_go_by_short_and_by_long_name() -> None:
    for name, provider in PROVIDERS.items():
        assert find_provider(name) is find_provider(f" {name.upper()} ") is provider
        assert find_provider(provider.ep).ep == provider.ep in ort.get_all_providers()


def test_an_unknown_provider_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="'gpu'") as caught:
        compare([relu(1)], providers=["cpu", "gpu"], **QUICK)
    assert all(name in caught.value.hint for name in PROVIDERS)


@pytest.mark.parametrize("read", [find_provider, lambda name: execution_providers([name])])
def test_data_and_timing_know_the_same_providers(read: Callable[[str], Any]) -> None:
    for name in ("cpu", "CPU", "CPUExecutionProvider", " cpu "):
        assert read(name)
    with pytest.raises(UsageError, match="unknown execution provider 'abacus'"):
        read("abacus")


def test_a_provider_that_is_not_in_this_build_is_refused_before_anything_is_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    calls: list[str] = []
    with pytest.raises(UsageError, match="cuda is not in this onnxruntime") as caught:
        compare([relu(1)], providers=["cpu", "cuda"], progress=lambda what, *_: calls.append(what), **QUICK)
    assert ("onnxruntime-gpu" in caught.value.hint, calls) == (True, [])


def test_a_jetson_is_not_sent_to_the_wheel_that_has_no_code_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(Path, "exists", lambda path: str(path) == "/etc/nv_tegra_release")
    with pytest.raises(UsageError) as caught:
        compare([relu(1)], providers=["cuda"], **QUICK)
    assert "Jetson AI Lab" in caught.value.hint


@pytest.mark.filterwarnings("ignore:Specified provider:UserWarning")
def test_a_session_that_fell_back_to_the_cpu_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    # ONNX Runtime itself is not patched: it is asked for a provider that it lacks, and really falls back.
    missing = next(p for p in PROVIDERS.values() if p.ep not in ort.get_available_providers() and p.device == "cpu")
    monkeypatch.setattr(ort, "get_available_providers", lambda: [missing.ep])
    with pytest.raises(PruneGraphError, match=f"asked for {missing.name}, but .* model 1 on CPUExecutionProvider"):
        compare([relu(1)], providers=[missing], **QUICK)


class FakePart:
    def __init__(self, ep_name: str, nodes: int) -> None:
        self.ep_name, self.nodes = ep_name, nodes

    def get_nodes(self) -> list[object]:
        return [object()] * self.nodes


class FakeSession:
    def __init__(self, providers: list[str], **nodes: int) -> None:
        self.providers, self.nodes = providers, nodes

    def get_providers(self) -> list[str]:
        return self.providers

    def get_provider_graph_assignment_info(self) -> list[FakePart]:
        return [FakePart(name, number) for name, number in self.nodes.items()]


def test_a_provider_that_takes_no_node_is_an_error() -> None:
    both = ["XnnpackExecutionProvider", "CPUExecutionProvider"]
    xnnpack = PROVIDERS["xnnpack"]
    shared = FakeSession(both, XnnpackExecutionProvider=2, CPUExecutionProvider=3)
    assert check_actual(shared, xnnpack, "m") == {"XnnpackExecutionProvider": 2, "CPUExecutionProvider": 3}
    with pytest.raises(PruneGraphError, match="xnnpack took none of the 3 nodes of m"):
        check_actual(FakeSession(both, CPUExecutionProvider=3), xnnpack, "m")
    with pytest.raises(PruneGraphError, match="asked for xnnpack"):
        check_actual(FakeSession(both[::-1], XnnpackExecutionProvider=2), xnnpack, "m")


def test_options_get_the_number_of_threads() -> None:
    provider = Provider("own", "OwnExecutionProvider", "", {"n": "{threads}"}, after=("CUDAExecutionProvider",))
    assert provider.requested(3) == [("OwnExecutionProvider", {"n": "3"}), ("CUDAExecutionProvider", {})]


# --- the whole ----------------------------------------------------------------------------------------------------


def test_paths_bytes_and_protos_side_by_side(tmp_path: Path) -> None:
    proto = embedding(rows=100)
    for folder in ("dense", "slim"):
        (tmp_path / folder).mkdir()
        onnx.save_model(
            onnx.ModelProto.FromString(proto.SerializeToString()),
            tmp_path / folder / "m.onnx",
            save_as_external_data=True,
            location="weights.bin",
            size_threshold=0,
        )
    steps: list[tuple[str, int, int]] = []
    comparison = compare(
        [tmp_path / "dense" / "m.onnx", str(tmp_path / "slim" / "m.onnx"), proto.SerializeToString(), proto],
        batch=3,
        progress=lambda *step: steps.append(step),
        **QUICK,
    )
    assert [row.model for row in comparison.results] == ["dense/m.onnx", "slim/m.onnx", "model 3", "model 4"]
    assert [row.ratio is None for row in comparison.results] == [True, False, False, False]
    assert (comparison.inputs, comparison.sizes) == ({"ids": (3, 8)}, {"batch": 3, "seq": 8})
    for row in comparison.results:
        assert (row.provider, row.ep, len(row.samples_ms)) == ("cpu", "CPUExecutionProvider", MIN_ROUNDS)
        assert 0 < row.min_ms <= row.median_ms <= row.p95_ms
        assert row.load_seconds > 0 and row.first_run_ms > 0
        assert set(row.nodes) <= {"CPUExecutionProvider"}
    assert steps[0] == ("cpu: load dense/m.onnx", 0, 4)
    assert steps[-1] == ("cpu: time", MIN_ROUNDS, MIN_ROUNDS)


def test_json_and_table_say_the_same_and_name_nobody(tmp_path: Path) -> None:
    path = tmp_path / "dense.onnx"
    onnx.save_model(embedding(rows=100), path)
    comparison = compare([path, embedding(rows=100)], names=["dense.onnx", "slim[bold]"], providers="cpu", **QUICK)
    data = json.loads(json.dumps(comparison.to_dict()))
    ratio = comparison.results[1].ratio
    assert isinstance(ratio, PairedRatio)
    assert data["results"][1]["ratio"] == {"median": ratio.median, "low": ratio.low, "high": ratio.high}
    assert data["results"][0]["rounds"] == MIN_ROUNDS
    assert "samples_ms" not in data["results"][0]
    assert comparison.to_dict(samples=True)["results"][0]["samples_ms"] == comparison.results[0].samples_ms
    assert (data["threads"], data["environment"]["onnxruntime"]) == (1, ort.__version__)

    out = io.StringIO()
    Console(file=out, width=160).print(latency_table(comparison))
    text = out.getvalue()
    assert f"{ratio.median:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]" in text
    assert f"{comparison.results[0].median_ms:.3f}" in text
    assert "slim[bold]" in text
    assert str(tmp_path) not in json.dumps(data)
    assert str(tmp_path) not in text
    about = {"cpu", "cores", "system", "machine", "python", "onnxruntime", "numpy", "prunegraph"}
    assert set(data["environment"]) == about


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rounds": MIN_ROUNDS - 1}, "rounds is 5"),
        ({"warmup": -1}, "warmup"),
        ({"threads": 0}, "threads"),
        ({"batch": 0}, "batch"),
        ({"sequence": -3}, "sequence"),
        ({"max_seconds": float("nan")}, "max_seconds"),
        ({"providers": []}, "no execution provider"),
        ({"names": ["a", "b"]}, "2 names for 1 models"),
    ],
)
def test_arguments_out_of_range(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        compare([relu(1)], **QUICK | change)
    assert caught.value.hint


def test_files_that_are_no_model(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.onnx"
    garbage.write_bytes(b"not a model")
    for source, message in ((garbage, "cannot load garbage.onnx on cpu"), (tmp_path / "none.onnx", "there is no file")):
        with pytest.raises(ModelError, match=message) as caught:
            compare([source], **QUICK)
        assert caught.value.hint
    with pytest.raises(UsageError, match="no model"):
        compare([], **QUICK)


@pytest.mark.parametrize(
    ("cpuinfo", "board", "expected"),
    [
        ("processor\t: 0\nmodel name\t: Fast CPU @ 2 GHz\nflags\t: x\n", "Board\0", "Fast CPU @ 2 GHz"),
        ("processor\t: 0\nCPU part\t: 0xd42\n", "NVIDIA Jetson Orin Nano\0", "NVIDIA Jetson Orin Nano"),
    ],
)
def test_cpu_model_of_x86_and_of_a_board(tmp_path: Path, cpuinfo: str, board: str, expected: str) -> None:
    (tmp_path / "device-tree").mkdir()
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    (tmp_path / "device-tree" / "model").write_text(board)
    assert cpu_model(tmp_path) == expected
