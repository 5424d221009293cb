"""The root command: subcommands are imported only when they run.

A first argument that is neither a subcommand nor one of the root's own options belongs to ``check``, so that
``hibercheck IMAGE --resumer R`` is the main job.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hibercheck.cli.commands import DEFAULT, root_help, summaries
from hibercheck.cli.options import PlainHelp, PlainOption

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class LazyGroup(PlainHelp, click.Group):
    """A group that knows its subcommands' names and one-line helps without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names of the subcommands."""
        return list(summaries())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return one subcommand."""
        if cmd_name not in summaries():
            return None
        command = import_module(f"hibercheck.cli.{cmd_name}").command
        if not isinstance(command, click.Command):
            raise TypeError(f"hibercheck.cli.{cmd_name}.command is not a click command")
        return command

    def get_help(self, ctx: click.Context) -> str:  # noqa: ARG002
        """Return the help that needs no subcommand."""
        return root_help().rstrip("\n")

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``check`` before arguments that name no subcommand."""
        if not args and not ctx.resilient_parsing:
            raise click.UsageError("nothing to check; give IMAGE --resumer KERNEL", ctx)
        args = _spelt_out(args, self.list_commands(ctx))
        own = {option for parameter in self.get_params(ctx) for option in parameter.opts}
        if args and args[0] not in own and args[0] not in self.list_commands(ctx):
            if not ctx.resilient_parsing:
                self._suggest(ctx, args[0])
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Offer files beside the subcommands: the first word may be the image."""
        from click.shell_completion import CompletionItem

        items = super().shell_complete(ctx, incomplete)
        return items if incomplete.startswith("-") else [*items, CompletionItem(incomplete, type="file")]

    def _suggest(self, ctx: click.Context, word: str) -> None:
        """Answer a mistyped subcommand with its name: taken for an image it would only be a missing file."""
        if not word.isalpha() or Path(word).exists():
            return
        import difflib

        close = difflib.get_close_matches(word, self.list_commands(ctx), n=1, cutoff=0.75)
        if close:
            raise click.UsageError(f"no command or file {word!r} (did you mean {close[0]!r}?)", ctx)


def _spelt_out(args: list[str], commands: Sequence[str]) -> list[str]:
    """Turn ``help [COMMAND]`` and ``version`` into the options that they are the words for."""
    if args == ["version"]:
        return ["--version"]
    if args[:1] != ["help"]:
        return args
    if len(args) > 2 or not set(args[1:]) <= set(commands):
        raise click.UsageError(f"no command {' '.join(args[1:])!r}; there are {', '.join(commands)}")
    return [*args[1:], "--help"]


def _show_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        from hibercheck import __version__
        from hibercheck.cli.output import write_answer

        write_answer(f"hibercheck {__version__}\n")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "-V",
    "--version",
    cls=PlainOption,
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Print the version.",
)
def root() -> None:
    """Say, before anyone reboots, whether a hibernated machine survives being resumed by another kernel."""
