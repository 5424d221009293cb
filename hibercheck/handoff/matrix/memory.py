"""Memory for a pair of kernels without an image: what is certain of both, at their link addresses.

The resumee certainly has its own image in memory: text, data, page tables.  Of all other RAM an image covers a share,
so that what lies outside is judged twice: as if the image covered none of it, and as if it covered all.
"""

from __future__ import annotations

from hibercheck.addresses import PAGE_SHIFT, PAGE_SIZE, START_KERNEL_MAP
from hibercheck.data import dataclass
from hibercheck.errors import MissingFact
from hibercheck.handoff.matrix.summary import TABLES, Loop, Summary, Waiting
from hibercheck.handoff.memory.composite import Composite
from hibercheck.handoff.memory.context import ApContext, ParkedCpu
from hibercheck.handoff.memory.resumer import PlacedKernel
from hibercheck.handoff.scenario.park import Parked
from hibercheck.kernel.code.model import ParkLoop
from hibercheck.kernel.code.traits import Traits
from hibercheck.x86.cpu import ParkState
from hibercheck.x86.paging import PagingMode

OTHER = b"\xcc" * PAGE_SIZE
"""What stands for bytes that are certainly no park loop and no page table: as an entry it is not present."""


@dataclass(frozen=True, slots=True)
class _Symbol:
    """A symbol of a summary."""

    name: str
    address: int
    size: int | None = None


@dataclass(frozen=True, slots=True)
class SummaryKernel:
    """A kernel as far as its summary tells, for the engine to ask."""

    summary: Summary

    @property
    def path(self) -> str:
        """As the user named it."""
        return self.summary.path

    @property
    def release(self) -> str:
        """Its release."""
        return self.summary.release

    @property
    def build_id(self) -> str | None:
        """Its build id."""
        return self.summary.build_id

    @property
    def banner(self) -> str:
        """A summary has none; raises MissingFact."""
        raise MissingFact("a kernel's summary has no banner")

    @property
    def traits(self) -> Traits:
        """What its code does, as far as a summary keeps it."""
        return self.summary.traits

    @property
    def percpu_zero_based(self) -> bool:
        """Nothing of a summary depends on it."""
        return True

    @property
    def percpu_start(self) -> int:
        """Nothing of a summary depends on it."""
        return 0

    def symbol(self, name: str, /) -> _Symbol | None:
        """Return one of the few symbols of a summary."""
        summary = self.summary
        places: dict[str, int | None] = dict.fromkeys(summary.marks, 0)
        places |= dict(zip(TABLES, summary.tables, strict=True))
        places |= {"_text": summary.text, "_etext": summary.end, "_end": summary.end}
        address = places.get(name)
        return None if address is None else _Symbol(name, address)

    def require(self, name: str, /) -> _Symbol:
        """Return one of them; raises MissingFact."""
        found = self.symbol(name)
        if found is None:
            raise MissingFact(f"the summary of {self.release} has no symbol {name}")
        return found

    def read(self, address: int, size: int, /) -> bytes:
        """Read within a page that the summary keeps; raises MissingFact elsewhere."""
        page = self.summary.pages.get(address & -PAGE_SIZE)
        if page is None or address % PAGE_SIZE + size > PAGE_SIZE:
            raise MissingFact(f"the summary of {self.release} does not hold {address:#x}")
        return page[address % PAGE_SIZE :][:size]

    def nearest(self, _address: int, /) -> None:
        """Return nothing: a summary names no addresses."""
        return

    def offset_of(self, struct: str, member: str, /) -> int:
        """Raise MissingFact: a summary has no types."""
        raise MissingFact(f"the summary of {self.release} has no type {struct}.{member}")

    def size_of(self, struct: str, /) -> int:
        """As `offset_of`."""
        raise MissingFact(f"the summary of {self.release} has no type {struct}")

    def extent(self, symbol: object, /) -> int:
        """Raise MissingFact: a summary does not say."""
        raise MissingFact(f"the summary of {self.release} does not say how long {symbol} is")

    def has_member(self, struct: str, _member: str, /) -> bool:
        """As `offset_of`."""
        raise MissingFact(f"the summary of {self.release} has no type {struct}")


@dataclass(frozen=True, slots=True)
class _CertainFrames:
    """The frames that an image covers: the resumee's own, and all others or none."""

    first: int
    end: int
    everywhere: bool

    def __contains__(self, pfn: int) -> bool:
        return self.everywhere or self.first <= pfn < self.end

    def count_between(self, first: int, end: int) -> int:
        """Count those in [first, end)."""
        return end - first if self.everywhere else max(0, min(end, self.end) - max(first, self.first))

    def is_zero(self, _pfn: int) -> bool:
        """Nothing is known of zeros."""
        return False


@dataclass(frozen=True, slots=True)
class _CertainImage:
    """An image of a resumee at its link address, as far as it is certain before there is one."""

    kernel: PlacedKernel
    pfns: _CertainFrames

    def frame(self, pfn: int) -> bytes | None:
        """Return a frame of the resumee; `OTHER` where only it is known what it is not."""
        if pfn not in self.pfns:
            return None
        return self.kernel.frame(pfn) or OTHER


def certain_memory(resumer: Summary, resumee: Summary, levels: int, *, everywhere: bool) -> Composite:
    """Return memory after the copy of a resumee's image, both kernels at their link addresses.

    Args:
        resumer: The kernel that loads it.
        resumee: The kernel that wrote it.
        levels: Levels of the resumer's page tables.
        everywhere: Whether the image covers all of memory but for the resumee's own, with what is not known.
    """
    mode = PagingMode(levels=levels)
    ours, theirs = (PlacedKernel(SummaryKernel(one), mode, 0, 0) for one in (resumer, _fitting(resumee, levels)))
    frames = _CertainFrames(_frame(resumee.text), -(-(resumee.end - START_KERNEL_MAP) // PAGE_SIZE), everywhere)
    return Composite(_CertainImage(theirs, frames), ours)


def _fitting(resumee: Summary, levels: int) -> Summary:
    """Return a resumee whose tables can be built: one without level4_kernel_pgt has four levels, whatever the other."""
    if levels == 4 or resumee.tables[TABLES.index("level4_kernel_pgt")] is not None:
        return resumee
    from hibercheck.data import replace  # noqa: PLC0415 - five levels are rare

    root = resumee.tables[0]
    return replace(resumee, tables=(root, root, *resumee.tables[2:]))


def _frame(address: int) -> int:
    return address - START_KERNEL_MAP >> PAGE_SHIFT


def waiting_cpu(waiting: Waiting, loop: Loop | None, memory: Composite) -> ParkedCpu:
    """Return one of the CPUs that wait in the same way, as the engine takes it."""
    number = min(waiting.cpus)
    parked = Parked(number, waiting.state, None if loop is None else _park_loop(loop, waiting.state), "")
    return ParkedCpu(parked, ApContext(number, memory.resumer.cr3))


def _park_loop(loop: Loop, state: ParkState) -> ParkLoop:
    start = loop.pieces[0][0]
    return ParkLoop(
        kind="mwait" if state is ParkState.MWAIT else "port_io" if state is ParkState.PORT_IO else "hlt",
        symbol="",
        function_address=start,
        start=start,
        end=start + len(loop.pieces[0][1]),
        code=loop.pieces[0][1],
        instructions=(),
        touches=(),
        entry=start,
        wait=start,
        ranges=tuple((at, at + len(code)) for at, code in loop.pieces),
        patchable=loop.patchable,
    )
