"""The models that the studies prune, small and full-sized, and their exports."""
