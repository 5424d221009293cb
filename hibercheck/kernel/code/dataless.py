"""Kernels that list their functions and no data (CONFIG_KALLSYMS without CONFIG_KALLSYMS_ALL)."""

from __future__ import annotations

from hibercheck.kernel.kernel import Kernel

_CODE = ("native_play_dead", "_stext")
_DATA = ("init_task", "smp_ops")
TELLING = (*_CODE, *_DATA)
"""Symbols by which a kernel that lists no data is known; whoever looks up others adds them, to save a pass."""


def lacks_data(kernel: Kernel) -> bool:
    """Whether a kernel lists its functions, and no data."""
    known = kernel.symbols(TELLING)
    return any(name in known for name in _CODE) and not any(name in known for name in _DATA)


def supplement(kernel: Kernel) -> None:
    """Give a kernel that lists only its code the data symbols that its code shows; others are left as they are."""
    if not kernel.supplemented and lacks_data(kernel):
        from hibercheck.kernel.code.recovered import recovered  # noqa: PLC0415 - what reads code, for few kernels

        kernel.supplement(recovered(kernel))
