"""What each event does to a CPU in each park state: a table to be checked against the manuals, row by row.

Rows are tried from top to bottom; the first whose event, state and condition fit is what happens.  A condition is a
combination of named facts, `Facts`.  Where no manual says it outright the row says "derived", and from what.  The
table is Intel's; that AMD's processors do the same is derived throughout (APM).
Sources, by title (numbers of the 2019 edition of the Intel SDM, 325462-070):

    MWAIT         SDM 2 "MWAIT": exits on a store to the armed range, NMI, SMI, debug exception, machine check, BINIT#,
                  INIT#, RESET#, an enabled interrupt (a masked one too if ECX[0]), and implementation-dependent events
    MWAIT-SMI     SDM 2 "MWAIT": after an SMI execution goes on after MWAIT; unlike HLT there is no restart
    HLT           SDM 2 "HLT": resumed by an enabled interrupt, NMI, SMI, debug exception, BINIT#, INIT#, RESET#;
                  the saved instruction pointer is that of the next instruction
    HLT-SMI       SDM 3C 34.10 "Auto HALT Restart": RSM executes the HLT again, which fetches it
    NMI-BLOCK     SDM 3A 6.7.1 "Handling Multiple NMIs": one NMI is held until the next IRET
    MC-MCE        SDM 3A 6.15 "Interrupt 18": with CR4.MCE clear a machine check is a shutdown
    MC-MCIP       SDM 3B 15.3.1.2 "IA32_MCG_STATUS": a machine check while MCIP is set is a shutdown
    MC-BROADCAST  SDM 3B 15.3.1 and 15.10.4.1 "Machine-Check Exception Handler": an MCE signal reaches every CPU
    INIT          SDM 3A 8.4.1, 8.4.2 "BSP and AP Processors", "MP Initialization Protocol Requirements": an INIT after
                  the protocol sends the CPU whose IA32_APIC_BASE.BSP is set to the reset vector, another into
                  wait-for-SIPI
    INIT-STATE    SDM 3A 9.1 table 9-1 "Processor State Following Power-up, Reset, or INIT": INIT clears CR4
    SIPI          SDM 3A 8.4.4, 10.4.7.3 "Local APIC State After an INIT Reset (Wait-for-SIPI State)"
    WFS           SDM 3C 26.6.2 and 24.4.2 "Activity state": wait-for-SIPI blocks external interrupts, NMI, INIT and SMI
                  (said of a virtual machine's activity states; for the bare CPU it is derived)
    FIRMWARE      a CPU that no kernel started is in wait-for-SIPI, or in a loop in memory that the firmware reserved
                  and no image covers
    SHUTDOWN      SDM 3A 6.15 "Interrupt 8": leaves by NMI, SMI, hardware reset or INIT (in an NMI handler only by
                  reset); SDM 3C 24.4.2
    APIC-OFF      SDM 3A 10.4.7.2 "Local APIC State After It Has Been Software Disabled": answers INIT, NMI, SMI, SIPI
                  normally, and accepts no fixed interrupt
    IF            SDM 3A 6.8.1 "Masking Maskable Hardware Interrupts"
    APM           AMD APM 3 "HLT", "MWAIT"; APM 2 "System-Management Mode" (auto-halt restart), "Machine Check
                  Architecture", "Processor Initialization".  AMD rows are the same; that they are is derived
    ACPI          ACPI 8.1 "Processor Power States": a C2 or C3 entered by a register read ends with any enabled or
                  chipset-defined break event; the read then completes
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from functools import cache

from hibercheck.data import dataclass
from hibercheck.x86.cpu import ParkState


class Event(StrEnum):
    """Something that may happen to a parked CPU."""

    STORE = "store to its line"
    SPURIOUS = "spurious exit"
    NMI = "NMI"
    SMI = "SMI"
    MACHINE_CHECK = "machine check"
    INIT = "INIT"
    SIPI = "start-up IPI"
    INTERRUPT = "external interrupt"


class Effect(StrEnum):
    """What it does."""

    NONE = "nothing"
    HELD = "held until it is unblocked"
    CONTINUES = "continues after the instruction it waits in"
    RESTARTS = "fetches and executes its HLT again"
    DELIVERS = "delivers the event through its IDT or FRED"
    WAITS_FOR_SIPI = "enters wait-for-SIPI"
    STARTS = "starts in real mode where the IPI says"
    RESETS = "starts at the reset vector, which resets the machine"
    SHUTS_DOWN = "shuts down, which resets the machine"

    @property
    def touches_memory(self) -> bool:
        """Whether the CPU then accesses memory through its page tables."""
        return self in (Effect.CONTINUES, Effect.RESTARTS, Effect.DELIVERS)

    @property
    def ends_machine(self) -> bool:
        """Whether the machine is lost at once."""
        return self in (Effect.RESETS, Effect.SHUTS_DOWN)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the conditions of the table ask of a CPU.

    Attributes:
        bsp: IA32_APIC_BASE.BSP.
        interrupts_enabled: RFLAGS.IF.
        apic_enabled: The software-enable bit of its local APIC; a CPU taken offline by Linux has it clear.
        machine_checks_enabled: CR4.MCE.
        machine_check_in_progress: IA32_MCG_STATUS.MCIP.
        nmi_blocked: Between delivery of an NMI and the next IRET.
        mwait_breaks_on_masked: ECX[0] of its MWAIT.
        auto_halt_restart: The bit of that name in the SMM save area, as the SMI handler leaves it; set unless the
            handler clears it.
    """

    bsp: bool = False
    interrupts_enabled: bool = False
    apic_enabled: bool = False
    machine_checks_enabled: bool = True
    machine_check_in_progress: bool = False
    nmi_blocked: bool = False
    mwait_breaks_on_masked: bool = False
    auto_halt_restart: bool = True


