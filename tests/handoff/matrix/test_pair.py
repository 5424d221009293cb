from __future__ import annotations

from dataclasses import replace

import pytest

from hibercheck.handoff.findings import Outcome, Verdict
from hibercheck.handoff.matrix.brief import Waiting
from hibercheck.handoff.matrix.pair import Turn, compare_loops, image_share, judge_pair, outlook, turn_of
from hibercheck.handoff.matrix.scenario import Machine
from hibercheck.kernel.code.model import Patch
from hibercheck.x86.cpu import ParkState
from tests.handoff.matrix.conftest import ALL, CODE, LOOP, TEXT

OTHER = bytes(reversed(CODE))


def verdict(resumer, resumee, settings):
    (cell,) = judge_pair(resumer, resumee, settings)
    return cell.verdict


def test_the_same_bytes_in_the_same_place_are_luck(kernel, restless):
    assert verdict(kernel(), kernel(), restless) is Verdict.BENIGN


def test_other_bytes_there_are_fatal(kernel, restless):
    (cell,) = judge_pair(kernel(), kernel(content=OTHER), restless)
    assert (cell.outcome, cell.verdict) == (Outcome.RESETS, Verdict.FATAL)


def test_a_page_without_a_loop_of_its_own_holds_other_bytes(kernel, restless):
    assert verdict(kernel(), kernel(pages={}), restless) is Verdict.FATAL


@pytest.mark.parametrize("place", [0, 7, 8, 15])
def test_every_byte_counts_on_both_sides_of_a_page_border(kernel, restless, place):
    changed = bytearray(CODE)
    changed[place] ^= 1
    assert verdict(kernel(), kernel(content=bytes(changed)), restless) is Verdict.FATAL


def test_bytes_that_the_kernel_patches_itself_do_not_count(kernel, restless):
    resumer = kernel()
    (loop,) = resumer.loops
    patched = replace(resumer, loops=(replace(loop, patchable=(Patch(LOOP, LOOP + 16, "alternative"),)),))
    assert verdict(patched, kernel(content=OTHER), restless) is Verdict.BENIGN


def test_other_tables_leave_it_its_cached_translations(kernel, restless):
    assert turn_of(kernel(), kernel().loops[0], kernel(tables=0x700000)) is Turn.STALE
    assert verdict(kernel(), kernel(tables=0x700000), restless) is Verdict.LATENT


def test_a_loop_beside_the_resumee_is_a_matter_of_chance(kernel, restless):
    (cell,) = judge_pair(kernel(), kernel(end=TEXT + 0x1000), replace(restless, image_share=0.25))
    assert (cell.verdict, cell.outcome, cell.share) == (Verdict.RISK, Outcome.RESUMES, 0.25)
    (cell,) = judge_pair(kernel(), kernel(end=TEXT + 0x1000), replace(restless, image_share=0.75))
    assert (cell.verdict, cell.outcome) == (Verdict.RISK, Outcome.RESETS)


@pytest.mark.parametrize("sides", [(True, False), (False, True), (True, True)])
def test_a_random_address_is_a_matter_of_chance(kernel, restless, sides):
    ours, theirs = (kernel(kaslr=kaslr) for kaslr in sides)
    assert verdict(ours, theirs, restless) is Verdict.RISK


def test_without_spurious_exits_the_line_must_be_overwritten(kernel, settings):
    assert verdict(kernel(), kernel(content=OTHER), settings) is Verdict.RISK
    assert verdict(kernel(), kernel(), settings) is Verdict.SAFE


def test_hlt_is_safe_where_the_resumee_takes_over(kernel, restless):
    assert verdict(kernel(ParkState.HLT), kernel(content=OTHER), restless) is Verdict.SAFE


