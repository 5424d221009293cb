"""Opening what the user named, once and read-only, and what may be written instead."""
