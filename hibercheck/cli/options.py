"""Options in named groups, each of which can also come from the environment or a configuration file."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from hibercheck.cli import memory
from hibercheck.cli.commands import DEFAULT

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

PREFIX = "HIBERCHECK"
GENERAL = "General"
"""The group of the options that every command has."""


class GroupedOption(click.Option):
    """An option that knows its group in the help, its environment variable, and whether it names an input file.

    ``--some-thing`` of the main job is ``HIBERCHECK_SOME_THING``; of another command it is
    ``HIBERCHECK_COMMAND_SOME_THING``, unless every command has it.
    """

    def __init__(self, *args: Any, group: str = "Options", reads: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group
        self.reads = reads

    @property
    def long_name(self) -> str:
        """The option's name as a configuration file has it: without the dashes in front."""
        return next((name for name in self.opts if name.startswith("--")), self.opts[0]).lstrip("-")

    def variable(self, command: str | None) -> str:
        """Return the environment variable that sets this option of ``command``."""
        scope = [] if command in (None, DEFAULT) or self.group == GENERAL else [str(command)]
        return "_".join([PREFIX, *scope, self.long_name]).replace("-", "_").upper()

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """Return the variable's value; an empty one counts as not set."""
        return os.environ.get(self.variable(ctx.info_name)) or None


class GroupedCommand(click.Command):
    """A command whose help shows its options in groups, and whose options a configuration file can set."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take what the configuration file says for defaults, then parse; ``--show-config`` only shows."""
        from hibercheck.cli import config

        if not ctx.resilient_parsing and not {"-h", "--help"} & set(args):
            source = config.find(args)
            ctx.default_map = config.defaults(source, self, ctx.info_name or DEFAULT)
            if "--show-config" in args:
                config.show(self, ctx, [arg for arg in args if arg != "--show-config"], source)
                ctx.exit()
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - whatever the command returns
        """Run the command within ``--max-memory``."""
        with memory.limited(ctx):
            return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section for each group, the general one last."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and not isinstance(parameter, click.Argument):
                groups.setdefault(getattr(parameter, "group", GENERAL), []).append(record)
        for title, records in sorted(groups.items(), key=lambda item: item[0] == GENERAL):
            with formatter.section(title):
                formatter.write_dl(records)


def option(*args: Any, group: str, **kwargs: Any) -> Callable[[Decorated], Decorated]:
    """Declare an option in a group; otherwise as `click.option`.

    Args:
        *args: Its names.
        group: Its group in the help.
        **kwargs: As for `click.option`; also ``reads=True`` for an input file, which a configuration file may name
            relative to itself.
    """
    return click.option(*args, cls=GroupedOption, group=group, **kwargs)


def general_options(function: Decorated) -> Decorated:
    """Add what every command has: ``--color``, ``--config``, ``--show-config``, ``--max-memory`` and ``--debug``."""
    for decorate in (
        option(
            "--max-memory",
            group=GENERAL,
            type=memory.SizeType(),
            default=memory.DEFAULT,
            show_default=True,
            expose_value=False,
            callback=memory.note,
            help="Fail rather than take more memory; 0 for no limit.",
        ),
        option("--debug", group=GENERAL, is_flag=True, expose_value=False, help="Show tracebacks of failures."),
        option(
            "--show-config",
            group=GENERAL,
            is_flag=True,
            expose_value=False,
            help="Show each option's value and where it comes from, and stop.",
        ),
        option(
            "--config",
            group=GENERAL,
            metavar="FILE",
            expose_value=False,
            help="Read FILE instead of the nearest hibercheck.toml or pyproject.toml.",
        ),
        option(
            "--color",
            group=GENERAL,
            type=click.Choice(["auto", "always", "never"]),
            default="auto",
            help="Use colours; auto follows the terminal and NO_COLOR.",
        ),
    ):
        function = decorate(function)
    return function
