"""What the GPU backends, `triton` and `cuda`, share: the machine, the residual, the backward, settings."""
