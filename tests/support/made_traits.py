"""Made traits of a kernel: those that a test says, and none that it does not."""

from __future__ import annotations

from types import SimpleNamespace


def made_traits(loops=(), **values):
    """Return traits with these values; each other one is not known.

    Args:
        loops: The loops in which the kernel parks CPUs.
        values: A trait's value by its name.
    """
    return Traits(loops, values)


class Traits:
    """Traits, of which those that nobody named read as unknown."""

    def __init__(self, loops, values):
        self.park_loops = tuple(loops)
        self.values = values

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return SimpleNamespace(value=self.values.get(name), reason="nobody said")

    def loops(self, role, kind, *, after_kick=False):
        wanted = (role, kind, after_kick)
        return tuple(loop for loop in self.park_loops if (loop.role, loop.kind, loop.after_kick) == wanted)
