"""Options in named groups, each of which can also come from the environment or a configuration file."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click
from click.core import ParameterSource

from hibercheck.cli import memory, pager
from hibercheck.cli.commands import DEFAULT, PREFIX
from hibercheck.cli.values import SizeType

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

GATE = "Gate"
"""The group of the options that decide whether a run fails."""
GENERAL = "General"
"""The group of the options that every command has."""
EVERYTHING = "hibercheck.cli.options.everything"
"""Key of a context's ``meta`` that says that the help is to show all options."""
PATHS = {"FILE": "file", "KERNEL": "file", "DIR": "dir"}
"""What the shell completes for options that take such a value."""
COLUMN = 30
"""Columns that an option with its value may take beside its explanation in the help."""


class PlainOption(click.Option):
    """An option whose help stands as it is: click would load `inspect` to take an indentation off it that none has."""

    def __init__(self, *args: Any, help: str | None = None, **kwargs: Any) -> None:  # noqa: A002 - click's name
        super().__init__(*args, **kwargs)
        self.help = help


class PlainHelp(click.Command):
    """A command whose ``--help`` is a `PlainOption`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._help: click.Option | None = None

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        """Return the option, made once for each set of names: click compares parameters by identity."""
        names = self.get_help_option_names(ctx)
        if self._help is None or self._help.opts != names:  # a command by itself has none of the group's names
            text = "Show this message and exit."
            self._help = PlainOption(
                names, is_flag=True, is_eager=True, expose_value=False, callback=_show_help, help=text
            )
        return self._help


def _show_help(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        print_help(ctx)


def print_help(ctx: click.Context) -> NoReturn:
    """Print a command's help and end."""
    from hibercheck.cli.output import write_answer

    write_answer(f"{ctx.get_help()}\n")
    ctx.exit()


