"""The root command: a table of subcommands, each imported only when it runs.

A first argument that is neither a subcommand nor one of the root's own options belongs to ``check``, so that
``hibercheck IMAGE --resumer R --resumee E`` is the main job.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import click

DEFAULT = "check"

TABLE: Mapping[str, tuple[str, str]] = {
    "check": ("hibercheck.cli.check", "Predict what becomes of the machine (the default command)."),
    "image": ("hibercheck.cli.image", "Show what is in a hibernation image, and verify it."),
    "export": ("hibercheck.cli.export", "Write an image as a vmcore that crash and drgn open."),
    "kernel": ("hibercheck.cli.kernel", "Show how a kernel parks CPUs and resumes, with evidence."),
    "designs": ("hibercheck.cli.designs", "Replay one handoff under every parking design."),
    "matrix": ("hibercheck.cli.matrix", "Check every resumer against every resumee."),
    "diff": ("hibercheck.cli.diff", "Show what changed in the handoff between two kernels."),
    "collect": ("hibercheck.cli.collect", "Collect the facts of the running resumer."),
    "explain": ("hibercheck.cli.explain", "Explain one rule."),
    "rules": ("hibercheck.cli.rules", "List all rules."),
    "schema": ("hibercheck.cli.schema", "Print the JSON schema of the report."),
    "completion": ("hibercheck.cli.completion", "Print a completion script for a shell."),
}
"""Name of each subcommand: its module, which exports ``command``, and its line in the help."""

EPILOG = """\b
Example:
  hibercheck /dev/nvme0n1p3 --resumer vmlinux-6.12 --resumee vmlinux-6.1

Exit status: 0 fine, 1 a verdict at or above --fail-on, 2 usage, 3 unreadable or mismatched input,
4 undetermined, 130 interrupted.  Options of the main job: hibercheck check --help."""


class LazyGroup(click.Group):
    """A group that knows its subcommands' names and one-line helps without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names of the subcommands that this installation has."""
        return [name for name, (module, _) in TABLE.items() if find_spec(module)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return one subcommand."""
        if cmd_name not in TABLE or not find_spec(TABLE[cmd_name][0]):
            return None
        command = import_module(TABLE[cmd_name][0]).command
        if not isinstance(command, click.Command):
            raise TypeError(f"{TABLE[cmd_name][0]}.command is not a click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of subcommands from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, TABLE[name][1]) for name in self.list_commands(ctx)])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``check`` before arguments that name no subcommand."""
        if not args:
            raise click.UsageError("nothing to check; give IMAGE --resumer KERNEL --resumee KERNEL", ctx)
        own = {option for parameter in self.get_params(ctx) for option in parameter.opts}
        if args[0] not in own and args[0] not in self.list_commands(ctx):
            self._suggest(ctx, args[0])
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)

    def _suggest(self, ctx: click.Context, word: str) -> None:
        """Answer a mistyped subcommand with its name: taken for an image it would only be a missing file."""
        close = difflib.get_close_matches(word, self.list_commands(ctx), n=1, cutoff=0.75)
        if close and word.isalpha() and not Path(word).exists():
            raise click.UsageError(f"no command or file {word!r}; did you mean {close[0]!r}?", ctx)


def _show_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        from hibercheck import __version__

        click.echo(f"hibercheck {__version__}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    options_metavar="",
    subcommand_metavar="IMAGE --resumer KERNEL --resumee KERNEL | COMMAND ...",
)
@click.option(
    "-V",
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Print the version.",
)
def root() -> None:
    """Say, before anyone reboots, whether a hibernated machine survives being resumed by another kernel.

    Reads the hibernation image, the kernel that will load it (the resumer) and the kernel that wrote it (the resumee),
    and replays the moment in which the image replaces memory that parked CPUs still depend on.
    """
