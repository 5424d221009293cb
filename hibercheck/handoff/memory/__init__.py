"""The machine's memory before, during and after the copy."""
