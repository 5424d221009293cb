"""What is read out of a kernel's code, as plain data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, Literal, TypeVar

from hibercheck.data import dataclass

T = TypeVar("T")

ParkKind = Literal["mwait", "hlt", "port_io"]
ParkRole = Literal["resume", "native", "cpuidle"]
TouchKind = Literal["text", "percpu", "line", "rodata", "stack", "data", "io"]
TouchAccess = Literal["read", "write", "fetch"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where a trait was read.

    Attributes:
        symbol: Function or object it was read in.
        address: Link-time address, or None where the evidence is the absence of something.
        text: The instruction, or one line that says what is there.
    """

    symbol: str
    address: int | None
    text: str


@dataclass(frozen=True, slots=True)
class Trait(Generic[T]):
    """One property of a kernel.

    Attributes:
        name: Stable name, as in the JSON.
        value: The value; None is *unknown*, never a default.
        evidence: What it was read from.
        commit: The upstream change that brought (or took away) the behaviour: ``commit ("subject", in vX.Y)``.
        reason: Why the value is unknown, or a remark on it.
    """

    name: str
    value: T | None
    evidence: tuple[Evidence, ...] = ()
    commit: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Touch:
    """One access that a parked CPU makes on each turn of its loop.

    Attributes:
        kind: What is touched: ``text`` (the loop itself), ``percpu`` (GS-relative), ``line`` (the monitored line, by
            register), ``rodata`` (the operand of VERW), ``stack``, ``data`` (anything else), ``io`` (a port).
        access: ``read``, ``write`` or ``fetch``.
        address: Link-time address (offset from the GS base if ``percpu``), or None if only registers know it.
        symbol: Name at that address, if it has one.
        register: Base register where the address is in one.
        displacement: Added to the register; 0 if ``address`` is set.
        size: Bytes.
        instruction: Address of the instruction.
    """

    kind: TouchKind
    access: TouchAccess
    address: int | None
    symbol: str | None
    register: str | None
    displacement: int
    size: int
    instruction: int


@dataclass(frozen=True, slots=True)
class Patch:
    """Bytes of the loop that the kernel may rewrite at boot or later.

    Attributes:
        start: First byte.
        end: Byte after the last.
        why: ``jump label``, ``alternative``, ``paravirt``, ``return thunk``, ``call thunk``, ``retpoline``,
            ``ftrace`` or ``lock prefix``.
        variants: The contents it can have, where the tables say so (the built-in one first); else empty.
    """

    start: int
    end: int
    why: str
    variants: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Instruction:
    """An instruction for a reader: where it is, how long, and how an assembler would write it."""

    address: int
    size: int
    text: str


@dataclass(frozen=True, slots=True)
class ParkLoop:
    """Instructions that a parked CPU executes again and again.

    Attributes:
        kind: Which instruction it waits in.
        symbol: Function that holds the loop.
        function_address: Its address.
        start: First byte of the part that holds the waiting instruction.
        end: Byte after that part.
        code: The bytes of ``[start, end)`` in the kernel file.
        instructions: All instructions on any path round the loop, called functions included, in address order.
        touches: What they access.
        entry: Address where the loop is entered.
        wait: Address of the waiting instruction; a CPU parked there has RIP ``wait`` (MWAIT under some emulators) or
            the address after it.
        ranges: Every range that can be fetched: ``[start, end)`` and the parts elsewhere.
        patchable: Which of these bytes may differ in memory.
        via: Functions through which it is reached, outermost first.
        interrupts: Whether it waits with interrupts enabled (``sti; hlt``).
        after_kick: Whether only a wake of another park loop leads here (MWAIT told to HLT by the kexec protocol).
        line: Register that holds the address of the monitored line.
        incomplete: Why the list of instructions may lack some (an indirect call), or None.
        role: Who parks there: CPUs that the resume hook takes down (``resume``), CPUs taken offline before by
            ``native_play_dead`` itself (``native``) or by the cpuidle driver that it asks (``cpuidle``).
        driver: The cpuidle driver, for that role.
    """

    kind: ParkKind
    symbol: str
    function_address: int
    start: int
    end: int
    code: bytes
    instructions: tuple[Instruction, ...]
    touches: tuple[Touch, ...]
    entry: int
    wait: int
    ranges: tuple[tuple[int, int], ...]
    patchable: tuple[Patch, ...] = ()
    via: tuple[str, ...] = ()
    interrupts: bool = False
    after_kick: bool = False
    line: str | None = None
    incomplete: str | None = None
    role: ParkRole = "native"
    driver: str | None = None

    @property
    def resume_at(self) -> int:
        """Address of the instruction after the waiting one: the RIP of a CPU that is parked here."""
        return next((one.address + one.size for one in self.instructions if one.address == self.wait), self.wait)

    @property
    def pushes(self) -> bool:
        """Whether a turn of the loop stores to the stack of the idle task."""
        return any(touch.kind == "stack" and touch.access == "write" for touch in self.touches)


@dataclass(frozen=True, slots=True)
class IdtGate:
    """One gate of the interrupt descriptor table, as the kernel sets it up.

    Attributes:
        vector: Exception number.
        ist: Interrupt stack table index (1 to 7), or 0 for the current stack.
        handler: Link-time address of the entry code.
        symbol: Its name.
    """

    vector: int
    ist: int
    handler: int
    symbol: str


@dataclass(frozen=True, slots=True)
class IdleState:
    """One idle state of intel_idle's tables, as the file has it.

    Attributes:
        name: As in sysfs: ``C6``.
        hint: What MWAIT gets in EAX.
        latency: Worst time to leave it, in microseconds.
        usable: Whether it may be entered at all (CPUIDLE_FLAG_UNUSABLE is clear).
    """

    name: str
    hint: int
    latency: int
    usable: bool


@dataclass(frozen=True, slots=True)
class IdleModel:
    """CPUs for which intel_idle has a table.

    Attributes:
        vendor: X86_VENDOR_* (0 is Intel), or None for any.
        family: As in /proc/cpuinfo, or None for any.
        model: As in /proc/cpuinfo, or None for any.
        steppings: Mask of steppings; 0 for any.
        feature: Index of a feature that the CPU must have; 0 for none.
        acpi: Whether ACPI's _CST is asked too, and states that it lacks are off by default.
        table: Index into `IdleTables.tables`; None where only ACPI's _CST gives states.
    """

    vendor: int | None
    family: int | None
    model: int | None
    steppings: int
    feature: int
    acpi: bool
    table: int | None


@dataclass(frozen=True, slots=True)
class IdleTables:
    """What intel_idle knows of CPUs without asking the firmware.

    Attributes:
        models: In the order in which they are tried.
        tables: Each the states of some models, the shallowest first.
    """

    models: tuple[IdleModel, ...]
    tables: tuple[tuple[IdleState, ...], ...]


def built_in(values: Iterable[str]) -> tuple[str, ...]:
    """Return the names of what is built in, out of the value of `Traits.compressors` or `Traits.idle_drivers`."""
    return tuple(name for name, _, how in (value.partition(":") for value in values) if how == "builtin")


def fixmap_address(monitored: str | None) -> int | None:
    """Return the address in the fixmap that a value of the trait `monitored` names, or None."""
    kind, _, address = (monitored or "").partition(":")
    return int(address, 16) if kind == "fixmap" else None
