"""Passes: each takes a model and returns a new one."""
