"""``hibercheck completion``: a script that makes a shell complete commands, options, formats and rules."""

from __future__ import annotations

import click

from hibercheck.cli.options import GroupedCommand, general_options

EPILOG = """\b
Examples:
  hibercheck completion bash >> ~/.bash_completion
  hibercheck completion zsh > ~/.zfunc/_hibercheck
  hibercheck completion fish > ~/.config/fish/completions/hibercheck.fish"""


BASH = """\
# hibercheck's completion for bash: click's own forgets the commands where a file may stand too.
%(complete_func)s() {
    local IFS=$'\\n' response completion type value
    response=$(env COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD="$COMP_CWORD" %(complete_var)s=bash_complete "$1")
    COMPREPLY=()
    for completion in $response; do
        IFS=',' read -r type value <<< "$completion"
        case $type in
            dir) compopt -o filenames 2>/dev/null; COMPREPLY+=($(compgen -d -- "$value")) ;;
            file) compopt -o filenames 2>/dev/null; COMPREPLY+=($(compgen -f -- "$value")) ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


@click.command(cls=GroupedCommand, epilog=EPILOG)
@click.argument("shell", metavar="SHELL", type=click.Choice(["bash", "zsh", "fish"]))
@general_options
def command(shell: str, color: str) -> None:  # noqa: ARG001 - every command takes it
    """Print a completion script for SHELL: bash, zsh or fish."""
    from click.shell_completion import get_completion_class

    from hibercheck.cli.group import root
    from hibercheck.cli.output import write_answer
    from hibercheck.cli.run import COMPLETION_VARIABLE

    completion = get_completion_class(shell)
    if completion is None:
        raise click.UsageError(f"this version of click knows no completion for {shell}")
    made = completion(root, {}, "hibercheck", COMPLETION_VARIABLE)
    write_answer(BASH % made.source_vars() if shell == "bash" else made.source())
