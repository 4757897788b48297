"""What the benchmarks measure with: figures, walks and scenes with ground truth."""
