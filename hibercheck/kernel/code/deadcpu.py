"""How a CPU that is taken offline dies: traits of the play_dead functions and of cpuidle's enter_dead."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from hibercheck.addresses import ADDRESS_MASK
from hibercheck.data import replace
from hibercheck.errors import MissingFact
from hibercheck.kernel.code import commits
from hibercheck.kernel.code.disasm import Decoded, Flow
from hibercheck.kernel.code.flaws import flaw
from hibercheck.kernel.code.graph import leading_to, reachable
from hibercheck.kernel.code.model import Evidence, ParkLoop, ParkRole, Trait, fixmap_address
from hibercheck.kernel.code.names import ENTER_DEAD, OTHER_PLAY_DEAD
from hibercheck.kernel.code.parkloops import LoopReader
from hibercheck.kernel.code.program import Function, Program
from hibercheck.kernel.code.resume import ResumeReader
from hibercheck.kernel.code.values import (
    absent,
    argument,
    calls_to,
    closure,
    low32,
    named,
    quote,
    quote_call,
    references,
)

# arch/x86/include/asm/processor.h: X86_VENDOR_*
_VENDORS = {
    0: "Intel",
    1: "Cyrix",
    2: "AMD",
    3: "UMC",
    5: "Centaur",
    7: "Transmeta",
    8: "NSC",
    9: "Hygon",
    10: "Zhaoxin",
}

_MAX_COMPARISON = 64
"""Instructions after a load of the vendor in which it is compared; six at most in kernels seen."""

_TASK = ("current_task", "pcpu_hot", "cpu_current_top_of_stack", "kernel_stack", "cpu_tss", "cpu_tss_rw")
"""Per-CPU objects that lead to the running task: its pointer, or (up to v4.8) its stack."""

FIXADDR_TOP = 0xFFFF_FFFF_FF7F_F000
"""Address of the fixmap's first page, from which the others go down: arch/x86/include/asm/fixmap.h."""
_FIXMAP_PAGES = 1024
_SET_FIXMAP = ("native_set_fixmap", "__native_set_fixmap")
_WITHHOLD = ("register_nosave_region",)


