"""Prove: compare the slim graph with the original in which the removed units are masked."""
