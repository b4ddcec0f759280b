#!/usr/bin/env python3
"""Time the models of this bundle side by side on the device it was copied to; writes results.json.

Needs Python 3.6 or newer, numpy and any onnxruntime, and nothing else:

    python3 run.py                    every execution provider that this onnxruntime has
    python3 run.py --ep cpu,cuda      only these
    python3 run.py --check            only whether the outputs are right, no times
    python3 run.py --table            a latency table as well, where the bundle holds what that takes
    python3 run.py --energy 20        joules a run too, from 20 s of each model, where the device tells (4 s by default)

Each provider is tried in a process of its own first, since one that is listed may still crash at its first run. No
model is timed whose outputs are not those of the machine that made the bundle. All models of a provider then run in
turns, in a new random order each round and on the same inputs.
"""

import argparse
import gc
import glob
import hashlib
import importlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
MIN_ROUNDS = 6
WARMUP_SHARE = 0.25
# Warm-up ends once so many runs are so near to each other, and after so many times its rounds at most.
STEADY, STEADY_WITHIN, LONGEST = 5, 0.05, 4
BLOCK = 8  # runs of a model that follow each other, all but the first counted
REGISTERED = {}
PROBE_SECONDS = 1800  # TensorRT builds its engine at the first run, for minutes
ENERGY_SECONDS = 4.0  # of each model by itself, where the device tells what it uses


class Refused(Exception):
    """Something that a figure must not be made of."""


# --- the bundle ---------------------------------------------------------------------------------------------------


def read_bundle(folder):
    """What bundle.json says, with every model file checked against its sum."""
    with open(os.path.join(folder, "bundle.json"), encoding="utf-8") as file:
        bundle = json.load(file)
    for model in bundle["models"] + bundle.get("table", {}).get("cuts", []):
        with open(os.path.join(folder, model["file"]), "rb") as file:
            if hashlib.sha256(file.read()).hexdigest() != model["sha256"]:
                raise Refused("{} is not the file that was bundled; unpack the bundle anew".format(model["file"]))
    return bundle


def read_inputs(folder, bundle):
    """The inputs by name."""
    with np.load(os.path.join(folder, "inputs.npz")) as arrays:
        return {name: arrays[key] for name, key in bundle["inputs"].items()}


def read_expected(folder, model):
    """The outputs that a model had where the bundle was made, by name."""
    with np.load(os.path.join(folder, "expected.npz")) as arrays:
        return {name: arrays[key] for name, key in model["outputs"].items()}


# --- parity -------------------------------------------------------------------------------------------------------


def output_error(expected, actual):
    """The largest difference over the largest expected number; infinite where shapes or lost numbers differ."""
    if expected.shape != actual.shape:
        return float("inf")
    if expected.dtype.kind not in "fV":
        return float(np.mean(expected != actual)) if expected.size else 0.0
    wide, other = expected.astype(np.float64), np.asarray(actual).astype(np.float64)
    finite = np.isfinite(wide)
    if not np.array_equal(finite, np.isfinite(other)):
        return float("inf")
    if not finite.any():
        return 0.0
    scale = np.abs(wide[finite]).max()
    return float(np.abs(wide[finite] - other[finite]).max() / (scale if scale > 0 else 1.0))


def check_parity(folder, model, session, feeds, provider):
    """The error of every output; refused where one is larger than the number formats of model and provider allow."""
    expected = read_expected(folder, model)
    names = list(expected)
    outputs = session.run(names, feeds)
    errors = {name: output_error(expected[name], array) for name, array in zip(names, outputs)}
    worst = max(errors, key=lambda name: errors[name])
    limit = max(model["tolerance"], provider["tolerance"])
    if not errors[worst] <= limit:
        raise Refused(
            "the output {!r} of {} differs by {:.2g} of its scale from that of the machine that made the bundle, more "
            "than {:g}".format(worst, model["name"], errors[worst], limit)
        )
    return errors


# --- sessions -----------------------------------------------------------------------------------------------------


