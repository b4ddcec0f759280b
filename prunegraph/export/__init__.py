"""Doors: how models come in and how results go out."""
