"""Configuration files: ``hibercheck.toml``, or ``[tool.hibercheck]`` in ``pyproject.toml``.

Keys are the names of options.  At the top they belong to the main job; a table ``[image]`` belongs to that command.
The command line wins over the environment, the environment over the file, the file over the defaults.

A file that nobody named is obeyed if it is somebody's whom the caller trusts (see `hibercheck.files.trust`).  Else the
run ends: to pass it over in silence could change what the gate is as well.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from hibercheck.cli.commands import DEFAULT, OWN_FILE, PREFIX, SHARED_FILE, summaries
from hibercheck.cli.options import GATE, GENERAL, GroupedOption
from hibercheck.cli.terminal import say
from hibercheck.data import dataclass
from hibercheck.errors import HibercheckError, InputProblem, UsageProblem
from hibercheck.files.trust import distrust

NOT_IN_FILES = frozenset({"config", "show-config", "debug"})
"""Options that are about reading the file, or are needed before it is read."""
WRITES = frozenset({"output", "write-baseline", "cache-dir"})
"""Options that say where to write, as ``--format FORMAT=FILE`` does: a file that was only found may not say it."""
MAX_BYTES = 1 << 20
"""A configuration beyond this is none."""


@dataclass(frozen=True, slots=True)
class Source:
    """A configuration file that was read.

    Attributes:
        path: Its path.
        values: Its keys and values; for ``pyproject.toml`` those of ``[tool.hibercheck]``.
        found: Whether nobody named it.
    """

    path: Path
    values: Mapping[str, Any]
    found: bool = False

    def where(self, key: str, command: str = DEFAULT) -> str:
        """Return the file with the number of the line on which a key of a command stands, as ``FILE:3``.

        Without the number where that cannot be told, as for a key within an inline table.
        """
        line = _line_of(self, key, command)
        return f"{self.path}:{line}" if line else str(self.path)


def find(arguments: Sequence[str]) -> Source | None:
    """Return the configuration that ``--config`` or HIBERCHECK_CONFIG names, or the nearest one upwards.

    The search ends at the root of a repository (a directory with ``.git``).

    Raises:
        InputProblem: The file named cannot be read, or one that was found is not trusted.
        UsageProblem: The file is not TOML.
    """
    named = _named(arguments) or os.environ.get(f"{PREFIX}_CONFIG")
    if named:
        path = Path(named)
        values = _load(path)
        return Source(path, (_shared_table(path, values) or {}) if path.name == SHARED_FILE else values)
    try:
        here = Path.cwd()
    except FileNotFoundError:  # the working directory was removed: there is nothing to be found in it
        return None
    for directory in (here, *here.parents):
        for path in (directory / OWN_FILE, directory / SHARED_FILE):
            table = _found(path) if path.is_file() else None
            if table is not None:
                return Source(path, table, found=True)
        if (directory / ".git").exists():
            break
    return None


def _found(path: Path) -> Mapping[str, Any] | None:
    """Read a file that nobody named; None for a ``pyproject.toml`` that is not about this tool.

    Raises:
        InputProblem: It is not trusted.
    """
    reason = distrust(str(path))
    if reason is None or path.name == SHARED_FILE:
        try:
            values = _load(path)
            if path.name == SHARED_FILE and not isinstance(values.get("tool", {}), dict):
                return None  # broken, and nothing in it is about this tool: for others to say
            table = values if path.name == OWN_FILE else _shared_table(path, values)
        except HibercheckError:
            if reason is None:
                raise
        else:
            if reason is None or table is None:
                return table
    advice = f"give --config {shlex.quote(str(path))} to obey it, or --config {os.devnull} to do without"
    raise InputProblem(f"a configuration that was found here {reason}", path=str(path), advice=advice)


def _shared_table(path: Path, values: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return ``[tool.hibercheck]``, or None where there is none.

    Raises:
        UsageProblem: It is something else than a table, or ``tool`` is.
    """
    tools = values.get("tool", {})
    table = tools.get("hibercheck") if isinstance(tools, dict) else tools
    if table is not None and not isinstance(table, dict):
        what = "tool.hibercheck" if isinstance(tools, dict) else "tool"
        raise UsageProblem(f"{what} is not a table", path=str(path), advice="write [tool.hibercheck] above its keys")
    return table


def _line_of(source: Source, key: str, command: str) -> int | None:
    from hibercheck.files.text import read_whole

    if not source.path.is_file():  # a pipe has been read, and has nothing more to wait for
        return None
    top = "tool.hibercheck" if source.path.name == SHARED_FILE else ""
    tables = [f"{top}.{command}".lstrip("."), top]
    try:
        lines = read_whole(str(source.path), MAX_BYTES, "a configuration").decode("utf-8", "replace").splitlines()
    except HibercheckError:  # it has changed since
        return None
    found: dict[str, int] = {}
    table = ""
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text.startswith("["):
            table = text.partition("]")[0].strip("[ \"'")
        elif text.partition("=")[0].strip().strip("\"'").replace("_", "-") == key:
            found.setdefault(table, number)
    return next((found[name] for name in tables if name in found), None)


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
    from hibercheck.files.text import read_whole
    from hibercheck.files.toml import parse_toml

    content = read_whole(str(path), MAX_BYTES, "a configuration")
    try:
        return parse_toml(content)
    except (ValueError, RecursionError) as error:  # ValueError: not UTF-8, not TOML, a number of thousands of digits
        raise UsageProblem(f"not TOML: {error}", path=str(path)) from error


