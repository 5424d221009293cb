"""``hibercheck schema``: the JSON schema of the report."""

from __future__ import annotations

from importlib.resources import files

import click

from hibercheck.cli.options import GroupedCommand, general_options


@click.command(cls=GroupedCommand, epilog="\b\nExample:\n  hibercheck schema > hibercheck-report.schema.json")
@general_options
def command(color: str) -> None:  # noqa: ARG001 - every command takes it
    """Print the JSON schema of what `check --format json` writes."""
    from hibercheck.cli.output import write_answer

    write_answer(files("hibercheck.report").joinpath("schema/report.json").read_text(encoding="utf-8"))
