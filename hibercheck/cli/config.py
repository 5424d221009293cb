"""Configuration files: ``hibercheck.toml``, or ``[tool.hibercheck]`` in ``pyproject.toml``.

Keys are the names of options.  At the top they belong to the main job; a table ``[image]`` belongs to that command.
The command line wins over the environment, the environment over the file, the file over the defaults.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from hibercheck.cli.commands import DEFAULT, summaries
from hibercheck.cli.options import GENERAL, PREFIX, GroupedOption
from hibercheck.data import dataclass
from hibercheck.errors import InputProblem, UsageProblem

OWN_FILE = "hibercheck.toml"
SHARED_FILE = "pyproject.toml"
NOT_IN_FILES = frozenset({"config", "show-config", "debug"})
"""Options that are about reading the file, or are needed before it is read."""
MAX_BYTES = 1 << 20
"""A configuration beyond this is none."""


@dataclass(frozen=True, slots=True)
class Source:
    """A configuration file that was read.

    Attributes:
        path: Its path.
        values: Its keys and values; for ``pyproject.toml`` those of ``[tool.hibercheck]``.
    """

    path: Path
    values: Mapping[str, Any]


def find(arguments: Sequence[str]) -> Source | None:
    """Return the configuration that ``--config`` or HIBERCHECK_CONFIG names, or the nearest one upwards.

    The search ends at the root of a repository (a directory with ``.git``).

    Raises:
        InputProblem: The file named cannot be read.
        UsageProblem: The file is not TOML.
    """
    named = _named(arguments) or os.environ.get(f"{PREFIX}_CONFIG")
    if named:
        path = Path(named)
        values = _load(path)
        return Source(path, values.get("tool", {}).get("hibercheck", {}) if path.name == SHARED_FILE else values)
    for directory in (here := Path.cwd(), *here.parents):
        if (directory / OWN_FILE).is_file():
            return Source(directory / OWN_FILE, _load(directory / OWN_FILE))
        if (directory / SHARED_FILE).is_file():
            table = _load(directory / SHARED_FILE).get("tool", {}).get("hibercheck")
            if table is not None:
                return Source(directory / SHARED_FILE, table)
        if (directory / ".git").exists():
            break
    return None


def _named(arguments: Sequence[str]) -> str | None:
    """Find ``--config`` among arguments that are not parsed yet: its file gives defaults to the parser."""
    named = None
    for index, argument in enumerate(arguments):
        if argument == "--":
            break
        if argument == "--config" and index + 1 < len(arguments):
            named = arguments[index + 1]
        elif argument.startswith("--config="):
            named = argument.partition("=")[2]
    return named


def _load(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputProblem(f"cannot read: {error.strerror}", path=str(path)) from error
    if len(content) > MAX_BYTES:
        raise UsageProblem(f"more than {MAX_BYTES} bytes for a configuration", path=str(path))
    import tomllib

    try:
        return tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # ValueError: not UTF-8, not TOML, a number of thousands of digits
        raise UsageProblem(f"not TOML: {error}", path=str(path)) from error


def defaults(source: Source | None, command: click.Command, name: str) -> dict[str, Any]:
    """Return the defaults that the file gives to one command, by parameter.

    Raises:
        UsageProblem: The file has a key that is no option, or a value that no option can have.
    """
    if source is None:
        return {}
    options = {option.long_name: option for option in command.params if isinstance(option, GroupedOption)}
    general = {key for key, option in options.items() if option.group == GENERAL}
    top = {key: value for key, value in source.values.items() if not isinstance(value, dict)}
    if name == DEFAULT:
        _refuse_unknown(source, [key for key in source.values if key not in top], summaries(), "command")
        values = top | _table(source, name)
    else:
        values = {key: value for key, value in top.items() if key.replace("_", "-") in general} | _table(source, name)
    values = {key.replace("_", "-"): value for key, value in values.items()}
    for key in NOT_IN_FILES & values.keys():
        raise UsageProblem(
            f"{key} cannot be set in a file", path=str(source.path), advice="give it on the command line"
        )
    _refuse_unknown(source, values, options, "option")
    return {str(options[key].name): _value(source, options[key], value) for key, value in values.items()}


def _table(source: Source, name: str) -> dict[str, Any]:
    table = source.values.get(name, {})
    return table if isinstance(table, dict) else {}


def _refuse_unknown(
    source: Source, given: Sequence[str] | Mapping[str, Any], known: Mapping[str, Any], what: str
) -> None:
    for key in given:
        if key not in known:
            import difflib

            close = difflib.get_close_matches(key, list(known), n=1)
            raise UsageProblem(
                f"no {what} is called {key!r}",
                path=str(source.path),
                advice=f"did you mean {close[0]!r}?" if close else "see hibercheck check --help",
            )


def _value(source: Source, option: GroupedOption, value: object) -> object:
    """Turn a TOML value into what the parser takes: text, a flag, or a list of texts."""
    if option.is_flag:
        if not isinstance(value, bool):
            raise UsageProblem(f"{option.long_name} is true or false", path=str(source.path))
        return value
    if option.multiple:
        items = value if isinstance(value, list) else [value]
        return [_text(source, option, item) for item in items]
    return _text(source, option, value)


def _text(source: Source, option: GroupedOption, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise UsageProblem(f"{option.long_name} takes text or a number", path=str(source.path))
    text = str(value)
    beside = source.path.parent / text
    return str(beside) if option.reads and not Path(text).is_absolute() and beside.exists() else text


def show(command: click.Command, ctx: click.Context, arguments: list[str], source: Source | None) -> None:
    """Print every option of ``command`` with its value and where that comes from."""
    given, _, _ = command.make_parser(ctx).parse_args(list(arguments))
    click.echo(f"# configuration: {source.path if source else 'none'}")
    for option in command.params:
        if not isinstance(option, GroupedOption) or option.long_name in NOT_IN_FILES:
            continue
        value, origin = option.consume_value(ctx, given)
        if isinstance(value, str) and (option.is_flag or isinstance(option.type, click.types.IntParamType)):
            value = option.type_cast_value(ctx, value)  # true for the environment's 1: what a file would have
        click.echo(_line(option.long_name, value, _origin(option, ctx, origin, source)))


def _line(name: str, value: object, origin: str) -> str:
    """Return one option as a line of TOML; one without a value is a comment."""
    if isinstance(value, bool):
        return f"{name} = {str(value).lower()}  # {origin}"
    if isinstance(value, list | tuple) and value:
        return f"{name} = [{', '.join(_quoted(str(item)) for item in value)}]  # {origin}"
    if isinstance(value, int):
        return f"{name} = {value}  # {origin}"
    if isinstance(value, str):
        return f"{name} = {_quoted(value)}  # {origin}"
    return f"# {name} is not set"


def _quoted(text: str) -> str:
    """Return ``text`` as a TOML string: JSON's escapes are TOML's too."""
    import json

    return json.dumps(text)


def _origin(option: GroupedOption, ctx: click.Context, origin: ParameterSource, source: Source | None) -> str:
    if origin is ParameterSource.ENVIRONMENT:
        return f"environment: {option.variable(ctx.info_name)}"
    if origin is ParameterSource.DEFAULT_MAP and source is not None:
        return f"file: {source.path}"
    return "command line" if origin is ParameterSource.COMMANDLINE else "default"
