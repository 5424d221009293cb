"""A kernel whose answers are remembered: what was asked of it before is answered without opening it.

What is kept is no selection of what a command may need, but what commands have asked, with the answers that the kernel
gave.  So a command says the same with it as without, whatever it asks; a question that is new opens the kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hibercheck.data import dataclass
from hibercheck.errors import MissingFact
from hibercheck.kernel.btf import Btf
from hibercheck.kernel.code import model
from hibercheck.kernel.code.declared import Declared
from hibercheck.kernel.code.model import ParkLoop, ParkRole, Trait
from hibercheck.kernel.code.traits import Traits, traits_on_demand
from hibercheck.kernel.elf import ElfFile, Section
from hibercheck.kernel.kernel import Kernel
from hibercheck.kernel.symbols import Symbol, SymbolSource

if TYPE_CHECKING:
    from hibercheck.kernel.code.readers import Readers

Json = Any
Answers = dict[str, dict[str, Json]]
"""By kind of question, the answers by what was asked: ``symbols`` by name, ``asked`` by method and arguments,
``traits`` by name, ``loops`` by role."""

MOST = 1 << 13
"""Answers of one kind that are kept of a kernel: a check asks some hundred."""

_MISSING = "missing"


@dataclass(frozen=True, slots=True)
class _Missing:
    """That a kernel has no answer, and what would help."""

    message: str
    advice: str | None


class _Memory:
    """What was asked before, and what is asked now.

    Each answer is the same object each time, as a kernel itself gives it: CPUs that wait in one loop are told equal
    by it.
    """

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.new = False
        self._told: dict[tuple[str, str], Any] = {}

    def recall(self, kind: str, question: str, ask: Callable[[], Any]) -> Any:  # noqa: ANN401 - what was kept
        """Return an answer: as it was told, as it was kept, or as it is found now."""
        if (kind, question) in self._told:
            return self._told[kind, question]
        kept = self.answers.setdefault(kind, {})
        if question in kept:
            found = revived(kept[question])
        else:
            answer = plain(ask())
            found = revived(answer)
            if len(kept) < MOST:
                kept[question] = answer
                self.new = True
        if len(self._told) < MOST:
            self._told[kind, question] = found
        return found


class RememberedKernel(Kernel):
    """A kernel file behind its answers; see `Kernel` for what can be asked.

    Args:
        path: The file, as messages call it.
        answers: What was kept of it, to which is added what is asked now.
        opened: Opens the kernel itself.
        keep: Called with the answers at the end, if there are new ones.
    """

    def __init__(
        self, path: str, answers: Answers, opened: Callable[[], Kernel], keep: Callable[[Answers], None]
    ) -> None:
        self.path = path
        self._memory = _Memory(answers)
        self._opened = opened
        self._keep = keep
        self._table = answers.setdefault("symbols", {})
        self._known: dict[str, Symbol | None] = {}

    @cached_property
    def _kernel(self) -> Kernel:
        """The kernel itself, opened for the first question that it was not asked before."""
        return self._opened()

    def close(self) -> None:
        """Keep what is new, and release the file if it was opened."""
        if self._memory.new:
            self._keep(self._memory.answers)
            self._memory.new = False
        if "_kernel" in vars(self):
            self._kernel.close()

    def _answer(self, method: str, *about: Any, as_of: str | None = None) -> Any:  # noqa: ANN401 - as the method
        """Return what a method of the kernel returns, or the value of an attribute.

        Raises:
            MissingFact: The kernel has no answer.
        """
        question = " ".join([method, *map(str, about)]) if as_of is None else f"{method} {as_of}"
        found = self._memory.recall("asked", question, lambda: self._ask(method, *about))
        if isinstance(found, _Missing):
            raise MissingFact(found.message, path=self.path, advice=found.advice)
        return found

    def _ask(self, method: str, *about: Any) -> Any:  # noqa: ANN401 - as the method
        found = getattr(self._kernel, method)
        try:
            return found(*about) if about else found
        except MissingFact as missing:
            return _Missing(missing.message, missing.advice)

    # What the kernel says of itself; see `Kernel` for each

    @property
    def banner(self) -> str:
        """See `Kernel.banner`."""
        return str(self._answer("banner"))

    @property
    def banner_place(self) -> int | None:
        """See `Kernel.banner_place`."""
        return self._answer("banner_place")  # type: ignore[no-any-return]

    @property
    def build_id(self) -> str | None:
        """See `Kernel.build_id`."""
        return self._answer("build_id")  # type: ignore[no-any-return]

    @property
    def supplemented(self) -> bool:  # type: ignore[override]
        """See `Kernel.supplemented`: the kernel has got what its code shows when it was opened."""
        return bool(self._answer("supplemented"))

    @property
    def alignment(self) -> int | None:  # type: ignore[override]
        """See `Kernel`."""
        return self._answer("alignment")  # type: ignore[no-any-return]

    @property
    def percpu_start(self) -> int:
        """See `Kernel.percpu_start`."""
        return int(self._answer("percpu_start"))

    # What only the kernel itself has

    @property
    def elf(self) -> ElfFile:  # type: ignore[override]
        """See `Kernel`."""
        return self._kernel.elf

    @property
    def source(self) -> SymbolSource:  # type: ignore[override]
        """See `Kernel`."""
        return self._kernel.source

    @property
    def wrappers(self) -> tuple[str, ...]:  # type: ignore[override]
        """See `Kernel`."""
        return self._kernel.wrappers

    @property
    def btf(self) -> Btf:
        """See `Kernel.btf`."""
        return self._kernel.btf

    @property
    def config(self) -> Mapping[str, str] | None:
        """See `Kernel.config`."""
        return self._kernel.config

    # Symbols

    def symbols(self, names: Iterable[str]) -> dict[str, Symbol]:
        """See `Kernel.symbols`."""
        wanted = list(names)
        unknown = [name for name in wanted if name not in self._known]
        new = [name for name in unknown if name not in self._table]
        if new:
            found = self._kernel.symbols(new)
            self._known |= {name: found.get(name) for name in new}
            if len(self._table) + len(new) <= 8 * MOST:
                self._table |= {name: _row(found.get(name)) for name in new}
                self._memory.new = True
        for name in unknown:
            if name not in self._known:
                row = self._table[name]
                self._known[name] = None if row is None else Symbol(*row)
        return {name: symbol for name in wanted if (symbol := self._known[name]) is not None}

    def symbol(self, name: str) -> Symbol | None:
        """See `Kernel.symbol`."""
        return self._known[name] if name in self._known else self.symbols([name]).get(name)

    def supplement(self, symbols: Mapping[str, Symbol]) -> None:
        """See `Kernel.supplement`."""
        self._kernel.supplement(symbols)

    def require(self, name: str) -> Symbol:
        """See `Kernel.require`."""
        found = self.symbol(name)
        return self._answer("require", name) if found is None else found

    def variants(self, name: str) -> list[Symbol]:
        """See `Kernel.variants`."""
        return list(self._answer("variants", name))

    def nearest_many(self, addresses: Iterable[int]) -> dict[int, tuple[Symbol, int]]:
        """See `Kernel.nearest_many`."""
        found = {address: self._answer("nearest", address) for address in addresses}
        return {address: one for address, one in found.items() if one is not None}

    def extent(self, symbol: Symbol) -> int:
        """See `Kernel.extent`."""
        return symbol.size or int(self._answer("extent", symbol, as_of=f"{symbol.name} {symbol.address}"))

    # Bytes, types

    def read(self, address: int, size: int) -> bytes:
        """See `Kernel.read`."""
        return self._answer("read", address, size)  # type: ignore[no-any-return]

    def read_string(self, address: int, limit: int = 4096) -> bytes:
        """See `Kernel.read_string`."""
        return self._answer("read_string", address, limit)  # type: ignore[no-any-return]

    def section(self, name: str) -> Section | None:
        """See `Kernel.section`."""
        return self._answer("section", name)  # type: ignore[no-any-return]

    def offset_of(self, struct: str, member_path: str) -> int:
        """See `Kernel.offset_of`."""
        return int(self._answer("offset_of", struct, member_path))

    def size_of(self, struct: str, member_path: str | None = None) -> int:
        """See `Kernel.size_of`."""
        about = (struct,) if member_path is None else (struct, member_path)
        return int(self._answer("size_of", *about))

    def has_member(self, struct: str, member_path: str) -> bool:
        """See `Kernel.has_member`."""
        return bool(self._answer("has_member", struct, member_path))

    @cached_property
    def traits(self) -> Traits:
        """What its code does, as far as it was asked before; the rest is read when it is asked for."""
        return _RememberedTraits(lambda: traits_on_demand(self._kernel), self._memory)


class _RememberedTraits(Traits):
    """Traits of which those that were read before are known.

    Args:
        read: Gives those of the kernel itself.
        memory: What was kept, to which is added what is read now.
    """

    def __init__(self, read: Callable[[], Traits], memory: _Memory) -> None:
        super().__init__(None)
        self._read, self._memory = read, memory

    @cached_property
    def _own(self) -> Traits:
        return self._read()

    @property
    def readers(self) -> Readers:
        """See `Traits.readers`."""
        return self._own.readers

    @cached_property
    def park_loops(self) -> tuple[ParkLoop, ...]:
        """See `Traits.park_loops`."""
        return self._memory.recall("loops", "all", lambda: self._own.park_loops)  # type: ignore[no-any-return]

    def of_role(self, role: ParkRole) -> tuple[ParkLoop, ...]:
        """See `Traits.of_role`."""
        return self._memory.recall("loops", role, lambda: self._own.of_role(role))  # type: ignore[no-any-return]

    def read(self, declared: Declared[Any]) -> Trait[Any]:
        """See `Traits.read`."""
        return self._memory.recall("traits", declared.name, lambda: getattr(self._own, declared.name))  # type: ignore[no-any-return]

    def replaced(self, **traits: Trait[Any]) -> Traits:
        """See `Traits.replaced`."""
        other = _RememberedTraits(lambda: self._own, self._memory)
        vars(other).update(traits)
        return other


_RECORDS: dict[str, type] = {one.__name__: one for one in (Symbol, Section)} | {
    name: one for name, one in vars(model).items() if isinstance(one, type) and hasattr(one, "__match_args__")
}
"""The types of records that answers are made of."""


def plain(value: Any) -> Json:  # noqa: ANN401 - as the types say
    """Turn an answer into what `json.dumps` writes: records, tuples, sets and bytes are marked as such.

    Raises:
        TypeError: It is of another type.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, bytes):
        return {"b": value.hex()}
    if isinstance(value, _Missing):
        return {_MISSING: [value.message, value.advice]}
    if isinstance(value, tuple | list):
        return [plain(one) for one in value]
    if isinstance(value, frozenset):
        return {"s": sorted(map(plain, value))}
    cls = type(value)
    if _RECORDS.get(cls.__name__) is not cls:
        raise TypeError(f"{cls.__name__} is not kept")
    return {"r": [cls.__name__, *(plain(getattr(value, name)) for name in _names(cls))]}


def revived(document: Json) -> Any:  # noqa: ANN401 - as the types say
    """Make what `plain` was given, with tuples for lists."""
    if isinstance(document, list):
        return tuple(map(revived, document))
    if not isinstance(document, dict):
        return document
    ((kind, content),) = document.items()
    if kind == "b":
        return bytes.fromhex(content)
    if kind == _MISSING:
        return _Missing(*content)
    if kind == "s":
        return frozenset(map(revived, content))
    return _RECORDS[content[0]](*map(revived, content[1:]))


def _names(cls: Any) -> tuple[str, ...]:  # noqa: ANN401 - a record's type
    return cls.__match_args__  # type: ignore[no-any-return]


def _row(symbol: Symbol | None) -> Json:
    return None if symbol is None else [symbol.name, symbol.address, symbol.size, symbol.letter]
