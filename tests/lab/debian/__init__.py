"""Whole Debian systems that hibernate: what `hibercheck preflight` says in them, and what then happens."""
