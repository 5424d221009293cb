"""One run of the resumer: which CPUs it has, how each is parked, where the kernel lies; and its alternatives."""
