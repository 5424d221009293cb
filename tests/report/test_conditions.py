"""A condition is stated alike in every report that is JSON."""

from __future__ import annotations

from hibercheck.report import json
from hibercheck.report.conditions import settled, stated
from hibercheck.report.gate import judge
from tests.report.samples import SAMPLES


def test_what_a_condition_is_about_and_leads_to():
    report = SAMPLES["safe-unless"]()
    members = json.to_dict(judge(report))["conditions"]
    assert members
    for condition, shown in zip(report.conditions, members, strict=True):
        assert shown == {**settled(condition), "mark": None}
        assert settled(condition).items() >= stated(condition).items()
        assert (shown["id"], shown["verdict"]) == (condition.id, condition.verdict)
        assert " ".join(shown["arguments"]) == " ".join(word for pair in condition.settle for word in pair if word)
