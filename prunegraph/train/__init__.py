"""Fine-tune a pruned model: loss, training loop, checkpoints."""