def open_session(folder, model, provider, threads):
    """A session that really runs on the provider, and what making it took."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    providers = [(provider["ep"], with_threads(provider["options"], threads))]
    providers += [(name, {}) for name in provider["after"]]
    if provider["ep"] != "CPUExecutionProvider":
        providers.append(("CPUExecutionProvider", {}))
    if provider["ep"] not in ort.get_available_providers():
        add_plugin(options, provider, threads)
        providers = None
    start = time.perf_counter()
    path = os.path.join(folder, model["file"])
    try:
        session = ort.InferenceSession(path, options, providers=providers)
    except Exception as error:
        if providers is None or not provider["options"] or "option" not in str(error).lower():
            raise
        # An onnxruntime older than the option; what it would have kept in float32, the check of the outputs tells.
        session = ort.InferenceSession(path, options, providers=[name for name, _ in providers])
    seconds = time.perf_counter() - start
    if hasattr(session, "disable_fallback"):
        session.disable_fallback()
    actual = session.get_providers()
    if actual[0] != provider["ep"]:
        raise Refused("asked for {}, but the session runs on {}".format(provider["ep"], ", ".join(actual)))
    return session, seconds


def with_threads(options, threads):
    """Options of a provider with the number of threads filled in."""
    return {key: text.replace("{threads}", str(threads)) for key, text in options.items()}


def has_plugin(provider):
    """Whether a package brings the provider to an onnxruntime that was built without it."""
    import onnxruntime as ort

    if provider["plugin"] is None or not hasattr(ort, "register_execution_provider_library"):
        return False
    return importlib.util.find_spec(provider["plugin"]["module"]) is not None


def add_plugin(options, provider, threads):
    """Have a session run on the provider of a plugin."""
    import onnxruntime as ort

    plugin = provider["plugin"]
    if not REGISTERED.get(plugin["module"]):
        ort.register_execution_provider_library(
            provider["ep"], importlib.import_module(plugin["module"]).get_library_path()
        )
        REGISTERED[plugin["module"]] = True
    metadata = plugin["device"].items()
    devices = [
        each
        for each in ort.get_ep_devices()
        if each.ep_name == provider["ep"] and metadata <= dict(each.ep_metadata).items()
    ]
    if not devices:
        raise Refused("its plugin finds no device here; it takes " + plugin["devices"])
    settings = {device: with_threads(each, threads) for device, each in plugin["settings"].items()}
    options.add_provider_for_devices(devices[:1], {"load_config": json.dumps(settings)} if settings else {})


def bind(session, feeds, device):
    """A function that runs once; on a GPU inputs and outputs stay there, so that copies are not timed."""
    import onnxruntime as ort

    if device == "cpu":
        return lambda: session.run(None, feeds)
    binding = session.io_binding()
    for name, array in feeds.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array, device, 0))
    for output in session.get_outputs():
        binding.bind_output(output.name, device)

    def run_once():
        session.run_with_iobinding(binding)
        if hasattr(binding, "synchronize_outputs"):
            binding.synchronize_outputs()

    return run_once


# --- timing -------------------------------------------------------------------------------------------------------


def interleave(arms, warmup, rounds, max_seconds, seed, block=1):
    """Milliseconds of every arm in every round, each round in an order of its own.

    In blocks an arm runs several times before the next, and all runs but the first count.
    """
    random = np.random.RandomState(seed)
    begin = time.perf_counter()
    warm_up(arms, warmup, begin + max_seconds * WARMUP_SHARE, random)
    samples = np.empty((rounds, len(arms)))
    collecting = gc.isenabled()
    gc.disable()
    try:
        for done in range(rounds):
            if done >= MIN_ROUNDS and time.perf_counter() - begin > max_seconds:
                return samples[:done]
            for arm in random.permutation(len(arms)):
                if block > 1:
                    arms[arm]()
                start = time.perf_counter()
                for _ in range(max(1, block - 1)):
                    arms[arm]()
                samples[done, arm] = (time.perf_counter() - start) * 1e3 / max(1, block - 1)
    finally:
        if collecting:
            gc.enable()
    return samples


def warm_up(arms, rounds, end, random):
    """Rounds that do not count, more of them while times still change: clocks, caches and kernels settle."""
    last = [[] for _ in arms]
    for done in range(rounds * LONGEST):
        if done >= rounds and all(is_steady(times[-STEADY:]) for times in last):
            return
        for arm in random.permutation(len(arms)):
            start = time.perf_counter()
            arms[arm]()
            last[arm].append(time.perf_counter() - start)
        if time.perf_counter() > end:
            return


def is_steady(times):
    """Whether runs are so near to each other that more of them would change nothing."""
    return max(times) <= (1 + STEADY_WITHIN) * min(times)


def paired_ratio(first, second, seed, resamples=2000):
    """How many times faster the second is: the median ratio within rounds, with its 95 % bootstrap interval."""
    ratios = first / second
    random = np.random.RandomState(seed)
    medians = [np.median(random.choice(ratios, len(ratios))) for _ in range(resamples)]
    low, high = np.percentile(medians, [2.5, 97.5])
    return {"median": float(np.median(ratios)), "low": float(low), "high": float(high)}


def measure(folder, name, settings):
    """All models on one provider: parity, then times; a dict for the results."""
    bundle = read_bundle(folder)
    provider, feeds = bundle["providers"][name], read_inputs(folder, bundle)
    sessions, parity = [], {}
    for model in bundle["models"]:
        session, seconds = open_session(folder, model, provider, settings["threads"])
        run_once = bind(session, feeds, provider["device"])
        start = time.perf_counter()
        run_once()
        first = (time.perf_counter() - start) * 1e3
        sessions.append((model, run_once, seconds, first))
        parity[model["name"]] = check_parity(folder, model, session, feeds, provider)
    if settings["check"]:
        return {"parity": parity, "results": []}
    arms = [run_once for _, run_once, _, _ in sessions]
    samples = time_all(arms, settings)
    joules, idle_watts = energy_of(arms, settings)
    rows = []
    for arm, (model, _, seconds, first) in enumerate(sessions):
        rows.append(
            {
                "provider": name,
                "ep": provider["ep"],
                "model": model["name"],
                "median_ms": float(np.median(samples[:, arm])),
                "min_ms": float(samples[:, arm].min()),
                "load_seconds": seconds,
                "first_run_ms": first,
                "nodes": {},
                "rounds": len(samples),
                "ratio": paired_ratio(samples[:, 0], samples[:, arm], settings["seed"]) if arm else None,
                "samples_ms": samples[:, arm].tolist(),
                "joules": joules[arm],
            }
        )
    return {"parity": parity, "results": rows, "peak_memory_kib": peak_memory(), "idle_watts": idle_watts}


def energy():
    """The part that reads what energy is used; None where it does not lie beside this script."""
    path = os.path.join(HERE, "energy.py")
    if not os.path.exists(path):
        return None
    spec = importlib.util.spec_from_file_location("prunegraph_energy", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def energy_of(arms, settings):
    """Joules of a run by rail for every arm, and watts of the device at rest; empty where it does not tell."""
    part, seconds = energy(), settings.get("energy_seconds", ENERGY_SECONDS)
    meter = part.Meter() if part is not None and seconds > 0 else None
    if not meter:
        return [{} for _ in arms], {}
    return part.joules_a_run(arms, seconds, meter)


def time_all(arms, settings):
    """Milliseconds of every arm as the settings say."""
    names = ("warmup", "rounds", "max_seconds", "seed", "block")
    return interleave(arms, **{name: settings[name] for name in names})


def measure_table(folder, name, settings):
    """Every version of the first model beside it, one pair at a time; a latency table."""
    bundle = read_bundle(folder)
    provider, feeds, table = bundle["providers"][name], read_inputs(folder, bundle), bundle["table"]
    settings = dict(settings, **table["settings"])

    def opened(model):
        session = open_session(folder, model, provider, settings["threads"])[0]
        run_once = bind(session, feeds, provider["device"])
        run_once()
        check_parity(folder, model, session, feeds, provider)
        return run_once

    whole, medians, cuts = opened(bundle["models"][0]), [], []
    for cut in table["cuts"]:
        samples = time_all([whole, opened(cut)], settings)
        ratio = paired_ratio(samples[:, 0], samples[:, 1], settings["seed"])
        medians.append(float(np.median(samples[:, 0])))
        cuts.append({"name": cut["name"], "kept": cut["kept"], "ratio": ratio})
    return {
        "schema": 1,
        "what": "latency table",
        "model": table["model"],
        "groups": table["groups"],
        "provider": name,
        "ep": provider["ep"],
        "threads": settings["threads"],
        "sizes": bundle["sizes"],
        "protocol": protocol(settings),
        "whole_ms": sorted(medians)[len(medians) // 2],
        "cuts": cuts,
        "forms": table["forms"],
        "environment": environment(bundle),
    }


def protocol(settings):
    """What bench calls the way in which models take turns."""
    return "turns" if settings["block"] == 1 else "blocks"


def peak_memory():
    """The most memory that this process had, in KiB; None where the system does not tell."""
    match = re.search(r"^VmHWM:\s*(\d+) kB", first_line("/proc/self/status") or "", re.MULTILINE)
    if match:  # what getrusage says on Linux may be what the parent had
        return int(match.group(1))
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


# --- the machine --------------------------------------------------------------------------------------------------


def first_line(path):
    """A small file's text, None where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip("\0\n ")
    except OSError:
        return None