@dataclass(frozen=True, slots=True)
class Condition:
    """A named predicate on the facts."""

    name: str
    holds: Callable[[Facts], bool]


ALWAYS = Condition("always", lambda _facts: True)
BSP = Condition("IA32_APIC_BASE.BSP = 1", lambda facts: facts.bsp)
NMI_BLOCKED = Condition("NMIs blocked", lambda facts: facts.nmi_blocked)
MCE_CLEAR = Condition("CR4.MCE = 0", lambda facts: not facts.machine_checks_enabled)
MCIP_SET = Condition("MCG_STATUS.MCIP = 1", lambda facts: facts.machine_check_in_progress)
APIC_OFF = Condition("local APIC disabled by software", lambda facts: not facts.apic_enabled)
IF_SET = Condition("RFLAGS.IF = 1", lambda facts: facts.interrupts_enabled)
BREAKS_ON_MASKED = Condition("MWAIT with ECX[0] = 1", lambda facts: facts.mwait_breaks_on_masked)
AUTO_HALT = Condition("auto-HALT restart = 1", lambda facts: facts.auto_halt_restart)


@dataclass(frozen=True, slots=True)
class Rule:
    """One row: in ``state``, when ``condition`` holds, ``event`` has ``effect``."""

    event: Event
    state: ParkState
    condition: Condition
    effect: Effect
    sources: str


_E, _S, _F = Event, ParkState, Effect

