"""Training: what a pruned model lost, it learns again."""
