"""``hibercheck rules``: the catalogue."""

from __future__ import annotations

import sys

import click

from hibercheck.cli.options import GroupedCommand, general_options
from hibercheck.cli.shared import shared


@click.command(cls=GroupedCommand, epilog="\b\nExamples:\n  hibercheck rules\n  hibercheck rules --format json")
@shared("--format")
@general_options
def command(form: str, color: str) -> None:
    """List all rules: identifier, weight, name."""
    from hibercheck.report import rules

    if form == "json":
        click.echo(rules.as_json(), nl=False)
        return
    from hibercheck.cli.output import make_console, prepare_standard_streams

    prepare_standard_streams()
    rules.print_list(make_console(sys.stdout, color=color))
