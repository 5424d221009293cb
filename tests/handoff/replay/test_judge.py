"""What becomes of each CPU where something is missing: that is named, and only what hangs on it is left open."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import pytest

from hibercheck.dump.dump import open_dump
from hibercheck.handoff.memory.context import ApContext
from hibercheck.handoff.memory.owner import Owner, Use, Writes
from hibercheck.handoff.replay.compare import Difference
from hibercheck.handoff.replay.fate import Doubt, Fate, Ruling, Suppositions, When
from hibercheck.handoff.replay.judge import judge, judge_cpu, judge_cpus, suppositions, together
from hibercheck.handoff.replay.moments import moments_of
from hibercheck.handoff.scenario.park import Unsettled
from hibercheck.handoff.verdict.findings import Verdict
from hibercheck.x86.cpu import ParkState
from hibercheck.x86.events import Event, Facts
from tests.support.made_inputs import made_plan
from tests.support.made_states import (
    CODE,
    GS_FRAME,
    LINE_FRAME,
    OTHER,
    ROOT,
    TEXT,
    TEXT_FRAME,
    entry_state,
    made,
    own_frames,
)

KEPT = {OTHER: bytes(4096)}
NMI = Suppositions(events=frozenset({Event.NMI}))
QUIET = Suppositions()


def judged_cpu(image, state=ParkState.MWAIT, supposed=QUIET, *, reinitialised=False, change=None, **how):
    memory, cpu = made(image, state, **how)
    return judge_cpu(memory, cpu if change is None else change(cpu), supposed, reinitialised=reinitialised)


class Elsewhere:
    """Another way of parking: in the firmware.  It notes of what plan and with which dump it is asked."""

    def __init__(self):
        self.asked = []

    def apply(self, plan, memory, cpus, dump):
        self.asked.append((plan, dump))
        parked = (replace(one.parked, state=ParkState.NEVER_BOOTED, loop=None) for one in cpus)
        return memory, tuple(replace(one, parked=other) for one, other in zip(cpus, parked, strict=True))


def test_a_cpu_of_which_it_is_not_known_how_it_is_parked():
    def unsettle(cpu):
        return replace(cpu, parked=replace(cpu.parked, unsettled=Unsettled("what it does", "a vmlinux")))

    found = judged_cpu(KEPT, change=unsettle)
    assert (found.fate, found.missing) == (Fate.UNKNOWN, ("what it does", "a vmlinux"))
    assert (found.iteration, found.events, found.exposure) == (None, (), ())


@pytest.mark.parametrize("state", [ParkState.MWAIT, ParkState.HLT, ParkState.PORT_IO])
def test_a_cpu_whose_code_is_not_known(state):
    found = judged_cpu(KEPT, state, change=lambda cpu: replace(cpu, parked=replace(cpu.parked, loop=None)))
    assert (found.fate, found.missing) == (
        Fate.UNKNOWN, ("the code in which CPU 1 waits", "a resumer vmlinux with symbols"),
    )  # fmt: skip


def test_a_cpu_that_waits_in_no_memory_needs_no_code():
    assert judged_cpu(KEPT, ParkState.WAIT_FOR_SIPI).fate is Fate.UNTOUCHED


def test_an_event_that_cannot_be_followed_is_named_with_its_reason():
    found = judged_cpu(KEPT, ParkState.HLT, NMI)
    assert (found.fate, found.when, found.cause) == (Fate.UNKNOWN, When.AFTER, Event.NMI)
    assert found.missing == (
        f"what CPU 1 does on {Event.NMI.value}: its IDT, GDT and TSS are not known", "--resumer-memory DUMP",
    )  # fmt: skip
    known = judged_cpu(KEPT, ParkState.HLT, NMI, change=lambda cpu: replace(cpu, entry=entry_state()))
    assert (known.fate, known.missing) == (Fate.UNTOUCHED, None)


def test_memory_that_is_not_known_is_named_by_its_frame_and_what_it_leads_to():
    memory, cpu = made({LINE_FRAME: bytes(4096)})
    frame = memory.resumer.frame
    memory.resumer.frame = lambda pfn: None if pfn == ROOT else frame(pfn)
    # where its line lies is not known either then, and a wait that ends tells
    found = judge_cpu(memory, cpu, Suppositions(spurious_mwait=True), reinitialised=True)
    assert (found.fate, found.line) == (Fate.UNKNOWN, None)
    assert found.missing == (
        f"the contents of PFN {ROOT:#x} of the resumer, on the way to the park loop", "--resumer-memory DUMP",
    )  # fmt: skip


def test_events_that_were_supposed_are_told_apart_from_those_that_might_come():
    found = judged_cpu({TEXT_FRAME: bytes(4096)}, ParkState.HLT, Suppositions(events=frozenset({Event.SMI})))
    assert [one.event for one in found.events] == [Event.SMI]
    assert {one.event for one in found.exposure} == {Event.NMI, Event.MACHINE_CHECK}
    assert all(one.difference >= Difference.UNKNOWN for one in found.exposure)
    safe = judged_cpu(KEPT, ParkState.HLT, change=lambda cpu: replace(cpu, entry=entry_state()))
    assert (safe.events, safe.exposure) == ((), ())


@pytest.mark.parametrize(("state", "stores"), [(ParkState.MWAIT, True), (ParkState.HLT, False)])
def test_a_store_comes_only_to_a_cpu_that_monitors_a_line(state, stores):
    found = judged_cpu({TEXT_FRAME: bytes(4096)}, state)
    assert (Event.STORE in {one.event for one in found.exposure}) is stores


@pytest.mark.parametrize(("image", "change", "line"), [
    ({LINE_FRAME: bytes(4096)}, {}, True), (KEPT, {}, False), ({LINE_FRAME: bytes(4096)}, {"line_kept": True}, False),
    ({LINE_FRAME: bytes(4096)}, {"placed": False}, None), ({LINE_FRAME: bytes(4096)}, {"line": None}, None),
])  # fmt: skip
def test_whether_the_copy_writes_the_monitored_line(image, change, line):
    found = judged_cpu(image, change=lambda cpu: replace(cpu, context=replace(cpu.context, **change)))
    assert found.line is line
    assert judged_cpu(image, ParkState.HLT).line is False


def test_when_a_store_wakes_it_is_counted_in_copies():
    image = {LINE_FRAME: bytes(4096), TEXT_FRAME: b"\xcc" * 4096, 0x200: bytes(4096), 0x90: bytes(4096)}
    found = judged_cpu(image).timing
    assert (found.store, found.copies, found.code, found.margin) == (2, 4, 3, 1)
    assert found.counted is False
    harmless = judged_cpu({LINE_FRAME: bytes(4096)}).timing
    assert (harmless.store, harmless.copies, harmless.tables, harmless.code, harmless.margin) == (
        1,
        1,
        None,
        None,
        None,
    )


def test_a_wait_that_ends_meets_the_worst_moment():
    """Its code is replaced first, and its tables last: then they lead to the same code elsewhere."""
    away, _ = own_frames(text_frame=0x150)
    image = {pfn: content for pfn, content in away.items() if pfn < 0x20}
    image |= {0x150: away[0x150], TEXT_FRAME: b"\xcc" * 4096}
    assert judged_cpu(image, reinitialised=True).fate is Fate.PARKS_AGAIN
    for supposed in (Suppositions(spurious_mwait=True), Suppositions(mwait_spins=True)):
        found = judged_cpu(image, supposed=supposed, reinitialised=True)
        assert (found.fate, found.when, found.cause) == (Fate.DIES, When.COPY, Event.SPURIOUS)
    # a break event of the chipset may come at that moment, too
    port = judged_cpu(image, ParkState.PORT_IO, reinitialised=True)
    assert (port.fate, port.when, port.doubt) == (Fate.DIES, When.COPY, Doubt.BREAK_EVENT)
    assert judged_cpu(image, ParkState.HLT, reinitialised=True).fate is Fate.REINITIALISED


@pytest.mark.parametrize(("event", "checks", "doubt"), [
    (Event.NMI, True, Doubt.REUSED), (Event.MACHINE_CHECK, True, Doubt.REUSED),
    (Event.MACHINE_CHECK, False, None),  # with CR4.MCE clear it shuts down, whatever its frames hold
])  # fmt: skip
def test_frames_that_may_have_been_reused_count_where_an_event_touches_them(event, checks, doubt):
    def change(cpu):
        return replace(cpu, announced=False, facts=Facts(machine_checks_enabled=checks), entry=entry_state())

    found = judged_cpu(KEPT, ParkState.HLT, Suppositions(events=frozenset({event})), change=change)
    assert (found.fate, found.when, found.cause, found.doubt) == (Fate.DIES, When.AFTER, event, doubt)


def test_moments_that_were_not_followed_are_not_known(monkeypatch):
    image = {LINE_FRAME: bytes(4096), TEXT_FRAME: own_frames()[0][TEXT_FRAME]}
    assert judged_cpu(image, supposed=Suppositions(mwait_spins=True), reinitialised=True).fate is Fate.PARKS_AGAIN
    memory, cpu = made(image)
    assert moments_of(memory, cpu, None, cached=True).worst_difference is Difference.SAME
    monkeypatch.setattr("hibercheck.handoff.replay.moments.MAX_MOMENTS", 2)
    memory, cpu = made(image)  # one that has not been asked before
    cut_off = moments_of(memory, cpu, None, cached=True)
    assert (cut_off.complete, cut_off.worst_difference) == (False, Difference.UNKNOWN)
    assert judge_cpu(memory, cpu, QUIET, reinitialised=True).timing.code is None


@pytest.mark.parametrize(("supposed", "fate"), [
    (Suppositions(spurious_mwait=True), Fate.REINITIALISED),
    (Suppositions(spurious_mwait=True, cold_tlb=True), Fate.DIES),
    # one that never sleeps never loses its translations
    (Suppositions(mwait_spins=True, cold_tlb=True), Fate.REINITIALISED),
])  # fmt: skip
def test_a_wait_that_ends_finds_what_its_tlb_holds(supposed, fate):
    assert judged_cpu({ROOT: bytes(4096)}, supposed=supposed, reinitialised=True).fate is fate


def test_without_the_levels_of_paging_nothing_is_followed(judged):
    plan, _ = judged("fatal", memory=False)
    found = judge(replace(plan, levels=None), None)
    assert (found.memory, found.boot_cpu, found.sweep) == (None, None, None)
    assert [one.parked for one in found.aps] == list(plan.parked)
    (missing,) = found.missing
    assert "five levels" in missing[0]
    assert all((one.fate, one.missing, one.cpu.context) == (Fate.UNKNOWN, missing, ApContext(one.parked.cpu, 0))
               for one in found.aps)  # fmt: skip


def without_map(plan, **change):
    """Return a plan whose image has no memory map, and whose CPU 1 is parked otherwise."""
    resumee = replace(plan.resumee, e820=None, missing={"e820": "no such symbol"})
    reinitialised = change.pop("reinitialised", plan.reinitialised)
    parked = tuple(replace(one, **change) for one in plan.parked)
    inputs = replace(plan.inputs, resumee=resumee)
    return replace(plan, inputs=inputs, parked=parked, reinitialised=frozenset(reinitialised))


@pytest.mark.parametrize(("change", "fate", "missing"), [
    ({}, Fate.UNKNOWN, "where the resumer may lie"),
    ({"state": ParkState.HLT, "reinitialised": {1}}, Fate.REINITIALISED, None),
    ({"state": ParkState.HLT, "reinitialised": set()}, Fate.UNKNOWN, "where the resumer may lie"),
    ({"state": ParkState.MWAIT, "reinitialised": {1}}, Fate.UNKNOWN, "where the resumer may lie"),
    ({"state": ParkState.NEVER_BOOTED, "loop": None}, Fate.UNTOUCHED, None),
    ({"unsettled": Unsettled("how it is parked", "a vmlinux")}, Fate.UNKNOWN, "how it is parked"),
])  # fmt: skip
def test_without_a_memory_map_what_hangs_on_the_place_is_open_and_nothing_else(judged, change, fate, missing):
    plan, _ = judged("random-address", memory=False)
    found = judge(without_map(plan, **change), None)
    assert (found.memory, found.sweep) == (None, None)
    assert found.boot_cpu.survives
    for one in found.aps:
        assert one.fate is fate
        assert (one.missing is None) is (missing is None)
        assert missing is None or missing in one.missing[0]
    if missing == "where the resumer may lie":
        assert "no such symbol" in found.aps[0].missing[0]


FOREIGN = {TEXT_FRAME: b"\xcc" * 4096}
ENTERED = {"change": lambda cpu: replace(cpu, entry=entry_state())}


def test_over_places_what_is_missing_in_one_is_named():
    """The worst of what nothing kills is not known, and the places before it miss nothing."""
    known = judged_cpu(KEPT, ParkState.HLT, reinitialised=True)
    unknown = replace(known, ruling=Ruling(Fate.UNKNOWN), missing=("what it does", "a vmlinux"))
    for places in ([(1, known), (2, unknown)], [(2, unknown), (1, known)], [(1, unknown), (1, unknown)]):
        found = together(places)
        assert (found.fate, found.missing) == (Fate.UNKNOWN, ("what it does", "a vmlinux"))
    lost = replace(known, ruling=Ruling(Fate.DIES, When.COPY, Event.SPURIOUS))
    assert together([(1, unknown), (1, lost)]).missing is None
    assert together([(1, known)]).missing is None


@pytest.mark.parametrize("state", [ParkState.MWAIT, ParkState.HLT])
@pytest.mark.parametrize("reinitialised", [True, False])
def test_over_places_only_what_all_share_is_told(state, reinitialised):
    image = {TEXT_FRAME: b"\xcc" * 4096, LINE_FRAME: bytes(4096)}
    one, other = (judged_cpu(content, state, reinitialised=reinitialised) for content in (image, KEPT))
    found = together([(3, one), (1, other)])
    assert (found.iteration, found.events, found.timing, found.owner) == (None, (), None, None)
    assert found.line is (None if state is ParkState.MWAIT else False)
    assert found.reinitialised is reinitialised
    assert found.cpu.context == ApContext(one.parked.cpu, 0)
    assert (found.parked, found.cpu.facts) == (one.parked, one.cpu.facts)


def test_over_places_a_death_in_some_is_a_chance_and_in_all_is_certain():
    lost = judged_cpu(FOREIGN, supposed=Suppositions(spurious_mwait=True), reinitialised=True)
    kept = judged_cpu(KEPT, reinitialised=True)
    assert (lost.fate, lost.doubt) == (Fate.DIES, None)
    assert together([(1, lost), (5, lost)]).ruling == lost.ruling
    assert together([(1, kept), (1, lost)]).ruling == Ruling(Fate.DIES, lost.when, lost.cause, Doubt.PLACE)
    assert together([(1, kept), (1, kept)]).ruling == kept.ruling


def exposed(found):
    return {one.event: (one.difference, one.lent, one.reason) for one in found.exposure}


@pytest.mark.parametrize(("failing", "kept"), [(3, 1), (1, 3), (2, 2)])
def test_over_places_an_event_kills_in_so_many(failing, kept):
    lost = judged_cpu(FOREIGN, ParkState.HLT, **ENTERED)
    safe = judged_cpu(KEPT, ParkState.HLT, **ENTERED)
    assert {one.event for one in lost.exposure} == {Event.NMI, Event.MACHINE_CHECK, Event.SMI}
    found = exposed(together([(kept, safe), (failing, lost)]))
    reason = f"in {failing} of {failing + kept} places of the resumer it would not find its loop again"
    assert {one: told[1:] for one, told in found.items()} == dict.fromkeys(
        (Event.NMI, Event.MACHINE_CHECK, Event.SMI), (False, reason)
    )
    for one in lost.exposure:
        certain = one.effect.ends_machine
        assert found[one.event][0] is (one.difference if certain else Difference.UNKNOWN)


def test_over_places_memory_that_is_lent_counts_where_nothing_worse_does():
    safe = judged_cpu(KEPT, ParkState.HLT, **ENTERED)
    lost = judged_cpu(FOREIGN, ParkState.HLT, **ENTERED)
    (nmi,) = (one for one in lost.exposure if one.event is Event.NMI)
    lent = replace(safe, exposure=(replace(nmi, difference=Difference.INTACT, lent=True, reason="lent"),))
    assert exposed(together([(1, lent), (1, safe)])) == {Event.NMI: (Difference.INTACT, True, "lent")}
    worse = replace(lost, exposure=(nmi,))
    for places in ([(1, lent), (2, worse)], [(2, worse), (1, lent)]):
        assert exposed(together(places))[Event.NMI][1:] == (
            False, "in 2 of 3 places of the resumer it would not find its loop again",
        )  # fmt: skip


def test_over_places_one_that_dies_is_exposed_to_nothing_more():
    lost = judged_cpu(FOREIGN, ParkState.HLT, Suppositions(events=frozenset({Event.SMI})), **ENTERED)
    assert lost.fate is Fate.DIES
    assert lost.exposure
    assert together([(1, lost), (1, lost)]).exposure == ()


def test_places_fail_in_which_any_cpu_is_lost(judged):
    """A second CPU that nothing reaches changes nothing of how many these are."""
    plan, _ = judged("random-address", memory=False)
    alone = judge(plan, None).sweep
    assert 0 < alone.failing <= alone.placements
    (one,) = plan.parked
    for order in (1, -1):
        safe = replace(one, cpu=2, state=ParkState.NEVER_BOOTED, loop=None)
        both = replace(plan, parked=(one, safe)[::order])
        assert judge(both, None).sweep == alone


@pytest.mark.parametrize(("state", "longest"), [(ParkState.MWAIT, 7), (ParkState.HLT, None)])
@pytest.mark.parametrize("tlb", ["cold", "warm"])
def test_what_is_supposed_is_what_the_options_say(state, longest, tlb):
    plan = made_plan(tlb=tlb, spurious_mwait=True, suppose=frozenset({"nmi", "mce"}), wake_latency=7)
    plan = replace(plan, parked=tuple(replace(one, state=state) for one in plan.parked))
    events = frozenset({Event.NMI, Event.MACHINE_CHECK})
    assert suppositions(plan) == Suppositions(True, events, 7, tlb == "cold", False, longest)
    quiet = made_plan(tlb="warm")
    assert suppositions(quiet) == QUIET


def test_only_those_whom_the_resumee_starts_get_an_init():
    memory, cpu = made(FOREIGN, ParkState.HLT)
    cpus = [replace(cpu, parked=replace(cpu.parked, cpu=number)) for number in (1, 2, 3)]
    found = judge_cpus(memory, cpus, QUIET, {2})
    assert [one.fate for one in found] == [Fate.STAYS_PARKED, Fate.REINITIALISED, Fate.STAYS_PARKED]
    assert [one.parked.cpu for one in found] == [1, 2, 3]
    assert [one.reinitialised for one in found] == [False, True, False]


@pytest.mark.parametrize(("lacking", "known"), [
    ({}, True), ({"phys_base": None}, False), ({"kaslr_offset": None}, False),
    ({"phys_base": None, "kaslr_offset": None}, False),
])  # fmt: skip
def test_one_place_is_judged_if_all_of_it_is_known(judged, lacking, known):
    plan, _ = judged("fatal", memory=False)
    assert plan.placement.known
    found = judge(replace(plan, placement=replace(plan.placement, **lacking)), None)
    assert (found.memory is not None) is known
    assert all((one.iteration is not None) is known for one in found.aps if one.parked.loop is not None)


@pytest.mark.parametrize("memory", [False, True])
def test_another_way_of_parking_is_judged_in_the_place_of_the_resumer_s_own(judged, committed, memory):
    plan, own = judged("fatal", memory=memory)
    elsewhere = Elsewhere()
    with ExitStack() as stack:
        dump = stack.enter_context(open_dump(committed("fatal")["memory"])) if memory else None
        found = judge(plan, dump, elsewhere)
        assert elsewhere.asked == [(plan, dump)]
    assert {one.fate for one in own.aps} == {Fate.DIES}
    assert {one.fate for one in found.aps} == {Fate.UNTOUCHED}
    assert (found.memory.resumer.exact, found.boot_cpu.survives) == (memory, own.boot_cpu.survives)
    assert found.dump_shows_parked is own.dump_shows_parked


@pytest.mark.parametrize(("latency", "usual"), [(None, "parked"), (0, "parked"), (1, Fate.DIES), (2, Fate.DIES)])
@pytest.mark.parametrize(("reinitialised", "parked"), [(True, Fate.REINITIALISED), (False, Fate.STAYS_PARKED)])
def test_what_a_store_comes_to_as_a_rule_hangs_on_how_soon_it_wakes(latency, usual, reinitialised, parked):
    """Its line is copied second, and its code third."""
    image = {LINE_FRAME: bytes(4096), TEXT_FRAME: b"\xcc" * 4096, 0x200: bytes(4096), 0x90: bytes(4096)}
    found = judged_cpu(image, supposed=Suppositions(wake_latency=latency), reinitialised=reinitialised)
    assert (found.fate, found.when, found.cause, found.doubt) == (Fate.DIES, When.COPY, Event.STORE, Doubt.TIMING)
    assert found.ruling.usual is (parked if usual == "parked" else usual)


class Told:
    """Who owns what in the resumee: everything is data of one kind, and these frames may be handed out."""

    line_size = 64

    def __init__(self, writes=Writes.UNKNOWN, lent=()):
        self.writes, self.lent, self.asked = writes, lent, []

    def of_line(self, physical, cpu):
        self.asked.append((physical, cpu))
        return Owner(physical, 64, Use.DATA, writes=self.writes)

    def handed_out(self, pfn):
        return pfn in self.lent


@pytest.mark.parametrize(("writes", "reinitialised", "fate", "when", "doubt"), [
    (Writes.NEVER, True, Fate.REINITIALISED, None, None), (Writes.NEVER, False, Fate.STAYS_PARKED, None, None),
    (Writes.UNKNOWN, False, Fate.STAYS_PARKED, None, None), (Writes.ORDINARY, True, Fate.REINITIALISED, None, None),
    (Writes.ORDINARY, False, Fate.DIES, When.AFTER, Doubt.STORE),
    (Writes.HANDED_OUT, False, Fate.DIES, When.AFTER, Doubt.STORE),
    (Writes.BEFORE_INIT, True, Fate.DIES, When.BEFORE_INIT, None),
    (Writes.BEFORE_INIT, False, Fate.DIES, When.AFTER, None),
])  # fmt: skip
def test_a_cpu_whose_code_is_gone_lives_until_the_resumee_writes_its_line(writes, reinitialised, fate, when, doubt):
    memory, cpu = made(FOREIGN)
    owners = Told(writes)
    found = judge_cpu(replace(memory, owners=owners), cpu, QUIET, reinitialised=reinitialised)
    assert (found.fate, found.when, found.doubt) == (fate, when, doubt)
    assert found.owner.writes is writes
    assert owners.asked == [(LINE_FRAME << 12 | 0x40, 1)]


@pytest.mark.parametrize("state", [ParkState.MWAIT, ParkState.HLT])
@pytest.mark.parametrize(("image", "withheld", "line"), [
    ({LINE_FRAME: bytes(4096)}, False, True), (KEPT, False, False), ({LINE_FRAME: bytes(4096)}, True, False),
    (KEPT, True, False),
])  # fmt: skip
@pytest.mark.parametrize("at", [{"line_frame": LINE_FRAME, "line": 0xFFFFFFFFFF578000, "placed": False}, {}])
def test_a_line_that_the_kernel_withholds_from_images_is_not_written(state, image, withheld, line, at):
    """The frame of a page in the fixmap is known, whatever else is; to another its page tables lead."""
    found = judged_cpu(
        image, state, change=lambda cpu: replace(cpu, context=replace(cpu.context, line_withheld=withheld, **at))
    )
    assert found.line is (line and state is ParkState.MWAIT)


def test_a_frame_without_an_address_in_it_has_no_owner():
    memory, cpu = made(KEPT)
    cpu = replace(cpu, context=replace(cpu.context, line_frame=LINE_FRAME, line=None))
    assert judge_cpu(replace(memory, owners=Told()), cpu, QUIET, reinitialised=True).owner is None


@pytest.mark.parametrize(("image", "announced", "lent", "told"), [
    (KEPT, None, {TEXT_FRAME}, True), (KEPT, None, {TEXT_FRAME, ROOT}, True), (KEPT, None, {OTHER}, False),
    (KEPT, None, set(), False), (KEPT, True, {TEXT_FRAME}, False),  # of which the resumee knows that they are in use
    (FOREIGN, None, {TEXT_FRAME}, False),  # which kills it at once
])  # fmt: skip
def test_memory_that_may_be_handed_out_is_told_of_an_event_that_it_would_survive(image, announced, lent, told):
    memory, cpu = made(image, ParkState.HLT)
    cpu = replace(cpu, entry=entry_state(), announced=announced)
    found = judge_cpu(replace(memory, owners=Told(lent=lent)), cpu, QUIET, reinitialised=False)
    assert {one.event for one in found.exposure if one.lent} == (
        {Event.NMI, Event.MACHINE_CHECK, Event.SMI} if told else set()
    )
    assert all("handed out the free memory" in one.reason for one in found.exposure if one.lent)


@pytest.mark.parametrize(("state", "reinitialised", "entry", "reads"), [
    (ParkState.HLT, False, True, True), (ParkState.HLT, True, True, False), (ParkState.HLT, False, False, False),
    (ParkState.WAIT_FOR_SIPI, False, True, False),
])  # fmt: skip
def test_an_nmi_reads_tables_and_an_smi_does_not(state, reinitialised, entry, reads):
    found = judged_cpu(
        KEPT, state, reinitialised=reinitialised,
        change=lambda cpu: replace(cpu, entry=entry_state() if entry else None),
    )  # fmt: skip
    assert found.reads_tables is reads


@pytest.mark.parametrize("supposed", [
    Suppositions(spurious_mwait=True), Suppositions(mwait_spins=True), Suppositions(spurious_mwait=True, cold_tlb=True),
])  # fmt: skip
@pytest.mark.parametrize(("code", "fate"), [
    (b"\x0f\x05", Fate.UNKNOWN),  # SYSCALL, which is not followed
    (b"\xeb\xfe", Fate.DIES), (b"\xf4\xeb\xfd", Fate.PARKS_AGAIN),
])  # fmt: skip
def test_a_cpu_that_leaves_its_loop_for_code_that_is_not_understood_is_not_called_safe(supposed, code, fate):
    """What it reads was replaced, and leads it to code of its own: whatever its TLB holds, it goes there."""
    data = {GS_FRAME: bytes(4096)}  # it is taken for CPU 0
    found = judged_cpu(data, supposed=supposed, reinitialised=True, code=CODE + code)
    assert found.fate is fate
    if fate is Fate.UNKNOWN:
        assert (found.when, found.cause) == (When.COPY, Event.SPURIOUS)
        where = f"what CPU 1 executes at {TEXT + len(CODE):#x}, out of its loop"
        assert found.missing == (where, "--resumer-memory DUMP")


def test_a_second_way_of_parking_is_tried_at_each_place(judged):
    plan, own = judged("random-address", memory=False)
    elsewhere = Elsewhere()
    found = judge(plan, None, elsewhere)
    assert set(map(id, (of for of, _ in elsewhere.asked))) == {id(plan)}
    assert {dump for _, dump in elsewhere.asked} == {None}
    assert ({one.fate for one in found.aps}, found.sweep) == ({Fate.UNTOUCHED}, None)
    assert found.boot_cpu == own.boot_cpu
    assert own.boot_cpu.survives
    places = own.sweep.places
    assert sum(count for _, count, _ in places) == own.sweep.placements
    assert sum(count for _, count, lost in places if lost) == own.sweep.failing


@pytest.mark.parametrize(("cold", "usual"), [(True, Fate.DIES), (False, Fate.REINITIALISED)])
def test_a_store_that_wakes_it_once_its_tables_are_gone_finds_what_its_tlb_holds(cold, usual):
    found = judged_cpu({LINE_FRAME: bytes(4096), ROOT: bytes(4096)}, reinitialised=True,
                       supposed=Suppositions(wake_latency=1, cold_tlb=cold))  # fmt: skip
    assert (found.fate, found.doubt, found.ruling.usual) == (Fate.DIES, Doubt.TIMING, usual)


def test_the_first_frame_is_copied_as_well():
    timing = judged_cpu({LINE_FRAME: bytes(4096), 0: bytes(4096)}).timing
    assert (timing.store, timing.copies) == (1, 2)


@pytest.mark.parametrize("more", [frozenset({"smi"}), frozenset({"nmi"}), frozenset({"nmi", "smi"})])
def test_another_event_makes_nothing_better(predict, more):
    """Where the resumer lies is not known, nor so where the tables of an NMI are; a machine check needs none."""
    for events in (frozenset({"mce"}), more | {"mce"}):
        report = predict("latent", suppose=events, resumer_cmdline="nosmt", resumer_idle="none")
        assert report.verdict is Verdict.FATAL
