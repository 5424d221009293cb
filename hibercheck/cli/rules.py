"""``hibercheck rules``: the catalogue."""

from __future__ import annotations

import click

from hibercheck.cli.options import GroupedCommand, general_options
from hibercheck.cli.shared import shared


@click.command(cls=GroupedCommand, epilog="\b\nExamples:\n  hibercheck rules\n  hibercheck rules --format json")
@shared("--format")
@general_options
def command(form: str, color: str) -> None:
    """List all rules: identifier, weight, name."""
    from hibercheck.cli.output import as_text, prepare_standard_streams, write_answer
    from hibercheck.report import rules

    prepare_standard_streams()
    if form == "json":
        write_answer(rules.as_json())
        return
    write_answer(as_text(rules.print_list, color=color))