def defaults(source: Source | None, command: click.Command, name: str) -> dict[str, Any]:
    """Return the defaults that the file gives to one command, by parameter.

    Raises:
        UsageProblem: The file has a key that is not an option, or a value that no option can have.
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
            f"{key} cannot be set in a file", path=source.where(key, name), advice="give it on the command line"
        )
    _refuse_unknown(source, values, options, "option", name)
    if source.found:
        _refuse_outputs(source, values, name)
    return {
        str(options[key].name): _value(source, options[key], value, source.where(key, name))
        for key, value in values.items()
    }


def _refuse_outputs(source: Source, values: Mapping[str, Any], name: str) -> None:
    for key, value in values.items():
        formats = value if key == "format" and isinstance(value, list) else [value] if key == "format" else []
        if key in WRITES or any("=" in str(one) for one in formats):
            what = f"{key} says where to write, which a configuration that was only found may not"
            path = str(source.path)
            advice = f"give it on the command line, or --config {shlex.quote(path)}"
            raise UsageProblem(what, path=source.where(key, name), advice=advice)


def _table(source: Source, name: str) -> dict[str, Any]:
    table = source.values.get(name, {})
    return table if isinstance(table, dict) else {}


def _refuse_unknown(
    source: Source, given: Sequence[str] | Mapping[str, Any], known: Mapping[str, Any], what: str, name: str = DEFAULT
) -> None:
    for key in given:
        if key not in known:
            import difflib

            close = difflib.get_close_matches(key, list(known), n=1)
            raise UsageProblem(
                f"no {what} is called {key!r}",
                path=source.where(key, name),
                advice=f"did you mean {close[0]!r}?" if close else "see hibercheck check --help",
            )


def _value(source: Source, option: GroupedOption, value: object, where: str) -> object:
    """Turn a TOML value into what the parser takes: text, a flag, or a list of texts."""
    if option.is_flag:
        if not isinstance(value, bool):
            raise UsageProblem(f"{option.long_name} is true or false", path=where)
        return value
    if option.multiple:
        items = value if isinstance(value, list) else [value]
        return [_text(source, option, item, where) for item in items]
    return _text(source, option, value, where)


def _text(source: Source, option: GroupedOption, value: object, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise UsageProblem(f"{option.long_name} takes text or a number", path=where)
    text = str(value)
    beside = source.path.parent / text
    return str(beside) if option.reads and not Path(text).is_absolute() and beside.exists() else text


def show(command: click.Command, ctx: click.Context, arguments: list[str], source: Source | None) -> None:
    """Print every option of ``command`` with its value and where that comes from."""
    from hibercheck.cli.output import write_answer

    given, _, _ = command.make_parser(ctx).parse_args(list(arguments))
    lines = [f"# configuration: {source.path if source else 'none'}"]
    for option in command.params:
        if not isinstance(option, GroupedOption) or option.long_name in NOT_IN_FILES:
            continue
        value, origin = option.consume_value(ctx, given)
        if isinstance(value, str) and (option.is_flag or isinstance(option.type, click.types.IntParamType)):
            value = option.type_cast_value(ctx, value)  # true for the environment's 1: what a file would have
        lines.append(_line(option.long_name, value, _origin(option, ctx, origin, source)))
    write_answer("".join(f"{line}\n" for line in lines))


def told(error: click.BadParameter, ctx: click.Context, source: Source | None) -> click.UsageError:
    """Return an error about a value with where it was said: a variable, a line of a file, or the command line."""
    option = error.param
    if not isinstance(option, GroupedOption) or option.name is None:
        return error
    origin = ctx.get_parameter_source(option.name)
    if origin is ParameterSource.ENVIRONMENT:
        return click.UsageError(f"{option.variable(ctx.info_name)}: {error.message}", ctx)
    if origin is ParameterSource.DEFAULT_MAP and source is not None:
        where = source.where(option.long_name, ctx.info_name or DEFAULT)
        return click.UsageError(f"{where}: {option.long_name}: {error.message}", ctx)
    return error


def tell_gate(command: click.Command, ctx: click.Context, source: Source | None) -> None:
    """Say on standard error what decides whether the run fails, as far as that is not on the command line."""
    told: dict[str, list[str]] = {}
    for option in command.params:
        origin = ctx.get_parameter_source(str(option.name))
        if not isinstance(option, GroupedOption) or option.group != GATE or origin is None:
            continue
        if origin in {ParameterSource.ENVIRONMENT, ParameterSource.DEFAULT_MAP}:
            setting, _, where = _line(option.long_name, _plain(ctx.params[str(option.name)]), "").partition("  # ")
            told.setdefault(_origin(option, ctx, origin, source), []).append(setting + where)
    from hibercheck.report.sanitise import one_line

    for where, settings in told.items():
        say(f"hibercheck: gate: {one_line(', '.join(settings))} ({one_line(where)})")


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


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
