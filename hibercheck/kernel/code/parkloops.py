"""Park loops: which instructions a dead CPU executes again and again, and what they touch.

A CPU that HLT or MWAIT releases does not return to anything: it goes once round the cycle of the control-flow graph
that holds the waiting instruction.  That cycle, computed on the binary, is exactly what must still be in memory after
the image has been copied.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from hibercheck.data import dataclass, replace
from hibercheck.errors import MalformedKernel, MissingFact
from hibercheck.kernel.code.disasm import Decoded, Flow, Operand
from hibercheck.kernel.code.graph import cycle_through, leading_to, reachable, runs
from hibercheck.kernel.code.model import ParkKind, ParkLoop, Touch, TouchAccess, TouchKind
from hibercheck.kernel.code.program import Function, Program
from hibercheck.kernel.code.tables import PatchSites

_WAITS: dict[str, ParkKind] = {"hlt": "hlt", "mwait": "mwait", "mwaitx": "mwait", "in": "port_io"}
_MAX_DEPTH = 4
"""Calls followed below a park function; the deepest seen is two (acpi_idle, acpi_processor_ffh_play_dead)."""

_MAX_WAITS = 64
"""Waiting instructions in one function; no kernel has more than three."""

_MAX_WAIT_DEPTH = 2
"""Calls followed when asking whether a function waits."""


@dataclass(frozen=True, slots=True)
class _Body:
    """The instructions of a loop, with those of the functions it calls."""

    nodes: dict[int, Decoded]
    incomplete: str | None


class LoopReader:
    """Finds the park loops of a kernel.

    Args:
        program: The kernel's code.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._patches = PatchSites(program.kernel, program.known, program.labels)
        self._kinds: dict[int, frozenset[ParkKind]] = {}
        self._returning: dict[int, bool] = {}
        self._cpu_number = self._cpu_number_places()

    def loops(self, root: int, *, ports: bool = False) -> tuple[ParkLoop, ...]:
        """Every park loop that the function at ``root`` can end in, following its calls.

        Args:
            root: Address of a ``play_dead`` or ``enter_dead`` function.
            ports: Whether reading an I/O port is a way of waiting there (cpuidle's SYSTEMIO states).
        """
        found: dict[tuple[int, str], ParkLoop] = {}
        self._visit(root, (), ports, found)
        return tuple(found[key] for key in sorted(found))

    def _visit(self, entry: int, via: tuple[str, ...], ports: bool, found: dict[tuple[int, str], ParkLoop]) -> None:
        function = self._program.function(entry)
        if function.name in via or len(via) >= _MAX_DEPTH:
            return
        edges = self.edges(function)
        live = self._live(function, edges)
        path = (*via, function.name)
        mine = dict(self._own_loops(function, edges, live, ports))
        inside = {one.address for loop in mine.values() for one in loop.instructions}
        for at, loop in mine.items():
            others = {other for other, its in mine.items() if its.kind != loop.kind}
            kicked = bool(others) and at not in self._live(function, edges, others)
            found.setdefault((loop.wait, loop.kind), replace(loop, via=path, after_kick=kicked))
        for address, target in sorted(function.calls().items()):
            if address in live and address not in inside and self._waits(target, ports):
                self._visit(target, path, ports, found)

    # -- one function ---------------------------------------------------------------------------------------------

    def _own_loops(
        self, function: Function, edges: dict[int, tuple[int, ...]], live: set[int], ports: bool
    ) -> Iterator[tuple[int, ParkLoop]]:
        """Loops whose cycle is in this function, by the instruction they wait in (or that calls what waits)."""
        waits = {a: kinds for a in sorted(live) if (kinds := self._kinds_at(function, a, ports))}
        if len(waits) > _MAX_WAITS:
            raise MalformedKernel(
                f"{function.name} waits in {len(waits)} places, which no play_dead does", path=self._program.kernel.path
            )
        for kind in sorted(frozenset().union(*waits.values())):
            others = {a for a, k in waits.items() if kind not in k}
            bodies = self._bodies(function, edges, [a for a, k in waits.items() if kind in k], others)
            for address, body in bodies.items():
                yield address, self._loop(function, edges, body, kind, address)

    def _bodies(
        self, function: Function, edges: dict[int, tuple[int, ...]], waits: list[int], others: set[int]
    ) -> dict[int, set[int]]:
        """Return what a CPU executes from each place where it waits in one way: its cycle, once for all waits on it.

        LLVM copies the first turn of a loop before it.  A CPU waits in that copy first, and what it executes when it
        wakes is the rest of the copy and then the cycle.
        """
        cycles = {wait: cycle_through(edges, wait, avoid=others) for wait in waits}
        turning = [wait for wait in waits if cycles[wait]]
        bodies: dict[int, set[int]] = {}
        for wait in (one for one in waits if not cycles[one]):
            after = reachable(edges, wait, others)
            loops = [one for one in turning if one in after]
            if loops:
                bodies[wait] = after & leading_to(edges, loops) | set().union(*(cycles[one] for one in loops))
        straight = self._live(function, edges, {*bodies})
        covered = {wait for wait in turning if wait not in straight and any(wait in body for body in bodies.values())}
        for wait in turning:
            if wait not in covered:
                covered |= cycles[wait]
                bodies[wait] = cycles[wait]
        return dict(sorted(bodies.items()))

    def _kinds_at(self, function: Function, address: int, ports: bool) -> frozenset[ParkKind]:
        """How the CPU waits at an instruction: itself, or in a function that it calls."""
        node = function.nodes[address]
        own = _WAITS.get(node.mnemonic)
        if own is not None and (own != "port_io" or ports):
            return frozenset({own})
        target = self._callee(node)
        return self._waits(target, ports) if target is not None else frozenset()

    def _waits(self, entry: int, ports: bool, depth: int = 0) -> frozenset[ParkKind]:
        """Return the ways of waiting in a function and in what it calls."""
        if self._program.is_thunk(entry) or self._program.is_noise(entry) or depth > _MAX_WAIT_DEPTH:
            return frozenset()
        if entry not in self._kinds:
            self._kinds[entry] = frozenset()  # recursion ends here
            function = self._program.function(entry)
            kinds = {kind for node in function if (kind := _WAITS.get(node.mnemonic))}
            for target in function.calls().values():
                kinds |= self._waits(target, True, depth + 1)
            self._kinds[entry] = frozenset(kinds)
        return self._kinds[entry] if ports else self._kinds[entry] - {"port_io"}

    def _callee(self, node: Decoded) -> int | None:
        """Where a call goes: directly, or through a pointer that the file initialises (paravirt operations)."""
        if node.flow is Flow.CALL:
            return node.target
        if node.flow is Flow.INDIRECT_CALL:
            slots = [one.address for one in node.operands if one.address is not None]
            pointer = self._program.pointer(slots[0]) if slots else None
            return pointer if pointer is not None and pointer >> 31 == (1 << 33) - 1 else None
        return None

    # -- CPU 0 only ------------------------------------------------------------------------------------------------

    def _cpu_number_places(self) -> frozenset[int]:
        """GS-relative addresses of the CPU's number: ``cpu_number``, or ``pcpu_hot.cpu_number`` (6.2 to 6.14)."""
        places = {a for a in (self._program.address("cpu_number"),) if a is not None}
        hot = self._program.address("pcpu_hot")
        if hot is not None:
            try:
                places.add(hot + self._program.kernel.offset_of("pcpu_hot", "cpu_number"))
            except MissingFact:
                places.add(hot + 12)  # struct pcpu_hot: current_task 0, preempt_count 8, cpu_number 12, since v6.2
        return frozenset(places)

    def edges(self, function: Function) -> dict[int, tuple[int, ...]]:
        """Return a function's edges as a CPU other than CPU 0 takes them.

        Left out are what only CPU 0 does (``if (!smp_processor_id() && enable_start_cpu0) start_cpu0()``) and what
        follows calls that do not come back, which is some other path's code.
        """
        edges = dict(function.successors)
        by_end = {node.end: node for node in function}
        for node in function:
            if node.flow is Flow.BRANCH and node.mnemonic in ("je", "jne") and self._tests_cpu0(node, by_end):
                taken = node.target if node.mnemonic == "jne" else node.end
                edges[node.address] = tuple(target for target in edges[node.address] if target == taken)
            elif node.flow is Flow.CALL and node.target is not None and not self._comes_back(node.target):
                edges[node.address] = ()
        return edges

    @staticmethod
    def _live(function: Function, edges: dict[int, tuple[int, ...]], avoid: Collection[int] = ()) -> set[int]:
        """Instructions that the function's entry reaches; none if not even the entry could be read."""
        return reachable(edges, function.entry, avoid) if function.entry in function.nodes else set()

    def _comes_back(self, entry: int) -> bool:
        """Whether a call returns: not from a function that only waits, and not from a sanitizer's complaint."""
        if self._program.is_complaint(entry):
            return False
        if not self._waits(entry, True):  # only park functions matter here; reading every callee would not end
            return True
        if entry not in self._returning:
            self._returning[entry] = True  # a recursive call is taken to return
            function = self._program.function(entry)
            live = self._live(function, self.edges(function))
            leaves = (Flow.RETURN, Flow.INDIRECT_JUMP)
            self._returning[entry] = any(function.nodes[one].flow in leaves or one in function.tails for one in live)
        return self._returning[entry]

    def _tests_cpu0(self, branch: Decoded, by_end: dict[int, Decoded]) -> bool:
        """Whether the instructions before a branch compare the CPU's number with zero."""
        test = by_end.get(branch.address)
        if test is None or test.mnemonic not in ("test", "cmp"):
            return False
        if test.mnemonic == "cmp" and test.immediate != 0:
            return False
        if any(one.gs and one.address in self._cpu_number for one in test.operands):
            return True
        load = by_end.get(test.address)
        return (
            load is not None
            and load.mnemonic == "mov"
            and load.destination == (test.destination or test.source)
            and any(one.gs and one.address in self._cpu_number for one in load.operands)
        )

    # -- one loop --------------------------------------------------------------------------------------------------

    def _loop(
        self, function: Function, edges: dict[int, tuple[int, ...]], cycle: set[int], kind: ParkKind, wait: int
    ) -> ParkLoop:
        own = {address: function.nodes[address] for address in cycle}
        body = self._with_callees(own)
        waiting = self._waiting(own, body, kind, wait)
        ranges = runs([(node.address, node.end) for node in body.nodes.values()])
        start, end = next(one for one in ranges if one[0] <= wait < one[1])
        line = self._line_register(body.nodes) if kind == "mwait" else None
        ordered = [body.nodes[address] for address in sorted(body.nodes)]
        return ParkLoop(
            kind=kind,
            symbol=function.name,
            function_address=function.entry,
            start=start,
            end=end,
            code=self._program.kernel.read(start, end - start),
            instructions=tuple(node.render() for node in ordered),
            touches=tuple(self._touches(ordered, ranges, line)),
            entry=self._entry(function, edges, cycle),
            wait=waiting,
            ranges=ranges,
            patchable=self._patches.within(ordered, ranges),
            interrupts=kind == "hlt" and any(node.mnemonic == "sti" for node in ordered),
            line=line,
            incomplete=body.incomplete,
        )

    def _waiting(self, own: dict[int, Decoded], body: _Body, kind: ParkKind, wait: int) -> int:
        """Return the waiting instruction itself, which may be in a called function."""
        if _WAITS.get(own[wait].mnemonic) == kind:
            return wait
        inner = [a for a, node in sorted(body.nodes.items()) if _WAITS.get(node.mnemonic) == kind]
        return inner[0] if inner else wait

    @staticmethod
    def _entry(function: Function, edges: dict[int, tuple[int, ...]], cycle: set[int]) -> int:
        """Return the first instruction of the cycle that a path from the function's entry meets."""
        live = reachable(edges, function.entry, avoid=cycle) if function.entry not in cycle else set()
        heads = [target for node in live for target in edges.get(node, ()) if target in cycle]
        return min(heads, default=min(cycle))

    def _with_callees(self, own: dict[int, Decoded]) -> _Body:
        """Add the bodies of the functions that the cycle calls."""
        nodes = dict(own)
        incomplete = None
        pending = [(node, 0) for node in own.values()]
        seen: set[int] = set()
        while pending:
            node, depth = pending.pop()
            target = self._callee(node) or self._tail(node, nodes)
            if node.flow in (Flow.INDIRECT_CALL, Flow.INDIRECT_JUMP) and target is None:
                incomplete = f"{node.flow} at {node.address:#x}"
            if target is None or target in seen or self._program.is_thunk(target):
                continue
            if depth >= _MAX_DEPTH:
                incomplete = f"calls nest deeper than {_MAX_DEPTH} at {node.address:#x}"
                continue
            seen.add(target)
            callee = self._program.function(target)
            added = self._live_nodes(callee)
            incomplete = incomplete or callee.truncated
            nodes.update(added)
            pending.extend((one, depth + 1) for one in added.values())
        return _Body(nodes, incomplete)

    def _tail(self, node: Decoded, nodes: dict[int, Decoded]) -> int | None:
        """Where a jump out of a called function goes (a tail call)."""
        if node.flow is Flow.JUMP and node.target is not None and node.target not in nodes:
            return node.target
        return None

    def _live_nodes(self, function: Function) -> dict[int, Decoded]:
        live = self._live(function, self.edges(function))
        return {address: function.nodes[address] for address in live}

    @staticmethod
    def _line_register(nodes: dict[int, Decoded]) -> str | None:
        """Return the register that keeps the monitored address: what is copied to RAX before MONITOR, or RAX itself."""
        by_end = {node.end: node for node in nodes.values()}
        for node in nodes.values():
            if node.mnemonic in ("monitor", "monitorx"):
                before: Decoded | None = by_end.get(node.address)
                while before is not None and "rax" not in before.written:
                    before = by_end.get(before.address)
                copied = before is not None and before.mnemonic == "mov" and not before.operands
                return before.source if before is not None and copied else "rax"
        return None

    # -- touches ---------------------------------------------------------------------------------------------------

    def _touches(
        self, ordered: list[Decoded], ranges: tuple[tuple[int, int], ...], line: str | None
    ) -> Iterator[Touch]:
        for start, end in ranges:
            yield Touch("text", "fetch", start, self._program.name(start), None, 0, end - start, start)
        for node in ordered:
            for operand in node.operands:
                yield from self._touch(node, operand, line)
            if node.mnemonic in ("monitor", "monitorx"):  # iced-x86 does not list the line that MONITOR loads
                yield Touch("line", "read", None, None, line, 0, 64, node.address)
            if node.flow is Flow.JUMP and node.target is not None and self._program.is_thunk(node.target):
                # In memory this may be a plain RET; where the CPU needs the thunk, its text is fetched as well.
                yield Touch("text", "fetch", node.target, self._program.name(node.target), None, 0, 1, node.address)
            if node.mnemonic == "in":
                yield Touch("io", "read", node.immediate, None, "rdx", 0, 1, node.address)

    def _touch(self, node: Decoded, operand: Operand, line: str | None) -> Iterator[Touch]:
        kind = self._kind_of(node, operand, line)
        accesses: tuple[TouchAccess, ...] = ("read", "write")
        symbol = None
        if operand.address is not None:
            symbol = self._program.name(operand.address)
        for access in accesses:
            if access in operand.access.split("+"):
                yield Touch(
                    kind,
                    access,
                    operand.address,
                    symbol,
                    operand.base,
                    operand.displacement if operand.address is None else 0,
                    64 if kind == "line" and node.mnemonic.startswith("clflush") else operand.size,
                    node.address,
                )

    @staticmethod
    def _kind_of(node: Decoded, operand: Operand, line: str | None) -> TouchKind:
        if operand.gs:
            return "percpu"
        if operand.base == "rsp" or node.mnemonic == "leave":
            return "stack"
        if line is not None and operand.base == line:
            return "line"
        if node.mnemonic == "verw":
            return "rodata"
        return "data"
