"""What can go wrong in the lab itself (as against in the experiment)."""

from __future__ import annotations


class LabError(Exception):
    """The experiment could not be carried out; says nothing about the kernels."""


class ImpossibleError(LabError):
    """The experiment fails in the same way each time: there is no use in running it again."""
