"""The swsusp image format: header, swap map, stream, PFN list.  Knows nothing of CPUs."""