def output_of(*command):
    """What a command prints, None where it is not there or fails."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace").strip() if done.returncode == 0 else None


def conditions():
    """Clocks, temperatures, power and its mode now, where the system has files or commands for them."""
    part = energy()
    cpus = sorted(glob.glob("/sys/devices/system/cpu/cpu[0-9]*/cpufreq"))
    zones = sorted(glob.glob("/sys/class/thermal/thermal_zone*"))
    return {
        "clock_khz": [first_line(os.path.join(cpu, "scaling_cur_freq")) for cpu in cpus],
        "governor": sorted({first_line(os.path.join(cpu, "scaling_governor")) or "" for cpu in cpus}),
        "millidegrees": {
            first_line(os.path.join(zone, "type")) or zone: first_line(os.path.join(zone, "temp")) for zone in zones
        },
        "gpu_clock_hz": {path: first_line(path) for path in sorted(glob.glob("/sys/class/devfreq/*gpu*/cur_freq"))},
        "power_mode": output_of("nvpmodel", "-q"),
        "throttled": output_of("vcgencmd", "get_throttled"),
        "load": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "watts": part.watts_now() if part is not None else {},
    }


def environment(bundle):
    """The machine and the versions; never a host or user name."""
    import onnxruntime as ort

    match = re.search(r"^model name\s*:\s*(.+)$", first_line("/proc/cpuinfo") or "", re.MULTILINE)
    board = first_line("/proc/device-tree/model")
    return {
        "cpu": match.group(1).strip() if match else board or platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 0,
        "system": platform.system(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "onnxruntime": str(ort.__version__),
        "numpy": np.__version__,
        "prunegraph": bundle["prunegraph"],
        "board": board,
        "jetpack": first_line("/etc/nv_tegra_release"),
        "gpu": output_of("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"),
    }


# --- the whole ----------------------------------------------------------------------------------------------------


def in_child(folder, name, settings):
    """What `measure` gives in a process of its own, so that a crash of one provider ends nothing else."""
    handle, path = tempfile.mkstemp(suffix=".json")
    os.close(handle)
    command = [sys.executable, os.path.abspath(__file__), "--child", name, path, "--settings", json.dumps(settings)]
    pairs = len(read_bundle(folder).get("table", {}).get("cuts", []))
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=PROBE_SECONDS + (2 + pairs) * settings["max_seconds"],
        )
        if done.returncode == 0:
            with open(path, encoding="utf-8") as file:
                return json.load(file)
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        if done.returncode < 0:
            raise Refused("its process was ended by signal {}".format(-done.returncode))
        raise Refused(lines[-1] if lines else "its process ended with {}".format(done.returncode))
    except subprocess.TimeoutExpired:
        raise Refused("it did not finish in time")
    finally:
        os.remove(path)


def all_of(folder, name, settings):
    """What a provider gives: times, and a table where one is wanted."""
    part = measure(folder, name, settings)
    if settings["table"]:
        part["table"] = measure_table(folder, name, settings)
    return part


def trtexec(folder, bundle):
    """What NVIDIA's own tool says of every model, where it is there."""
    tool = shutil.which("trtexec") or "/usr/src/tensorrt/bin/trtexec"
    answers = {}
    for model in bundle["models"]:
        text = output_of(tool, "--onnx=" + os.path.join(folder, model["file"]), "--noDataTransfers", "--useSpinWait")
        match = re.search(r"GPU Compute Time:.*?median = ([\d.]+) ms", text or "")
        answers[model["name"]] = float(match.group(1)) if match else None
    return answers


