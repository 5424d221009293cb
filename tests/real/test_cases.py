"""Predictions against what real kernels did: every measured case, and for the resets who dies of what."""

import json
from pathlib import Path

import pytest

from hibercheck.errors import Mismatch
from hibercheck.handoff.verdict.check import check
from hibercheck.handoff.verdict.findings import Fate, Level, Outcome, Verdict
from tests.conftest import SHARED_CASES
from tests.support.cases import options_of

CASES = json.loads((SHARED_CASES / "cases.json").read_text())["cases"] if (SHARED_CASES / "cases.json").exists() else []
NAMES = [case["name"] for case in CASES]
WITH_MEMORY = [case["name"] for case in CASES if case.get("memory")]


def case_named(name):
    return next(case for case in CASES if case["name"] == name)


@pytest.fixture(scope="module")
def predict(unpacked):
    def run(name, *, memory=False, **more):
        case = case_named(name)
        image, resumer, resumee = (str(unpacked(case[key])) for key in ("image", "resumer", "resumee"))
        if memory:
            more["resumer_memory"] = str(unpacked(case_named(memory if memory is not True else name)["memory"]))
        return check(image, resumer, resumee, options_of(case["args"], **more))

    return run


@pytest.mark.skipif(not CASES, reason="the measured cases (../shared/cases) are not beside this repository")
class TestMeasured:
    @pytest.mark.parametrize("name", NAMES)
    def test_outcome_from_the_kernels_alone(self, predict, name):
        case, report = case_named(name), predict(name)
        if case["may_abstain"] and (report.verdict is Verdict.RISK or report.outcome is Outcome.UNDETERMINED):
            return
        assert report.verdict is not Verdict.RISK
        assert report.outcome.value == case["truth"]["outcome"]

    @pytest.mark.parametrize("name", NAMES)
    def test_a_safe_lists_at_most_three_conditions(self, predict, name):
        report = predict(name)
        assert report.verdict is not Verdict.SAFE or len(report.conditions) <= 3

    @pytest.mark.parametrize("name", WITH_MEMORY)
    def test_outcome_with_the_resumers_memory(self, predict, name):
        report = predict(name, memory=True)
        assert report.verdict not in {Verdict.RISK, Verdict.UNDETERMINED}
        assert report.outcome.value == case_named(name)["truth"]["outcome"]

    def test_a_dump_of_another_boot_of_the_same_build_is_told(self, predict):
        """Measured: the machine reset.  What the dump's resumer has loaded contradicts it, whatever line is given."""
        name, wrong = "nosmt-hlt-deb61", "kaslr-nosmt-hlt-small"
        assert case_named(name)["truth"]["outcome"] == "resets"
        for line in ("nokaslr nosmt", None):
            with pytest.raises(Mismatch, match="shows another image loaded"):
                predict(name, memory=wrong, resumer_cmdline=line)

    @pytest.mark.parametrize("name", WITH_MEMORY)
    def test_the_two_ways_do_not_contradict_each_other(self, predict, name):
        static, exact = predict(name), predict(name, memory=True)
        assert static.verdict is Verdict.RISK or static.outcome is exact.outcome

    @pytest.mark.parametrize(
        "name", [case["name"] for case in CASES if case["truth"]["outcome"] == "resets" and "la57" not in case["name"]]
    )
    def test_the_cpu_that_dies_is_one_that_was_parked_where_it_was_measured(self, predict, name):
        report, truth = predict(name), case_named(name)["truth"]
        dead = [cpu for cpu in report.cpus if cpu.fate is Fate.DIES]
        measured = {entry["cpu"]: entry for entry in truth["parked"]}
        assert dead
        for cpu in dead:
            halted = measured[cpu.cpu]["halted"]
            assert cpu.state == ("hlt" if halted else "mwait")
            assert abs(cpu.rip - int(measured[cpu.cpu]["rip"], 16)) < 0x40
            assert cpu.cr3 == int(measured[cpu.cpu]["cr3"], 16)

    def test_an_nmi_after_the_handoff_fails_on_the_gate_of_vector_2(self, predict):
        report = predict("stock612-resumes-61-offline-nmi")
        finding = next(f for f in report.findings if f.rule == "HC203" and f.level is Level.ERROR)
        cr2 = next(
            e
            for e in case_named("stock612-resumes-61-offline-nmi")["truth"]["fault"]["last_exceptions"]
            if e[0] == "0e" and e[1] == "0008"
        )[4]
        assert finding.role == "IDT gate"
        assert finding.resumer.virtual == int(cr2, 16)
        assert "vector 2" in finding.resumer.symbol
        assert finding.evidence[0].walk.fault.error_code & ~1 == 8  # QEMU leaves P clear beside RSVD

    def test_a_paging_mode_mismatch_kills_the_boot_cpu(self, predict):
        report = predict("la57-mismatch-small")
        boot = next(cpu for cpu in report.cpus if cpu.boot_cpu)
        finding = next(f for f in report.findings if f.level is Level.ERROR)
        measured = case_named("la57-mismatch-small")["truth"]["fault"]["last_exceptions"][0]
        assert boot.fate is Fate.DIES
        assert (finding.rule, finding.cpu) == ("HC401", boot.cpu)
        assert finding.resumer.virtual or finding.resumee.virtual or finding.evidence[0].walk.address
        assert finding.evidence[0].walk.address == int(measured[4], 16)
        assert finding.evidence[0].walk.fault.error_code == int(measured[1], 16)

    def test_the_primary_thread_taken_offline_by_hand_is_the_one_that_dies(self, predict):
        report = predict("stock73-primary-offline")
        errors = {(f.rule, f.cpu) for f in report.findings if f.level is Level.ERROR}
        assert {("HC301", 2), ("HC201", 2)} <= errors
        assert {cpu for _, cpu in errors} == {2}

    def test_the_zero_page_flag_is_why_the_image_is_refused(self, predict):
        report = predict("stock61-refuses-612-image")
        assert [f.rule for f in report.findings] == ["HC402"]
        assert "-14" in report.findings[0].message
        assert "zero-page" in report.findings[0].message


def test_cases_are_found_from_here():
    assert Path(SHARED_CASES).name == "cases"
