"""``hibercheck completion``: a script that makes a shell complete commands, options, formats and rules."""

from __future__ import annotations

import click

from hibercheck.cli.options import GroupedCommand, general_options

EPILOG = """\b
Examples:
  hibercheck completion bash >> ~/.bash_completion
  hibercheck completion zsh > ~/.zfunc/_hibercheck
  hibercheck completion fish > ~/.config/fish/completions/hibercheck.fish"""


@click.command(cls=GroupedCommand, epilog=EPILOG)
@click.argument("shell", metavar="SHELL", type=click.Choice(["bash", "zsh", "fish"]))
@general_options
def command(shell: str, color: str) -> None:  # noqa: ARG001 - every command takes it
    """Print a completion script for SHELL: bash, zsh or fish."""
    from click.shell_completion import get_completion_class

    from hibercheck.cli.group import root
    from hibercheck.cli.run import COMPLETION_VARIABLE

    completion = get_completion_class(shell)
    if completion is None:
        raise click.UsageError(f"this version of click knows no completion for {shell}")
    click.echo(completion(root, {}, "hibercheck", COMPLETION_VARIABLE).source(), nl=False)
