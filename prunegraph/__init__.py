"""Prune a neural-network graph: physically smaller, and proven equal to the original minus what was removed."""
