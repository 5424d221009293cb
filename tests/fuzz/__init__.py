"""Damaged inputs: a target for every kind of file, and the proof that damage never makes a hazard look safe.

    python -m tests.fuzz                          every target, 60 s each
    python -m tests.fuzz --seconds 600 image dump
    python -m tests.fuzz image --replay 17        one round again, with its traceback
    python -m tests.fuzz --soundness 5000         so many damages of the measured cases that end badly
    python -m tests.fuzz --interrupts 20          each command, interrupted so many times
    python -m tests.fuzz.guided image             guided by coverage, where atheris is installed

A target turns a string of choices (`tests.fuzz.draw`) into a damaged input and gives it to a reader.  The choices come
from a seeded generator, or from atheris, which is guided by coverage.
"""