def test_hlt_is_latent_where_it_does_not(kernel, settings):
    resumee = kernel(content=OTHER, reinitialised=ALL - {1})
    (cell,) = judge_pair(kernel(ParkState.HLT), resumee, settings)
    assert cell.verdict is Verdict.LATENT
    assert "CPU 1 in HLT" in cell.reason
    assert verdict(kernel(ParkState.HLT), resumee, replace(settings, suppose=frozenset({"nmi"}))) is Verdict.FATAL
    assert verdict(kernel(ParkState.HLT), kernel(reinitialised=ALL - {1}), settings) is Verdict.SAFE


def test_without_machine_checks_a_cpu_left_behind_dies_of_one(kernel, settings):
    resumer = kernel(ParkState.HLT, checks=False)
    assert verdict(resumer, kernel(reinitialised=ALL - {1}), settings) is Verdict.LATENT


def test_wait_for_sipi_fears_machine_checks_only(kernel, settings):
    resumer, resumee = kernel(ParkState.WAIT_FOR_SIPI), kernel(content=OTHER, reinitialised=ALL - {1})
    assert verdict(resumer, resumee, replace(settings, suppose=frozenset({"nmi"}))) is Verdict.LATENT
    assert verdict(resumer, resumee, replace(settings, suppose=frozenset({"mce"}))) is Verdict.FATAL
    assert verdict(resumer, kernel(), settings) is Verdict.SAFE


@pytest.mark.parametrize(
    ("resumer", "resumee"),
    [
        ({"zero_pages": False}, {"zero_pages": True}),
        ({"magic": 1}, {"magic": 2}),
        ({"compressors": ("lzo",)}, {"compressors": ("lz4",)}),
        ({"refuses": "nohibernate"}, {}),
    ],
)
def test_refusals(kernel, restless, resumer, resumee):
    (cell,) = judge_pair(kernel(**resumer), kernel(content=OTHER, **resumee), restless)
    assert (cell.outcome, cell.verdict) == (Outcome.REFUSED, Verdict.REFUSED)


def test_a_newer_resumer_accepts_what_an_older_kernel_wrote(kernel, restless):
    assert verdict(kernel(zero_pages=True), kernel(zero_pages=False), restless) is Verdict.BENIGN


@pytest.mark.parametrize("fact", ["zero_pages", "magic", "compressors"])
def test_what_is_not_known_is_undetermined(kernel, restless, fact):
    assert verdict(kernel(**{fact: None}), kernel(), restless) is Verdict.UNDETERMINED
    unsettled = Waiting(frozenset({1}), ParkState.RUNNING, None, False, "how it idles")
    (cell,) = judge_pair(kernel(waiting=(unsettled,)), kernel(), restless)
    assert (cell.verdict, cell.reason) == (Verdict.UNDETERMINED, "how it idles is not known")


def test_what_is_certain_comes_before_what_is_not_known(kernel, restless):
    assert verdict(kernel(zero_pages=None), kernel(content=OTHER), restless) is Verdict.FATAL


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"), [(5, 4, Verdict.FATAL), (4, 5, Verdict.FATAL), (None, 4, Verdict.UNDETERMINED)]
)
def test_paging_modes_must_agree(kernel, restless, ours, theirs, expected):
    resumer = kernel(ParkState.HLT, resumer_levels=ours)
    assert verdict(resumer, kernel(resumee_levels=theirs), restless) is expected


def test_the_share_grows_with_the_resumee(kernel, settings):
    small = replace(settings, machine=Machine(memory=10 << 20))
    assert image_share(kernel(), settings) == 0.4
    assert image_share(kernel(), small) == 0.8
    assert image_share(kernel(), replace(settings, machine=Machine(memory=1 << 20))) == 1.0


def test_resumees_that_look_alike_get_the_same_verdicts(kernel, restless):
    resumer = kernel()
    seen = {}
    for resumee in (kernel(), kernel(content=OTHER), kernel(end=TEXT + 0x1000), kernel(zero_pages=True), kernel()):
        key = outlook(resumee, restless), compare_loops(resumer, resumee)
        assert seen.setdefault(key, judge_pair(resumer, resumee, restless)) == judge_pair(resumer, resumee, restless)
    assert len(seen) == 4
