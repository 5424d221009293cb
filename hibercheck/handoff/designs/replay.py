"""The whole handoff under one design, for an E that knows nothing of it or for one that has it too."""

from __future__ import annotations

from dataclasses import dataclass

from hibercheck.data import replace
from hibercheck.dump.dump import Dump
from hibercheck.handoff.designs.catalogue import Announcement, Design, design_named
from hibercheck.handoff.designs.parking import under_design
from hibercheck.handoff.memory.composite import Composite
from hibercheck.handoff.memory.context import ParkedCpu
from hibercheck.handoff.replay.judge import judge
from hibercheck.handoff.replay.judgement import Judgement
from hibercheck.handoff.scenario.plan import Plan


@dataclass(frozen=True, slots=True)
class InUse:
    """A design in one handoff: what `hibercheck.handoff.replay.judge.judge` asks of it.

    Attributes:
        design: The design.
        known: Whether E has the same one, and so knows what its announcement says.
    """

    design: Design
    known: bool

    def apply(
        self, plan: Plan, memory: Composite, cpus: tuple[ParkedCpu, ...], dump: Dump | None
    ) -> tuple[Composite, tuple[ParkedCpu, ...]]:
        """Change memory and registers as the design does."""
        return self.design.apply(plan, memory, cpus, dump, known=self.known)


@dataclass(frozen=True, slots=True)
class Replayed:
    """A replay.

    Attributes:
        plan: The scenario, with the CPUs parked as the design has it.
        judgement: What becomes of each CPU.
    """

    plan: Plan
    judgement: Judgement


def replay_under(
    plan: Plan, dump: Dump | None, *, name: str | None = None, known: bool = False, bsp: int | None = None
) -> Replayed:
    """Replay the handoff under a design.

    Args:
        plan: The scenario, as R itself would have it.
        dump: A dump of R.
        name: The design; by default that of ``--park``.
        known: Whether E has the same design, and so knows what its announcement says.
        bsp: The CPU with the BSP flag; by default the one that copies.

    Raises:
        UsageProblem: There is no design of that name.
    """
    design = design_named(name or plan.options.park or "")
    parked = under_design(plan, design, bsp=bsp)
    if known and design.announcement is Announcement.CPUS:
        parked = replace(parked, reinitialised=parked.bringup.present & plan.resumee.present)  # no others can it start
    return Replayed(parked, judge(parked, dump, InUse(design, known)))
