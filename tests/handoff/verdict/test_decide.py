"""From what becomes of each CPU to what becomes of the machine."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from hibercheck.handoff.acceptance.refusal import Acceptance
from hibercheck.handoff.memory.context import ApContext, ParkedCpu
from hibercheck.handoff.replay.compare import Difference
from hibercheck.handoff.replay.fate import Doubt, Fate, Ruling, When
from hibercheck.handoff.replay.judgement import ApResult, Judgement
from hibercheck.handoff.replay.trace import Trace
from hibercheck.handoff.scenario.park import Parked
from hibercheck.handoff.verdict.decide import decide, exposed, usual_outcome
from hibercheck.handoff.verdict.findings import Outcome, Verdict
from hibercheck.x86.cpu import ParkState
from hibercheck.x86.events import Effect, Event

ACCEPTED, MISSING = Acceptance(None, ()), (("a fact", "how to supply it"),)
PLACED, ALIVE, DEAD = SimpleNamespace(), SimpleNamespace(survives=True), SimpleNamespace(survives=False)


def cpu(fate, *, state=ParkState.HLT, settled=None, exposure=(), line=False, **ruling):
    iteration = None if settled is None else Trace(None, Effect.CONTINUES, settled)
    found = tuple(Trace(Event.NMI, Effect.DELIVERS, difference) for difference in exposure)
    waiting = ParkedCpu(Parked(1, state, None, ""), ApContext(1, 0))
    return ApResult(waiting, Ruling(fate, **ruling), iteration, exposure=found, line=line)


def judgement(*aps, memory=PLACED, boot_cpu=ALIVE, missing=(), **more):
    return Judgement(memory, boot_cpu, aps, missing=missing, **more)


SAFE, DIES = cpu(Fate.REINITIALISED), cpu(Fate.DIES, when=When.COPY, cause=Event.STORE)
MAY = cpu(Fate.DIES, when=When.COPY, cause=Event.STORE, doubt=Doubt.LINE)
OPEN, LUCKY = cpu(Fate.UNKNOWN), cpu(Fate.PARKS_AGAIN)
LATENT = cpu(Fate.STAYS_PARKED, settled=Difference.FOREIGN, exposure=[Difference.FOREIGN])


@pytest.mark.parametrize(("found", "expected"), [
    (judgement(SAFE), (Outcome.RESUMES, Verdict.SAFE)),
    (judgement(), (Outcome.RESUMES, Verdict.SAFE)),
    (judgement(SAFE, LUCKY), (Outcome.RESUMES, Verdict.BENIGN)),
    (judgement(LUCKY, LATENT), (Outcome.RESUMES, Verdict.LATENT)),
    (judgement(LATENT, MAY), (Outcome.MAY_RESET, Verdict.RISK)),
    (judgement(MAY, OPEN), (Outcome.UNDETERMINED, Verdict.UNDETERMINED)),
    (judgement(OPEN, DIES), (Outcome.RESETS, Verdict.FATAL)),
    (judgement(SAFE, boot_cpu=DEAD), (Outcome.RESETS, Verdict.FATAL)),
    (judgement(SAFE, lacks=(SimpleNamespace(feature="smap"),)), (Outcome.RESETS, Verdict.FATAL)),
    (judgement(SAFE, boot_cpu=None), (Outcome.RESUMES, Verdict.SAFE)),
    (judgement(MAY, missing=MISSING), (Outcome.UNDETERMINED, Verdict.UNDETERMINED)),
    (judgement(SAFE, missing=MISSING), (Outcome.UNDETERMINED, Verdict.UNDETERMINED)),
    (None, (Outcome.UNDETERMINED, Verdict.UNDETERMINED)),
])  # fmt: skip
def test_the_worst_cpu_decides_and_what_is_certain_comes_first(found, expected):
    assert decide(ACCEPTED, found) == expected


def test_what_is_refused_is_not_replayed_and_what_may_be_is_open():
    refused = Acceptance(SimpleNamespace(reason="does not"), ())
    assert decide(refused, judgement(DIES)) == decide(refused, None) == (Outcome.REFUSED, Verdict.REFUSED)
    unknown = Acceptance(None, MISSING)
    assert decide(unknown, judgement(SAFE)) == (Outcome.UNDETERMINED, Verdict.UNDETERMINED)
    assert decide(unknown, judgement(DIES)) == (Outcome.RESETS, Verdict.FATAL)


def timed(usual):
    return cpu(Fate.DIES, when=When.COPY, cause=Event.STORE, doubt=Doubt.TIMING, usual=usual)


@pytest.mark.parametrize(("aps", "expected"), [
    ([timed(Fate.REINITIALISED)], Outcome.RESUMES),
    ([timed(Fate.REINITIALISED), timed(Fate.DIES)], Outcome.RESETS),
    ([timed(Fate.STAYS_PARKED), SAFE], Outcome.RESUMES),
    ([timed(Fate.STAYS_PARKED), MAY], None),
    ([timed(Fate.DIES), MAY], Outcome.RESETS),
    ([timed(Fate.UNKNOWN), timed(Fate.REINITIALISED)], None),
    ([timed(Fate.UNKNOWN), timed(Fate.DIES)], Outcome.RESETS),
    ([MAY], None),
])  # fmt: skip
def test_the_usual_outcome_is_that_of_a_machine_without_latencies(aps, expected):
    assert usual_outcome(Outcome.MAY_RESET, judgement(*aps)) is expected
    assert usual_outcome(Outcome.RESETS, judgement(*aps)) is None
    assert usual_outcome(Outcome.MAY_RESET, None) is None


@pytest.mark.parametrize(("one", "expected"), [
    (LATENT, True),
    (cpu(Fate.STAYS_PARKED, exposure=[Difference.UNKNOWN]), True),
    (cpu(Fate.STAYS_PARKED, exposure=[Difference.STALE]), True),
    (cpu(Fate.STAYS_PARKED, exposure=[Difference.SAME]), False),
    (cpu(Fate.STAYS_PARKED, exposure=[Difference.UNKNOWN, Difference.FOREIGN]), True),
    (cpu(Fate.UNTOUCHED), False),
    (cpu(Fate.UNTOUCHED, exposure=[Difference.FOREIGN]), True),
    (cpu(Fate.UNTOUCHED, state=ParkState.NEVER_BOOTED, exposure=[Difference.FOREIGN]), False),
    (cpu(Fate.REINITIALISED, state=ParkState.PORT_IO, settled=Difference.STALE), True),
    (cpu(Fate.REINITIALISED, state=ParkState.MWAIT, settled=Difference.STALE, line=True), True),
    (cpu(Fate.REINITIALISED, state=ParkState.MWAIT, settled=Difference.STALE), False),
])  # fmt: skip
def test_who_lives_on_borrowed_time(one, expected):
    """An event that would kill a CPU counts, and one of which nobody knows what it would do."""
    assert exposed(one) is expected
