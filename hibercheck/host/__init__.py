"""A system, running or mounted: its boot entries, its swap, its kernel's log.  Everything is read, nothing written."""
