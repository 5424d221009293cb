"""What may be asked of a kernel, so that a kernel file, a facts file and a test's own kernel all serve."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol


class SymbolView(Protocol):
    """One symbol."""

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


class SectionView(Protocol):
    """Where a section is."""

    @property
    def address(self) -> int:
        """Link-time address."""
        ...

    @property
    def size(self) -> int:
        """Bytes."""
        ...


class LinkedView(Protocol):
    """A kernel as it was linked: its contents, and what lies where."""

    @property
    def path(self) -> str:
        """As the user named it."""
        ...

    @property
    def banner(self) -> str:
        """The whole ``Linux version`` line, which names the compiler too; raises MissingFact."""
        ...

    def nearest(self, address: int, /) -> tuple[SymbolView, int] | None:
        """Name an address: the symbol that covers it and the offset into it."""
        ...

    def read(self, address: int, size: int, /) -> bytes:
        """Read bytes at link-time addresses; raises MissingFact outside the file."""
        ...

    def extent(self, symbol: Any, /) -> int:  # noqa: ANN401 - the kernel's own kind of symbol
        """Return the bytes that belong to a symbol, up to the next one if its size is not known; raises MissingFact."""
        ...

    def offset_of(self, struct: str, member: str, /) -> int:
        """Return a member's offset in bytes, from BTF; raises MissingFact."""
        ...

    def size_of(self, struct: str, /) -> int:
        """Return a type's size in bytes, from BTF; raises MissingFact."""
        ...


class KernelView(LinkedView, Protocol):
    """What the handoff asks of a kernel."""

    @property
    def release(self) -> str:
        """``6.1.0-50-cloud-amd64``."""
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

    def symbol(self, name: str, /) -> SymbolView | None:
        """Return a symbol, or None."""
        ...

    def require(self, name: str, /) -> SymbolView:
        """Return a symbol; raises MissingFact."""
        ...

    def has_member(self, struct: str, member: str, /) -> bool:
        """Tell whether a structure has a member; raises MissingFact where types are not known."""
        ...


class CodeView(LinkedView, Protocol):
    """What reading a kernel's code asks of it."""

    @property
    def alignment(self) -> int | None:
        """CONFIG_PHYSICAL_ALIGN in bytes, if what the kernel was wrapped in stated it."""
        ...

    @property
    def config(self) -> Mapping[str, str] | None:
        """The configuration, if the kernel carries it."""
        ...

    def symbols(self, wanted: Iterable[str], /) -> Mapping[str, SymbolView]:
        """Look up many names in one pass; absent names are absent."""
        ...

    def read_string(self, address: int, limit: int, /) -> bytes:
        """Read a C string of at most ``limit`` bytes, without its NUL; raises MissingFact outside the file."""
        ...

    def variants(self, name: str, /) -> Iterable[SymbolView]:
        """Return the symbol and its suffixed variants."""
        ...

    def section(self, name: str, /) -> SectionView | None:
        """Return a section by name."""
        ...
