"""The table of events, against one that was written down for the tests, and by what must hold of any such table."""

from __future__ import annotations

import itertools
import re

import pytest

from hibercheck.x86 import events
from hibercheck.x86.cpu import ParkState
from hibercheck.x86.events import ALWAYS, ENDS_BY_ITSELF, VECTORS, WAKES, Effect, Event, Facts, rule, wakes


@pytest.mark.parametrize(("event", "state"), list(itertools.product(Event, ParkState)))
def test_every_event_in_every_state_has_rows_that_end_with_always(event, state):
    rows = [row for row in WAKES if row.event is event and row.state is state]
    assert rows
    assert rows[-1].condition is ALWAYS
    assert all(row.condition is not ALWAYS for row in rows[:-1])
    assert len({row.condition.name for row in rows}) == len(rows)
    assert all(row.sources for row in rows)


def effect(event, state, **facts):
    return rule(event, state, Facts(**facts)).effect


#             what is known of the CPU            running   mwait     hlt       port      sipi?     never?    shutdown
TABLE = """
STORE                                             NONE      CONTINUES NONE      NONE      NONE      NONE      NONE
SPURIOUS                                          NONE      CONTINUES NONE      CONTINUES NONE      NONE      NONE
NMI                                               DELIVERS  DELIVERS  DELIVERS  DELIVERS  HELD      DIES      DELIVERS
NMI           nmi_blocked                         HELD      HELD      HELD      HELD      HELD      DIES      NONE
SMI                                               CONTINUES CONTINUES RESTARTS  CONTINUES HELD      NONE      NONE
SMI           auto_halt_restart=0                 CONTINUES CONTINUES CONTINUES CONTINUES HELD      NONE      NONE
MACHINE_CHECK                                     DELIVERS  DELIVERS  DELIVERS  DELIVERS  DIES      DIES      DIES
MACHINE_CHECK machine_checks_enabled=0            DIES      DIES      DIES      DIES      DIES      DIES      DIES
MACHINE_CHECK machine_check_in_progress           DIES      DIES      DIES      DIES      DIES      DIES      DIES
INIT                                              WAITS     WAITS     WAITS     WAITS     NONE      WAITS     WAITS
INIT          bsp                                 RESETS    RESETS    RESETS    RESETS    NONE      WAITS     RESETS
SIPI                                              NONE      NONE      NONE      NONE      STARTS    STARTS    NONE
INTERRUPT                                         NONE      NONE      NONE      NONE      NONE      NONE      NONE
INTERRUPT     interrupts_enabled                  NONE      NONE      NONE      NONE      NONE      NONE      NONE
INTERRUPT     apic_enabled                        HELD      HELD      HELD      CONTINUES NONE      NONE      NONE
INTERRUPT     apic_enabled,interrupts_enabled     DELIVERS  DELIVERS  DELIVERS  DELIVERS  NONE      NONE      NONE
INTERRUPT     apic_enabled,mwait_breaks_on_masked HELD      CONTINUES HELD      CONTINUES NONE      NONE      NONE
"""
STATES = ("RUNNING", "MWAIT", "HLT", "PORT_IO", "WAIT_FOR_SIPI", "NEVER_BOOTED", "SHUTDOWN")
SHORT = {"DIES": "SHUTS_DOWN", "WAITS": "WAITS_FOR_SIPI"}


@pytest.mark.parametrize("line", TABLE.strip().splitlines(), ids=lambda line: "-".join(line.split()[:-7]))
def test_what_each_event_does_in_each_state(line):
    event, *facts = line.split()[:-7]
    names = facts[0].split(",") if facts else []
    known = Facts(**{name.removesuffix("=0"): not name.endswith("=0") for name in names})
    found = [rule(Event[event], ParkState[state], known).effect.name for state in STATES]
    assert found == [SHORT.get(name, name) for name in line.split()[-7:]]


def test_a_store_wakes_mwait_alone():
    woken = [state for state in ParkState if effect(Event.STORE, state).touches_memory]
    assert woken == [ParkState.MWAIT]


def test_waits_that_end_by_themselves():
    assert {ParkState.MWAIT, ParkState.PORT_IO} == ENDS_BY_ITSELF


