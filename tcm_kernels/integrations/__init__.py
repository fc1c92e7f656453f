"""The loss as other libraries want it, one module a library, which imports that library."""
