"""Bochs as the lab's second machine: MWAIT sleeps there, and every event of a parked CPU is written down."""
