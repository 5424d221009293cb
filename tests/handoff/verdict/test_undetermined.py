"""A fact that is missing ends no check: the report is whole, names the fact, and is there in every format."""

from __future__ import annotations

import json

import pytest

from hibercheck.cli.run import run
from hibercheck.handoff.scenario.options import CheckOptions
from hibercheck.handoff.verdict.check import check
from hibercheck.handoff.verdict.findings import Outcome, Verdict
from tests.conftest import ROOT
from tests.support.opened import opened

STRIPPED = str(ROOT / "fixtures" / "kernels" / "small-hlt.bzImage")
FORMATS = ("json", "junit", "ktap", "github", "gitlab", "sarif", "markdown", "text")


@pytest.mark.parametrize("word", ["mitigations=auto,nosmt", "l1tf=full,force", "mds=full,nosmt", "retbleed=auto,nosmt"])
@pytest.mark.parametrize("name", ["fatal", "safe", "latent", "same-build"])
def test_whether_a_cpu_has_a_bug_ends_no_check(committed, name, word):
    """A vmlinuz tells no bug of the CPU; what the image does not tell of it is taken, and varied."""
    case = committed(name)
    options = CheckOptions(resumer_cmdline=f"nokaslr {word}", spurious_mwait=True)
    for resumee in (opened(case["resumee"]), None):
        report = check(case["image"], opened(STRIPPED), resumee, options)
        assert report.outcome in Outcome
        assert report.verdict is not Verdict.UNDETERMINED or report.missing
        assert any(one.name == "smt-off" for one in report.assumptions)


@pytest.fixture(scope="module")
def undetermined(committed, tmp_path_factory):
    """A resumer of which it is not known whether it rescues offline CPUs."""
    case, facts = committed("safe"), tmp_path_factory.mktemp("undetermined") / "facts.json"
    assert run(["kernel", case["resumer"], "--format", "json", "-o", str(facts)]) == 0
    document = json.loads(facts.read_text())
    document["traits"]["rescues_offline"]["value"] = None
    document["traits"]["rescues_offline"]["reason"] = "made so"
    facts.write_text(json.dumps(document))
    return [case["image"], "--resumer", str(facts), "--resumee", case["resumee"], "--resumer-cmdline", "nokaslr nosmt"]


@pytest.mark.parametrize("form", FORMATS)
def test_undetermined_is_a_whole_report_in_every_format(undetermined, capsys, form):
    assert run([*undetermined, "--format", form]) == 4
    captured = capsys.readouterr()
    assert "undetermined" in captured.out.lower() or "skip" in captured.out.lower()
    assert "rescues offline CPUs" in captured.out


def test_the_interface_gives_a_report_too(undetermined):
    options = CheckOptions(resumer_cmdline="nokaslr nosmt")
    report = check(undetermined[0], undetermined[2], undetermined[4], options)
    assert (report.outcome, report.verdict) == (Outcome.UNDETERMINED, Verdict.UNDETERMINED)
    assert any("rescues offline CPUs" in one.fact for one in report.missing)
    assert 1 in {cpu.cpu for cpu in report.cpus}
