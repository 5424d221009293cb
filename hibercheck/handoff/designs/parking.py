"""The scenario with CPUs parked by a design, on R's machine and with R's own code."""

from __future__ import annotations

from hibercheck.data import replace
from hibercheck.handoff.designs.catalogue import Design
from hibercheck.handoff.scenario.known_cpus import idle_driver
from hibercheck.handoff.scenario.park import Parked, ParkRules, Unsettled
from hibercheck.handoff.scenario.plan import Plan
from hibercheck.x86.cpu import ParkState


def under_design(plan: Plan, design: Design, *, bsp: int | None = None) -> Plan:
    """Park the resumer's CPUs as a design does; those that it never started stay where they are.

    Args:
        plan: The scenario.
        design: The design.
        bsp: The CPU with the BSP flag (IA32_APIC_BASE.BSP); by default the one that copies.
    """
    rescued = design.rescued(plan)
    rules = ParkRules(design.traits(plan.traits), plan.features, plan.idle, driver=lambda: idle_driver(plan.asking))
    parked = tuple(_park(plan, design, rules, rescued, one, is_bsp=one.cpu == bsp) for one in plan.parked)
    return replace(
        plan,
        parked=parked,
        rescued=rescued,
        design=(design.name, design.summary),
        rearranged=True,
        reserves_line=design.reserves_line,
    )


def _park(
    plan: Plan, design: Design, rules: ParkRules, rescued: frozenset[int], planned: Parked, *, is_bsp: bool
) -> Parked:
    cpu, bringup = planned.cpu, plan.bringup
    if cpu not in bringup.booted and cpu not in rescued:
        if planned.state is ParkState.NEVER_BOOTED:
            return planned
        return Parked(cpu, ParkState.NEVER_BOOTED, None, "never started by the resumer, so it still waits for a SIPI")
    online = cpu in bringup.online or cpu in rescued
    left_behind = not online and not design.parks_offline
    try:
        state, loop, why = design.park(plan, rules, cpu, online=online, is_bsp=is_bsp)
    except Unsettled as unsettled:
        why = f"depends on {unsettled.fact}"
        return Parked(cpu, ParkState.RUNNING, None, why, left_behind=left_behind, unsettled=unsettled)
    by_hand = cpu in bringup.by_hand
    return Parked(cpu, state, loop, why, rescued=cpu in rescued, left_behind=left_behind, by_hand=by_hand)


def kicked(plan: Plan) -> Plan | None:
    """Turn MWAIT into HLT as the kexec kick does, before anything is copied; None where R's loop knows no kick."""
    after = next((loop for loop in plan.traits.park_loops if loop.after_kick and loop.kind == "hlt"), None)
    waiting = [parked for parked in plan.parked if parked.state is ParkState.MWAIT]
    if after is None or not waiting or plan.traits.kick_value.value is None:
        return None
    why = "kicked out of MWAIT, it waits in HLT"
    parked = tuple(
        replace(one, state=ParkState.HLT, loop=after, why=why) if one in waiting else one for one in plan.parked
    )
    return replace(plan, parked=parked)
