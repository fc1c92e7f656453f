"""What the GPU backends, `triton` and `cuda`, agree on: label order, the residual, and settings."""
