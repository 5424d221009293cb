"""A kernel in brief: what a pair of kernels is judged by, some ten kilobytes of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hibercheck.addresses import PAGE_SIZE
from hibercheck.errors import HibercheckError, MissingFact
from hibercheck.handoff.bringup import Bringup, rescued_cpus
from hibercheck.handoff.matrix.scenario import Scenario, Settings, reinitialised_cpus, resumer_cpus
from hibercheck.handoff.park import Parked, ParkRules, idle_of_resumer, park_all
from hibercheck.kernel.code.model import ParkLoop, Patch
from hibercheck.kernel.code.traits import Traits, read_traits
from hibercheck.kernel.kernel import Kernel
from hibercheck.x86.cpu import ParkState

TABLES = ("init_top_pgt", "level4_kernel_pgt", "level3_kernel_pgt", "level2_kernel_pgt")
"""The page tables of a kernel's own image."""


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
        loop: Index into `Brief.loops`, or None where they execute none.
        interrupts: Whether they wait with interrupts on.
        unsettled: What is missing, where the state is not known.
    """

    cpus: frozenset[int]
    state: ParkState
    loop: int | None
    interrupts: bool
    unsettled: str | None


@dataclass(frozen=True, slots=True)
class Run:
    """A kernel in one scenario.

    Attributes:
        waiting: How it parks CPUs as a resumer.
        missing: Why that cannot be said, or None.
        refuses: The parameter with which it resumes nothing, or None.
        resumer_kaslr: Whether its place is random as a resumer.
        resumee_kaslr: Whether it is as a resumee.
        resumer_levels: Levels of its page tables as a resumer; None where not known.
        resumee_levels: The same as a resumee.
        reinitialised: The CPUs that it sends an INIT as a resumee.
    """

    waiting: tuple[Waiting, ...]
    missing: str | None
    refuses: str | None
    resumer_kaslr: bool
    resumee_kaslr: bool
    resumer_levels: int | None
    resumee_levels: int | None
    reinitialised: frozenset[int]


@dataclass(frozen=True, slots=True)
class Brief:
    """One kernel.

    Attributes:
        path: As the user named it.
        release: Its release.
        build_id: Its build id, or None.
        magic: Of the arch record that it writes and accepts.
        compressors: What it decompresses.
        zero_pages: Whether it writes and knows the zero-page flag.
        text: Link address of its first byte.
        end: Link address after its last.
        tables: Link addresses of `TABLES`; None where there is none.
        loops: The loops of all its runs.
        pages: The pages of its text that hold park loops, by link address.
        checks: Whether it enables machine checks.
        runs: One for each scenario.
    """

    path: str
    release: str
    build_id: str | None
    magic: int | None
    compressors: tuple[str, ...] | None
    zero_pages: bool | None
    text: int
    end: int
    tables: tuple[int | None, ...]
    loops: tuple[Loop, ...]
    pages: dict[int, bytes]
    checks: bool
    runs: tuple[Run, ...]

    @property
    def size(self) -> int:
        """Bytes of its image in memory."""
        return self.end - self.text

    def holds(self, start: int, end: int) -> bool:
        """Tell whether its image covers link addresses."""
        return self.text <= start and end <= self.end


def brief_of(kernel: Kernel, settings: Settings, traits: Traits | None = None) -> Brief:
    """Shorten a kernel, or its facts; ``traits`` are its own, if they have been read already.

    Raises:
        MissingFact: It lacks the symbols without which nothing can be said.
    """
    traits = traits or read_traits(kernel)
    symbols = kernel.symbols([*TABLES, "_text", "_end", "asm_exc_machine_check"])
    for name in ("_text", "_end", "init_top_pgt"):
        if name not in symbols:
            raise MissingFact(f"has no symbol {name}", path=kernel.path, advice="give a kernel with symbols")
    loops: dict[Loop, int] = {}
    runs = tuple(_run(kernel, traits, scenario, settings, loops) for scenario in settings.scenarios)
    return Brief(
        path=kernel.path,
        release=kernel.release,
        build_id=kernel.build_id,
        magic=traits.arch_record_magic.value,
        compressors=traits.compressors.value,
        zero_pages=traits.zero_pages.value,
        text=symbols["_text"].address,
        end=symbols["_end"].address,
        tables=tuple(symbols[name].address if name in symbols else None for name in TABLES),
        loops=tuple(loops),
        pages=_pages(kernel, traits.park_loops),
        checks="asm_exc_machine_check" in symbols,
        runs=runs,
    )


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


def _run(kernel: Kernel, traits: Traits, scenario: Scenario, settings: Settings, loops: dict[Loop, int]) -> Run:
    machine = settings.machine
    waiting: tuple[Waiting, ...] = ()
    missing = None
    try:
        bringup = resumer_cpus(scenario, machine)
        rescued = _rescued(bringup, traits, settings)
        idle = idle_of_resumer(scenario.idle, scenario.resumer, None, traits)
        parked = park_all(ParkRules(traits, machine.features, idle), bringup, rescued)
        waiting = _grouped(kernel, parked, loops)
    except MissingFact as error:
        missing = error.message
    random = traits.randomize_base.value is not False
    return Run(
        waiting=waiting,
        missing=missing,
        refuses=scenario.resumer.no_hibernation,
        resumer_kaslr=scenario.resumer.kaslr and random,
        resumee_kaslr=scenario.resumee.kaslr and random,
        resumer_levels=_levels(traits, la57=scenario.resumer.la57 and machine.la57),
        resumee_levels=_levels(traits, la57=scenario.resumee.la57 and machine.la57),
        reinitialised=reinitialised_cpus(scenario, machine, reparks=bool(traits.reparks_siblings_after_resume.value)),
    )


def _rescued(bringup: Bringup, traits: Traits, settings: Settings) -> frozenset[int]:
    """As plan.make_plan() does it.

    Raises:
        MissingFact: CPUs are offline, and whether they are rescued cannot be read.
    """
    if bringup.present == bringup.online:
        return frozenset()
    rescues, needs = traits.rescues_offline, traits.rescue_needs_primary
    if rescues.value is None or (rescues.value and needs.value is None):
        raise MissingFact("which offline CPUs the resumer rescues cannot be read")
    topology = settings.machine.topology
    return rescued_cpus(bringup, topology, rescues=rescues.value, needs_primary=bool(needs.value))


def _levels(traits: Traits, *, la57: bool) -> int | None:
    if not la57:
        return 4
    return None if traits.la57.value is None else 5 if traits.la57.value else 4


def _grouped(kernel: Kernel, parked: tuple[Parked, ...], loops: dict[Loop, int]) -> tuple[Waiting, ...]:
    """Put CPUs together that wait in the same way."""
    groups: dict[tuple[ParkState, int | None, bool, str | None], set[int]] = {}
    for one in parked:
        index = None
        if one.loop is not None:
            pieces = tuple((start, kernel.read(start, end - start)) for start, end in one.loop.ranges)
            index = loops.setdefault(Loop(pieces, one.loop.patchable), len(loops))
        unsettled = one.unsettled.fact if one.unsettled else None
        key = (one.state, index, bool(one.loop and one.loop.interrupts), unsettled)
        groups.setdefault(key, set()).add(one.cpu)
    return tuple(Waiting(frozenset(cpus), *key) for key, cpus in groups.items())
