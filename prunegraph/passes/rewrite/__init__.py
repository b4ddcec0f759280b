"""Rewrite: remove units from a graph, and what nothing needs any more."""
