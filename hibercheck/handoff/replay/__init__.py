"""What a parked CPU does when something wakes it, and what becomes of it."""
