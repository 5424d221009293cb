"""A kernel's functions as control-flow graphs, read on demand and by following the code.

A function is what its entry reaches: the symbol's size, where there is one, only says where a jump leaves it.  That
copes with kallsyms (no sizes), with ``.cold`` parts (reached by jumps), with ``static_cpu_has()`` sequences kept in
``.altinstr_aux`` and with padding, whatever the compiler.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property

from hibercheck.addresses import PAGE_SIZE
from hibercheck.data import dataclass
from hibercheck.errors import MissingFact
from hibercheck.kernel.code import names, tables
from hibercheck.kernel.code.disasm import MAX_INSTRUCTION, Decoded, Flow, decode
from hibercheck.kernel.view import CodeView, SymbolView

MAX_FUNCTION = 8192
"""Instructions after which a function is given up as not being one; the largest here has under a thousand."""

MAX_INSTRUCTIONS = 1 << 17
"""Instructions read of one kernel in all: seconds of work.  Real kernels take two or three thousand."""

_MAX_PAGES = 256
"""Pages of code kept: more than the functions read of a real kernel are spread over."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function's control-flow graph, one node per instruction.

    Attributes:
        name: The symbol at its entry.
        entry: Its address.
        nodes: Every instruction reached, by address.
        successors: Where each can go inside the function; jump labels go both ways.
        tails: For each instruction that leaves by a jump, the function it goes to.
        truncated: Why the graph may be incomplete, or None.
    """

    name: str
    entry: int
    nodes: Mapping[int, Decoded]
    successors: Mapping[int, tuple[int, ...]]
    tails: Mapping[int, int]
    truncated: str | None = None

    def __iter__(self) -> Iterator[Decoded]:
        """Instructions in address order."""
        return (self.nodes[address] for address in sorted(self.nodes))

    def calls(self) -> dict[int, int]:
        """Direct calls and tail jumps: address of the instruction to address called."""
        direct = {one.address: one.target for one in self if one.flow is Flow.CALL and one.target is not None}
        return direct | dict(self.tails)


class Program:
    """Reads functions of one kernel.

    Args:
        kernel: Where bytes and symbols come from.
        wanted: The names that will be asked for.  Another one costs a pass over the symbols of its own; which were
            asked for so is in ``undeclared``.
    """

    def __init__(self, kernel: CodeView, wanted: names.Wanted | None = None) -> None:
        self.kernel = kernel
        self.undeclared: dict[str, SymbolView | None] = {}
        self._wanted = wanted or names.Wanted()
        self._functions: dict[int, Function] = {}
        self._named: dict[int, str] = {}
        self._read = 0
        self._pages: dict[int, bytes] = {}

    @property
    def recovered(self) -> bool:
        """Whether the kernel's data symbols are those that its code shows: absence of one then means nothing."""
        return bool(getattr(self.kernel, "supplemented", False))

    @cached_property
    def known(self) -> Mapping[str, SymbolView]:
        """The symbols that are wanted, looked up in one pass."""
        return self.kernel.symbols(self._wanted.names)

    @cached_property
    def labels(self) -> Mapping[int, int]:
        """Jump labels: address of the patchable instruction to the address it may jump to."""
        return tables.jump_labels(self.kernel, self.known)

    @cached_property
    def _by_address(self) -> Mapping[int, SymbolView]:
        return {symbol.address: symbol for _, symbol in sorted(self.known.items(), reverse=True) if symbol.address}

    def _addresses(self, wanted: Iterable[str]) -> frozenset[int]:
        return frozenset(self.known[name].address for name in wanted if name in self.known)

    @cached_property
    def _thunks(self) -> frozenset[int]:
        return self._addresses(names.THUNKS)

    @cached_property
    def _complaints(self) -> frozenset[int]:
        return self._addresses(names.COMPLAINTS)

    @cached_property
    def _noise(self) -> frozenset[int]:
        return self._addresses(names.NOISE | names.COMPLAINTS)

    @cached_property
    def _auxiliary(self) -> tuple[int, int]:
        section = self.kernel.section(".altinstr_aux")
        return (section.address, section.address + section.size) if section else (0, 0)

    @cached_property
    def _renamed(self) -> Mapping[str, SymbolView]:
        """Static functions that exist only under a name with a suffix; the second and last look at the symbols."""
        suffixed = {name: self._wanted.suffixed(name) for name in sorted(self._wanted.static - self.known.keys())}
        found = self.kernel.symbols(other for others in suffixed.values() for other in others)
        renamed = {name: found[other] for name, others in suffixed.items() for other in others[::-1] if other in found}
        if self._by_clang:  # whose .llvm.<hash> cannot be asked for by name
            for name in suffixed:
                for one in self.kernel.variants(name):
                    if one.name.startswith(f"{name}.llvm."):
                        renamed[name] = one
        return renamed

    @property
    def _by_clang(self) -> bool:
        try:
            return "clang" in self.kernel.banner
        except MissingFact:
            return False

    def find(self, name: str) -> SymbolView | None:
        """Return the function or object of that name, whatever suffix the compiler gave it."""
        if name in self.known:
            return self.known[name]
        if name in self._wanted.static:
            return self._renamed.get(name)
        if name not in self._wanted.names and name not in self.undeclared:
            self.undeclared[name] = self.kernel.symbols([name]).get(name)
        return self.undeclared.get(name)

    def address(self, name: str) -> int | None:
        """Address of a symbol, or None if the kernel has none of that name."""
        symbol = self.find(name)
        return symbol.address if symbol else None

    def is_known(self, address: int) -> bool:
        """Whether one of the symbols that are wanted is at exactly that address."""
        return address in self._by_address

    def symbol_at(self, address: int) -> SymbolView | None:
        """Return the symbol that begins at an address, or None."""
        if address in self._by_address:
            return self._by_address[address]
        found = self.kernel.nearest(address)
        return found[0] if found is not None and found[1] == 0 else None

    def name(self, address: int) -> str:
        """Name of what starts at (or, failing that, holds) an address, as ``symbol`` or ``symbol+0x1c``."""
        if address in self._by_address:
            return self._by_address[address].name
        if address not in self._named:
            self._named[address] = self._look_up(address)
        return self._named[address]

    def _look_up(self, address: int) -> str:
        found = self.kernel.nearest(address)
        if found is None:
            return f"{address:#x}"
        symbol, offset = found
        return f"{symbol.name}+{offset:#x}" if offset else symbol.name

    def function_of(self, name: str) -> Function | None:
        """Return the graph of a function by name, or None if the kernel has none."""
        symbol = self.find(name)
        return self.function(symbol.address) if symbol else None

    def function(self, entry: int) -> Function:
        """Return the graph of the function at an address (read once, then remembered)."""
        if entry not in self._functions:
            self._functions[entry] = found = _Reader(self, entry).read(MAX_INSTRUCTIONS - self._read)
            self._read += len(found.nodes)
        return self._functions[entry]

    def fetch(self, address: int) -> Decoded | None:
        """Return the instruction at an address, or None if there is none in the file."""
        page = address & -PAGE_SIZE
        if page not in self._pages:
            self._keep(page)
        code = self._pages[page][address - page : address - page + MAX_INSTRUCTION]
        if len(code) == MAX_INSTRUCTION:
            return decode(code, address)
        for size in range(MAX_INSTRUCTION, 0, -1):  # fewer bytes only at the end of a segment
            try:
                return decode(self.kernel.read(address, size), address)
            except MissingFact:
                continue
        return None

    def _keep(self, page: int) -> None:
        """Read a page of code, and what an instruction at its end may need; nothing if the file ends before that."""
        if len(self._pages) >= _MAX_PAGES:
            self._pages.clear()
        try:
            self._pages[page] = self.kernel.read(page, PAGE_SIZE + MAX_INSTRUCTION - 1)
        except MissingFact:
            self._pages[page] = b""

    def is_auxiliary(self, address: int) -> bool:
        """Whether the address is in the out-of-line part of a ``static_cpu_has()``."""
        first, end = self._auxiliary
        return first <= address < end

    def is_thunk(self, address: int) -> bool:
        """Whether a jump or call to the address is a return, an indirect jump or a tracing no-op in disguise."""
        return address in self._thunks

    def is_complaint(self, address: int) -> bool:
        """Whether a function reports that the kernel has gone wrong: nothing after it belongs to what is analysed."""
        return address in self._complaints

    def is_noise(self, address: int) -> bool:
        """Whether a function is known to have nothing to do with parking, so that reading it would be waste."""
        return address in self._noise

    def string(self, address: int, limit: int = 128) -> bytes:
        """Return the C string at a link-time address, up to ``limit`` bytes; empty outside the file."""
        try:
            return self.kernel.read_string(address, limit)
        except MissingFact:
            return b""

    def pointer(self, address: int) -> int | None:
        """Return the 64-bit word at a link-time address, or None if it is outside the file."""
        try:
            return int.from_bytes(self.kernel.read(address, 8), "little")
        except MissingFact:
            return None


