"""The resumer's own place for parked CPUs, where it has one: code that it copies to frames of no image.

Where those frames are and what is in them beside the loop only the resumer's memory tells.  Without it the CPUs are put
into a place that is built here, in frames that the resumer can have: that shows what the copy does to them, and leaves
open what an event would find.
"""

from __future__ import annotations

from dataclasses import dataclass

from hibercheck.data import replace
from hibercheck.dump.dump import Dump
from hibercheck.handoff.designs.occupy import place_island
from hibercheck.handoff.memory.composite import Composite
from hibercheck.handoff.memory.context import ParkedCpu
from hibercheck.handoff.replay.judge import judge
from hibercheck.handoff.replay.judgement import Judgement
from hibercheck.handoff.scenario.park import Unsettled
from hibercheck.handoff.scenario.plan import Plan

_SUPPLY = "--resumer-memory DUMP"


@dataclass(frozen=True, slots=True)
class OwnPlace:
    """The place that the resumer itself makes."""

    def apply(
        self, plan: Plan, memory: Composite, cpus: tuple[ParkedCpu, ...], dump: Dump | None
    ) -> tuple[Composite, tuple[ParkedCpu, ...]]:
        """Put the CPUs there; a dump shows them where they are."""
        features = plan.traits.own_place.value or ()
        inside = {cpu.number for cpu in cpus if cpu.parked.in_place and cpu.parked.loop is None}
        if dump is not None or not inside:
            return memory, cpus
        lacking = _lacking(features)
        if lacking is not None:
            missing = Unsettled(lacking, _SUPPLY)
            unsettled = {
                number: replace(cpu.parked, unsettled=missing) for cpu in cpus if (number := cpu.number) in inside
            }
            return memory, tuple(replace(cpu, parked=unsettled.get(cpu.number, cpu.parked)) for cpu in cpus)
        paging = "paging off" not in features
        occupied, moved = place_island(plan, memory, cpus, None, paging=paging, known=plan.announced)
        # its descriptor tables and handlers are not those that are built here
        return occupied, tuple(replace(cpu, entry=None) if cpu.number in inside else cpu for cpu in moved)


def _lacking(features: tuple[str, ...]) -> str | None:
    """Say what of a place could not be read from the kernel's code."""
    if "frames of no image" not in features:
        return "whether the image has the frames to which the resumer copies code for parked CPUs"
    if not {"page tables", "paging off"} & set(features):
        return "by which page tables the CPUs run that the resumer parks in code that it copies"
    return None


def judge_own(plan: Plan, dump: Dump | None) -> Judgement:
    """Replay the handoff as the resumer itself parks its CPUs."""
    if not any(parked.in_place for parked in plan.parked):
        return judge(plan, dump)
    return judge(plan, dump, OwnPlace())
