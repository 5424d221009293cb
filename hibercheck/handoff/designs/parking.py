"""How each CPU is parked under a design, by that design's rules on R's machine and with R's own code."""

from __future__ import annotations

from dataclasses import replace

from hibercheck.handoff.bringup import rescued_cpus
from hibercheck.handoff.designs.catalogue import Design
from hibercheck.handoff.findings import Assumption
from hibercheck.handoff.park import Parked, ParkRules, Unsettled, idle_of_resumer
from hibercheck.handoff.plan import Plan
from hibercheck.kernel.code.model import ParkKind, ParkLoop, Trait
from hibercheck.kernel.code.traits import Traits
from hibercheck.x86.cpu import ParkState

_MWAIT_LINES = frozenset({"mwait-flags", "mwait-percpu", "fixmap"})
Placed = tuple[ParkState, ParkLoop | None, str]


def under_design(plan: Plan, design: Design, *, bsp: int | None = None) -> Plan:
    """Park the resumer's CPUs as a design does.

    Args:
        plan: The scenario.
        design: The design.
        bsp: The CPU with the BSP flag (IA32_APIC_BASE.BSP); by default the one that copies.
    """
    rescued = _rescued(plan, design)
    rules = _rules(plan, design)
    others = sorted(plan.bringup.present - {plan.bringup.boot_cpu})
    parked = tuple(_park(plan, design, rules, rescued, cpu, is_bsp=cpu == bsp) for cpu in others)
    assumption = Assumption("how CPUs are parked", f"{design.name}: {design.summary}", "given", "--park")
    return replace(plan, parked=parked, rescued=rescued, assumptions=(*plan.assumptions, assumption))


def _rescued(plan: Plan, design: Design) -> frozenset[int]:
    if design.name != "hlt-rescued":
        return frozenset()
    needs = bool(plan.traits.rescue_needs_primary.value)
    return rescued_cpus(plan.bringup, plan.topology, rescues=True, needs_primary=needs)


def _rules(plan: Plan, design: Design) -> ParkRules:
    """Return R's rules with the order of native_play_dead() that belongs to the design."""
    traits = plan.traits
    if design.name == "cpuidle":
        traits = _with_order(traits, ("cpuidle", "hlt"))
    elif design.name in _MWAIT_LINES:
        traits = _with_order(traits, ("mwait", "hlt"))
    idle = idle_of_resumer(plan.options.resumer_idle, plan.cmdline, plan.resumee.idle, plan.traits)
    return ParkRules(traits, plan.resumee.features, idle)


def _with_order(traits: Traits, order: tuple[str, ...]) -> Traits:
    turned_away = traits.mwait_vendor_check
    if turned_away.value is None:
        turned_away = Trait(turned_away.name, ())
    return replace(traits, play_dead_order=Trait("play_dead_order", order), mwait_vendor_check=turned_away)


def _park(plan: Plan, design: Design, rules: ParkRules, rescued: frozenset[int], cpu: int, *, is_bsp: bool) -> Parked:
    bringup = plan.bringup
    if cpu not in bringup.booted and cpu not in rescued:
        return Parked(cpu, ParkState.NEVER_BOOTED, None, "never started by the resumer, so it still waits for a SIPI")
    online = cpu in bringup.online or cpu in rescued
    left_behind = not online and not design.built and design.name != "init"
    try:
        state, loop, why = _state(plan, design, rules, cpu, online=online, is_bsp=is_bsp)
    except Unsettled as unsettled:
        why = f"depends on {unsettled.fact}"
        return Parked(cpu, ParkState.RUNNING, None, why, left_behind=left_behind, unsettled=unsettled)
    by_hand = cpu in plan.bringup.by_hand
    return Parked(cpu, state, loop, why, rescued=cpu in rescued, left_behind=left_behind, by_hand=by_hand)


def _state(plan: Plan, design: Design, rules: ParkRules, cpu: int, *, online: bool, is_bsp: bool) -> Placed:
    """Say how a CPU that has run is parked.

    Raises:
        Unsettled: It depends on a fact that is missing.
    """
    if design.built:
        return ParkState.HLT, None, "parked in the design's own pages"
    if design.name == "init":
        if is_bsp:
            return *_hlt(plan.traits), "has the BSP flag, so no INIT: parked in HLT"
        return ParkState.WAIT_FOR_SIPI, None, "sent an INIT, so that it waits for a SIPI"
    if design.name in {"hlt", "hlt-rescued"} and online:
        return *_hlt(plan.traits), "taken down for the handoff and parked in HLT"
    ready = online or cpu in plan.bringup.by_hand or bool(plan.traits.rescans_dead_siblings.value)
    state, loop, why = rules.by_native_play_dead(idle_ready=ready)
    if loop is None:
        loop = _any_loop(plan.traits, "mwait" if state is ParkState.MWAIT else "hlt")
    return state, loop, why


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


def _hlt(traits: Traits) -> tuple[ParkState, ParkLoop | None]:
    found = traits.loops("resume", "hlt") or traits.loops("native", "hlt")
    return ParkState.HLT, next(iter(found), None)


def _any_loop(traits: Traits, kind: ParkKind) -> ParkLoop | None:
    """Return R's loop of a kind, whoever enters it in R itself: the design only changes who does."""
    return next((loop for loop in traits.park_loops if loop.kind == kind and not loop.after_kick), None)