class DeadReader:
    """Reads how CPUs park.

    Args:
        program: The kernel's code.
        resume: What the resume hook installs.
    """

    def __init__(self, program: Program, resume: ResumeReader) -> None:
        self.program = program
        self.resume = resume

    @cached_property
    def _reader(self) -> LoopReader:
        return LoopReader(self.program)

    @cached_property
    def native(self) -> Function | None:
        """The play_dead of a running system."""
        return self.program.function(self.resume.native) if self.resume.native is not None else None

    @property
    def park_loops(self) -> tuple[ParkLoop, ...]:
        """Every loop a CPU can park in, with the role of the function that leads to it."""
        return (*self.loops("resume"), *self.loops("native"), *self.loops("cpuidle"))

    def loops(self, role: ParkRole) -> tuple[ParkLoop, ...]:
        """Return the loops that one of the functions that park a CPU leads to."""
        if role == "resume":
            return self._resume_loops
        return self._native_loops if role == "native" else self._cpuidle_loops

    @cached_property
    def _resume_loops(self) -> tuple[ParkLoop, ...]:
        replacement = self.resume.replacement
        return () if replacement is None else self._role("resume", self._reader.loops(replacement[0]))

    @cached_property
    def _native_loops(self) -> tuple[ParkLoop, ...]:
        return () if self.native is None else self._role("native", self._reader.loops(self.native.entry))

    @cached_property
    def _cpuidle_loops(self) -> tuple[ParkLoop, ...]:
        found: list[ParkLoop] = []
        for driver, name in ENTER_DEAD.items():
            symbol = self.program.find(name)
            if symbol is not None:
                found += self._role("cpuidle", self._reader.loops(symbol.address, ports=True), driver)
        return tuple(found)

    @staticmethod
    def _role(role: ParkRole, loops: Iterable[ParkLoop], driver: str | None = None) -> tuple[ParkLoop, ...]:
        return tuple(replace(loop, role=role, driver=driver) for loop in loops)

    # -- what happens in which order -------------------------------------------------------------------------------

    def order(self) -> Trait[tuple[str, ...]]:
        """In which order native_play_dead tries to park: mwait by CPUID's hint, cpuidle's enter_dead, HLT."""
        name = "play_dead_order"
        if self.native is None:
            return Trait(name, None, (absent("native_play_dead"),), reason="CPU hotplug is not built in, or not found")
        places = self._ways(self.native)
        if not places:
            return Trait(name, None, reason=f"{self.native.name} parks in no way that was recognised")
        function = self.native
        if "mwait" not in places and (doubt := self._doubt(function)) is not None:
            return Trait(name, None, reason=f"it cannot be excluded that it parks in MWAIT: {doubt}")
        if "cpuidle" not in places and (doubt := self._idle_doubt()) is not None:
            return Trait(name, None, reason=f"it cannot be excluded that cpuidle parks it: {doubt}")
        edges = self._reader.edges(function)
        # Each way either does not return or falls through to the next, so one that can be reached only
        # through another comes after it; of the rest, MWAIT is tried first (its conditions jump over it).
        depth = {
            way: sum(place not in reachable(edges, function.entry, {other}) for w, other in places.items() if w != way)
            for way, place in places.items()
        }
        rank = {"mwait": 0, "cpuidle": 1, "hlt": 2}
        ordered = tuple(sorted(places, key=lambda way: (depth[way], rank[way])))
        evidence = tuple(self._quote_way(function, places[way]) for way in ordered)
        commit = commits.CPUIDLE_FIRST if ordered[:1] == ("cpuidle",) else None
        return Trait(name, ordered, evidence, commit)

    def _doubt(self, function: Function) -> str | None:
        """Why a park function may have a loop that was not found in it, or None."""
        found = flaw(self.program, function)
        if found is None and self._mwait is None and self.program.find("mwait_cpu_dead") is not None:
            return "the kernel has a line to wait on, mwait_cpu_dead, and no loop that does"
        return f"{found}; is the file damaged?" if found is not None else None

    def _idle_doubt(self) -> str | None:
        """Why there may be a call of cpuidle_play_dead() that was not found: with CONFIG_CPU_IDLE there is one."""
        called = "cpuidle_play_dead"
        known = next((name for name in (called, *ENTER_DEAD.values()) if self.program.find(name)), None)
        return None if known is None else f"the kernel has {known}, and nothing was seen to call {called}"

    def _quote_way(self, function: Function, address: int) -> Evidence:
        if address in function.calls():
            return quote_call(self.program, function, address)
        return quote(function, function.nodes[address])

    def _ways(self, function: Function) -> dict[str, int]:
        """Where the function tries each way of parking."""
        places: dict[str, int] = {}
        own = {loop.wait: loop for loop in self.loops("native") if loop.function_address == function.entry}
        for wait, loop in own.items():
            if not loop.after_kick and loop.kind in ("mwait", "hlt") and wait in function.nodes:
                places.setdefault(loop.kind, wait)
        idle = calls_to(function, [self.program.address("cpuidle_play_dead")])
        if idle:
            places["cpuidle"] = idle[0]
        for loop in self.loops("native"):
            if len(loop.via) > 1 and not loop.after_kick:
                called = [at for at, to in function.calls().items() if self.program.name(to) == loop.via[1]]
                if called and loop.kind in ("mwait", "hlt"):
                    places.setdefault(loop.kind, min(called))
        return places

    def others(self) -> Trait[tuple[str, ...]]:
        """Which functions replace native_play_dead on machines of some kind; the resume hook replaces them in turn."""
        name = "other_play_dead"
        found = [
            (symbol, where) for one, where in OTHER_PLAY_DEAD.items() if (symbol := self.program.find(one)) is not None
        ]
        evidence = tuple(Evidence(symbol.name, symbol.address, where) for symbol, where in found)
        return Trait(name, tuple(symbol.name for symbol, _ in found), evidence)

    def enter_dead(self) -> Trait[tuple[str, ...]]:
        """How cpuidle drivers park a dead CPU: ``driver:kind``, for the drivers built into the kernel."""
        name = "enter_dead"
        functions = ENTER_DEAD.values()
        if not any(self.program.find(one) for one in functions):
            return Trait(name, (), tuple(map(absent, functions)), reason="a driver that is a module may have one")
        values, evidence = [], []
        for loop in self.loops("cpuidle"):
            if not loop.after_kick:
                values.append(f"{loop.driver}:{loop.kind}")
                note = " -> ".join(loop.via)
                evidence.append(Evidence(loop.symbol, loop.wait, f"{self._text(loop)}  # {note}"))
        commit = None
        if "intel_idle:mwait" in values:
            commit = commits.INTEL_ENTER_DEAD
        elif "acpi_idle:mwait" in values:
            commit = commits.ACPI_FFH_DEAD
        return Trait(name, tuple(values), tuple(evidence), commit)

    @staticmethod
    def _text(loop: ParkLoop) -> str:
        return next((one.text for one in loop.instructions if one.address == loop.wait), loop.kind)

    def resume_park(
        self,
        order: Trait[tuple[str, ...]],
        replaced: Trait[bool],
        sent: Trait[bool],
        place: Trait[tuple[str, ...]],
    ) -> Trait[str]:
        """Return what CPUs that the resumer takes offline itself end in; ``place`` is outside the kernel."""
        name = "resume_park"
        if sent.value:
            return Trait(name, "init", sent.evidence)
        if replaced.value is None or sent.value is None:
            return Trait(name, None, reason=replaced.reason or sent.reason)
        if not replaced.value:
            if not order.value:
                return Trait(name, None, reason=order.reason)
            return Trait(name, order.value[0], order.evidence[:1], reason="parked as on any CPU hotplug")
        kinds = {loop.kind: loop for loop in self.loops("resume") if not loop.after_kick}
        if not kinds and place.value:
            return Trait(name, "place", (*replaced.evidence, *place.evidence[:2]))
        if not kinds and place.value is None:
            return Trait(name, None, (*replaced.evidence, *place.evidence), reason=place.reason)
        if len(kinds) != 1:
            seen = " and ".join(sorted(kinds)) or "nothing recognised"
            return Trait(name, None, replaced.evidence, reason=f"the replacement ends in {seen}")
        kind, loop = next(iter(kinds.items()))
        if kind != "mwait" and (found := flaw(self.program, self.program.function(loop.function_address))) is not None:
            return Trait(name, None, replaced.evidence, reason=f"{found}; is the file damaged?")
        evidence = (*replaced.evidence, Evidence(loop.symbol, loop.wait, self._text(loop)))
        return Trait(name, kind, evidence, commits.RESUME_HLT)

    # -- the MWAIT loop --------------------------------------------------------------------------------------------

    @cached_property
    def _mwait(self) -> tuple[ParkLoop, Function] | None:
        loops = [loop for loop in self.park_loops if loop.kind == "mwait"]
        symbol = self.program.find("mwait_play_dead")
        if not loops and symbol is not None:  # reached only through a cpuidle driver that is a module
            loops = [loop for loop in self._reader.loops(symbol.address) if loop.kind == "mwait"]
        if not loops:
            return None
        return loops[0], self.program.function(loops[0].function_address)

    def vendor_check(self) -> Trait[tuple[str, ...]]:
        """CPU vendors for which the MWAIT way returns at once."""
        name = "mwait_vendor_check"
        if self._mwait is None:
            return Trait(name, None, reason="there is no MWAIT park loop")
        loop, function = self._mwait
        boot = self.program.address("boot_cpu_data")
        if boot is None:
            return Trait(name, None, (absent("boot_cpu_data"),), reason="the vendor's place is not known")
        found: dict[str, Evidence] = {}
        places, to_mwait = self._vendor_places(boot), leading_to(self._reader.edges(function), [loop.wait])
        for node in function:
            if any(one.address in places for one in node.operands):
                found |= self._vendors_skipped(function, node, to_mwait)
        commit = commits.NO_AMD_MWAIT if found else None
        evidence = tuple(found.values()) or (
            Evidence(function.name, function.entry, "does not look at the CPU vendor"),
        )
        return Trait(name, tuple(sorted(found)), evidence, commit)

    def _vendor_places(self, boot: int) -> frozenset[int]:
        try:
            return frozenset({boot + self.program.kernel.offset_of("cpuinfo_x86", "x86_vendor")})
        except MissingFact:
            # struct cpuinfo_x86 begins x86, x86_vendor up to v6.9 and x86_model, x86, x86_vendor since.
            return frozenset({boot + 1, boot + 2})

    def _vendors_skipped(self, function: Function, load: Decoded, to_mwait: set[int]) -> dict[str, Evidence]:
        """Vendors that a chain of comparisons after a load (or with memory) sends away from MWAIT."""
        found: dict[str, Evidence] = {}
        for compare in self._comparisons(function, load):
            branch = function.nodes.get(compare.end)
            if branch is None or branch.mnemonic not in ("je", "jne") or compare.immediate is None:
                continue
            equal = branch.target if branch.mnemonic == "je" else branch.end
            vendor = _VENDORS.get(low32(compare.immediate))
            if vendor and equal in function.nodes and equal not in to_mwait:
                found[vendor] = quote(function, compare, vendor)
        return found

    @staticmethod
    def _comparisons(function: Function, load: Decoded) -> list[Decoded]:
        """Return the comparison that ``load`` is, or those of the register it loads, down the not-equal path."""
        if load.mnemonic == "cmp":
            return [load]
        found: list[Decoded] = []
        node = function.nodes.get(load.end)
        for _ in range(_MAX_COMPARISON):
            if node is None:
                break
            if node.mnemonic == "cmp" and node.destination == load.destination:
                found.append(node)
            elif node.flow not in (Flow.NEXT, Flow.BRANCH) or load.destination in node.written:
                break
            node = function.nodes.get(node.end)
        return found

    def monitored(self) -> Trait[str]:
        """Return what MWAIT watches: a per-CPU line of its own, or the idle task's flags."""
        name = "monitored"
        if self._mwait is None:
            return Trait(name, None, reason="there is no MWAIT park loop")
        _, function = self._mwait
        line = self.program.find("mwait_cpu_dead")
        if line is not None:
            found = references(function, line.address, line.size or 8)
            if found:
                return Trait(name, "percpu:mwait_cpu_dead", (quote(function, found[0], line.name),), commits.OWN_LINE)
        for task in _TASK:
            symbol = self.program.find(task)
            found = references(function, symbol.address, symbol.size or 8) if symbol else []
            if found:
                return Trait(name, "thread_info.flags", (quote(function, found[0], task),), commits.OWN_LINE)
        fixed = sorted({place for node in function for place in _fixmap_addresses(node)})
        if len(fixed) == 1:
            node = next(node for node in function if fixed[0] in _fixmap_addresses(node))
            return Trait(name, f"fixmap:{fixed[0]:#x}", (quote(function, node, "a page of the fixmap"),))
        return Trait(name, None, reason=f"the address that {function.name} gives to MONITOR was not recognised")

    def monitored_frame(self, monitored: Trait[str]) -> Trait[tuple[int, ...]]:
        """Find the frame that the kernel puts behind the page of the fixmap that MWAIT monitors, which is what counts.

        Empty where it monitors no such page.
        """
        name = "monitored_frame"
        place = fixmap_address(monitored.value)
        if place is None:
            return Trait(name, (), monitored.evidence)
        setters = [self.program.address(one) for one in _SET_FIXMAP]
        index = FIXADDR_TOP - place >> 12
        for function in closure(self.program, [self.program.address("setup_arch")], setters, 1):
            for call in calls_to(function, setters):
                if argument(function, call, "rdi") == index and (frame := argument(function, call, "rsi")) is not None:
                    return Trait(name, (frame >> 12,), (quote_call(self.program, function, call),))
        return Trait(name, None, reason="setup_arch was not seen to map that page")

    def line_withheld(self, frames: Trait[tuple[int, ...]]) -> Trait[bool]:
        """Whether the kernel keeps that frame from images, by register_nosave_region().

        What an image of another kernel has for such a frame goes straight there as it is loaded, before anything is
        parked, and not with the copy: get_buffer() of kernel/power/snapshot.c finds it both forbidden and wanted.
        """
        name = "line_withheld"
        if not frames.value:
            return Trait(name, None if frames.value is None else False, frames.evidence, reason=frames.reason)
        withholds = [self.program.address(one) for one in _WITHHOLD]
        for function in closure(self.program, [self.program.address("setup_arch") or 0], withholds, 1):
            for call in calls_to(function, withholds):
                first, end = (argument(function, call, register) for register in ("rdi", "rsi"))
                if first is not None and end is not None and all(first <= frame < end for frame in frames.value):
                    return Trait(name, True, (quote_call(self.program, function, call),))
        return Trait(name, False, (absent("register_nosave_region", "setup_arch was not seen to call it for that"),))

    @staticmethod
    def _of_the_line(function: Function, compare: Decoded, line: str | None) -> bool:
        """Whether a comparison is of the monitored line: in memory, or in a register just loaded from it."""
        if any(one.base == line for one in compare.operands):
            return True
        load = next((node for node in function if node.end == compare.address), None)
        loaded = load is not None and load.mnemonic == "mov" and load.destination == compare.destination
        return load is not None and loaded and any(one.base == line for one in load.operands)

    def kick_value(self) -> Trait[int]:
        """Return the word that, found in the monitored line, sends the CPU from MWAIT to HLT."""
        name = "kick_value"
        if self._mwait is None:
            return Trait(name, None, reason="there is no MWAIT park loop")
        loop, function = self._mwait
        inside = {one.address for one in loop.instructions}
        for node in function:
            if node.address in inside and node.mnemonic == "cmp" and node.immediate is not None:
                branch = function.nodes.get(node.end)
                leaves = branch is not None and any(to not in inside for to in function.successors[branch.address])
                if leaves and self._of_the_line(function, node, loop.line):
                    return Trait(name, low32(node.immediate), (quote(function, node),))
        return Trait(name, None, reason="the loop compares the line with nothing: no word leads out of MWAIT")


def _fixmap_addresses(node: Decoded) -> set[int]:
    """Pages of the fixmap that an instruction names: as an address, or as what it adds or takes away."""
    values = set(named(node))
    if node.mnemonic == "sub" and node.immediate is not None:
        values.add(-node.immediate & ADDRESS_MASK)
    return {value & -4096 for value in values if FIXADDR_TOP - (_FIXMAP_PAGES << 12) < value < FIXADDR_TOP + 4096}
