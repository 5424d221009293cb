"""Every rule has an input that triggers it and one that does not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from hibercheck.errors import MalformedImage, Mismatch
from hibercheck.handoff.check import check
from hibercheck.handoff.explain import Explainer
from hibercheck.handoff.findings import Level, Place
from hibercheck.handoff.loop_course import Diversion
from hibercheck.handoff.options import CheckOptions
from hibercheck.handoff.rules import RULES
from hibercheck.x86.follow import CourseEnd, DataAccess
from hibercheck.x86.paging import Access

COMMITTED = {
    "HC101": ("fatal", {"memory": True}),
    "HC102": ("fatal", {"memory": True}),
    "HC201": ("fatal", {}),
    "HC202": ("fatal", {}),
    "HC203": ("latent", {}),
    "HC301": ("fatal", {}),
    "HC302": ("latent", {"suppose": frozenset()}),
    "HC401": ("paging-mode", {}),
    "HC502": ("latent", {"suppose": frozenset()}),
    "HC601": ("fatal", {"park": "fixmap"}),
    "HC701": ("no-overlap", {}),
}
"""A committed case and further options, for each rule that one of them triggers."""

SHARED = {
    "HC402": ("images/5cfca45430.bin.xz", "debian-6.1.176", "debian-6.12.94", {"resumer_cmdline": "nokaslr nosmt"}),
    "HC501": ("images/89d55f5182.bin.xz", "park-init", "debian-6.1.176", {"resumer_cmdline": "nokaslr"}),
}
"""Image, resumer, resumee and options out of the measured cases."""

OTHERS = {
    "HC204": "test_data_that_lead_a_cpu_out_of_its_loop",
    "HC303": "test_a_store_into_the_resumee",
    "HC403": "test_the_wrong_resumee",
    "HC404": "test_a_damaged_image",
}
"""Rules with a test of their own below."""


def rules_of(report) -> set[str]:
    return {finding.rule for finding in report.findings}


def test_no_rule_is_without_a_trigger():
    named = [*COMMITTED, *SHARED, *OTHERS]
    assert sorted(named) == sorted(RULES)
    assert all(name in globals() for name in OTHERS.values())


@pytest.mark.parametrize("rule", COMMITTED)
def test_a_committed_case_triggers_it(predict, rule):
    name, more = COMMITTED[rule]
    assert rule in rules_of(predict(name, **more))


@pytest.mark.parametrize("rule", COMMITTED)
def test_a_committed_case_does_not(predict, rule):
    assert rule not in rules_of(predict("same-build"))


@pytest.mark.parametrize("rule", SHARED)
def test_a_measured_case_triggers_it(unpacked, rule):
    image, resumer, resumee, options = SHARED[rule]
    kernels = [str(unpacked(f"kernels/{kernel}.vmlinux.xz")) for kernel in (resumer, resumee)]
    report = check(str(unpacked(image)), *kernels, CheckOptions(**options))
    assert rule in rules_of(report)


@pytest.mark.parametrize("rule", SHARED)
def test_no_committed_case_does(predict, rule):
    assert rule not in rules_of(predict("safe"))


@pytest.mark.parametrize(("access", "overwritten", "found"), [
    (Access.WRITE, True, ["HC303"]),
    (Access.WRITE, False, []),
    (Access.READ, True, []),
])  # fmt: skip
def test_a_store_into_the_resumee(access, overwritten, found):
    touched = SimpleNamespace(
        walk=SimpleNamespace(physical=0x5000), access=access, address=0xFFFF888000005000, role="stack"
    )
    result = SimpleNamespace(turn=SimpleNamespace(touched=[touched]), parked=SimpleNamespace(cpu=1))
    namer = SimpleNamespace(
        memory=SimpleNamespace(overwritten=lambda pfn: overwritten and pfn == 5), resumee_physical=lambda _: "data"
    )
    assert [finding.rule for finding in Explainer(namer)._stores(result)] == found


@pytest.mark.parametrize(("end", "text"), [(CourseEnd.RUNS_ON, "is lost"), (CourseEnd.WAITS, "then waits at 0x30")])
def test_data_that_lead_a_cpu_out_of_its_loop(end, text):
    """The replay's part is tested in test_loop_course.py."""
    touched = SimpleNamespace(address=0x1000, role="per-CPU data")
    diversion = Diversion(0x20, DataAccess(0x1000, 4, Access.READ, 0, 0x10), end, 0x30)
    result = SimpleNamespace(parked=SimpleNamespace(cpu=1))
    namer = SimpleNamespace(resumer_symbol=lambda _: "start_cpu0", places=lambda _: (Place(0x1000), Place()))
    found = list(
        Explainer(namer)._diversion(result, SimpleNamespace(diversion=diversion, touched=[touched]), Level.ERROR)
    )
    assert [finding.rule for finding in found] == ["HC204"]
    assert found[0].message == f"CPU 1 reads 0x0 as its per-CPU data, leaves its loop for start_cpu0, and {text}"
    assert not list(Explainer(namer)._diversion(result, SimpleNamespace(diversion=None, touched=[]), Level.ERROR))


def test_the_wrong_resumee(committed):
    case = committed("fatal")
    with pytest.raises(Mismatch, match=r"6\.1\.192-lab-mid-current") as caught:
        check(case["image"], case["resumee"], case["resumer"], CheckOptions())
    assert "6.1.192-lab-small-hlt" in str(caught.value)
    assert caught.value.exit_status == 3


def test_a_damaged_image(committed, tmp_path):
    case = committed("fatal")
    with open(case["image"], "rb") as whole:  # noqa: PTH123
        (tmp_path / "cut.bin").write_bytes(whole.read(1 << 20))
    with pytest.raises(MalformedImage):
        check(str(tmp_path / "cut.bin"), case["resumer"], case["resumee"], CheckOptions())


@pytest.mark.parametrize(
    ("name", "more", "told"),
    [("fatal", {}, "without nosmt"), ("fatal", {"resumer_cmdline": "nokaslr", "resumer_offline": {1}}, "by hand")],
)
def test_advice_on_a_cpu_left_behind_fits_how_it_got_there(predict, name, more, told):
    found = predict(name, **more).findings
    assert [told in finding.advice for finding in found if finding.rule == "HC301"] == [True]
