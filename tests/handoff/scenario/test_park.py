"""How each CPU comes to be parked: native_play_dead(), the resume hook, cpuidle, the INIT before the copy."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from hibercheck.handoff.facts.cmdline import parse_command_line
from hibercheck.handoff.facts.cpufacts import CpuFeatures
from hibercheck.handoff.facts.idle import IdleDriver
from hibercheck.handoff.scenario.bringup import Bringup
from hibercheck.handoff.scenario.park import (
    ParkRules,
    Unsettled,
    hidden_cpus,
    idle_by_driver,
    park_all,
)
from hibercheck.x86.cpu import ParkState
from tests.support.made_states import park_loop
from tests.support.made_traits import made_traits

MWAIT, HLT, PORT, SIPI = ParkState.MWAIT, ParkState.HLT, ParkState.PORT_IO, ParkState.WAIT_FOR_SIPI
INTEL = CpuFeatures("intel", 0xD, frozenset({"mwait", "clflush"}), frozenset(), 48, 39)
STATE = {"mwait": MWAIT, "hlt": HLT, "port_io": PORT}
LOOPS = {
    (role, kind): replace(park_loop(STATE[kind]), role=role)
    for role, kind in product(("resume", "native", "cpuidle"), STATE)
}
MODERN = {"play_dead_order": ("cpuidle", "mwait", "hlt"), "mwait_vendor_check": ("AMD", "Hygon")}
OLD = {"play_dead_order": ("mwait", "cpuidle", "hlt"), "mwait_vendor_check": ("AMD",)}


def rules(features=INTEL, idle="none", loops=None, **values):
    own = LOOPS.values() if loops is None else loops
    return ParkRules(made_traits(own, **{**MODERN, **values}), features, idle)


def machine(online, booted=None, present=range(4), by_hand=(), down=()):
    booted = present if booted is None else booted
    return Bringup(frozenset(present), 0, *map(frozenset, (booted, online, down, by_hand)))


@pytest.mark.parametrize(("features", "state"), [
    (INTEL, MWAIT),
    (replace(INTEL, vendor="amd"), HLT),
    (replace(INTEL, vendor="hygon"), HLT),
    (replace(INTEL, vendor="zhaoxin"), MWAIT),
    (replace(INTEL, flags=frozenset({"mwait"})), HLT),
    (replace(INTEL, flags=frozenset({"clflush"})), HLT),
    (replace(INTEL, cpuid_level=5), MWAIT),
    (replace(INTEL, cpuid_level=4), HLT),
])  # fmt: skip
def test_mwait_play_dead_asks_for_vendor_features_and_the_leaf(features, state):
    """mwait_play_dead() returns on a vendor that is turned away, without MWAIT or CLFLUSH, without CPUID leaf 5."""
    found = rules(features).by_native_play_dead(idle_ready=True)
    assert found[:2] == (state, LOOPS["native", {MWAIT: "mwait", HLT: "hlt"}[state]])


@pytest.mark.parametrize(("idle", "ready", "order", "state", "role"), [
    ("mwait", True, MODERN, MWAIT, "cpuidle"), ("port", True, MODERN, PORT, "cpuidle"),
    ("halt", True, MODERN, HLT, "cpuidle"), ("none", True, MODERN, MWAIT, "native"),
    ("port", False, MODERN, MWAIT, "native"),  # taken down before a driver was registered
    ("port", True, OLD, MWAIT, "native"),  # before a18d098f2aab ("Reapply "x86/smp: Eliminate
    # mwait_play_dead_cpuid_hint()"", in v6.16)
    ("port", True, {"play_dead_order": ("cpuidle", "hlt")}, PORT, "cpuidle"),
    ("none", True, {"play_dead_order": ("cpuidle", "hlt")}, HLT, "native"),
])  # fmt: skip
def test_the_steps_of_native_play_dead_are_tried_in_their_order(idle, ready, order, state, role):
    kind = next(kind for kind, one in STATE.items() if one is state)
    found = rules(idle=idle, **order).by_native_play_dead(idle_ready=ready)
    assert found[:2] == (state, LOOPS[role, kind])


def test_the_cpuidle_driver_is_asked_only_if_it_decides():
    def asked():
        raise AssertionError

    assert rules(idle=asked, **OLD).by_native_play_dead(idle_ready=True)[0] is MWAIT
    assert rules(idle=lambda: "halt").by_native_play_dead(idle_ready=True)[0] is HLT
    with pytest.raises(Unsettled) as found:
        rules(idle=lambda: None).by_native_play_dead(idle_ready=True)
    assert "--resumer-idle" in found.value.supply


@pytest.mark.parametrize("lacking", [
    {"play_dead_order": None}, {"mwait_vendor_check": None}, {"features": None},
])  # fmt: skip
def test_what_is_not_known_of_the_kernel_or_the_cpu_is_named(lacking):
    with pytest.raises(Unsettled) as found:
        rules(**lacking).by_native_play_dead(idle_ready=True)
    assert found.value.fact
    assert str(found.value) == found.value.fact
    assert "vmlinux" in found.value.supply


@pytest.mark.parametrize(("resume_park", "state", "loop"), [
    ("init", SIPI, None), ("hlt", HLT, ("resume", "hlt")), ("native", MWAIT, ("native", "mwait")),
])  # fmt: skip
def test_where_the_resume_hook_parks_those_that_are_online(resume_park, state, loop):
    found = rules(resume_park=resume_park).at_resume()
    assert found[:2] == (state, None if loop is None else LOOPS[loop])
    with pytest.raises(Unsettled):
        rules(resume_park=None).at_resume()


def test_taken_down_for_the_handoff_a_cpu_asks_the_cpuidle_driver():
    assert rules(idle="port", resume_park="native").at_resume()[0] is PORT


def test_a_loop_with_interrupts_off_is_where_a_cpu_goes_first():
    plain, other = LOOPS["native", "hlt"], replace(LOOPS["native", "hlt"], interrupts=True)
    amd = replace(INTEL, vendor="amd")
    assert rules(amd, loops=[other, plain]).by_native_play_dead(idle_ready=True)[1] is plain
    assert rules(amd, loops=[other]).by_native_play_dead(idle_ready=True)[1] is other
    assert rules(amd, loops=[]).by_native_play_dead(idle_ready=True)[1] is None


def test_every_cpu_but_the_one_that_copies_is_parked():
    parked = park_all(rules(resume_park="hlt"), machine(online=range(4)), frozenset())
    assert [(one.cpu, one.state, one.loop) for one in parked] == [(n, HLT, LOOPS["resume", "hlt"]) for n in (1, 2, 3)]
    assert not any(one.left_behind or one.rescued or one.by_hand or one.unsettled for one in parked)


def test_each_cpu_by_how_it_went():
    """1 online, 2 taken offline by hand and brought back, 3 by hand, 4 down since boot, 5 never started."""
    bringup = machine({0, 1}, booted={0, 1, 2, 3, 4}, present=range(6), by_hand={2, 3}, down={4})
    parked = park_all(rules(resume_park="hlt", idle="port"), bringup, frozenset({2}))
    told = [(one.cpu, one.state, one.rescued, one.left_behind, one.by_hand) for one in parked]
    assert told == [
        (1, HLT, False, False, False),
        (2, HLT, True, False, False),
        (3, PORT, False, True, True),
        (4, MWAIT, False, True, False),  # before any cpuidle driver was there
        (5, ParkState.NEVER_BOOTED, False, False, False),
    ]
    assert parked[1].why.startswith("brought back up before the handoff")
    assert "by hand" in parked[2].why
    assert "SMT is off" in parked[3].why


def test_siblings_that_are_woken_to_go_deeper_ask_the_cpuidle_driver():
    """4c529a4a7260 ("x86/smp: PM/hibernate: Split arch_resume_nosmt()", in v6.16)."""
    bringup = machine({0, 2}, present=range(4), down={1, 3})
    parked = park_all(rules(resume_park="hlt", idle="port", rescans_dead_siblings=True), bringup, frozenset())
    assert [one.state for one in parked] == [PORT, HLT, PORT]


@pytest.mark.parametrize(("sends", "targets", "state"), [
    (True, "present", SIPI), (True, "online", MWAIT), (False, None, MWAIT), (None, None, MWAIT), (True, None, SIPI),
])  # fmt: skip
def test_an_init_before_the_copy_reaches_those_left_offline_unless_it_goes_to_the_online_only(sends, targets, state):
    bringup = machine({0, 1}, present=range(3), by_hand={2})
    given = {"resume_park": "hlt", "sends_init": sends, "init_targets": targets}
    parked = park_all(rules(**given), bringup, frozenset())
    assert (parked[1].state, parked[1].left_behind) == (state, True)
    assert parked[0].state is HLT
    assert (parked[1].loop is None) is (state is SIPI)


def test_a_cpu_never_started_waits_for_a_sipi_unless_the_rescue_starts_it():
    bringup = machine({0, 1}, booted={0, 1}, present=range(3))
    rule = rules(resume_park="hlt", sends_init=True, init_targets="present")
    assert park_all(rule, bringup, frozenset())[1].state is ParkState.NEVER_BOOTED
    back = park_all(rule, bringup, frozenset({2}))[1]
    assert (back.state, back.rescued, back.left_behind) == (HLT, True, False)


def test_what_is_not_known_leaves_only_that_cpu_open():
    bringup = machine({0, 1}, present=range(3), by_hand={2})
    parked = park_all(rules(features=None, resume_park="hlt"), bringup, frozenset())
    assert [(one.state, one.unsettled is None, one.left_behind) for one in parked] == [
        (HLT, True, False), (ParkState.RUNNING, False, True),
    ]  # fmt: skip
    assert parked[1].loop is None
    assert parked[1].unsettled.fact in parked[1].why


def test_cpus_that_the_resumer_was_told_to_ignore_are_there_all_the_same():
    hidden = hidden_cpus(frozenset(range(6)), machine({0, 1}, present=range(2)), one_cpu=False)
    assert [(one.cpu, one.state, one.loop) for one in hidden] == [
        (n, ParkState.NEVER_BOOTED, None) for n in range(2, 6)
    ]


ACPI = {"acpi_idle:mwait", "acpi_idle:hlt", "acpi_idle:port_io"}


@pytest.mark.parametrize(("driver", "line", "ways", "idle"), [
    (IdleDriver(None), "", None, "none"),
    (IdleDriver("intel_idle", "intel_idle_enter_dead"), "", {"intel_idle:mwait"}, "mwait"),
    (IdleDriver("intel_idle", None), "", set(), "none"),  # this kernel's has no enter_dead
    (IdleDriver("intel_idle", None), "", None, None),
    (IdleDriver("intel_idle", None), "", {"intel_idle:hlt", *ACPI}, "halt"),
    (IdleDriver("intel_idle", None), "", {"intel_idle:hlt", "intel_idle:mwait"}, None),  # nothing tells which
    (IdleDriver("intel_idle", None), "intel_idle.max_cstate=0", {"intel_idle:mwait"}, None),  # acpi_idle takes over
    (IdleDriver("acpi_idle", "acpi_idle_play_dead", "mwait"), "", ACPI, "mwait"),
    (IdleDriver("acpi_idle", "acpi_idle_play_dead", "halt"), "", ACPI, "halt"),
    (IdleDriver("acpi_idle", "acpi_idle_play_dead", "port"), "", ACPI, "port"),
    (IdleDriver("acpi_idle", "acpi_idle_play_dead", "mwait"), "", ACPI - {"acpi_idle:mwait"}, "none"),
    (IdleDriver("acpi_idle", "acpi_idle_play_dead", "port"), "", None, None),
    (IdleDriver("acpi_idle", None, "port"), "", ACPI, None),
    (IdleDriver("acpi_idle", "acpi_idle_play_dead", None), "", ACPI, None),
    (IdleDriver("haltpoll", None), "", set(), "none"),
    (IdleDriver("other", "other_play_dead"), "", set(), None),
])  # fmt: skip
def test_how_a_driver_that_was_seen_parks_a_dead_cpu(driver, line, ways, idle):
    assert idle_by_driver(parse_command_line(line), driver, made_traits(enter_dead=ways)) == idle


def of_driver(name, kind, wait, **more):
    return replace(park_loop(STATE[kind]), role="cpuidle", driver=name, wait=wait, **more)


@pytest.mark.parametrize(("idle", "kind"), [("mwait", "mwait"), ("port", "port_io"), ("halt", "hlt")])
def test_of_two_drivers_that_wait_apart_the_one_that_is_there_parks_the_cpu(idle, kind):
    two = [of_driver("acpi_idle", kind, 0x1000), of_driver("intel_idle", kind, 0x2000)]
    own = rules(idle=idle, loops=two)
    for name, place in (("acpi_idle", 0x1000), ("intel_idle", 0x2000)):
        for told in (name, lambda name=name: name):
            assert replace(own, driver=told).by_native_play_dead(idle_ready=True)[1].wait == place
    for told in (None, lambda: None):
        with pytest.raises(Unsettled, match="which cpuidle driver"):
            replace(own, driver=told).by_native_play_dead(idle_ready=True)


def test_two_drivers_that_wait_in_one_place_need_not_be_told_apart():
    def asked():
        raise AssertionError

    shared = [of_driver("acpi_idle", "mwait", 0x1000), of_driver("intel_idle", "mwait", 0x1000)]
    own = replace(rules(idle="mwait", loops=shared), driver=asked)
    assert own.by_native_play_dead(idle_ready=True)[1] == shared[0]
    several = [
        of_driver("acpi_idle", "hlt", 0x1000, code=b"sti", start=0, end=3),
        of_driver("acpi_idle", "hlt", 0x2000),
    ]
    halted = replace(rules(idle="halt", loops=[replace(several[0], interrupts=True), several[1]]), driver=asked)
    assert halted.by_native_play_dead(idle_ready=True)[1].wait == 0x2000


@pytest.mark.parametrize("order", [("cpuidle", "umwait", "hlt"), ("umwait",), ("cpuidle",), ()])
def test_a_step_that_is_not_known_is_a_missing_fact_and_no_hlt(order):
    with pytest.raises(Unsettled, match="native_play_dead"):
        rules(play_dead_order=order).by_native_play_dead(idle_ready=True)


def test_a_step_behind_the_one_that_parks_does_not_matter():
    found = rules(play_dead_order=("mwait", "umwait", "hlt")).by_native_play_dead(idle_ready=True)
    assert found[0] is MWAIT


@pytest.mark.parametrize(("own", "state", "where"), [
    (("hlt", "page tables", "stack"), HLT, "code that the resumer copies for it, with page tables of its own"),
    (("mwait", "page tables"), MWAIT, "code that the resumer copies for it, with page tables of its own"),
    (("hlt", "paging off"), HLT, "code that the resumer copies for it, with paging off"),
    (("hlt",), HLT, "code that the resumer copies for it"), (None, HLT, "code that the resumer copies for it"),
])  # fmt: skip
def test_a_cpu_in_a_place_of_its_own_waits_in_no_loop_of_the_kernel_s_file(own, state, where):
    (one,) = park_all(rules(resume_park="place", own_place=own), machine({0, 1}, present=range(2)), frozenset())
    assert (one.state, one.loop, one.in_place, one.left_behind) == (state, None, True, False)
    assert one.why == f"taken down for the handoff and parked in {state.value.upper()}, in {where}"
    (other,) = park_all(rules(resume_park="hlt", own_place=own), machine({0, 1}, present=range(2)), frozenset())
    assert (other.in_place, other.loop) == (False, LOOPS["resume", "hlt"])


@pytest.mark.parametrize(("own", "supply"), [(None, "--park DESIGN, if it is one that hibercheck knows"),
                                             ((), "a vmlinux with symbols")])  # fmt: skip
def test_what_play_dead_does_at_resume_has_to_be_known(own, supply):
    (one,) = park_all(rules(resume_park=None, own_place=own), machine({0, 1}, present=range(2)), frozenset())
    assert (one.state, one.loop) == (ParkState.RUNNING, None)
    assert one.unsettled.fact == "what the resumer's play_dead does at resume (nobody said)"
    assert one.unsettled.supply.startswith(supply)


@pytest.mark.parametrize("rescued", [False, True])
def test_one_that_is_brought_back_is_said_to_be(rescued):
    bringup = machine({0} if rescued else {0, 1}, present=range(2))
    (one,) = park_all(rules(resume_park="hlt"), bringup, frozenset({1} if rescued else ()))
    before = "brought back up before the handoff, then " if rescued else ""
    assert one.why == f"{before}taken down for the handoff and parked in HLT"
    assert one.rescued is rescued


KICKED = replace(LOOPS["native", "hlt"], after_kick=True)


@pytest.mark.parametrize(("halts", "kicks", "state", "loop"), [
    ((KICKED,), True, HLT, KICKED), ((KICKED,), False, MWAIT, LOOPS["native", "mwait"]),
    ((), True, MWAIT, LOOPS["native", "mwait"]),  # nothing makes it leave
    ((replace(KICKED, driver="intel_idle"),), True, MWAIT, LOOPS["native", "mwait"]),  # that is another's loop
    ((replace(KICKED, kind="mwait"),), True, MWAIT, LOOPS["native", "mwait"]),
])  # fmt: skip
def test_a_resumer_may_send_those_that_it_left_behind_from_mwait_to_hlt(halts, kicks, state, loop):
    """By a store to their lines before the copy."""
    own = rules(loops=(*LOOPS.values(), *halts), kicks_offline=kicks, sends_init=False)
    (one,) = park_all(own, machine({0}, present=range(2), by_hand={1}), frozenset())
    assert (one.state, one.loop, one.left_behind) == (state, loop, True)
    assert one.why.endswith("; before the copy it is told to halt") is (state is HLT)


@pytest.mark.parametrize(
    ("bsp", "sends", "settled"), [(1, True, False), (1, False, True), (2, True, True), (None, True, True)]
)
def test_an_init_has_the_bsp_run_its_firmware(bsp, sends, settled):
    """SDM 3A 8.4: the one that firmware started on, where another CPU copies, as after kexec."""
    own = replace(rules(resume_park="hlt", sends_init=sends), bsp=bsp)
    (one,) = park_all(own, machine({0, 1}, present=range(2)), frozenset())
    assert (one.unsettled is None) is settled
    assert settled or "CPU 1, which may have the BSP flag" in one.unsettled.fact
