"""A place of its own for parked CPUs: code that the resume hook copies into memory, and has each CPU run there.

No kernel up to 7.3 does so.  Andy Lutomirski proposed it in 2019 ("[PATCH v4] x86/power: Fix 'nosmt' vs. hibernation
triple fault during resume"): what a parked CPU needs is in a few frames that no image has, so that the copy leaves it
alone, and that the resumee is told of.  The copied code is followed from its first instruction, through a switch of
page tables or out of paging, to the loop in which the CPU waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property

from hibercheck.addresses import ADDRESS_MASK, PAGE_SIZE, START_KERNEL_MAP
from hibercheck.data import dataclass
from hibercheck.errors import MissingFact
from hibercheck.kernel.code.disasm import MAX_INSTRUCTION, Decoded, Flow, Operand, decode
from hibercheck.kernel.code.graph import reversed_edges
from hibercheck.kernel.code.model import Evidence, Trait
from hibercheck.kernel.code.names import ALLOCATORS, COPIES, ELSEWHERE, SAFE
from hibercheck.kernel.code.program import Function, Program
from hibercheck.kernel.code.resume import HOOK, ResumeReader
from hibercheck.kernel.code.values import absent, calls_to, closure, named, quote, quote_call, wide

_STOPS = ("freeze_secondary_cpus", "suspend_disable_secondary_cpus", "cpuhp_smt_enable", "_cpu_up", "cpu_up")
_BRING_UP = ("cpu_device_up", "bringup_hibernate_cpu", "add_cpu", "cpu_up", "_cpu_up")
_DEPTH = 2
_MAX_STEPS = 256
"""Instructions of copied code that are followed; what is known takes under fifty."""
_MAX_SOUGHT = 2048
"""Places looked at for where a value comes from."""
_PG = 1 << 31
_CODE64 = 0x10
"""__KERNEL_CS, arch/x86/include/asm/segment.h."""
_WAITS = {"hlt": "hlt", "mwait": "mwait", "mwaitx": "mwait"}
_ARGUMENTS = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")
_KEPT_BY_CALLS = frozenset({"rbx", "rbp", "r12", "r13", "r14", "r15", "rsp"})


@dataclass(frozen=True, slots=True)
class Copied:
    """Code that the hook copies.

    Attributes:
        function: The function that copies it.
        call: The call of memcpy().
        source: Where it is in the kernel.
        size: Its length.
    """

    function: Function
    call: int
    source: int
    size: int


@dataclass(frozen=True, slots=True)
class Way:
    """The way of a CPU through copied code.

    Attributes:
        waits: How it waits at the end: ``hlt`` or ``mwait``; None where it does not.
        seen: What it does on the way: ``page tables``, ``paging off``, ``IDT``, ``GDT``, ``stack``.
        steps: The instructions that say so, in order.
        lost: Why it could not be followed to a loop, or None.
    """

    waits: str | None
    seen: frozenset[str]
    steps: tuple[Evidence, ...]
    lost: str | None = None


class PlaceReader:
    """Reads whether the resume hook parks CPUs in a place of their own, and what it is like.

    Args:
        program: The kernel's code.
        resume: What the hook installs.
        parks_in_kernel: Whether that has a park loop in the kernel itself.
    """

    def __init__(self, program: Program, resume: ResumeReader, parks_in_kernel: Callable[[], bool]) -> None:
        self.program = program
        self.resume = resume
        self._parks_in_kernel = parks_in_kernel

    @cached_property
    def _functions(self) -> list[Function]:
        """The functions of the hook, those whose address they pass on among them."""
        hook = self.resume.hook
        if hook is None:
            return []
        return self._called_by(hook, _DEPTH)

    def _called_by(self, root: Function, depth: int) -> list[Function]:
        """Return a function and those that it calls, so many levels down, or passes on."""
        stops = [self.program.address(name) for name in (*_STOPS, *COPIES, *ALLOCATORS, SAFE, *ELSEWHERE)]
        found = {one.entry: one for one in closure(self.program, [root.entry], stops, depth)}
        for function in list(found.values()):
            for target in self._passed_on(function):
                found.setdefault(target, self.program.function(target))
        return list(found.values())

    def _passed_on(self, function: Function) -> Iterator[int]:
        """Functions of which a function takes the address."""
        for node in function:
            place = node.effective.address if node.effective is not None else node.immediate
            if place is not None and place in self._text and place != self._installed:
                symbol = self.program.symbol_at(place)
                if symbol is not None:
                    yield symbol.address

    @cached_property
    def _text(self) -> range:
        """Where the kernel's functions are."""
        first, end = self.program.address("_text"), self.program.address("_etext")
        return range(0) if first is None or end is None else range(first, end)

    @property
    def _installed(self) -> int | None:
        return None if self.resume.replacement is None else self.resume.replacement[0]

    @cached_property
    def copied(self) -> tuple[Copied, ...]:
        """Every piece of the kernel that the hook's functions copy somewhere by memcpy()."""
        found = []
        for function in self._functions:
            for call in calls_to(function, [self.program.address(name) for name in COPIES]):
                source, size = (_constant(origins(function, call, register)) for register in ("rsi", "rdx"))
                if source is not None and size is not None and source >> 31 == (1 << 33) - 1 and 0 < size <= PAGE_SIZE:
                    found.append(Copied(function, call, source, size))
        return tuple(found)

    @cached_property
    def _way_out(self) -> tuple[Function, Decoded] | None:
        """The function that the hook installs, and the jump by which it leaves for an address that it computes."""
        if self._installed is None:
            return None
        function = self.program.function(self._installed)
        ends = [node for node in function if node.flow in (Flow.INDIRECT_JUMP, Flow.INDIRECT_CALL)]
        returns = any(node.flow is Flow.RETURN for node in function)
        return (function, ends[-1]) if ends and not returns and not function.truncated else None

    @cached_property
    def _way(self) -> tuple[Copied, Way] | None:
        if self._way_out is None or len(self.copied) != 1:
            return None
        return self.copied[0], _Walker(self.program, self.copied[0]).walk()

    def place(self) -> Trait[tuple[str, ...]]:
        """Return what the place is like: how a CPU waits there, and what it has of its own.

        The value is empty where the hook parks CPUs in the kernel's own code.
        """
        name = "own_place"
        if self.resume.hook is None or self._installed is None or self._parks_in_kernel() or self._way_out is None:
            return Trait(name, (), (absent(HOOK, "it copies no code that CPUs would run"),))
        function, leaves = self._way_out
        jump = quote(function, leaves, "an address that it computes")
        if self._way is None:
            count = len(self.copied)
            what = "no piece of the kernel" if not count else f"{count} pieces of the kernel"
            return Trait(name, None, (jump,), reason=f"it leaves for other code, and {HOOK} was seen to copy {what}")
        copied, way = self._way
        evidence = (jump, self._quote_copy(copied), *way.steps)
        code = self.program.name(copied.source)
        if way.lost is not None:
            return Trait(name, None, evidence, reason=f"the code that it copies, {code}, {way.lost}")
        safe = self._frames(copied, way)
        values = (way.waits or "", *sorted(way.seen), *(("frames of no image",) if safe else ()))
        return Trait(name, values, (*evidence, *safe))

    def _quote_copy(self, copied: Copied) -> Evidence:
        name = self.program.name(copied.source)
        return Evidence(copied.function.name, copied.call, f"call memcpy  # of {copied.size} bytes of {name}")

    def _frames(self, copied: Copied, way: Way) -> tuple[Evidence, ...]:
        """Evidence that the place is in frames that the image does not have; empty where that is not seen."""
        safe = self.program.address(SAFE)
        if safe is None or not self._is_safe(copied.function, copied.call, "rdi", 0):
            return ()
        others = [self.program.address(name) for name in ALLOCATORS]
        near = self._called_by(copied.function, 1)
        if "page tables" in way.seen and any(calls_to(function, others) for function in near):
            return ()
        for function in near:
            found = calls_to(function, [safe])
            if found:
                return (quote_call(self.program, function, found[0]),)
        return ()

    def _is_safe(self, function: Function, at: int, register: str, depth: int) -> bool:
        """Whether a register holds what get_safe_page() returned, or 0, on every way to an instruction."""
        found = origins(function, at, register)
        return bool(found) and all(self._gives_safe(one, depth) for one in found)

    def _gives_safe(self, origin: Origin, depth: int) -> bool:
        if origin.kind == "constant":
            return origin.value == 0
        if origin.kind != "call" or origin.value is None or origin.added:
            return False  # what a function is given is not followed to its callers
        if origin.value == self.program.address(SAFE):
            return True
        function = self.program.function(origin.value)
        if depth >= _DEPTH or function.truncated:
            return False
        ends = [node.address for node in function if node.flow is Flow.RETURN or self._is_return(node)]
        return bool(ends) and all(self._is_safe(function, end, "rax", depth + 1) for end in ends)

    def _is_return(self, node: Decoded) -> bool:
        return node.flow is Flow.JUMP and node.target is not None and self.program.is_thunk(node.target)

    # -- what is said to the resumee, and what it does --------------------------------------------------------------

    def announcement(self, record_magic: int | None) -> Trait[int]:
        """Return the word in the image header by which a kernel says that it takes parked CPUs over, if told of them.

        It is written by arch_hibernation_header_save() besides the record's own magic number, and looked for by
        arch_hibernation_header_restore().  Zero where there is none.
        """
        name = "park_announcement"
        both = [self.program.function_of(f"arch_hibernation_header_{what}") for what in ("save", "restore")]
        if None in both:
            return Trait(name, None, (absent("arch_hibernation_header_save"),), reason="the function was not found")
        saved, looked = ({node.immediate for node in one if wide(node.immediate)} for one in both if one is not None)
        words = (saved & looked) - {record_magic}
        if len(words) > 1:
            return Trait(name, None, reason=f"the header has {len(words)} words that are not known")
        function = both[0]
        assert function is not None  # noqa: S101 - tested above
        if not words:
            return Trait(name, 0, (Evidence(function.name, function.entry, "it writes no word besides the record's"),))
        (word,) = words
        nodes = [node for node in function if node.immediate == word]
        return Trait(name, word, (quote(function, nodes[0], "in the image header"),))

    def takes_over(self) -> Trait[bool]:
        """Whether a resumed kernel takes over what the loading kernel has parked and told it of.

        It puts the address of one of its objects into the image header; starts CPUs, in arch_resume_nosmt(), by what it
        finds there then; and has looked there before, on the way back from the snapshot.
        """
        name = "takes_parked_over"
        wanted = ("arch_resume_nosmt", "hibernation_snapshot", "arch_hibernation_header_save")
        late, early, header = (self.program.function_of(one) for one in wanted)
        if late is None or early is None or header is None:
            return Trait(name, False, (absent("arch_resume_nosmt"),))
        ups = [self.program.address(one) for one in _BRING_UP]
        stops = [*ups, self.program.address("cpuhp_smt_enable"), self.program.address("cpuhp_smt_disable")]
        starting = [one for one in closure(self.program, [late.entry], stops, 2) if calls_to(one, ups)]
        told = {place for one in closure(self.program, [header.entry], [], 1) for place in self._told(one)}
        both = [(function, place) for function in starting for place in sorted(told & self._objects(function))]
        # Of a kernel that tells of none, hundreds of functions would be read, longer than all its other traits take.
        before = closure(self.program, [early.entry], [*stops, late.entry], 2) if both else []
        for function, place in both:
            keeper = next((one for one in before if place in self._objects(one)), None)
            if keeper is not None:
                node = next(node for node in keeper if place in self._places(node))
                evidence = (quote(keeper, node), quote_call(self.program, function, calls_to(function, ups)[0]))
                return Trait(name, True, evidence)
        if starting and told:
            return Trait(name, None, reason="it starts CPUs after a resume, and what tells it of them was not found")
        return Trait(name, False, (Evidence(late.name, late.entry, "it starts no CPUs of which it was told"),))

    def _objects(self, function: Function) -> set[int]:
        """Return the objects of the kernel that a function names."""
        return {place for node in function for place in self._places(node)}

    def _told(self, function: Function) -> set[int]:
        """Return the objects of which a function makes the physical address, the distance from the mapping's start."""
        addresses = (address + START_KERNEL_MAP for node in function for address in named(node))
        return {place for address in addresses for place in self._object_at(address)}

    def _places(self, node: Decoded) -> Iterator[int]:
        for address in named(node):
            yield from self._object_at(address)

    def _object_at(self, address: int) -> Iterator[int]:
        found = self.program.kernel.nearest(address) if address in self._data else None
        if found is not None:
            yield found[0].address

    @cached_property
    def _data(self) -> range:
        """Where the kernel's objects are."""
        first, end = self.program.address("_etext"), self.program.address("_end")
        return range(0) if first is None or end is None else range(first, end)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value comes from.

    Attributes:
        kind: ``constant``, ``call`` (what a function returned), ``argument`` (as the function was called), ``unknown``.
        value: The constant, or the function's address.
        added: What was added to it since; of a constant it is in the value.
    """

    kind: str
    value: int | None = None
    added: int = 0


_Sought = str | tuple[str, int]
"""A register, or a place in memory as base register and displacement."""


def origins(function: Function, at: int, register: str) -> set[Origin]:
    """Say where a register's value at an instruction comes from, on every way to it.

    Copies from register to register and through memory at the same distance from the same register are followed, and
    constants that are added or taken away.

    Args:
        function: The function.
        at: Address of the instruction.
        register: The register.
    """
    before, ends = reversed_edges(function.successors), {node.end: node for node in function}
    found: set[Origin] = set()
    seen: set[tuple[int, _Sought, int]] = set()
    todo: list[tuple[int, _Sought, int]] = [(at, register, 0)]
    while todo:
        one = todo.pop()
        place, what, added = one
        if one in seen:
            continue
        if len(seen) >= _MAX_SOUGHT:
            return {Origin("unknown")}
        seen.add(one)
        if place == function.entry:
            found.add(Origin("argument" if what in _ARGUMENTS else "unknown"))
        for previous in before.get(place, ()):
            node = function.nodes[previous]
            made = Origin("constant", 0) if _zero_there(node, ends.get(previous), place, what) else _made_by(node, what)
            if not isinstance(made, Origin):
                todo.append((previous, made[0], added + made[1]))
            elif made.kind == "constant" and made.value is not None:
                found.add(Origin("constant", made.value + added & ADDRESS_MASK))
            else:
                found.add(Origin(made.kind, made.value, added))
    return found


def _zero_there(branch: Decoded, test: Decoded | None, place: int, what: _Sought) -> bool:
    """Whether a register was found to be zero on the way from a branch to a place."""
    if branch.mnemonic not in ("je", "jne") or branch.target == branch.end or test is None:
        return False
    zero = branch.target if branch.mnemonic == "je" else branch.end
    return test.mnemonic == "test" and test.destination == test.source == what and place == zero


def _made_by(node: Decoded, what: _Sought) -> Origin | tuple[_Sought, int]:
    """Say what an instruction makes of a sought value: where it comes from, or what to look for before it."""
    if isinstance(what, tuple):
        if node.mnemonic == "mov" and any("write" in one.access and _at(one) == what for one in node.operands):
            return Origin("constant", node.immediate) if node.source is None else (node.source, 0)
        return Origin("unknown") if what[0] in node.written else (what, 0)
    if node.flow in (Flow.CALL, Flow.INDIRECT_CALL):
        if what == "rax":
            return Origin("call", node.target)
        return (what, 0) if what in _KEPT_BY_CALLS else Origin("unknown")
    if what not in node.written:
        return what, 0
    if node.mnemonic == "xor" and node.destination == node.source:
        return Origin("constant", 0)
    if node.mnemonic in ("add", "sub") and node.immediate is not None and not node.operands:
        return what, node.immediate if node.mnemonic == "add" else -node.immediate
    if node.mnemonic != "mov":
        return Origin("unknown")
    if not node.operands:
        return Origin("constant", node.immediate) if node.source is None else (node.source, 0)
    where = _at(node.operands[0])
    return Origin("unknown") if where is None else (where, 0)


def _at(operand: Operand) -> tuple[str, int] | None:
    """Return a place in memory as base register and displacement, or None."""
    if operand.base is None or operand.index is not None or operand.gs:
        return None
    return operand.base, operand.displacement


class _Walker:
    """Follows a CPU through copied code, from its first instruction.

    A register has a value that is known (a constant), one in the code (an address of the copied piece, as linked), or
    one that the CPU came with and a distance from that; a far return to the last goes that far into the piece, if it is
    not beyond it.
    """

    def __init__(self, program: Program, copied: Copied) -> None:
        self.program = program
        self.copied = copied
        self.bits = 64
        self.values: dict[str, tuple[str, int]] = {}
        self.stack: list[tuple[str, int] | None] = []
        self.seen: set[str] = set()
        self.steps: list[Evidence] = []

    def walk(self) -> Way:
        """Follow it to where it waits, or until it is lost."""
        at = self.copied.source
        visited: dict[int, str | None] = {}
        for _ in range(_MAX_STEPS):
            if at in visited:
                turned = list(visited)[list(visited).index(at) :]
                waits = [kind for one in turned if (kind := visited[one])]
                if len(waits) == 1:
                    return self._end(waits[0], None)
                self._note(self._fetch(at), "the loop")
                return self._end(None, f"ends in a loop in which {len(waits) or 'none'} of the instructions wait")
            node = self._fetch(at)
            if node is None:
                return self._end(None, f"has no instruction at {at:#x}")
            visited[at] = _WAITS.get(node.mnemonic)
            if visited[at]:
                self._note(node, "waits")
            following = self._follow(node)
            if isinstance(following, str):
                return self._end(None, following)
            at = following
        return self._end(None, f"goes on for more than {_MAX_STEPS} instructions")

    def _end(self, waits: str | None, lost: str | None) -> Way:
        return Way(waits, frozenset(self.seen), tuple(self.steps), lost)

    def _fetch(self, at: int) -> Decoded | None:
        end = self.copied.source + self.copied.size
        if not self.copied.source <= at < end:
            return None
        try:
            code = self.program.kernel.read(at, min(MAX_INSTRUCTION, end - at))
        except MissingFact:
            return None
        return decode(code, at, bits=self.bits)

    def _note(self, node: Decoded | None, what: str) -> None:
        if node is not None:
            text = f"{node.render().text}  # {what}"
            self.steps.append(Evidence(self.program.name(self.copied.source), node.address, text))

    def _has(self, what: str, node: Decoded) -> None:
        if what not in self.seen:
            self.seen.add(what)
            self._note(node, what)

    def _follow(self, node: Decoded) -> int | str:
        """Do one instruction; return where the next is, or why that is not known."""
        if node.mnemonic == "retf":
            return self._far_return(node)
        if node.flow is Flow.JUMP and node.target is not None:
            return node.target if self.bits == 64 else self.copied.source & ~0xFFFF_FFFF | node.target & 0xFFFF_FFFF
        if node.flow is not Flow.NEXT and node.mnemonic != "hlt":
            return f"has {node.render().text} at {node.address:#x}, which was not followed"
        self._registers(node)
        return node.end

    def _registers(self, node: Decoded) -> None:
        target, source = node.destination, node.source
        known = self.values.get(source or "")
        if node.mnemonic in ("lgdt", "lidt"):
            self._has("GDT" if node.mnemonic == "lgdt" else "IDT", node)
        elif node.mnemonic == "push":
            self.stack.append(("constant", node.immediate) if node.immediate is not None else known)
        elif node.mnemonic == "mov" and target == "cr3":
            self._has("page tables", node)
        elif node.mnemonic == "mov" and target == "cr0":
            self._cr0(node, known)
        elif node.mnemonic == "mov" and target == "rsp" and not node.operands:
            self._has("stack", node)
        else:
            made = None if target is None else self._computed(node, target, known)
            self.values |= dict.fromkeys(node.written, ("unknown", 0))
            if made is not None and target is not None:
                self.values[target] = made

    def _cr0(self, node: Decoded, value: tuple[str, int] | None) -> None:
        if value is not None and value[0] == "cr0" and value[1] & _PG:
            self._has("paging off", node)
            self.seen.discard("page tables")

    def _computed(self, node: Decoded, target: str, known: tuple[str, int] | None) -> tuple[str, int] | None:
        """Return what is known of a register that an instruction writes; None if nothing is."""
        own, immediate = self.values.get(target, ("entry " + target, 0)), node.immediate
        if node.mnemonic == "mov" and not node.operands:
            if node.source == "cr0":
                return "cr0", 0
            return ("constant", immediate) if immediate is not None else known
        if node.mnemonic == "lea" and node.effective is not None and node.effective.address is not None:
            return "code", node.effective.address
        if node.mnemonic == "add" and immediate is not None and not node.operands:
            return own[0], own[1] + immediate
        if node.mnemonic == "and" and immediate is not None and own[0] == "cr0":
            return "cr0", own[1] | ~immediate & 0xFFFF_FFFF
        if node.mnemonic == "btr" and immediate is not None and own[0] == "cr0":
            return "cr0", own[1] | 1 << (immediate & 31)
        return None

    def _far_return(self, node: Decoded) -> int | str:
        """Go where two pushed words say: an address and a code segment."""
        if len(self.stack) < 2:
            return f"returns at {node.address:#x} to where it was called from"
        place, selector = self.stack.pop(), self.stack.pop()
        self.bits = 64 if selector == ("constant", _CODE64) else 32
        self._note(node, f"on in {self.bits}-bit code")
        if place is None or place[0] in ("unknown", "constant", "cr0"):
            return f"goes at {node.address:#x} where is not known"
        return place[1] if place[0] == "code" else self.copied.source + place[1]


def _constant(found: set[Origin]) -> int | None:
    """Return the constant that a value is on every way, or None."""
    values = {one.value if one.kind == "constant" else None for one in found}
    return values.pop() if len(values) == 1 else None
