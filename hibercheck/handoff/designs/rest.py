"""Where each CPU that the resumee has offline spends its time in the end: what a way to park costs in power.

A CPU that the resumee has started since waits as the resumee's own code takes CPUs offline.  Any other waits as the
resumer left it, until it is next brought up.
"""

from __future__ import annotations

from collections.abc import Iterable

from hibercheck.data import dataclass, replace
from hibercheck.handoff.replay.fate import Fate
from hibercheck.handoff.replay.judgement import ApResult
from hibercheck.handoff.scenario.park import NO_MEMORY, ParkRules, Unsettled, idle_by_driver
from hibercheck.handoff.scenario.plan import Plan
from hibercheck.x86.cpu import ParkState

DEPTH = {
    ParkState.MWAIT: "as deep as the hint that it gives",
    ParkState.PORT_IO: "as deep as the C-state of its port",
    ParkState.HLT: "no deeper than C1",
    ParkState.WAIT_FOR_SIPI: "which is not a C-state",
    ParkState.NEVER_BOOTED: "as the firmware left it",
    ParkState.RUNNING: "at full power",
}
"""How deep a CPU sleeps."""


@dataclass(frozen=True, slots=True)
class Rest:
    """One CPU.

    Attributes:
        cpu: Its number.
        state: In which it spends its time; None where that is not known.
        whose: The kernel that put it there: ``resumer`` or ``resumee``; None where it waits in no kernel's memory.
        why: How deep it sleeps, or what is not known.
    """

    cpu: int
    state: ParkState | None
    whose: str | None
    why: str


def resting(plan: Plan, results: Iterable[ApResult]) -> tuple[Rest, ...]:
    """Say where those CPUs spend their time that the resumee leaves offline, if the machine gets there.

    Args:
        plan: The scenario.
        results: What becomes of each CPU.
    """
    running = plan.resumee.frozen | {min(plan.resumee.present, default=0)} | plan.options.resumee_online
    left = running - plan.options.resumee_offline
    staying = [one for one in results if one.parked.cpu not in left and one.fate is not Fate.DIES]
    anew = [one.parked.cpu for one in staying if one.parked.cpu in plan.reinitialised]
    # all of these wait alike, and what the resumee's code does is read for each question anew
    theirs = _by_resumee(plan, anew[0]) if anew else None
    return tuple(_rest(plan, one, theirs) for one in staying)


def _rest(plan: Plan, result: ApResult, theirs: Rest | None) -> Rest:
    parked = result.parked
    if theirs is not None and parked.cpu in plan.reinitialised:
        return replace(theirs, cpu=parked.cpu)
    if parked.unsettled is not None:
        return Rest(parked.cpu, None, "resumer", f"depends on {parked.unsettled.fact}")
    return Rest(parked.cpu, parked.state, None if parked.state in NO_MEMORY else "resumer", DEPTH[parked.state])


def _by_resumee(plan: Plan, cpu: int) -> Rest:
    """Ask the resumee's own native_play_dead(), by its driver."""
    resumee, traits = plan.resumee, plan.inputs.resumee_traits
    driver = resumee.idle
    rules = ParkRules(
        traits,
        resumee.features,
        lambda: None if driver is None else idle_by_driver(resumee.parameters, driver, traits),
        None,
        None if driver is None else driver.name,
    )
    try:
        state, _, _ = rules.by_native_play_dead(idle_ready=True)
    except Unsettled as unsettled:
        return Rest(cpu, None, "resumee", f"depends on {unsettled.fact}".replace("resumer", "resumee"))
    return Rest(cpu, state, "resumee", DEPTH[state])
