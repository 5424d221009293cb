"""The catalogue of rules, shown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hibercheck.handoff.scenario.alternatives import KINDS
from hibercheck.handoff.scenario.known import TABLE
from hibercheck.handoff.scenario.otherwise import OTHERWISE
from hibercheck.handoff.verdict.rules import RULES
from hibercheck.report.sheet import Columns, Sheet
from hibercheck.report.styled import Text
from hibercheck.report.text_findings import STYLES
from hibercheck.report.words import sentence

if TYPE_CHECKING:
    from hibercheck.report.styled import Surface

_LEADS = (
    "It is a condition only where the inputs show a sign of it and the verdict would be another; the report says "
    "which. --strict judges as if it held, and an entry of --suppressions takes it out of that"
)


def print_list(console: Surface) -> None:
    """Print one row for each rule."""
    rows = Columns("Rule", "Level", "Name")
    for rule in RULES.values():
        rows.add_row(rule.id, (rule.level.name.lower(), STYLES[rule.level]), rule.name)
    sheet = Sheet(console)
    sheet.print(rows)
    sheet.flush()


def explain(rule_id: str, console: Surface) -> None:
    """Print everything about one rule."""
    rule = RULES[rule_id]
    sheet = Sheet(console)
    head = Text.assemble((rule.id, "bold"), " ", (rule.level.name.lower(), STYLES[rule.level]), f"  {rule.name}")
    sheet.print(head, prose=True)
    for title, text in (
        ("", rule.summary),
        ("What it means", rule.meaning),
        ("Why it kills", rule.why),
        ("What to do", rule.remedy),
    ):
        sheet.print()
        if title:
            sheet.print(Text(title, style="bold"))
        sheet.print(Text(text), indent=2, prose=True)
    sheet.print(Text("\nReferences", style="bold"))
    for reference in rule.references:
        sheet.print(Text(reference), indent=2, prose=True)
    sheet.flush()


def explain_condition(name: str, console: Surface) -> None:
    """Print everything about one kind of condition, or about two that must come together."""
    sheet = Sheet(console)
    for number, part in enumerate(name.split("+")):
        kind = KINDS[part]
        facts = [fact.what for fact in TABLE if part in OTHERWISE[fact.name].kinds]
        if number:
            sheet.print()
        sheet.print(Text.assemble((kind.id, "bold"), f" condition  {kind.fact}"), prose=True)
        for title, text in (
            ("What it means", kind.means),
            ("What could be otherwise", "; ".join(facts) or "what the resumee does"),
            ("What becomes of the verdict", _LEADS),
            ("How to find out", sentence(kind.settle)),
        ):
            sheet.print()
            sheet.print(Text(title, style="bold"))
            sheet.print(Text(sentence(text)), indent=2, prose=True)
    sheet.flush()


def as_json() -> str:
    """Return the catalogue for programs."""
    rows = [
        {
            "id": rule.id,
            "name": rule.name,
            "level": rule.level.name.lower(),
            "summary": rule.summary,
            "meaning": rule.meaning,
            "why": rule.why,
            "remedy": rule.remedy,
            "references": list(rule.references),
        }
        for rule in RULES.values()
    ]
    return json.dumps({"schema_version": 1, "rules": rows}, indent=2) + "\n"