def test_an_smi_restarts_hlt_and_does_not_restart_mwait():
    assert effect(Event.SMI, ParkState.HLT) is Effect.RESTARTS
    assert effect(Event.SMI, ParkState.HLT, auto_halt_restart=False) is Effect.CONTINUES
    assert effect(Event.SMI, ParkState.MWAIT) is Effect.CONTINUES


@pytest.mark.parametrize("state", [ParkState.MWAIT, ParkState.HLT, ParkState.PORT_IO])
def test_nmi_and_machine_check(state):
    assert effect(Event.NMI, state) is Effect.DELIVERS
    assert effect(Event.NMI, state, nmi_blocked=True) is Effect.HELD
    assert effect(Event.MACHINE_CHECK, state) is Effect.DELIVERS
    assert effect(Event.MACHINE_CHECK, state, machine_checks_enabled=False) is Effect.SHUTS_DOWN
    assert effect(Event.MACHINE_CHECK, state, machine_check_in_progress=True) is Effect.SHUTS_DOWN


def test_init_depends_on_the_bsp_flag():
    for state in (ParkState.RUNNING, ParkState.MWAIT, ParkState.HLT, ParkState.PORT_IO):
        assert effect(Event.INIT, state) is Effect.WAITS_FOR_SIPI
        assert effect(Event.INIT, state, bsp=True) is Effect.RESETS


def test_wait_for_sipi_is_deaf_but_for_sipi_and_machine_checks():
    effects = {event: effect(event, ParkState.WAIT_FOR_SIPI) for event in Event}
    assert not any(value.touches_memory for value in effects.values())
    assert effects[Event.SIPI] is Effect.STARTS
    assert effects[Event.MACHINE_CHECK] is Effect.SHUTS_DOWN
    assert effects[Event.INIT] is Effect.NONE


def test_an_interrupt_needs_the_apic_and_the_flag():
    hlt = ParkState.HLT
    assert effect(Event.INTERRUPT, hlt, interrupts_enabled=True) is Effect.NONE
    assert effect(Event.INTERRUPT, hlt, apic_enabled=True) is Effect.HELD
    assert effect(Event.INTERRUPT, hlt, apic_enabled=True, interrupts_enabled=True) is Effect.DELIVERS
    masked = effect(Event.INTERRUPT, ParkState.MWAIT, apic_enabled=True, mwait_breaks_on_masked=True)
    assert masked is Effect.CONTINUES


def test_parked_states_are_ordered_by_what_can_wake_them():
    woken = {state: {row.event for row in wakes(state)} for state in ParkState}
    assert woken[ParkState.WAIT_FOR_SIPI] < woken[ParkState.HLT] < woken[ParkState.MWAIT]


def test_rows_that_no_manual_has_say_so():
    """What is said of port reads, of firmware, and of wait-for-SIPI outside a virtual machine is our inference."""
    for row in WAKES:
        inferred = row.state in {ParkState.PORT_IO, ParkState.NEVER_BOOTED} or "WFS" in row.sources
        apic = row.sources.startswith("APIC-OFF")
        assert not inferred or apic or row.sources.startswith("derived: "), row
        assert row.sources != "derived: "


def test_every_source_that_a_row_names_is_described():
    described = set(re.findall(r"^    ([A-Z][A-Z-]+) {2,}", events.__doc__, re.MULTILINE))
    events_themselves = {"NMI", "SMI", "RSM"}
    for row in WAKES:
        assert set(re.findall(r"[A-Z][A-Z-]+", row.sources)) <= described | events_themselves, row


def test_what_becomes_of_a_cpu_without_its_kernel_is_told():
    """A CPU that is lost at once is among those that an event makes run, although it touches no memory."""
    assert {row.event for row in wakes(ParkState.WAIT_FOR_SIPI)} == {Event.MACHINE_CHECK}
    assert {row.event for row in wakes(ParkState.NEVER_BOOTED)} == {Event.NMI, Event.MACHINE_CHECK}
    assert Event.INIT in {row.event for row in wakes(ParkState.HLT, Facts(bsp=True))}


def test_vectors():
    """SDM 3A table 6-1: 2 is the NMI, 18 the machine check."""
    assert VECTORS == {Event.NMI: 2, Event.MACHINE_CHECK: 18}


def test_events_are_called_what_the_manuals_call_them():
    assert [str(event) for event in Event] == [
        "store to its line",
        "spurious exit",
        "NMI",
        "SMI",
        "machine check",
        "INIT",
        "start-up IPI",
        "external interrupt",
    ]
