from __future__ import annotations

from dataclasses import replace

import pytest

from hibercheck.handoff.matrix.pair import image_share, overlap_of
from hibercheck.handoff.matrix.scenario import Machine
from hibercheck.handoff.matrix.summary import Waiting
from hibercheck.handoff.replay.compare import Difference
from hibercheck.handoff.verdict.findings import Outcome, Verdict
from hibercheck.kernel.code.model import Patch
from hibercheck.x86.cpu import ParkState
from tests.handoff.matrix.conftest import ALL, CODE, LOOP, TEXT, judged

OTHER = bytes(reversed(CODE))


def verdict(resumer, resumee, settings):
    return judged(resumer, resumee, settings).verdict


def test_the_same_bytes_in_the_same_place_are_luck(kernel, restless):
    assert verdict(kernel(), kernel(), restless) is Verdict.BENIGN


def test_other_bytes_there_are_fatal(kernel, restless):
    cell = judged(kernel(), kernel(content=OTHER), restless)
    assert (cell.outcome, cell.verdict) == (Outcome.RESETS, Verdict.FATAL)


def test_a_page_without_a_loop_of_its_own_holds_other_bytes(kernel, restless):
    assert verdict(kernel(), kernel(pages={}), restless) is Verdict.FATAL


@pytest.mark.parametrize("place", [0, 7, 8, 15])
def test_every_byte_counts_on_both_sides_of_a_page_border(kernel, restless, place):
    changed = bytearray(CODE)
    changed[place] ^= 1
    assert verdict(kernel(), kernel(content=bytes(changed)), restless) is Verdict.FATAL


def test_bytes_that_the_kernel_patches_itself_do_not_count(kernel, restless):
    (loop,) = kernel().summary.loops
    patched = kernel(loops=(replace(loop, patchable=(Patch(LOOP, LOOP + 16, "alternative"),)),))
    assert verdict(patched, kernel(content=OTHER), restless) is Verdict.BENIGN


def test_other_tables_leave_it_its_cached_translations(kernel, restless):
    found = overlap_of(kernel().summary, kernel().summary.loops[0], kernel(tables=0x700000).summary)
    assert {found.kept, found.covered} == {Difference.STALE}
    assert verdict(kernel(), kernel(tables=0x700000), restless) is Verdict.FATAL  # one exit, on a cold TLB
    spins = replace(restless, spurious_mwait=False, mwait_spins=True)
    assert verdict(kernel(), kernel(tables=0x700000), spins) is Verdict.LATENT


def test_a_loop_beside_the_resumee_is_a_matter_of_chance(kernel, restless):
    cell = judged(kernel(), kernel(end=TEXT + 0x1000), replace(restless, image_share=0.25))
    assert (cell.verdict, cell.outcome, cell.share) == (Verdict.RISK, Outcome.MAY_RESET, 0.25)
    cell = judged(kernel(), kernel(end=TEXT + 0x1000), replace(restless, image_share=0.75))
    assert (cell.verdict, cell.outcome, cell.share) == (Verdict.RISK, Outcome.MAY_RESET, 0.75)


@pytest.mark.parametrize("sides", [(True, False), (False, True), (True, True)])
def test_a_random_address_is_a_matter_of_chance(kernel, restless, sides):
    ours, theirs = (kernel(kaslr=kaslr) for kaslr in sides)
    assert verdict(ours, theirs, restless) is Verdict.RISK


def test_without_spurious_exits_the_line_must_be_overwritten(kernel, settings):
    assert verdict(kernel(), kernel(content=OTHER), settings) is Verdict.RISK
    assert verdict(kernel(), kernel(), settings) is Verdict.BENIGN


def test_a_port_read_ends_by_itself(kernel, settings):
    """As in a check: whatever the chipset takes for a break event ends it during the copy."""
    resumer = kernel(ParkState.PORT_IO)
    assert verdict(resumer, kernel(content=OTHER), settings) is Verdict.RISK
    assert verdict(resumer, kernel(), settings) is Verdict.BENIGN


def test_hlt_is_safe_where_the_resumee_takes_over(kernel, restless):
    assert verdict(kernel(ParkState.HLT), kernel(content=OTHER), restless) is Verdict.SAFE


def test_hlt_is_latent_where_it_does_not(kernel, settings):
    resumee = kernel(content=OTHER, reinitialised=ALL - {1})
    cell = judged(kernel(ParkState.HLT), resumee, settings)
    assert cell.verdict is Verdict.LATENT
    assert "CPU 1 in HLT" in cell.reason
    assert verdict(kernel(ParkState.HLT), resumee, replace(settings, suppose=frozenset({"nmi"}))) is Verdict.FATAL
    assert verdict(kernel(ParkState.HLT), kernel(reinitialised=ALL - {1}), settings) is Verdict.SAFE


