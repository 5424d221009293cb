"""The exact replay against the truth: registers of parked CPUs, and the exceptions of which a machine died."""

from __future__ import annotations

import json

import pytest

from hibercheck.handoff.facts.e820 import e820_checksum
from hibercheck.handoff.facts.running import read_running
from hibercheck.handoff.replay.compare import Difference
from hibercheck.handoff.replay.judge import judge
from hibercheck.handoff.verdict.check import open_inputs
from hibercheck.handoff.verdict.summary import cpu_reports
from hibercheck.x86.events import Event
from hibercheck.x86.paging import PageFaultCode
from tests.conftest import SHARED_CASES
from tests.support.cases import options_of

CASES = json.loads((SHARED_CASES / "cases.json").read_text())["cases"] if (SHARED_CASES / "cases.json").exists() else []
WITH_MEMORY = [case for case in CASES if case.get("memory")]

pytestmark = pytest.mark.skipif(not CASES, reason="the measured cases (../shared/cases) are not beside this repository")


@pytest.fixture(params=WITH_MEMORY, ids=lambda case: case["name"])
def case(request):
    return request.param


@pytest.fixture
def judged(case, unpacked):
    image, resumer, resumee, memory = (str(unpacked(case[key])) for key in ("image", "resumer", "resumee", "memory"))
    options = options_of(case["args"], resumer_memory=memory)
    with open_inputs(image, resumer, resumee, options) as (plan, acceptance, dump):
        assert acceptance.refusal is None
        yield plan, judge(plan, dump)


def test_parked_cpus_are_where_they_were_measured(case, judged):
    plan, judgement = judged
    reports = {cpu.cpu: cpu for cpu in cpu_reports(plan, judgement)}
    known = {result.parked.cpu: result.cpu for result in judgement.aps}
    assert judgement.dump_shows_parked is True
    for truth in case["truth"]["parked"]:
        found, state = reports[truth["cpu"]], known[truth["cpu"]].entry
        assert found.rip == int(truth["rip"], 16)
        assert found.cr3 == int(truth["cr3"], 16)
        # MWAIT is PAUSE to the emulator with several CPUs, so that only a CPU in HLT is halted
        assert (found.state == "hlt") == truth["halted"]
        assert state.gdt_base == int(truth["gdt_base"], 16)
        assert state.idt_base == int(truth["idt_base"], 16)
        assert known[truth["cpu"]].general["rsp"] == int(truth["rsp"], 16)


def test_the_machine_is_the_one_that_hibernated(judged):
    """The resumer's own memory map and page count, out of its dump, are those of the image."""
    plan, judgement = judged
    found = read_running(judgement.memory.resumer.space)
    assert e820_checksum(found.e820) == plan.image.record.e820_checksum
    assert found.pages in {None, plan.image.info.num_physpages}


def _as_logged(raised):
    """QEMU 7.2 leaves P clear where it sets RSVD; the SDM and later versions set both."""
    code = raised.error_code or 0
    return (
        raised.vector,
        code & ~PageFaultCode.P if code & PageFaultCode.RSVD else code,
        raised.rip,
        raised.rsp,
        raised.cr2,
    )


@pytest.mark.parametrize(
    "case",
    [case for case in WITH_MEMORY if case["truth"]["outcome"] == "resets"],
    ids=lambda case: case["name"],
    indirect=True,
)
def test_a_machine_that_resets_dies_of_what_was_logged(case, judged):
    """Of the same exceptions in the same order; a CPU that first ran foreign bytes is reported for these instead."""
    _, judgement = judged
    logged = [
        (int(vector, 16), int(code, 16), int(rip, 16), int(rsp, 16), int(cr2, 16) if cr2 else None)
        for vector, code, rip, rsp, cr2 in case["truth"]["fault"]["last_exceptions"]
    ]
    dead = [result for result in judgement.aps if result.cause is not None]
    assert dead
    for result in dead:
        state = result.cpu.entry
        event = result.fatal_event
        if event is None or event.delivery is None:
            assert result.cause is Event.SPURIOUS
            assert result.iteration.difference is Difference.FOREIGN
            assert not any(
                start <= logged[0][2] - judgement.memory.resumer.kaslr_offset < end
                for start, end in result.parked.loop.ranges
            )
            continue
        first = next(number for number, entry in enumerate(logged) if entry[2] == state.rip)
        assert [_as_logged(raised) for raised in event.delivery.raised] == logged[first:]