# fmt: off
WAKES: tuple[Rule, ...] = (
    # event            state              condition          effect              sources
    Rule(_E.STORE,         _S.RUNNING,        ALWAYS,            _F.NONE,            "it waits for no line"),
    Rule(_E.STORE,         _S.MWAIT,          ALWAYS,            _F.CONTINUES,       "MWAIT"),
    Rule(_E.STORE,         _S.HLT,            ALWAYS,            _F.NONE,            "HLT"),
    Rule(_E.STORE,         _S.PORT_IO,        ALWAYS,            _F.NONE,            "derived: ACPI"),
    Rule(_E.STORE,         _S.WAIT_FOR_SIPI,  ALWAYS,            _F.NONE,            "derived: WFS"),
    Rule(_E.STORE,         _S.NEVER_BOOTED,   ALWAYS,            _F.NONE,            "derived: FIRMWARE"),
    Rule(_E.STORE,         _S.SHUTDOWN,       ALWAYS,            _F.NONE,            "derived: SHUTDOWN"),

    Rule(_E.SPURIOUS,      _S.RUNNING,        ALWAYS,            _F.NONE,            "it waits in no MWAIT"),
    Rule(_E.SPURIOUS,      _S.MWAIT,          ALWAYS,            _F.CONTINUES,       "MWAIT: other events"),
    Rule(_E.SPURIOUS,      _S.HLT,            ALWAYS,            _F.NONE,            "HLT"),
    # an event that the chipset takes for a break event, whoever it is meant for
    Rule(_E.SPURIOUS,      _S.PORT_IO,        ALWAYS,            _F.CONTINUES,       "derived: ACPI"),
    Rule(_E.SPURIOUS,      _S.WAIT_FOR_SIPI,  ALWAYS,            _F.NONE,            "derived: WFS"),
    Rule(_E.SPURIOUS,      _S.NEVER_BOOTED,   ALWAYS,            _F.NONE,            "derived: FIRMWARE"),
    Rule(_E.SPURIOUS,      _S.SHUTDOWN,       ALWAYS,            _F.NONE,            "derived: SHUTDOWN"),

    Rule(_E.NMI,           _S.RUNNING,        NMI_BLOCKED,       _F.HELD,            "NMI-BLOCK"),
    Rule(_E.NMI,           _S.RUNNING,        ALWAYS,            _F.DELIVERS,        "APIC-OFF"),
    Rule(_E.NMI,           _S.MWAIT,          NMI_BLOCKED,       _F.HELD,            "NMI-BLOCK"),
    Rule(_E.NMI,           _S.MWAIT,          ALWAYS,            _F.DELIVERS,        "MWAIT, APIC-OFF"),
    Rule(_E.NMI,           _S.HLT,            NMI_BLOCKED,       _F.HELD,            "NMI-BLOCK"),
    Rule(_E.NMI,           _S.HLT,            ALWAYS,            _F.DELIVERS,        "HLT, APIC-OFF"),
    Rule(_E.NMI,           _S.PORT_IO,        NMI_BLOCKED,       _F.HELD,            "derived: NMI-BLOCK"),
    Rule(_E.NMI,           _S.PORT_IO,        ALWAYS,            _F.DELIVERS,        "derived: ACPI, APIC-OFF"),
    Rule(_E.NMI,           _S.WAIT_FOR_SIPI,  ALWAYS,            _F.HELD,            "derived: WFS"),
    # the firmware's loop is a HLT, and its IDT holds no handlers: measured under SeaBIOS; Linux sends no NMI shorthand
    # before every present CPU has booted once (arch/x86/kernel/apic/ipi.c)
    Rule(_E.NMI,           _S.NEVER_BOOTED,   ALWAYS,            _F.SHUTS_DOWN,      "derived: FIRMWARE, HLT"),
    Rule(_E.NMI,           _S.SHUTDOWN,       NMI_BLOCKED,       _F.NONE,            "SHUTDOWN: in an NMI"),
    Rule(_E.NMI,           _S.SHUTDOWN,       ALWAYS,            _F.DELIVERS,        "SHUTDOWN"),

    Rule(_E.SMI,           _S.RUNNING,        ALWAYS,            _F.CONTINUES,       "RSM goes on where the SMI came"),
    Rule(_E.SMI,           _S.MWAIT,          ALWAYS,            _F.CONTINUES,       "MWAIT-SMI"),
    Rule(_E.SMI,           _S.HLT,            AUTO_HALT,         _F.RESTARTS,        "HLT-SMI, APM"),
    Rule(_E.SMI,           _S.HLT,            ALWAYS,            _F.CONTINUES,       "HLT-SMI, APM"),
    Rule(_E.SMI,           _S.PORT_IO,        ALWAYS,            _F.CONTINUES,       "derived: ACPI"),
    Rule(_E.SMI,           _S.WAIT_FOR_SIPI,  ALWAYS,            _F.HELD,            "derived: WFS"),
    Rule(_E.SMI,           _S.NEVER_BOOTED,   ALWAYS,            _F.NONE,            "derived: FIRMWARE"),
    Rule(_E.SMI,           _S.SHUTDOWN,       ALWAYS,            _F.NONE,            "derived: RSM returns to it"),

    Rule(_E.MACHINE_CHECK, _S.RUNNING,        MCE_CLEAR,         _F.SHUTS_DOWN,      "MC-MCE"),
    Rule(_E.MACHINE_CHECK, _S.RUNNING,        MCIP_SET,          _F.SHUTS_DOWN,      "MC-MCIP"),
    Rule(_E.MACHINE_CHECK, _S.RUNNING,        ALWAYS,            _F.DELIVERS,        "MC-BROADCAST"),
    Rule(_E.MACHINE_CHECK, _S.MWAIT,          MCE_CLEAR,         _F.SHUTS_DOWN,      "MC-MCE"),
    Rule(_E.MACHINE_CHECK, _S.MWAIT,          MCIP_SET,          _F.SHUTS_DOWN,      "MC-MCIP"),
    Rule(_E.MACHINE_CHECK, _S.MWAIT,          ALWAYS,            _F.DELIVERS,        "MWAIT, MC-BROADCAST"),
    Rule(_E.MACHINE_CHECK, _S.HLT,            MCE_CLEAR,         _F.SHUTS_DOWN,      "MC-MCE"),
    Rule(_E.MACHINE_CHECK, _S.HLT,            MCIP_SET,          _F.SHUTS_DOWN,      "MC-MCIP"),
    Rule(_E.MACHINE_CHECK, _S.HLT,            ALWAYS,            _F.DELIVERS,        "MC-BROADCAST"),
    Rule(_E.MACHINE_CHECK, _S.PORT_IO,        MCE_CLEAR,         _F.SHUTS_DOWN,      "derived: MC-MCE"),
    Rule(_E.MACHINE_CHECK, _S.PORT_IO,        MCIP_SET,          _F.SHUTS_DOWN,      "derived: MC-MCIP"),
    Rule(_E.MACHINE_CHECK, _S.PORT_IO,        ALWAYS,            _F.DELIVERS,        "derived: ACPI, MC-BROADCAST"),
    # a CPU in wait-for-SIPI came there by INIT, which cleared CR4.MCE (INIT-STATE)
    Rule(_E.MACHINE_CHECK, _S.WAIT_FOR_SIPI,  ALWAYS,            _F.SHUTS_DOWN,      "derived: INIT-STATE, MC-MCE"),
    # no kernel has set CR4.MCE there: the reason why Linux boots every SMT sibling once (kernel/cpu.c,
    # 506a66f37489 ("Revert \"x86/apic: Ignore secondary threads if nosmt=force\""), in v4.19)
    Rule(_E.MACHINE_CHECK, _S.NEVER_BOOTED,   ALWAYS,            _F.SHUTS_DOWN,      "derived: MC-MCE, MC-BROADCAST"),
    Rule(_E.MACHINE_CHECK, _S.SHUTDOWN,       ALWAYS,            _F.SHUTS_DOWN,      "derived: MC-MCIP, SHUTDOWN"),

    Rule(_E.INIT,          _S.RUNNING,        BSP,               _F.RESETS,          "INIT"),
    Rule(_E.INIT,          _S.RUNNING,        ALWAYS,            _F.WAITS_FOR_SIPI,  "INIT, APIC-OFF"),
    Rule(_E.INIT,          _S.MWAIT,          BSP,               _F.RESETS,          "INIT"),
    Rule(_E.INIT,          _S.MWAIT,          ALWAYS,            _F.WAITS_FOR_SIPI,  "MWAIT, INIT, APIC-OFF"),
    Rule(_E.INIT,          _S.HLT,            BSP,               _F.RESETS,          "INIT"),
    Rule(_E.INIT,          _S.HLT,            ALWAYS,            _F.WAITS_FOR_SIPI,  "HLT, INIT, APIC-OFF"),
    Rule(_E.INIT,          _S.PORT_IO,        BSP,               _F.RESETS,          "derived: INIT"),
    Rule(_E.INIT,          _S.PORT_IO,        ALWAYS,            _F.WAITS_FOR_SIPI,  "derived: ACPI, INIT, APIC-OFF"),
    Rule(_E.INIT,          _S.WAIT_FOR_SIPI,  ALWAYS,            _F.NONE,            "derived: WFS"),
    Rule(_E.INIT,          _S.NEVER_BOOTED,   ALWAYS,            _F.WAITS_FOR_SIPI,  "derived: INIT"),
    Rule(_E.INIT,          _S.SHUTDOWN,       BSP,               _F.RESETS,          "SHUTDOWN, INIT"),
    Rule(_E.INIT,          _S.SHUTDOWN,       ALWAYS,            _F.WAITS_FOR_SIPI,  "SHUTDOWN, INIT"),

    Rule(_E.SIPI,          _S.RUNNING,        ALWAYS,            _F.NONE,            "SIPI"),
    Rule(_E.SIPI,          _S.MWAIT,          ALWAYS,            _F.NONE,            "SIPI"),
    Rule(_E.SIPI,          _S.HLT,            ALWAYS,            _F.NONE,            "SIPI"),
    Rule(_E.SIPI,          _S.PORT_IO,        ALWAYS,            _F.NONE,            "derived: SIPI"),
    Rule(_E.SIPI,          _S.WAIT_FOR_SIPI,  ALWAYS,            _F.STARTS,          "SIPI, APIC-OFF"),
    Rule(_E.SIPI,          _S.NEVER_BOOTED,   ALWAYS,            _F.STARTS,          "derived: SIPI, FIRMWARE"),
    Rule(_E.SIPI,          _S.SHUTDOWN,       ALWAYS,            _F.NONE,            "SHUTDOWN: blocks it"),

    Rule(_E.INTERRUPT,     _S.RUNNING,        APIC_OFF,          _F.NONE,            "APIC-OFF"),
    Rule(_E.INTERRUPT,     _S.RUNNING,        IF_SET,            _F.DELIVERS,        "IF"),
    Rule(_E.INTERRUPT,     _S.RUNNING,        ALWAYS,            _F.HELD,            "IF"),
    Rule(_E.INTERRUPT,     _S.MWAIT,          APIC_OFF,          _F.NONE,            "APIC-OFF"),
    Rule(_E.INTERRUPT,     _S.MWAIT,          IF_SET,            _F.DELIVERS,        "MWAIT, IF"),
    Rule(_E.INTERRUPT,     _S.MWAIT,          BREAKS_ON_MASKED,  _F.CONTINUES,       "MWAIT"),
    Rule(_E.INTERRUPT,     _S.MWAIT,          ALWAYS,            _F.HELD,            "MWAIT, IF"),
    Rule(_E.INTERRUPT,     _S.HLT,            APIC_OFF,          _F.NONE,            "APIC-OFF"),
    Rule(_E.INTERRUPT,     _S.HLT,            IF_SET,            _F.DELIVERS,        "HLT, IF"),
    Rule(_E.INTERRUPT,     _S.HLT,            ALWAYS,            _F.HELD,            "HLT, IF"),
    Rule(_E.INTERRUPT,     _S.PORT_IO,        APIC_OFF,          _F.NONE,            "APIC-OFF"),
    Rule(_E.INTERRUPT,     _S.PORT_IO,        IF_SET,            _F.DELIVERS,        "derived: ACPI, IF"),
    # the chipset's break event is the interrupt request itself, masked by the CPU or not
    Rule(_E.INTERRUPT,     _S.PORT_IO,        ALWAYS,            _F.CONTINUES,       "derived: ACPI"),
    Rule(_E.INTERRUPT,     _S.WAIT_FOR_SIPI,  ALWAYS,            _F.NONE,            "derived: WFS"),
    Rule(_E.INTERRUPT,     _S.NEVER_BOOTED,   ALWAYS,            _F.NONE,            "derived: FIRMWARE"),
    Rule(_E.INTERRUPT,     _S.SHUTDOWN,       ALWAYS,            _F.NONE,            "SHUTDOWN: blocks it"),
)
# fmt: on

ENDS_BY_ITSELF = frozenset(row.state for row in WAKES if row.event is Event.SPURIOUS and row.effect.touches_memory)
"""States whose wait may end at any time, without an event that is meant for the CPU."""

VECTORS = {Event.NMI: 2, Event.MACHINE_CHECK: 18}
"""The vector that an event delivers; an external interrupt brings its own."""


def rule(event: Event, state: ParkState, facts: Facts | None = None) -> Rule:
    """Return the row that applies: the first whose condition holds.

    Args:
        event: What happens.
        state: How the CPU is parked.
        facts: Facts of the CPU; by default those of an AP that Linux took offline, with machine checks enabled.
    """
    known = facts or Facts()
    return next(row for row in WAKES if row.event is event and row.state is state and row.condition.holds(known))


@cache
def wakes(state: ParkState, facts: Facts | None = None) -> tuple[Rule, ...]:
    """Return the rows of the events that make the CPU touch memory, or end the machine, in table order."""
    rows = (rule(event, state, facts) for event in Event)
    return tuple(row for row in rows if row.effect.touches_memory or row.effect.ends_machine)
