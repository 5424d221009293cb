"""The same defect of many CPUs is one wherever defects are listed; one that counts and one that does not are two."""

from __future__ import annotations

import json

from hibercheck.report import formats, gate
from hibercheck.report.gate import Mark
from hibercheck.report.grouped import defects, numbered
from tests.report.samples import SAMPLES


def judged(marks=None):
    report = SAMPLES["many-cpus"]()
    return gate.judge(report, marks=marks and marks(report))


def test_each_defect_is_there_once_with_all_of_its_cpus():
    found = judged()
    groups = list(defects(found))
    listed = [finding for finding, _ in found.marked]
    assert len(groups) < len(listed)
    assert len({one.fingerprint for one in groups}) == len(groups)
    several = max(groups, key=lambda one: len(one.cpus))
    assert len(several.cpus) > 1
    alike = [one.cpu for one in listed if (one.rule, one.role) == (several.finding.rule, several.finding.role)]
    assert set(several.cpus) <= set(alike)
    assert several.finding.cpu == several.cpus[0]
    assert several.more.startswith(" The same on CPU")
    assert {one.cpu for one in listed if one.cpu is not None} == {cpu for one in groups for cpu in one.cpus}


def test_what_a_mark_spares_is_another_group():
    def first(report):
        cpus = [index for index, one in enumerate(report.findings) if one.cpu is not None]
        return [Mark("suppressed", "known") if index == cpus[0] else None for index in range(len(report.findings))]

    plain, marked = list(defects(judged())), list(defects(judged(first)))
    assert len(marked) == len(plain) + 1
    assert [one.finding.cpu for one in marked if one.mark is not None] != []


def test_sarif_and_gitlab_list_defects():
    found = judged()
    groups = list(defects(found))
    results = json.loads(formats.renderer("sarif")(found))["runs"][0]["results"]
    mine = [one for one in results if one["ruleId"].startswith("HC")]
    assert [one["properties"]["cpus"] for one in mine] == [list(one.cpus) for one in groups]
    assert any("The same on CPU" in one["message"]["text"] for one in mine)
    listed = [one for one in json.loads(formats.renderer("gitlab")(found)) if one["check_name"].startswith("HC")]
    assert [one["fingerprint"] for one in listed] == [one.fingerprint for one in groups]
    assert any("The same on CPU" in one["description"] for one in listed)


def test_rows_of_json_that_differ_in_the_cpu_alone():
    rows = [(1, {"why": "CPU 1 waits", "state": "hlt"}), (12, {"why": "CPU 12 waits", "state": "hlt"})]
    rows += [(2, {"why": "CPU 1 waits", "state": "hlt"}), (3, {"why": "CPU 3 waits", "state": None})]
    assert numbered(rows) == [
        {"cpu": 1, "cpus": [1, 12], "why": "CPU 1 waits", "state": "hlt"},
        {"cpu": 2, "cpus": [2], "why": "CPU 1 waits", "state": "hlt"},
        {"cpu": 3, "cpus": [3], "why": "CPU 3 waits", "state": None},
    ]
    assert numbered([]) == []
