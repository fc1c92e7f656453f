"""What the GPU backends, `triton` and `cuda`, agree on: the machine, the residual, the backward, settings."""