def run(folder, names, settings, child=True):
    """Measure on all of these providers; the results and how many were refused."""
    bundle = read_bundle(folder)
    import onnxruntime as ort

    available = ort.get_available_providers()
    if not names:
        known = bundle["providers"].items()
        names = [name for name, provider in known if provider["ep"] in available or has_plugin(provider)]
    results = {
        "schema": 1,
        "inputs": bundle["shapes"],
        "sizes": bundle["sizes"],
        "threads": settings["threads"],
        "warmup": settings["warmup"],
        "seed": settings["seed"],
        "protocol": protocol(settings),
        "environment": environment(bundle),
        "stack": bundle["stack"],
        "results": [],
        "parity": {},
        "refused": {},
        "peak_memory_kib": {},
        "idle_watts": {},
        "tables": {},
        "before": conditions(),
    }
    for name in names:
        try:
            if name not in bundle["providers"]:
                raise Refused("no such provider; known are " + ", ".join(bundle["providers"]))
            if bundle["providers"][name]["ep"] not in available and not has_plugin(bundle["providers"][name]):
                raise Refused("it is not in this onnxruntime, which has " + ", ".join(available))
            part = in_child(folder, name, settings) if child else all_of(folder, name, settings)
        except Exception as error:
            results["refused"][name] = str(error)
            print("{}: refused: {}".format(name, error), file=sys.stderr)
            continue
        results["results"] += part["results"]
        results["parity"][name] = part["parity"]
        results["peak_memory_kib"][name] = part.get("peak_memory_kib")
        results["idle_watts"][name] = part.get("idle_watts", {})
        if "table" in part:
            results["tables"][name] = part["table"]
        for row in part["results"]:
            ratio = row["ratio"]
            faster = "" if ratio is None else ", {median:.2f} [{low:.2f}, {high:.2f}] times faster".format(**ratio)
            used = "".join(", {:.3g} J ({})".format(joules, rail) for rail, joules in sorted(row["joules"].items()))
            print("{}: {} {:.3f} ms{}{}".format(name, row["model"], row["median_ms"], faster, used))
        if not part["results"]:
            print("{}: all outputs are as expected".format(name))
    results["after"] = conditions()
    return results