def test_without_machine_checks_a_cpu_left_behind_dies_of_one(kernel, settings):
    resumer = kernel(ParkState.HLT, checks=False)
    assert verdict(resumer, kernel(reinitialised=ALL - {1}), settings) is Verdict.LATENT


def test_wait_for_sipi_fears_machine_checks_only(kernel, settings):
    resumer, resumee = kernel(ParkState.WAIT_FOR_SIPI), kernel(content=OTHER, reinitialised=ALL - {1})
    assert verdict(resumer, resumee, replace(settings, suppose=frozenset({"nmi"}))) is Verdict.SAFE
    assert verdict(resumer, resumee, replace(settings, suppose=frozenset({"mce"}))) is Verdict.FATAL
    assert verdict(resumer, kernel(), settings) is Verdict.SAFE


def test_a_refusal_is_told_in_the_words_of_a_check(kernel, restless):
    cell = judged(kernel(), kernel(content=OTHER), restless, refusal="was booted with nohibernate")
    assert (cell.outcome, cell.verdict) == (Outcome.REFUSED, Verdict.REFUSED)
    assert cell.reason == "it was booted with nohibernate"


def test_what_is_not_known_is_undetermined(kernel, restless):
    assert judged(kernel(), kernel(), restless, unknown=("how it boots",)).verdict is Verdict.UNDETERMINED
    unsettled = Waiting(frozenset({1}), ParkState.RUNNING, None, False, "how it idles")
    cell = judged(kernel(waiting=(unsettled,)), kernel(), restless)
    assert (cell.verdict, cell.reason) == (Verdict.UNDETERMINED, "how it idles is not known")


def test_what_is_certain_comes_before_what_is_not_known(kernel, restless):
    assert judged(kernel(), kernel(content=OTHER), restless, unknown=("a thing",)).verdict is Verdict.FATAL


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"), [(5, 4, Verdict.FATAL), (4, 5, Verdict.FATAL), (None, 4, Verdict.UNDETERMINED)]
)
def test_paging_modes_must_agree(kernel, restless, ours, theirs, expected):
    assert verdict(kernel(ParkState.HLT, levels=ours), kernel(levels=theirs), restless) is expected


def test_the_share_grows_with_the_resumee(kernel, settings):
    small = replace(settings, machine=Machine(memory=10 << 20))
    assert image_share(kernel().summary, settings) == 0.4
    assert image_share(kernel().summary, small) == 0.8
    assert image_share(kernel().summary, replace(settings, machine=Machine(memory=1 << 20))) == 1.0


def rules(resumer, resumee, settings, **more):
    return judged(resumer, resumee, settings, **more).rules


def test_a_cell_names_the_rules_that_a_check_would(kernel, settings, restless):
    other = kernel(content=OTHER)
    assert rules(kernel(), other, restless) == ("HC201",)
    assert rules(kernel(), other, settings) == ("HC101", "HC201")  # a store to its line
    assert rules(kernel(), kernel(tables=0x700000), restless) == ("HC202",)
    assert rules(kernel(kaslr=True), kernel(), restless) == ("HC201",)
    asleep = kernel(content=OTHER, reinitialised=frozenset())
    assert rules(kernel(ParkState.HLT), asleep, settings) == ("HC201", "HC302")
    nmi = replace(settings, suppose=frozenset({"nmi"}))
    assert rules(kernel(ParkState.HLT), asleep, nmi) == ("HC201", "HC302")
    mce = replace(settings, suppose=frozenset({"mce"}))
    for left_behind in (frozenset(), frozenset({2})):  # of a CPU that has no memory HC301 and HC302 do not tell
        more = {"left_behind": left_behind}
        assert rules(kernel(ParkState.WAIT_FOR_SIPI), asleep, mce, **more) == ("HC501",)
        assert rules(kernel(ParkState.NEVER_BOOTED), asleep, mce, **more) == ()
    assert rules(kernel(), other, restless, left_behind=frozenset({2})) == ("HC201", "HC301")
    assert rules(kernel(), other, restless, left_behind=frozenset({7})) == ("HC201",)
    assert rules(kernel(), kernel(levels=5), restless) == ("HC401",)
    assert rules(kernel(), kernel(), restless, refusal="has none") == ("HC402",)


def test_a_cell_that_is_fine_names_none(kernel, restless):
    assert rules(kernel(), kernel(), restless) == ()
    assert rules(kernel(ParkState.HLT), kernel(content=OTHER), restless) == ()
    assert rules(kernel(), kernel(), restless, unknown=("where it lies",)) == ()
