"""Committed kernels, opened once for all tests of a session: to read one's traits anew takes longer than most tests."""

from __future__ import annotations

import functools

from hibercheck.handoff.facts.kernels import open_resumer
from hibercheck.kernel.code.traits import traits_on_demand
from hibercheck.kernel.kernel import Kernel


@functools.cache
def opened(path: str) -> Kernel:
    """Return a kernel as a check opens it; a trait is read when one asks for it first, and is the same for all."""
    kernel = open_resumer(path, None)
    kernel.traits = traits_on_demand(kernel)
    return kernel
