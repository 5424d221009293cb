"""``hibercheck explain``: one rule in full."""

from __future__ import annotations

import sys

import click
from click.shell_completion import CompletionItem

from hibercheck.cli.options import GroupedCommand, general_options


class RuleType(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """The identifier of a rule, in any case, or its number alone."""

    name = "RULE"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the identifier as the catalogue has it."""
        from hibercheck.handoff.rules import RULES

        text = str(value).upper()
        known = [candidate for candidate in (text, f"HC{text}") if candidate in RULES]
        return known[0] if known else self.fail(f"there is no rule {value!r}; `hibercheck rules` lists all", param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Complete identifiers, with names as help."""
        from hibercheck.handoff.rules import RULES

        del ctx, param
        start = incomplete.upper()
        return [CompletionItem(rule.id, help=rule.name) for rule in RULES.values() if rule.id.startswith(start)]


@click.command(cls=GroupedCommand, epilog="\b\nExample:\n  hibercheck explain HC202")
@click.argument("rules", metavar="RULE...", type=RuleType(), nargs=-1, required=True)
@general_options
def command(rules: tuple[str, ...], color: str) -> None:
    """Explain a rule: what it means, why it kills, what to do, and where to read more."""
    from hibercheck.cli.output import make_console, prepare_standard_streams
    from hibercheck.report.rules import explain

    prepare_standard_streams()
    console = make_console(sys.stdout, color=color)
    for number, rule in enumerate(rules):
        if number:
            console.print()
        explain(rule, console)
