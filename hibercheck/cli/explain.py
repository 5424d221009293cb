"""``hibercheck explain``: one rule or kind of condition in full, or a message of the kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from hibercheck.cli.options import GroupedCommand, general_options

if TYPE_CHECKING:
    from rich.console import Console


class RuleType(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """A rule's identifier, in any case, or its number alone; a condition's name; or a message of the kernel."""

    name = "RULE"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the identifier as the catalogue has it."""
        from hibercheck.handoff.scenario.alternatives import KINDS
        from hibercheck.handoff.verdict.rules import RULES

        text = str(value).upper()
        known = [candidate for candidate in (text, f"HC{text}") if candidate in RULES]
        if known:
            return known[0]
        if all(part in KINDS for part in text.lower().split("+")):
            return text.lower()
        from hibercheck.host.log import read_log

        if read_log(str(value)):
            return str(value)
        return self.fail(
            f"{value!r} is not a rule (`hibercheck rules` lists them), a condition, or a known message of the kernel",
            param,
            ctx,
        )

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Complete identifiers, with names as help."""
        from hibercheck.handoff.scenario.alternatives import KINDS
        from hibercheck.handoff.verdict.rules import RULES

        del ctx, param
        named = [(rule.id, rule.name) for rule in RULES.values()] + [(kind.id, kind.fact) for kind in KINDS.values()]
        start = incomplete.lower()
        return [CompletionItem(name, help=text) for name, text in named if name.lower().startswith(start)]


EPILOG = """\b
Examples:
  hibercheck explain HC202
  hibercheck explain idle-driver
  hibercheck explain "PM: Image not found (code -22)"
"""


@click.command(cls=GroupedCommand, epilog=EPILOG)
@click.argument("rules", metavar="RULE...", type=RuleType(), nargs=-1, required=True)
@general_options
def command(rules: tuple[str, ...], color: str) -> None:
    """Explain a rule: what it means, why it kills, what to do, and where to read more.

    A condition is explained too, and a message that the kernel printed when it did not resume.
    """
    from hibercheck.cli.output import as_text, prepare_standard_streams, write_answer

    prepare_standard_streams()
    write_answer(as_text(lambda console: _explain(rules, console), color=color))


def _explain(rules: tuple[str, ...], console: Console) -> None:
    from hibercheck.cli import log as said
    from hibercheck.handoff.scenario.alternatives import KINDS
    from hibercheck.handoff.verdict.rules import RULES
    from hibercheck.host.log import read_log
    from hibercheck.report.rules import explain, explain_condition

    for number, rule in enumerate(rules):
        if number:
            console.print()
        if rule in RULES:
            explain(rule, console)
            continue
        if all(part in KINDS for part in rule.split("+")):
            explain_condition(rule, console)
            continue
        for found in read_log(rule):
            said.explain(found, console)
