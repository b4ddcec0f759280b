"""Energy of runs, where the machine counts it or measures its power: joules by rail.

Sources are the counters of x86 processors (RAPL, in Linux's powercap; since 2020 for root alone), the sensors of Jetson
boards (INA3221, as hwmon or, in JetPack 4, as iio), the power chip of a Raspberry Pi 5, and nvidia-smi. Rails may
contain each other, so that nothing is summed: which one is that of the whole board, its manual says.

Python 3.6 and the standard library: a bundle carries a copy of this file to the device.
"""

import glob
import os
import re
import shutil
import subprocess
import threading
import time
import typing

Rails = typing.Dict[str, float]
Counters = typing.Dict[str, typing.Tuple[float, float]]
Sensors = typing.Dict[str, typing.Callable[[], typing.Optional[float]]]

EVERY = 0.05
"""Seconds between two looks at a power, which is an average over some milliseconds itself."""


def read_text(path: str) -> typing.Optional[str]:
    """What a small file says; None where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip("\0\n ")
    except OSError:
        return None


def read_number(path: str) -> typing.Optional[float]:
    """The number in a small file; None where there is none."""
    return _float(read_text(path) or "")


# --- counters -----------------------------------------------------------------------------------------------------


def counters(sys: str = "/sys") -> Counters:
    """Microjoules so far and where they start again from zero, by name; packages whole, not their parts."""
    answers = {}
    for zone in sorted(glob.glob(os.path.join(sys, "class/powercap/intel-rapl:*"))):
        if os.path.basename(zone).count(":") > 1:
            continue
        energy, wraps = (read_number(os.path.join(zone, name)) for name in ("energy_uj", "max_energy_range_uj"))
        if energy is not None:
            answers[read_text(os.path.join(zone, "name")) or os.path.basename(zone)] = (energy, wraps or 0.0)
    return answers


def joules_between(before: Counters, after: Counters) -> Rails:
    """Joules by name between two readings; a counter that is lower than before has started again."""
    answers = {}
    for name, (end, wraps) in after.items():
        if name in before:
            used = end - before[name][0]
            answers[name] = (used if used >= 0 else used + wraps) / 1e6
    return answers


# --- powers -------------------------------------------------------------------------------------------------------


def sensors(sys: str = "/sys") -> Sensors:
    """What tells a power now: functions that give watts, None where they fail, by rail."""
    answers: Sensors = {}
    for chip in sorted(glob.glob(os.path.join(sys, "class/hwmon/hwmon*"))):
        if (read_text(os.path.join(chip, "name")) or "").startswith("ina"):
            answers.update(_hwmon(chip))
    for chip in sorted(glob.glob(os.path.join(sys, "bus/i2c/drivers/ina3221x/*/iio:device*"))):
        for label in sorted(glob.glob(os.path.join(chip, "rail_name_*"))):
            power = os.path.join(chip, "in_power{}_input".format(label.rpartition("_")[2]))
            if os.path.exists(power):
                answers[read_text(label) or os.path.basename(label)] = _product((power,), 1e-3)
    return answers


def _hwmon(chip: str) -> Sensors:
    """Rails of one chip of INA: as power in microwatts, or as voltage and current in thousandths."""
    rails: Sensors = {}
    for path in sorted(glob.glob(os.path.join(chip, "power*_input"))):
        label = path.replace("_input", "_label")
        rails[read_text(label) or read_text(os.path.join(chip, "name")) or ""] = _product((path,), 1e-6)
    for label in sorted(glob.glob(os.path.join(chip, "in*_label"))):
        number = os.path.basename(label)[len("in") : -len("_label")]
        volts, amperes = (os.path.join(chip, name + number + "_input") for name in ("in", "curr"))
        if os.path.exists(amperes):
            rails[read_text(label) or ""] = _product((volts, amperes), 1e-6)
    return {name: watts for name, watts in rails.items() if name not in ("", "NC")}  # not connected


def _product(paths: typing.Sequence[str], scale: float) -> typing.Callable[[], typing.Optional[float]]:
    def watts() -> typing.Optional[float]:
        product = scale
        for path in paths:
            number = read_number(path)
            if number is None:
                return None
            product *= number
        return product

    return watts


def commands() -> Sensors:
    """The same by commands, which take longer: the chip of a Raspberry Pi 5, GPUs of NVIDIA."""
    answers: Sensors = {}
    if pmic_watts(_output("vcgencmd", "pmic_read_adc")) is not None:
        answers["pmic"] = lambda: pmic_watts(_output("vcgencmd", "pmic_read_adc"))
    query = ("nvidia-smi", "--query-gpu=power.draw", "--format=csv,noheader,nounits")
    for number, text in enumerate(_output(*query).splitlines()):
        if _float(text) is not None:  # that of a Jetson says [N/A]
            answers["gpu{}".format(number)] = _line_of(query, number)
    return answers


def pmic_watts(text: str) -> typing.Optional[float]:
    """The sum over all rails of what `vcgencmd pmic_read_adc` prints; None where it prints none."""
    readings = dict(re.findall(r"(\w+) (?:current|volt)\(\d+\)=([\d.]+)[AV]", text))
    rails = [name[:-2] for name in readings if name.endswith("_A") and name[:-2] + "_V" in readings]
    return sum(float(readings[rail + "_A"]) * float(readings[rail + "_V"]) for rail in rails) if rails else None


def _line_of(command: typing.Sequence[str], number: int) -> typing.Callable[[], typing.Optional[float]]:
    def watts() -> typing.Optional[float]:
        lines = _output(*command).splitlines()
        return _float(lines[number]) if number < len(lines) else None

    return watts


def _float(text: str) -> typing.Optional[float]:
    try:
        return float(text)
    except ValueError:
        return None


def _output(*command: str) -> str:
    """What a command prints; nothing where it is not there or fails."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""


