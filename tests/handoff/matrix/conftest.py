"""Made-up kernels in summary."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import pytest

from hibercheck.handoff.matrix.pair import judge_run, overlap_of
from hibercheck.handoff.matrix.pairing import Run, options_of
from hibercheck.handoff.matrix.scenario import Scenario, Settings
from hibercheck.handoff.matrix.summary import Loop, Summary, Waiting
from hibercheck.kernel.code.traits import Traits
from hibercheck.x86.cpu import ParkState

TEXT = 0xFFFFFFFF81000000
LOOP = TEXT + 0x5FF8  # across the border of two pages
CODE = bytes(range(16))
ALL = frozenset({0, 1, 2, 3})


def page(content: bytes = CODE, at: int = LOOP) -> dict[int, bytes]:
    """The two pages that hold the loop."""
    first = at & -4096
    whole = bytes(at - first) + content + bytes(8192)
    return {first: whole[:4096], first + 4096: whole[4096:8192]}


@dataclass(frozen=True)
class Made:
    """A kernel, and what a scenario comes to on its side."""

    summary: Summary
    waiting: tuple[Waiting, ...]
    kaslr: bool = False
    levels: int | None = 4
    reinitialised: frozenset[int] = ALL


SIDES = tuple(field.name for field in fields(Made))[1:]


def judged(resumer: Made, resumee: Made, settings, *, unknown=(), refusal=None, left_behind=frozenset()):
    """Judge a pair of made kernels."""
    run = Run(
        waiting=resumer.waiting,
        unknown=unknown,
        refusal=refusal,
        placed=not (resumer.kaslr or resumee.kaslr),
        resumer_levels=resumer.levels,
        resumee_levels=resumee.levels,
        reinitialised=resumee.reinitialised,
        left_behind=left_behind,
    )
    ours, theirs = resumer.summary, resumee.summary
    options = options_of(settings.scenarios[0], settings)
    return judge_run(ours, theirs, run, settings, options, lambda loop: overlap_of(ours, ours.loops[loop], theirs))


@pytest.fixture
def kernel():
    """Return a function that makes a kernel whose CPUs 1 to 3 wait in one state."""

    def make(state=ParkState.MWAIT, *, content=CODE, end=TEXT + 0x800000, tables=0x600000, **fields):
        waiting = Waiting(
            ALL - {0}, state, 0 if state in {ParkState.MWAIT, ParkState.HLT, ParkState.PORT_IO} else None, False, None
        )
        own = {name: fields.pop(name) for name in list(fields) if name in SIDES}
        summary = Summary(
            path="k", release="6.1.0", build_id=None, traits=Traits(None, {}, ()), kind="made", kind_as_resumee="made",
            marks=frozenset(), text=TEXT, end=end, tables=(TEXT + tables, None, TEXT + tables + 4096,
            TEXT + tables + 8192), loops=(Loop(((LOOP, content),), ()),), pages=page(content), checks=True,
        )  # fmt: skip
        return Made(replace(summary, **fields), **{"waiting": (waiting,), **own})

    return make


@pytest.fixture
def settings():
    return Settings(scenarios=(Scenario("default"),))


@pytest.fixture
def restless(settings):
    """MWAIT may end at any time."""
    return replace(settings, spurious_mwait=True)
