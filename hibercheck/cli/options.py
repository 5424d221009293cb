"""Options in named groups, and the ones that every command shares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

PREFIX = "HIBERCHECK_"
"""Every option ``--some-thing`` can also be given as the environment variable ``HIBERCHECK_SOME_THING``."""


class GroupedOption(click.Option):
    """An option that knows its group in the help and its environment variable."""

    def __init__(self, *args: Any, group: str = "Options", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group
        if self.envvar is None:
            self.envvar = (
                PREFIX + next(name for name in self.opts if name.startswith("--"))[2:].replace("-", "_").upper()
            )


class GroupedCommand(click.Command):
    """A command whose help shows its options in groups, in the order in which they were declared."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section for each group."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and not isinstance(parameter, click.Argument):
                groups.setdefault(getattr(parameter, "group", "General"), []).append(record)
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)


def option(*args: Any, group: str, **kwargs: Any) -> Callable[[Decorated], Decorated]:
    """Declare an option in a group; otherwise as `click.option`."""
    return click.option(*args, cls=GroupedOption, group=group, **kwargs)


def general_options(function: Decorated) -> Decorated:
    """Add what every command has: ``--color`` and ``--debug``."""
    for decorate in (
        option("--debug", group="General", is_flag=True, expose_value=False, help="Show tracebacks of failures."),
        option(
            "--color",
            group="General",
            type=click.Choice(["auto", "always", "never"]),
            default="auto",
            help="Use colours; auto follows the terminal and NO_COLOR.",
        ),
    ):
        function = decorate(function)
    return function
