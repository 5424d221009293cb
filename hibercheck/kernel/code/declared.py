"""What the declaration of a kernel trait consists of.

`hibercheck.kernel.code.traits.Traits` declares them all.  Everything else that knows the traits by name follows from
there: which symbols are looked up, what a kernel summary keeps and how it is read back, what the report shows and under
which heading, and what counts as a difference between two kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from hibercheck.data import replace
from hibercheck.kernel.code.model import Trait

if TYPE_CHECKING:
    from hibercheck.kernel.code.readers import Readers
    from hibercheck.kernel.code.traits import Traits

T = TypeVar("T")

SECTIONS = (
    "Before it loads an image",
    "When a CPU goes offline",
    "After a resume",
    "Which images it accepts",
    "How it starts",
    "Where it is",
)
"""Questions about a kernel, in the order in which a report answers them; every trait belongs to one."""


class Declared(Generic[T]):
    """One trait of a kernel, declared as an attribute of `Traits`; read when it is asked for, then remembered.

    Args:
        kind: Type of the value, as a kernel summary keeps it (see `hibercheck.kernel.code.codec`).
        section: The question that it belongs to, one of `SECTIONS`.
        label: What it says of a kernel, as a line of the report begins.
        read: Reads it, by the readers of a kernel and from other traits.
        symbols: Names that reading it looks up.  One that ends in ``*`` is of a static function, to which a compiler
            may add a suffix.
        commit: The upstream change behind it, where it is the same whatever the value; a reader may name another.
        only_if: Name of a trait that must be neither false nor empty for this one to be worth a line.
        show: The value in words, where ``yes``, ``no``, a number or a list does not do.
        compare: What of a value tells two kernels apart; by default all of it.
        since: Version of the kernel summary since which the value has this form.
        in_check: Whether the report of a check shows it too.
    """

    def __init__(
        self,
        kind: type[T],
        section: str,
        label: str,
        read: Callable[[Readers, Traits], Trait[T]],
        *,
        symbols: tuple[str, ...] = (),
        commit: str | None = None,
        only_if: str | None = None,
        show: Callable[[T], str] | None = None,
        compare: Callable[[T], object] | None = None,
        since: int = 1,
        in_check: bool = False,
    ) -> None:
        if section not in SECTIONS:
            raise ValueError(f"{section!r} is not a section of the report")
        self.kind = kind
        self.section = section
        self.label = label
        self.symbols = symbols
        self.only_if = only_if
        self.since = since
        self.in_check = in_check
        self.name = ""
        self._read = read
        self._commit = commit
        self._show = show
        self._compare = compare

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, traits: None, owner: type) -> Declared[T]: ...

    @overload
    def __get__(self, traits: Traits, owner: type) -> Trait[T]: ...

    def __get__(self, traits: Traits | None, owner: type) -> Declared[T] | Trait[T]:
        if traits is None:
            return self
        found: Trait[T] = traits.read(self)
        vars(traits)[self.name] = found  # which shadows this attribute from now on
        return found

    def read(self, traits: Traits) -> Trait[T]:
        """Read the trait by the readers of a kernel's traits."""
        found = self._read(traits.readers, traits)
        if found.commit is None and self._commit is not None and found.value is not None:
            return replace(found, commit=self._commit)
        return found

    def words(self, value: T | None) -> str:
        """Return a value in words, for a report."""
        if value is None:
            return "unknown"
        if self._show is not None:
            return self._show(value)
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, tuple):
            return ", ".join(map(str, value)) or "none"
        return str(value)

    def distinguishing(self, value: T | None) -> object:
        """Return what of a value tells two kernels apart."""
        return value if value is None or self._compare is None else self._compare(value)


def declarations(owner: type) -> Iterator[Declared[Any]]:
    """Yield the traits that a class declares, in order."""
    return (one for one in vars(owner).values() if isinstance(one, Declared))
