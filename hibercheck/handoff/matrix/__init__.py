"""Every resumer with every resumee, without an image: what can be said of a pair of kernels."""
