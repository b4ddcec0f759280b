"""Speed: choose what goes so that the slim model is as many times faster as was asked for, measured here and now."""

from prunegraph.speed.candidates import candidates
from prunegraph.speed.here import latency_table
from prunegraph.speed.roofline import DEVICES, Device, estimate_ms, find_device
from prunegraph.speed.search import SpeedSearch
from prunegraph.speed.select import select_by_speed
from prunegraph.speed.versions import Sweep, sweep

__all__ = [
    "DEVICES",
    "Device",
    "SpeedSearch",
    "Sweep",
    "candidates",
    "estimate_ms",
    "find_device",
    "latency_table",
    "select_by_speed",
    "sweep",
]
