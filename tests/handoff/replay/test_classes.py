"""Classes of equal CPUs: the judgement of each is what it would be by itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hibercheck.handoff.replay.classes import Classes
from hibercheck.handoff.replay.fate import Suppositions
from hibercheck.handoff.replay.judge import judge_cpu, judge_cpus
from hibercheck.handoff.replay.moments import moments_of
from hibercheck.x86.cpu import ParkState
from hibercheck.x86.events import Event, Facts
from tests.support.made_states import (
    GDT,
    GDT_FRAME,
    GS,
    GS_FRAME,
    IDT_FRAME,
    LINE_AT,
    LINE_FRAME,
    OTHER,
    ROOT,
    STACK_AT,
    TEXT_FRAME,
    TSS_AT,
    entry_state,
    made,
    own_frames,
)

WAITING = (ParkState.MWAIT, ParkState.HLT, ParkState.PORT_IO)
OWN, _ = own_frames()
CONTENTS = {
    "zeros": lambda _pfn: bytes(4096),
    "the same": OWN.get,
    "other": lambda _pfn: b"\xcc" * 4096,
}
IMAGES = st.dictionaries(
    st.sampled_from([ROOT, TEXT_FRAME, LINE_FRAME, GS_FRAME, GDT_FRAME, IDT_FRAME]), st.sampled_from(list(CONTENTS))
)
VALUES = {
    "state": WAITING,
    "gs_base": (None, GS, LINE_AT & -4096),
    "line": (None, LINE_AT, LINE_AT + 0x40),
    "stack": (None, STACK_AT, GS),
    "placed": (False, True),
    "followed": (False, True),
    "entry": (True, False),
    "gdt": (GDT, GDT + 0x1000),
    "tss": (TSS_AT, GDT),
    "tables_placed": (True, False),
    "checks": (True, False),
    "announced": (None, False, True),
}


@st.composite
def nearly_equal(draw):
    """Draw CPUs that differ in one thing or two."""
    base = {name: draw(st.sampled_from(values)) for name, values in VALUES.items()}
    found = [base]
    for _ in range(draw(st.integers(1, 4))):
        others = draw(st.lists(st.sampled_from(list(VALUES)), max_size=2))
        found.append(base | {name: draw(st.sampled_from(VALUES[name])) for name in others})
    return found


def cpus_in(image, wanted):
    """Return memory, and CPUs as they are wanted, all of which wait in the same loop of their state."""
    parts = {state: made(image, state) for state in WAITING}
    memory = parts[ParkState.MWAIT][0]
    found = []
    for number, one in enumerate(wanted, start=1):
        cpu = parts[one["state"]][1]
        context = replace(
            cpu.context,
            cpu=number,
            registers={"rdi": one["line"]} if one["followed"] and one["line"] else None,
            **{name: one[name] for name in ("gs_base", "line", "stack", "placed")},
        )
        found.append(
            replace(
                cpu,
                parked=replace(cpu.parked, cpu=number),
                context=context,
                entry=replace(entry_state(), gdt_base=one["gdt"], tr_base=one["tss"]) if one["entry"] else None,
                tables_placed=one["tables_placed"],
                facts=Facts(machine_checks_enabled=one["checks"]),
                announced=one["announced"],
            )
        )
    return memory, found


@settings(max_examples=300, deadline=None)
@given(IMAGES, nearly_equal(), st.sets(st.integers(1, 6)), st.booleans(), st.booleans())
def test_a_cpu_comes_to_what_it_would_come_to_by_itself(image, wanted, taken, spurious, nmi):
    contents = {OTHER: bytes(4096)} | {pfn: CONTENTS[what](pfn) for pfn, what in image.items()}
    memory, cpus = cpus_in(contents, wanted)
    supposed = Suppositions(spurious, frozenset({Event.NMI}) if nmi else frozenset())
    # each in a memory of its own, of which nobody has asked anything
    each = [judge_cpu(replace(memory), cpu, supposed, reinitialised=cpu.number in taken) for cpu in cpus]
    together = judge_cpus(memory, cpus, supposed, taken)
    assert list(together) == each
    assert [result.cpu for result in together] == cpus


PLAIN = {"gs_base": None, "line": None, "stack": None, "placed": False, "followed": False, "entry": True}
PLAIN |= {"state": ParkState.HLT, "gdt": GDT, "tss": TSS_AT, "tables_placed": True, "checks": True, "announced": None}


def alike(image, **other):
    """Tell whether a CPU is judged by another, from which it differs so."""
    memory, (first, second) = cpus_in({OTHER: bytes(4096)} | image, [PLAIN, PLAIN | other])
    classes = Classes()
    assert classes.result_for(first, reinitialised=False) is None
    classes.add(judge_cpu(memory, first, Suppositions(), reinitialised=False))
    return classes.result_for(second, reinitialised=False) is not None


def test_cpus_that_differ_in_their_number_are_judged_once():
    assert alike({})


@pytest.mark.parametrize(("image", "same"), [({}, False), ({IDT_FRAME: bytes(4096)}, True)])
def test_a_gdt_of_its_own_counts_where_a_delivery_gets_that_far(image, same):
    assert alike(image, gdt=GDT + 0x1000) is same


@pytest.mark.parametrize("other", [
    {"gs_base": GS}, {"line": LINE_AT}, {"checks": False}, {"announced": False}, {"announced": True},
    {"state": ParkState.PORT_IO}, {"entry": False}, {"tables_placed": False},
])  # fmt: skip
def test_what_its_loop_uses_and_what_decides_of_events_counts(other):
    assert not alike({}, **other)


@pytest.mark.parametrize(
    ("other", "same"), [({"stack": STACK_AT}, True), ({"gdt": GDT + 0x1000}, True), ({"gs_base": GS}, False)]
)
def test_a_loop_is_followed_through_the_copy_once_for_all_that_use_the_same_of_it(other, same):
    memory, (first, second) = cpus_in({TEXT_FRAME: bytes(4096)}, [PLAIN, PLAIN | other])
    ones, others = (moments_of(memory, cpu, None, cached=True) for cpu in (first, second))
    assert (ones.cpu, others.cpu) == (1, 2)
    assert (ones.moments is others.moments) is same


def test_what_its_loop_does_not_use_counts_for_nothing():
    assert alike({}, stack=STACK_AT)  # it reads its line and %gs:0x40, and no stack