def main():
    """Read the command line, run, write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ep", default="", help="execution providers, such as cpu,cuda,tensorrt")
    parser.add_argument("--threads", type=int, help="threads inside an operator")
    parser.add_argument("--rounds", type=int, help="rounds timed, at least %d" % MIN_ROUNDS)
    parser.add_argument("--max-seconds", type=float, help="time spent on one provider, at most")
    parser.add_argument("--check", action="store_true", help="compare the outputs, and time nothing")
    parser.add_argument("--table", action="store_true", help="measure a latency table too")
    parser.add_argument("--blocks", action="store_true", help="run each model %d times before the next" % BLOCK)
    parser.add_argument("--in-process", action="store_true", help="start no child processes (under an emulator)")
    parser.add_argument("--trtexec", action="store_true", help="run NVIDIA's trtexec as well")
    parser.add_argument("--energy", type=float, help="seconds of each model by itself to see what it uses; 0 for none")
    parser.add_argument("-o", "--output", default="results.json", help="where to write the results")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--settings", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        part = all_of(HERE, arguments.child[0], json.loads(arguments.settings))
        with open(arguments.child[1], "w", encoding="utf-8") as file:
            json.dump(part, file)
        return 0
    bundle = read_bundle(HERE)
    if arguments.table and "table" not in bundle:
        parser.error("this bundle holds no versions for a table; make it with prunegraph bundle --table")
    settings = dict(bundle["settings"], check=arguments.check, table=arguments.table and not arguments.check)
    if arguments.blocks:
        settings["block"] = BLOCK
    for key in ("threads", "rounds", "max_seconds"):
        if getattr(arguments, key) is not None:
            settings[key] = getattr(arguments, key)
    if arguments.energy is not None:
        settings["energy_seconds"] = arguments.energy
    if settings["rounds"] < MIN_ROUNDS or settings["threads"] < 1:
        parser.error("give at least %d rounds and one thread" % MIN_ROUNDS)
    names = [name.strip() for name in arguments.ep.split(",") if name.strip()]
    results = run(HERE, names, settings, child=not arguments.in_process)
    if arguments.trtexec:
        results["trtexec_median_ms"] = trtexec(HERE, bundle)
    with open(arguments.output + ".new", "w", encoding="utf-8") as file:
        json.dump(results, file, indent=1)
    os.replace(arguments.output + ".new", arguments.output)
    print("wrote " + arguments.output)
    for name in results["tables"]:
        print("it holds the latency table of " + name)
    return 1 if results["refused"] else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Refused as error:
        sys.exit("refused: {}".format(error))
