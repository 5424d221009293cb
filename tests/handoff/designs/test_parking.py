"""CPUs parked by a design: by its own rules, with what is known of the run."""

from __future__ import annotations

import pytest

from hibercheck.handoff.designs.catalogue import DESIGNS, design_named
from hibercheck.handoff.designs.parking import under_design
from hibercheck.x86.cpu import ParkState


@pytest.mark.parametrize(("idle", "state"), [("mwait", ParkState.MWAIT), ("port", ParkState.PORT_IO)])
def test_the_cpuidle_design_asks_the_driver_that_is_known_of_the_run(judged, idle, state):
    """Whatever made it known, an option or facts: the plan has it, and nothing is worked out a second time."""
    plan, _ = judged("latent", memory=False, resumer_idle=idle)
    parked = under_design(plan, design_named("cpuidle")).parked
    assert {one.state for one in parked} == {state}
    plan, _ = judged("latent", memory=False, resumer_idle="none")
    halted = under_design(plan, design_named("cpuidle")).parked
    assert {one.state for one in halted} == {ParkState.HLT}


@pytest.mark.parametrize("design", DESIGNS, ids=lambda design: design.name)
def test_no_design_parks_a_cpu_that_was_never_started(judged, design):
    plan, _ = judged("latent", memory=False, resumer_cmdline="nokaslr nr_cpus=1")
    parked = under_design(plan, design)
    assert [one.cpu for one in parked.parked] == [one.cpu for one in plan.parked]
    assert {one.state for one in parked.parked} == {ParkState.NEVER_BOOTED}
    assert parked.rearranged
    assert parked.reserves_line is (design.name == "fixmap")


def test_the_cpu_with_the_bsp_flag_gets_no_init(judged):
    plan, _ = judged("latent", memory=False)
    (one,) = under_design(plan, design_named("init"), bsp=1).parked
    assert one.state is ParkState.HLT
    (one,) = under_design(plan, design_named("init")).parked
    assert one.state is ParkState.WAIT_FOR_SIPI
