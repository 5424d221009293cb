"""Made-up kernels in brief."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hibercheck.handoff.matrix.brief import Brief, Loop, Run, Waiting
from hibercheck.handoff.matrix.scenario import Scenario, Settings
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


@pytest.fixture
def kernel():
    """Return a function that makes a kernel whose CPUs 1 to 3 wait in one state."""

    def make(state=ParkState.MWAIT, *, content=CODE, end=TEXT + 0x800000, tables=0x600000, kaslr=False, **fields):
        waiting = Waiting(ALL - {0}, state, 0 if state in {ParkState.MWAIT, ParkState.HLT} else None, False, None)
        run = Run(
            waiting=fields.pop("waiting", (waiting,)),
            missing=fields.pop("missing", None),
            refuses=fields.pop("refuses", None),
            resumer_kaslr=kaslr,
            resumee_kaslr=kaslr,
            resumer_levels=fields.pop("resumer_levels", 4),
            resumee_levels=fields.pop("resumee_levels", 4),
            reinitialised=fields.pop("reinitialised", ALL),
        )
        brief = Brief(
            path="k", release="6.1.0", build_id=None, magic=0x23456789ABCDEF02, compressors=("lzo",), zero_pages=False,
            text=TEXT, end=end, tables=(TEXT + tables, None, TEXT + tables + 4096, TEXT + tables + 8192),
            loops=(Loop(((LOOP, content),), ()),), pages=page(content), checks=True, runs=(run,),
        )  # fmt: skip
        return replace(brief, **fields)

    return make


@pytest.fixture
def settings():
    return Settings(scenarios=(Scenario("default"),))


@pytest.fixture
def restless(settings):
    """MWAIT may end at any time."""
    return replace(settings, spurious_mwait=True)
