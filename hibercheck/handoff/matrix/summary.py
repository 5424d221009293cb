"""What of a kernel a pair is judged by: its summary, some ten kilobytes of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b

from hibercheck.addresses import PAGE_SIZE
from hibercheck.data import replace
from hibercheck.errors import HibercheckError, MissingFact
from hibercheck.kernel.code.model import ParkLoop, Patch
from hibercheck.kernel.code.traits import DECLARED, Traits, read_traits
from hibercheck.kernel.kernel import Kernel
from hibercheck.x86.cpu import ParkState

TABLES = ("init_top_pgt", "level4_kernel_pgt", "level3_kernel_pgt", "level2_kernel_pgt")
"""The page tables of a kernel's own image."""

MARKS = ("hib_comp_algo", "init_s4_sigcheck", "level4_kernel_pgt")
"""Symbols that say something by being there."""

ASKED_OF_RESUMEE = (
    *("builtin_cmdline", "builtin_cmdline_overrides", "compressors", "arch_record_magic", "hw_sig", "zero_pages"),
    *("parallel_bringup", "parallel_switch", "nosmt_resume_targets", "idle_drivers", "la57", "randomize_base"),
    *("park_announcement", "takes_parked_over", "one_cpu"),
)
"""The traits of a resumee that a scenario is made of; of a resumer it may be any."""

LARGE_PAGE = 1 << 21


@dataclass(frozen=True, slots=True)
class Loop:
    """Code in which CPUs wait: ranges with their bytes, and what of them may be rewritten."""

    pieces: tuple[tuple[int, bytes], ...]
    patchable: tuple[Patch, ...]


@dataclass(frozen=True, slots=True)
class Waiting:
    """CPUs that wait in the same way.

    Attributes:
        cpus: Their numbers.
        state: Their park state.
        loop: Index into `Summary.loops`, or None where they execute none.
        interrupts: Whether they wait with interrupts on.
        unsettled: What is missing, where the state is not known.
    """

    cpus: frozenset[int]
    state: ParkState
    loop: int | None
    interrupts: bool
    unsettled: str | None


@dataclass(frozen=True, slots=True)
class Summary:
    """One kernel.

    Attributes:
        path: As the user named it.
        release: Its release.
        build_id: Its build id, or None.
        traits: What its code does, without evidence.
        kind: The same as a key: of two kernels with one key every scenario of a resumer is the same.
        kind_as_resumee: The same for scenarios of a resumee.
        marks: Those of `MARKS` that it has.
        text: Link address of its first byte.
        end: Link address after its last.
        tables: Link addresses of `TABLES`; None where there is none.
        loops: The loops that CPUs wait in, in the order of `Traits.park_loops`.
        pages: The pages of its text that hold park loops, by link address.
        checks: Whether it enables machine checks.
    """

    path: str
    release: str
    build_id: str | None
    traits: Traits = field(compare=False, repr=False)
    kind: str
    kind_as_resumee: str
    marks: frozenset[str]
    text: int
    end: int
    tables: tuple[int | None, ...]
    loops: tuple[Loop, ...]
    pages: dict[int, bytes]
    checks: bool

    @property
    def size(self) -> int:
        """Bytes of its image in memory."""
        return self.end - self.text

    def mapped(self, address: int) -> bool:
        """Tell whether its own page tables map a link address, in 2 MiB pages."""
        return self.text & -LARGE_PAGE <= address < self.end

    def holds(self, start: int, end: int) -> bool:
        """Tell whether its image covers link addresses."""
        return self.text <= start and end <= self.end


def summary_of(kernel: Kernel, traits: Traits | None = None) -> Summary:
    """Shorten a kernel, or its facts; ``traits`` are its own, if they have been read already.

    Raises:
        MissingFact: It lacks the symbols without which nothing can be said.
    """
    traits = traits or read_traits(kernel)
    symbols = kernel.symbols([*TABLES, *MARKS, "_text", "_end", "asm_exc_machine_check"])
    for name in ("_text", "_end", "init_top_pgt"):
        if name not in symbols:
            raise MissingFact(f"has no symbol {name}", path=kernel.path, advice="give a kernel with symbols")
    marks = frozenset(name for name in MARKS if name in symbols)
    return Summary(
        path=kernel.path,
        release=kernel.release,
        build_id=kernel.build_id,
        traits=_kept(traits),
        kind=_key(
            traits, (one.name for one in DECLARED), marks, *map(_role, traits.park_loops), symbols["_text"].address
        ),
        kind_as_resumee=_key(traits, ASKED_OF_RESUMEE, marks & {"level4_kernel_pgt"}),
        marks=marks,
        text=symbols["_text"].address,
        end=symbols["_end"].address,
        tables=tuple(symbols[name].address if name in symbols else None for name in TABLES),
        loops=tuple(_loop(kernel, one) for one in traits.park_loops),
        pages=_pages(kernel, traits.park_loops),
        checks="asm_exc_machine_check" in symbols,
    )


def _kept(traits: Traits) -> Traits:
    """Return traits without evidence, and loops without instructions."""
    known = {one.name: replace(getattr(traits, one.name), evidence=()) for one in DECLARED}
    loops = tuple(replace(one, instructions=(), touches=()) for one in traits.park_loops)
    return Traits(None, known, loops)


def _key(traits: Traits, names: Iterable[str], *more: object) -> str:
    """Return a digest of traits; of one that is not known the reason is told, and so counts."""
    wanted = set(names)
    values = []
    for declared in DECLARED:
        if declared.name in wanted:
            one = getattr(traits, declared.name)
            value = declared.distinguishing(one.value)
            values.append((_ordered(value), one.reason if one.value is None else None))
    return blake2b(repr((values, [_ordered(one) for one in more])).encode(), digest_size=16).hexdigest()


def _ordered(value: object) -> object:
    return sorted(value) if isinstance(value, frozenset) else value


def _role(loop: ParkLoop) -> tuple[object, ...]:
    return loop.role, loop.kind, loop.driver, loop.interrupts, loop.after_kick


def _loop(kernel: Kernel, loop: ParkLoop) -> Loop:
    pieces = tuple((start, kernel.read(start, end - start)) for start, end in loop.ranges)
    return Loop(pieces, loop.patchable)


def _pages(kernel: Kernel, loops: Iterable[ParkLoop]) -> dict[int, bytes]:
    """Read every page that holds a park loop: code that is the same as another kernel's loop lies in none but these."""
    spans = [span for loop in loops for span in loop.ranges]
    starts = {page for start, end in spans for page in range(start & -PAGE_SIZE, end, PAGE_SIZE)}
    found = {}
    for page in sorted(starts):
        try:
            found[page] = kernel.read(page, PAGE_SIZE)
        except HibercheckError:
            continue
    return found