class _Reader:
    """Reads one function by following its control flow."""

    def __init__(self, program: Program, entry: int) -> None:
        self._program = program
        self._entry = entry
        symbol = program.symbol_at(entry)
        self._name = symbol.name if symbol else f"{entry:#x}"
        self._sized = bool(symbol and symbol.size)
        self._parts = [(entry, entry + symbol.size)] if symbol and symbol.size else []
        self._judged: dict[int, bool] = {}
        self._nodes: dict[int, Decoded] = {}
        self._successors: dict[int, tuple[int, ...]] = {}
        self._tails: dict[int, int] = {}

    def read(self, budget: int) -> Function:
        """Follow every path from the entry, for at most so many instructions."""
        limit = min(MAX_FUNCTION, budget)
        queue = deque([self._entry])
        truncated = None
        while queue:
            address = queue.popleft()
            if address in self._nodes:
                continue
            if len(self._nodes) >= limit:
                truncated = f"more than {limit} instructions"
                break
            node = self._program.fetch(address)
            if node is None:
                truncated = f"no instruction at {address:#x}"
                continue
            self._nodes[address] = node
            following = self._follow(node)
            self._successors[address] = following
            queue.extend(following)
        known = {a: tuple([t for t in s if t in self._nodes]) for a, s in self._successors.items()}
        return Function(self._name, self._entry, self._nodes, known, self._tails, truncated)

    def _follow(self, node: Decoded) -> tuple[int, ...]:
        targets: list[int] = []
        label = self._program.labels.get(node.address)
        if node.flow in (Flow.NEXT, Flow.CALL, Flow.INDIRECT_CALL, Flow.BRANCH) or label is not None:
            targets.append(node.end)
        if node.flow in (Flow.JUMP, Flow.BRANCH) and node.target is not None:
            targets.append(node.target)
        if label is not None and label not in targets:
            targets.append(label)
        return tuple([target for target in targets if self._stays(node, target)])

    def _stays(self, node: Decoded, target: int) -> bool:
        """Whether control at ``target`` is still in this function; records a tail call where it is not."""
        if self._inside(target):
            return True
        # Falling off the end is what follows a call that does not return; only a jump is a tail call.
        if node.flow in (Flow.JUMP, Flow.BRANCH) and target == node.target:
            self._tails[node.address] = target
        return False

    def _inside(self, target: int) -> bool:
        for start, end in self._parts:
            if start <= target < end:
                return True
        if self._program.is_auxiliary(target):
            return True
        if target not in self._judged:
            self._judged[target] = self._belongs(target)
        return self._judged[target]

    def _belongs(self, target: int) -> bool:
        """Whether the symbol that holds ``target`` is this function or its cold part."""
        if self._program.is_known(target):  # another function begins there
            return False
        found = self._program.kernel.nearest(target)
        if found is None:
            return False
        holder = found[0]
        if holder.address == self._entry:
            return not self._sized
        stem = self._name.split(".", 1)[0]
        cold = ".cold" in holder.name and holder.name.split(".", 1)[0] == stem
        if cold and holder.size:
            self._parts.append((holder.address, holder.address + holder.size))
        return cold or self._asks_for_feature(target)

    def _asks_for_feature(self, target: int) -> bool:
        """Whether there is the out-of-line part of a ``static_cpu_has()`` of this function, known by its code.

        _static_cpu_has() of arch/x86/include/asm/cpufeature.h puts three instructions into .altinstr_aux: testb of a
        bit in memory, jnz to one label of the function, jmp to the other.  A kernel that lost its section headers
        (libkrunfw carries one) does not say where that section is.
        """
        code: list[Decoded] = []
        for _ in range(3):
            node = self._program.fetch(code[-1].end if code else target)
            if node is None:
                return False
            code.append(node)
        test, branch, jump = code
        shape = test.mnemonic == "test" and test.operands and branch.mnemonic == "jne" and jump.flow is Flow.JUMP
        if not shape or not all(self._holds(label) for label in (branch.target, jump.target)):
            return False
        self._parts.append((target, jump.end))
        return True

    def _holds(self, label: int | None) -> bool:
        """Whether a label lies in the function's own part."""
        found = self._program.kernel.nearest(label) if label is not None else None
        return found is not None and found[0].address == self._entry
