"""What to run on the day a GPU is at hand, in the order of docs/gpu.md."""
