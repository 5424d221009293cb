"""A resumer at a random address: what it leaves behind may lie in memory that is replaced."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from hibercheck.handoff.ap import ApResult
from hibercheck.handoff.findings import Fate, Outcome, Verdict
from hibercheck.handoff.judgement import Judgement
from hibercheck.handoff.loop_replay import LoopState
from hibercheck.handoff.park import Parked
from hibercheck.handoff.refusal import Acceptance
from hibercheck.handoff.verdict import decide
from hibercheck.x86.cpu import ParkState


def test_a_cpu_left_behind_is_exposed_in_some_places(predict):
    """Without a known address it is no safer than with the one at which it is known to be exposed."""
    report = predict("latent", resumer_cmdline="", suppose=frozenset())
    assert (report.outcome, report.verdict) == (Outcome.RESUMES, Verdict.LATENT)
    assert "some of the places" in report.headline
    assert report.share is None


@pytest.mark.parametrize(
    ("state", "verdict"), [(ParkState.HLT, Verdict.LATENT), (ParkState.NEVER_BOOTED, Verdict.SAFE)]
)
def test_a_cpu_that_waits_in_no_memory_is_not(state, verdict):
    """What an event does to a CPU that was never started does not come of the resume."""
    deadly = SimpleNamespace(state=LoopState.FOREIGN)
    ap = ApResult(Parked(1, state, None, ""), Fate.STAYS_PARKED, exposure=(deadly,))
    judgement = Judgement(SimpleNamespace(), None, (ap,), {})
    assert decide(Acceptance(None, ()), judgement) == (Outcome.RESUMES, verdict)
