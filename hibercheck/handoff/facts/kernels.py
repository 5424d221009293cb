"""Opening a kernel for a check: a kernel file in any of its forms, or a facts file; its symbols asked for at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from hibercheck.addresses import PAGE_SIZE, START_KERNEL_MAP
from hibercheck.errors import HibercheckError, MalformedKernel, MissingFact
from hibercheck.kernel.code.dataless import TELLING, supplement
from hibercheck.kernel.code.needed import SYMBOLS
from hibercheck.kernel.kernel import Kernel, open_kernel

if TYPE_CHECKING:
    from hibercheck.kernel.cache import KernelCache

_MOST = 1 << 30
"""KERNEL_IMAGE_SIZE with RANDOMIZE_BASE, arch/x86/include/asm/page_64_types.h: no kernel's image is larger."""


def open_resumer(path: str, symbols: str | None, cache: KernelCache | None = None) -> Kernel:
    """Open the resumer and look up all symbols that reading its code and placing it needs, in one pass.

    Args:
        path: The kernel's file or release.
        symbols: A file of its symbols, or None.
        cache: Where answers of kernels are kept; not for one with a file of symbols.

    Raises:
        HibercheckError: The file cannot be read as a kernel.
    """
    return _opened(path, symbols, cache)


def open_resumee(path: str, symbols: str | None, cache: KernelCache | None = None) -> Kernel:
    """Open the resumee as `open_resumer` does; every scenario asks its code too, for the CPUs that it initialises.

    To look those symbols up later would be a second pass, of 8 ms where one pass for all takes 2 ms more.
    """
    return _opened(path, symbols, cache)


def _opened(path: str, symbols: str | None, cache: KernelCache | None) -> Kernel:
    def opened() -> Kernel:
        from hibercheck.kernel.code.traits import WANTED  # noqa: PLC0415 - an image's own kernel needs none of them

        return looked_up(open_kernel(path, symbols=symbols), SYMBOLS.keys() | WANTED.candidates)

    return opened() if cache is None or symbols is not None else cache.opened(path, opened)


def looked_up(kernel: Kernel, names: Iterable[str] = SYMBOLS) -> Kernel:
    """Look up all symbols of these names in one pass, and see that they are where a kernel can have them.

    Raises:
        MissingFact: The kernel has no symbols.
        MalformedKernel: It is not a kernel, or a symbol is where no kernel has it.
    """
    try:
        kernel.symbols([*names, *TELLING])
        supplement(kernel)
        _check_places(kernel)
    except MissingFact as missing:
        raise _no_kernel(kernel, missing) from missing
    return kernel


def _check_places(kernel: Kernel) -> None:
    """See that symbols are where they can be: of a damaged table others would be believed.

    Raises:
        MissingFact: It has no symbols.
        MalformedKernel: One is outside the kernel's image, or a page table not on a page.
    """
    text, last = kernel.require("_text").address, kernel.symbol("_end")
    end = last.address if last is not None else text + _MOST
    if not START_KERNEL_MAP <= text < end <= text + _MOST:
        raise _misplaced(kernel, "_text", text)
    for name, symbol in kernel.symbols(SYMBOLS).items():
        place = SYMBOLS[name]
        offset = place == "percpu" and symbol.address < _MOST  # in the zero-based layout
        if not (text <= symbol.address <= end or offset) or (place == "page" and symbol.address % PAGE_SIZE):
            raise _misplaced(kernel, name, symbol.address)


def _misplaced(kernel: Kernel, name: str, address: int) -> MalformedKernel:
    return MalformedKernel(
        f"has its symbol {name} at {address:#x}, where no kernel has it",
        path=kernel.path,
        advice="it is damaged, or its symbols are of another build",
    )


def _no_kernel(kernel: Kernel, missing: MissingFact) -> HibercheckError:
    """Tell a kernel without symbols from a file that is not a kernel at all."""
    try:
        _ = kernel.banner
    except MissingFact:
        pass
    else:
        return missing
    return MalformedKernel(
        "is an x86-64 ELF file, but not a Linux kernel: nothing in it begins with 'Linux version'",
        path=kernel.path,
        advice="give a vmlinux or vmlinuz",
    )
