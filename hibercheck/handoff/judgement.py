"""What a replay found, and what all three ways of replaying share."""

from __future__ import annotations

from dataclasses import field

from hibercheck.data import dataclass
from hibercheck.handoff.ap import ApResult, Suppositions
from hibercheck.handoff.boot_cpu import BootCpuReplay
from hibercheck.handoff.composite import Composite
from hibercheck.handoff.context import ApContext
from hibercheck.handoff.event_replay import EntryFacts
from hibercheck.handoff.plan import Plan
from hibercheck.handoff.sweep import Sweep
from hibercheck.x86.cpu import CpuState
from hibercheck.x86.events import Facts

_DEFAULT_PHYS_BITS = 52


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the replay found.

    Attributes:
        memory: The finished copy; None where the resumer's place is not known.
        boot_cpu: The boot CPU's own step; None where it is not known.
        aps: Every other CPU.
        contexts: What is known of their registers.
        sweep: The result over all placements, where the place is not known.
        missing: Facts that the answer lacks: (fact, how to supply it).
        registers: Their general registers by name, where a dump has them as they are while the CPU is parked.
        seen: RIP and CR3 of parked CPUs as a dump shows them, whether or not they wait in a loop.
        entries: How parked CPUs enter handlers, and what decides how they take events.
        dump_shows_parked: Whether the dump was taken after parking; None without a dump.
    """

    memory: Composite | None
    boot_cpu: BootCpuReplay | None
    aps: tuple[ApResult, ...]
    contexts: dict[int, ApContext]
    sweep: Sweep | None = None
    missing: tuple[tuple[str, str], ...] = ()
    registers: dict[int, dict[str, int]] = field(default_factory=dict)
    seen: dict[int, tuple[int, int]] = field(default_factory=dict)
    entries: dict[int, tuple[EntryFacts, Facts]] = field(default_factory=dict)
    dump_shows_parked: bool | None = None

    @property
    def states(self) -> dict[int, CpuState]:
        """Control registers and tables of parked CPUs, as far as they are known."""
        return {cpu: entry.cpu for cpu, (entry, _) in self.entries.items() if entry.cpu is not None}


def suppositions(plan: Plan) -> Suppositions:
    """Take what is supposed from the options."""
    return Suppositions(plan.options.spurious_mwait, plan.options.suppose)


def physical_bits(plan: Plan) -> int:
    """Return MAXPHYADDR of the machine, 52 where the image does not tell."""
    features = plan.resumee.features
    return (features.physical_bits if features else None) or _DEFAULT_PHYS_BITS
