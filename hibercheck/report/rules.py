"""The catalogue of rules, shown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from rich.text import Text

from hibercheck.handoff.rules import RULES
from hibercheck.report.sheet import Columns, Sheet
from hibercheck.report.text_findings import STYLES

if TYPE_CHECKING:
    from rich.console import Console


def print_list(console: Console) -> None:
    """Print one row for each rule."""
    rows = Columns("Rule", "Level", "Name")
    for rule in RULES.values():
        rows.add_row(Text(rule.id), Text(rule.level.name.lower(), style=STYLES[rule.level]), rule.name)
    sheet = Sheet(console)
    sheet.print(rows)
    sheet.flush()


def explain(rule_id: str, console: Console) -> None:
    """Print everything about one rule."""
    rule = RULES[rule_id]
    sheet = Sheet(console)
    width = min(sheet.width, 100)
    head = Text.assemble((rule.id, "bold"), " ", (rule.level.name.lower(), STYLES[rule.level]), f"  {rule.name}")
    sheet.print(head, width=width)
    for title, text in (
        ("", rule.summary),
        ("What it means", rule.meaning),
        ("Why it kills", rule.why),
        ("What to do", rule.remedy),
    ):
        sheet.print()
        if title:
            sheet.print(Text(title, style="bold"))
        sheet.print(Text(text), indent=2, width=width)
    sheet.print(Text("\nReferences", style="bold"))
    for reference in rule.references:
        sheet.print(Text(reference), indent=2, width=width)
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