class GroupedOption(PlainOption):
    """An option that knows its place in the help, its environment variable, and whether it names an input file.

    ``--some-thing`` of the main job is ``HIBERCHECK_SOME_THING``; of another command it is
    ``HIBERCHECK_COMMAND_SOME_THING``, unless every command has it.
    """

    def __init__(
        self, *args: Any, group: str = "Options", reads: bool = False, more: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.group = group
        self.reads = reads
        self.more = more

    @property
    def long_name(self) -> str:
        """The option's name as a configuration file has it: without the dashes in front."""
        return next((name for name in self.opts if name.startswith("--")), self.opts[0]).lstrip("-")

    def variable(self, command: str | None) -> str:
        """Return the environment variable that sets this option of ``command``."""
        scope = [] if command in (None, DEFAULT) or self.group == GENERAL else [str(command)]
        return "_".join([PREFIX, *scope, self.long_name]).replace("-", "_").upper()

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return name and help; of what click adds, only the default: the usage has what is required."""
        record = super().get_help_record(ctx)
        if record is None or "  [" not in record[1]:
            return record
        text, _, added = record[1].rpartition("  [")
        default = [part for part in added.rstrip("]").split("; ") if part.startswith("default: ")]
        return record[0], f"{text}  [{default[0]}]" if default else text

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Offer files where the value is one: kernels are text to click, as they may be releases too."""
        from click.shell_completion import CompletionItem

        kind = PATHS.get(str(self.metavar))
        return [CompletionItem(incomplete, type=kind)] if kind else super().shell_complete(ctx, incomplete)

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """Return the variable's value; an empty one counts as not set."""
        return os.environ.get(self.variable(ctx.info_name)) or None


class GroupedCommand(PlainHelp):
    """A command whose help shows its options in groups, and whose options a configuration file can set.

    ``--help`` fits a screen: it explains the options one needs and names the others, which ``--help-all`` explains.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.help_all = PlainOption(  # made once, as `PlainHelp` has it
            ["--help-all"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_help_all,
            help="Show all options and exit.",
        )

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the parameters, ``--help-all`` among them."""
        return [*super().get_params(ctx), self.help_all]

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Return what must be there first: the arguments, then the required options."""
        parameters = self.get_params(ctx)
        arguments = [piece for parameter in parameters for piece in parameter.get_usage_pieces(ctx)]
        options = [option for option in parameters if isinstance(option, click.Option) and option.required]
        return [*arguments, *(f"{option.opts[-1]} {option.metavar}" for option in options), "[OPTIONS]"]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take what the configuration file says for defaults, then parse; ``--show-config`` only shows."""
        from hibercheck.cli import config

        if not ctx.resilient_parsing and not {"-h", "--help", "--help-all"} & set(args):
            source = config.find(args)
            ctx.default_map = config.defaults(source, self, ctx.info_name or DEFAULT)
            if "--show-config" in args:
                config.show(self, ctx, [arg for arg in args if arg != "--show-config"], source)
                ctx.exit()
            self._refuse_twice(ctx, args)
            try:
                rest = super().parse_args(ctx, args)
            except click.BadParameter as error:
                raise config.told(error, ctx, source) from error
            config.tell_gate(self, ctx, source)
            return rest
        return super().parse_args(ctx, args)

    def _refuse_twice(self, ctx: click.Context, args: list[str]) -> None:
        """Check that no option is given twice that takes one value: the first would be dropped without a word.

        Raises:
            click.UsageError: One is.
        """
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        seen: set[str] = set()
        for option in order:
            if not isinstance(option, click.Option) or option.multiple:
                continue
            if option.name in seen and (option.secondary_opts or not option.is_flag):  # a flag again says the same
                raise click.UsageError(f"{option.opts[-1]} is given twice, and takes one value", ctx)
            seen.add(str(option.name))

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - whatever the command returns
        """Run the command within ``--max-memory``."""
        with memory.limited(ctx.meta.get(memory.SIZE, 0)):
            return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section for each group, the general one last."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for option in self._shown(ctx):
            record = option.get_help_record(ctx)
            if record is not None:
                groups.setdefault(getattr(option, "group", GENERAL), []).append(record)
        column = max(
            (len(term) for records in groups.values() for term, _ in records if len(term) <= COLUMN), default=0
        )
        for title, records in sorted(groups.items(), key=lambda item: item[0] == GENERAL):
            with formatter.section(title):
                formatter.write_dl([(term.ljust(column), text) for term, text in records], col_max=COLUMN)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples and what else there is, then the names of the options that were left out."""
        if self.epilog:
            formatter.write_paragraph()
            formatter.write_text(self.epilog)
        shown = self._shown(ctx)
        left = [
            f"--{option.long_name}"
            for option in self.params
            if isinstance(option, GroupedOption)
            if option not in shown
        ]
        if left:
            import textwrap

            text = f"Explained by --help-all: {', '.join(left)}."
            formatter.write(f"{textwrap.fill(text, formatter.width, break_on_hyphens=False)}\n")

    def _shown(self, ctx: click.Context) -> list[click.Option]:
        """Return the options that the help explains."""
        options = [option for option in self.get_params(ctx) if isinstance(option, click.Option)]
        if ctx.meta.get(EVERYTHING):
            return options
        return [option for option in options if isinstance(option, GroupedOption) and not option.more]


def _help_all(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        ctx.meta[EVERYTHING] = True
        print_help(ctx)


def given_by_hand(ctx: click.Context, parameter: str) -> bool:
    """Tell whether a parameter is on the command line itself, and not in the environment or a configuration file.

    Those set what all runs have in common; what somebody writes for this run must have an effect, or be told.
    """
    return ctx.get_parameter_source(parameter) is ParameterSource.COMMANDLINE


def option(*args: Any, group: str, **kwargs: Any) -> Callable[[Decorated], Decorated]:
    """Declare an option in a group; otherwise as `click.option`.

    Args:
        *args: Its names.
        group: Its group in the help.
        **kwargs: As for `click.option`; also ``reads=True`` for an input file, which a configuration file may name
            relative to itself, and ``more=True`` for one that only ``--help-all`` explains.
    """
    return click.option(*args, cls=GroupedOption, group=group, **kwargs)


def general_options(function: Decorated) -> Decorated:
    """Add the options that every command has, of the group `GENERAL`."""
    for decorate in (
        option(
            "--max-memory",
            group=GENERAL,
            more=True,
            type=SizeType(),
            default=memory.DEFAULT,
            show_default=True,
            expose_value=False,
            callback=memory.note,
            help="Fail rather than take more memory; 0 for no limit.",
        ),
        option(
            "--debug", group=GENERAL, more=True, is_flag=True, expose_value=False, help="Show tracebacks of failures."
        ),
        option(
            "--show-config",
            group=GENERAL,
            more=True,
            is_flag=True,
            expose_value=False,
            help="Show each option's value and where it comes from, and stop.",
        ),
        option(
            "--config",
            group=GENERAL,
            more=True,
            metavar="FILE",
            expose_value=False,
            help="Read FILE instead of the nearest hibercheck.toml or pyproject.toml.",
        ),
        option(
            "--pager",
            group=GENERAL,
            more=True,
            metavar="COMMAND",
            expose_value=False,
            callback=pager.note,
            help="Show text that is longer than the terminal by COMMAND; default: PAGER, or less.",
        ),
        option(
            "--no-pager",
            group=GENERAL,
            more=True,
            is_flag=True,
            expose_value=False,
            callback=pager.none,
            help="Print long text at once, without a pager.",
        ),
        option(
            "--color",
            group=GENERAL,
            more=True,
            metavar="WHEN",
            type=click.Choice(["auto", "always", "never"]),
            default="auto",
            help="Use colours: auto (the default: follow the terminal and NO_COLOR), always or never.",
        ),
    ):
        function = decorate(function)
    return function
