"""What changed between two kernels, and what it breaks."""

from __future__ import annotations

import pytest

from hibercheck.handoff.diff import Part, compare_kernels
from hibercheck.handoff.matrix.scenario import Machine, Settings, parse_scenario
from hibercheck.handoff.verdict.findings import Verdict
from hibercheck.report import pairs
from hibercheck.report.gate import Exit
from tests.support.unpacked import plain_path

CURRENT, HLT, MID, NEW = (
    plain_path(f"kernels/{name}.vmlinux.xz") for name in ("small-current", "small-hlt", "mid-current", "v73-stock")
)


@pytest.fixture(scope="module")
def settings():
    machine = Machine()
    return Settings(machine, tuple(parse_scenario(text, machine) for text in ("default", "fixed=nokaslr nosmt")), True)


@pytest.fixture(scope="module")
def worse(settings):
    """The rescue of offline CPUs is lost."""
    return compare_kernels(CURRENT, HLT, [MID], settings)


def test_a_lost_rescue_is_a_change_of_behaviour(worse):
    traits = {change.name: change for change in worse.changes if change.part is Part.TRAIT}
    assert (traits["rescues_offline"].before.value, traits["rescues_offline"].after.value) == (True, False)
    assert "ec527c318036" in traits["rescues_offline"].commit


def test_pairs_that_it_breaks(worse):
    broken = {(pair.scenario, pair.resumer.release, pair.resumee.release): pair for pair in worse.broken}
    assert all(scenario == "fixed" for scenario, _, _ in broken)
    assert all(resumer.endswith("small-hlt") for _, resumer, _ in broken)  # as a resumee nothing has changed
    assert {pair.before.verdict for pair in broken.values()} == {Verdict.SAFE}
    assert {pair.after.verdict for pair in broken.values()} == {Verdict.BENIGN, Verdict.RISK}
    assert len(worse.pairs) == 2 * (3 + 2)


def status_of(difference, fail_on):
    return pairs.status_of(pairs.of_difference(difference, fail_on, refused_fails=True, strict=False))


@pytest.mark.parametrize(
    ("fail_on", "status"),
    [("risk", Exit.FAILED), ("fatal", Exit.PASSED), ("benign", Exit.FAILED), ("never", Exit.PASSED)],
)
def test_the_exit_status_follows_the_threshold(worse, fail_on, status):
    assert status_of(worse, fail_on) is status


def test_what_became_better_or_stayed_does_not_fail(settings):
    better = compare_kernels(HLT, CURRENT, [MID], settings)
    assert not any(pair.resumer.release.endswith("small-current") for pair in better.broken)
    same = compare_kernels(HLT, HLT, [MID], settings)
    assert (same.same_build, same.changes, same.broken) == (True, (), ())
    assert any(pair.after.verdict is Verdict.RISK for pair in same.pairs)
    assert status_of(same, "risk") is Exit.PASSED


def test_another_configuration_moves_the_layout_and_loops_that_only_moved_are_no_change(settings):
    changes = compare_kernels(CURRENT, MID, [], settings).changes
    layout = {change.name: change for change in changes if change.part is Part.LAYOUT}
    assert {"_end", "init_top_pgt"} <= set(layout)
    assert not [change for change in changes if change.part is Part.LOOP]


def test_a_loop_that_does_something_else_is_a_change(settings):
    changes = compare_kernels(CURRENT, NEW, [], settings).changes
    loops = {change.name: change for change in changes if change.part is Part.LOOP}
    assert "hlt (resume)" in loops  # 7.3 no longer asks whether it is CPU 0
    assert "cpu_number" not in loops["hlt (resume)"].after
    assert "none" in {change.before for change in loops.values()}  # intel_idle parks CPUs since 6.15
