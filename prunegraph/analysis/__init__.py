"""Static facts about a graph: pure, frozen, never changing a model."""

from prunegraph.analysis import rules as rules
