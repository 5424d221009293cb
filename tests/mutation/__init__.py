"""Mutants of the core, and which of them the tests kill: see README.md beside this file."""