def watts_now(sys: str = "/sys") -> typing.Dict[str, typing.Optional[float]]:
    """Watts by rail at this moment."""
    return {name: watts() for name, watts in dict(sensors(sys), **commands()).items()}


# --- runs ---------------------------------------------------------------------------------------------------------


class Meter:
    """What was used between `start` and `stop`: counters by their difference, powers by looks at them meanwhile."""

    def __init__(self, sys: str = "/sys") -> None:
        self.sys = sys
        self.powers = dict(sensors(sys), **commands())
        self.looks: typing.Dict[str, typing.List[float]] = {}
        self.ended = threading.Event()

    def __bool__(self) -> bool:
        """Whether this machine tells anything."""
        return bool(self.powers or counters(self.sys))

    def start(self) -> None:
        """Begin."""
        self.looks, self.ended = {name: [] for name in self.powers}, threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)
        self.before, self.begin = counters(self.sys), time.perf_counter()
        self.thread.start()

    def _look(self) -> None:
        while self.powers and not self.ended.is_set():
            for name, watts in self.powers.items():
                now = watts()
                if now is not None:
                    self.looks[name].append(now)
            self.ended.wait(EVERY)

    def stop(self) -> typing.Tuple[Rails, float]:
        """Joules by rail, and seconds."""
        after, seconds = counters(self.sys), time.perf_counter() - self.begin
        self.ended.set()
        self.thread.join()
        joules = joules_between(self.before, after)
        joules.update({name: sum(each) / len(each) * seconds for name, each in self.looks.items() if each})
        return joules, seconds


def joules_a_run(
    arms: typing.Sequence[typing.Callable[[], object]], seconds: float, meter: Meter
) -> typing.Tuple[typing.List[Rails], Rails]:
    """Joules of one run of each arm by rail, what the machine takes at rest among them; and watts at rest.

    Each arm runs by itself for so many seconds, half of them in one order and half in the other, so that a machine that
    grows warm does so for all. This is apart from timing, which the looks at sensors would disturb.

    Args:
        arms: Functions that run a model once.
        seconds: For each arm.
        meter: What tells energy here.
    """
    used: typing.List[Rails] = [{} for _ in arms]
    runs = [0] * len(arms)
    meter.start()
    time.sleep(seconds / 2)
    joules, rest = meter.stop()
    idle = {name: each / rest for name, each in joules.items()}
    for order in (range(len(arms)), reversed(range(len(arms)))):
        for arm in order:
            meter.start()
            end = time.perf_counter() + seconds / 2
            while True:
                arms[arm]()
                runs[arm] += 1
                if time.perf_counter() >= end:
                    break
            for name, each in meter.stop()[0].items():
                used[arm][name] = used[arm].get(name, 0.0) + each
    return [{name: each / count for name, each in rails.items()} for rails, count in zip(used, runs)], idle
