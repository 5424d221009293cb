"""A finished report rendered as text, JSON and other formats."""
