"""Speed: choose what goes so that the slim model is as many times faster as was asked for, measured here and now."""

from prunegraph.speed.candidates import candidates
from prunegraph.speed.select import SpeedSearch, select_by_speed

__all__ = ["SpeedSearch", "candidates", "select_by_speed"]
