"""What the handoff needs of a kernel: the methods, so that a kernel file and a facts file both serve."""

from __future__ import annotations

from typing import Protocol


class SymbolView(Protocol):
    """One symbol: name, link-time address, and size in bytes where the symbol table has one."""

    @property
    def name(self) -> str:
        """The name as linked."""
        ...

    @property
    def address(self) -> int:
        """Link-time virtual address (or offset into the per-CPU area, where that is zero-based)."""
        ...

    @property
    def size(self) -> int | None:
        """Size in bytes; None in symbols that came from kallsyms."""
        ...


class KernelView(Protocol):
    """A kernel as `hibercheck.kernel.kernel.Kernel` and the facts file present it."""

    @property
    def path(self) -> str:
        """As the user named it."""
        ...

    @property
    def release(self) -> str:
        """``6.1.0-50-cloud-amd64``."""
        ...

    @property
    def banner(self) -> str:
        """The whole ``Linux version`` line."""
        ...

    @property
    def build_id(self) -> str | None:
        """GNU build id in hexadecimal."""
        ...

    @property
    def percpu_zero_based(self) -> bool:
        """Whether per-CPU symbols are offsets from zero."""
        ...

    @property
    def percpu_start(self) -> int:
        """``__per_cpu_start``."""
        ...

    def symbol(self, name: str) -> SymbolView | None:
        """Return a symbol, or None."""
        ...

    def require(self, name: str) -> SymbolView:
        """Return a symbol; raises MissingFact."""
        ...

    def nearest(self, address: int) -> tuple[SymbolView, int] | None:
        """Name an address: the symbol that covers it and the offset into it."""
        ...

    def read(self, address: int, size: int) -> bytes:
        """Read bytes at link-time addresses; raises MissingFact."""
        ...

    def offset_of(self, struct: str, member: str) -> int:
        """Return a member's offset in bytes; raises MissingFact."""
        ...

    def size_of(self, struct: str) -> int:
        """Return a type's size in bytes; raises MissingFact."""
        ...

    def has_member(self, struct: str, member: str) -> bool:
        """Tell whether a structure has a member; raises MissingFact where types are not known."""
        ...
