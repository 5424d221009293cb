"""Dumps of a machine's physical memory and CPU registers, as files.  Knows nothing of Linux's data."""
