"""Speed: choose what goes so that the slim model is as many times faster as was asked for, measured here and now."""

from prunegraph.speed.select import select_by_speed

__all__ = ["select_by_speed"]
