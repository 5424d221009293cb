#!/usr/bin/env python3
"""Write the manual pages: ``python man/generate.py`` (a test fails while they are not what this writes).

Section 1 comes from the commands themselves, with the text in ``source/NAME.1.md`` added where there is one; section 7
comes from ``source/NAME.7.md``.  What options `check` has is written as plain data, too, for `hibercheck.cli.plain`.

Markdown here is a small part of it: headings, paragraphs, fenced blocks, lists with
``-``, ``term`` followed by ``: text``, and ``code``, *emphasis*, **strong** within a line.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click

from hibercheck import __version__
from hibercheck.cli.check import command as check
from hibercheck.cli.commands import summaries
from hibercheck.cli.group import root
from hibercheck.cli.options import GENERAL, GroupedOption
from hibercheck.cli.values import PathType

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "source"
PARAMETERS = HERE.parent / "hibercheck" / "cli" / "parameters.py"
DATE = "2026-11-22"
"""Date of the release that `hibercheck.__version__` names: pages must not change by being written again."""

WIDTH = 78
"""Columns of a page's source."""

_INLINE = re.compile(r"(`[^`]+`|\*\*[^*]+\*\*|\*[^*]+\*)")


def escape(text: str) -> str:
    """Return ``text`` so that roff prints it as it is."""
    text = (
        text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga").replace("^", "\\(ha")
    )
    text = text.replace("~", "\\(ti").replace('"', "\\(dq")
    return f"\\&{text}" if text.startswith(".") else text


def inline(text: str) -> str:
    """Return a line of Markdown as roff."""
    parts = []
    for part in _INLINE.split(text.strip()):
        if part.startswith("`"):
            parts.append(f"\\fB{escape(part[1:-1])}\\fR")
        elif part.startswith("**"):
            parts.append(f"\\fB{escape(part[2:-2])}\\fR")
        elif part.startswith("*") and len(part) > 2:
            parts.append(f"\\fI{escape(part[1:-1])}\\fR")
        else:
            parts.append(part.replace("\\", "\\e").replace("--", "\\-\\-"))
    line = "".join(parts)
    return f"\\&{line}" if line.startswith((".", "'")) else line


def markdown(text: str) -> Iterator[str]:
    """Yield a Markdown text as lines of roff."""
    for block in re.split(r"\n\s*\n(?=\S|    )", _join_fences(text).strip("\n")):
        lines = block.split("\n")
        if lines[0].startswith("# "):
            yield f'.SH "{lines[0][2:].upper()}"'
            lines = lines[1:]
        elif lines[0].startswith("## "):
            yield f'.SS "{inline(lines[0][3:])}"'
            lines = lines[1:]
        if lines and any(lines):
            yield from _block(lines)


def _join_fences(text: str) -> str:
    """Keep the blank lines of a fenced block from splitting it."""
    return re.sub(r"```.*?```", lambda match: re.sub(r"\n(?=\n)", "\n\0", match[0]), text, flags=re.DOTALL)


def _block(lines: list[str]) -> Iterator[str]:
    if lines[0].startswith("```"):
        yield from (".PP", ".RS 2", ".EX")
        for line in lines[1:-1]:
            yield "\\&" if line in ("", "\0") else escape(line)
        yield from (".EE", ".RE")
    elif lines[0].startswith("- "):
        for item in re.split(r"\n- ", "\n".join(lines)[2:]):
            yield ".IP \\(bu 2"
            yield inline(" ".join(line.strip() for line in item.split("\n")))
    elif len(lines) > 1 and lines[1].startswith(": "):
        term, text = inline(lines[0]), inline(" ".join(line.removeprefix(": ").strip() for line in lines[1:]))
        long = len(term) > WIDTH  # a term is one line of the source
        yield from (".PP", term, ".RS", text, ".RE") if long else (".TP", term, text)
    else:
        yield ".PP"
        yield inline(" ".join(line.strip() for line in lines))


def title(name: str, section: int) -> str:
    """Return the line that heads a page."""
    manual = {1: "User Commands", 7: "Guides"}[section]
    # .nh: a variable or an option that is broken at a line's end cannot be copied
    return f'.TH {name.upper()} {section} {DATE} "hibercheck {__version__}" "{manual}"\n.nh'


def command_page(name: str) -> str:
    """Return the page of one subcommand."""
    above = click.Context(root, info_name="hibercheck", **root.context_settings)
    command = root.get_command(above, name)
    if command is None:
        raise LookupError(f"there is no command {name}")
    page = f"hibercheck-{name}"
    context = click.Context(command, info_name=name, parent=above)
    summary, _, rest = (command.help or "").partition("\n\n")
    more = list(_appendix(f"{page}.1.md"))
    lines = [title(page, 1), ".SH NAME", f"{page.replace('-', chr(92) + '-')} \\- {_summary(name)}", ".SH SYNOPSIS"]
    lines += [f"\\fBhibercheck\\fR \\fB{name}\\fR {_usage(command, context)}"]
    lines += [".SH DESCRIPTION", ".PP", inline(" ".join(summary.split()))]
    lines += list(markdown(rest)) if rest.strip() else []
    lines += [".SH OPTIONS", *_options(command, context), *_environment(command, context)]
    examples, status = _epilog(command.epilog or "")
    lines += more
    if status and '.SH "EXIT STATUS"' not in more:
        lines += ['.SH "EXIT STATUS"', ".PP", inline(status)]
    if examples:
        lines += [".SH EXAMPLES", ".PP", ".RS 2", ".EX", *map(escape, examples), ".EE", ".RE"]
    lines += ['.SH "SEE ALSO"', *_see_also(page)]
    return "\n".join(lines) + "\n"


def _summary(name: str) -> str:
    text = summaries()[name].rstrip(".")
    return inline(text[0].lower() + text[1:])


def _usage(command: click.Command, context: click.Context) -> str:
    words = []
    for piece in command.collect_usage_pieces(context):
        name, _, value = piece.rpartition(" ")
        words.append(f"\\fB{escape(name)}\\fR \\fI{escape(value)}\\fR" if name else f"\\fI{escape(piece)}\\fR")
    return " ".join(words).replace("\\fI[OPTIONS]\\fR", "[\\fIoption\\fR...]")


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    groups: dict[str, list[click.Parameter]] = {}
    for parameter in command.get_params(context):
        if isinstance(parameter, click.Option):
            groups.setdefault(getattr(parameter, "group", GENERAL), []).append(parameter)
    for group, parameters in sorted(groups.items(), key=lambda item: item[0] == GENERAL):
        yield f'.SS "{escape(group)}"'
        for parameter in parameters:
            record = parameter.get_help_record(context)
            if record is None:
                continue
            yield ".TP"
            yield f"\\fB{escape(record[0])}\\fR"
            yield inline(record[1])


def _environment(command: click.Command, context: click.Context) -> Iterator[str]:
    """Yield how options are set by variables, with the command's first option as the example."""
    options = [one for one in command.get_params(context) if isinstance(one, GroupedOption)]
    own = next((one for one in options if one.group != GENERAL), options[0])
    yield ".SH ENVIRONMENT"
    yield inline(
        f"Each option can be set by a variable: `--{own.long_name}` by `{own.variable(context.info_name)}`. "
        "Those under General have the same variable for all commands, such as `HIBERCHECK_COLOR`."
    )


def _epilog(text: str) -> tuple[list[str], str]:
    """Split what stands below a command's help into its examples and its exit status."""
    examples: list[str] = []
    status = ""
    for block in text.replace("\b", "").strip().split("\n\n"):
        lines = block.strip("\n").split("\n")
        if lines[0].startswith("Example"):
            examples = [line.removeprefix("  ") for line in lines[1:]]
        elif block.startswith("Exit status:"):
            status = " ".join(block.removeprefix("Exit status:").split())
    return examples, status


def _appendix(name: str) -> Iterator[str]:
    path = SOURCE / name
    if path.exists():
        yield from markdown(path.read_text(encoding="utf-8"))


def root_page() -> str:
    """Return hibercheck(1)."""
    commands = []
    for name, summary in summaries().items():
        commands += [".TP", f"\\fBhibercheck\\-{name}\\fR(1)", inline(summary)]
    text = (SOURCE / "hibercheck.1.md").read_text(encoding="utf-8")
    before, after = text.split("{commands}")
    lines = [title("hibercheck", 1), *markdown(before), *commands, *markdown(after)]
    lines += ['.SH "SEE ALSO"', *_see_also("hibercheck")]
    return "\n".join(lines) + "\n"


def guide_page(path: Path) -> str:
    """Return a page of section 7."""
    name = path.name.removesuffix(".7.md")
    lines = [title(name, 7), *markdown(_included(path.read_text(encoding="utf-8")))]
    lines += ['.SH "SEE ALSO"', *_see_also(name)]
    return "\n".join(lines) + "\n"


def _included(text: str) -> str:
    """Replace a line ``{man/examples/FILE}`` by that file as a fenced block."""

    def replace(match: re.Match[str]) -> str:
        content = (HERE.parent / match[1]).read_text(encoding="utf-8").rstrip("\n")
        return f"```\n{content}\n```"

    return re.sub(r"^\{(man/examples/[\w.-]+)\}$", replace, text, flags=re.MULTILINE)


def _see_also(page: str) -> Iterator[str]:
    pages = ["hibercheck(1)", *(f"hibercheck-{name}(1)" for name in summaries())]
    pages += sorted(f"{path.name.removesuffix('.7.md')}(7)" for path in SOURCE.glob("*.7.md"))
    others = [other for other in pages if other.partition("(")[0] != page]
    yield ",\n".join(f"\\fB{escape(other[:-3])}\\fR{other[-3:]}" for other in others)


def pages() -> dict[str, str]:
    """Return all pages by path below this directory."""
    made = {"hibercheck.1": root_page()}
    made |= {f"hibercheck-{name}.1": command_page(name) for name in summaries()}
    made |= {path.name.removesuffix(".md"): guide_page(path) for path in sorted(SOURCE.glob("*.7.md"))}
    return {
        f"man{name[-1]}/{name}": _filled(re.sub(r"^(\.S[HS] .*)\n\.PP$", r"\1", content, flags=re.MULTILINE))
        for name, content in made.items()
    }


def _filled(page: str) -> str:
    """Break lines of prose so that a change of a word changes few lines; examples and requests stay as they are."""
    lines: list[str] = []
    example = False
    for line in page.splitlines():
        example = line == ".EX" or (example and line != ".EE")
        term = lines[-1:] == [".TP"]
        if example or term or line.startswith((".", "'")) or len(line) <= WIDTH:
            lines.append(line)
            continue
        broken = textwrap.wrap(line, WIDTH, break_long_words=False, break_on_hyphens=False)
        lines += [f"\\&{part}" if part.startswith((".", "'")) else part for part in broken]
    return "\n".join(lines) + "\n"


def parameters() -> str:
    """Return what `check` takes as the module `PARAMETERS`, for command lines that are read without click."""
    taken = [option for option in check.params if option.expose_value]
    options = [option for option in taken if isinstance(option, click.Option) and option.callback is None]
    one = [option for option in options if not option.multiple and not option.is_flag]
    asis = [option for option in one if isinstance(option.type, click.types.StringParamType | PathType)]
    flags = [option for option in options if option.is_flag and not option.secondary_opts]
    unset = {**check.make_context("check", ["image"]).params, "image": None}
    tables = (
        ("TEXTS", "Options whose value is taken as it stands, and their parameters.", _named(asis)),
        ("FLAGS", "Options without a value.", _named(flags)),
        ("UNSET", "The parameters of a command line without words.", unset),
    )
    head = '"""The parameters of ``check``; `hibercheck.cli.check` declares them, man/generate.py writes this."""\n'
    body = "".join(
        f"\n{name}: dict[str, Any] = {{\n"
        + "".join(f"    {_quoted(key)}: {_quoted(value)},\n" for key, value in table.items())
        + f'}}\n"""{text}"""\n'
        for name, text, table in tables
    )
    return f"{head}\nfrom __future__ import annotations\n\nfrom typing import Any\n{body}"


def _named(options: list[click.Option]) -> dict[str, str | None]:
    return {name: option.name for option in options for name in option.opts}


def _quoted(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def main() -> int:
    """Write all pages and remove those whose command is gone."""
    PARAMETERS.write_text(parameters(), encoding="utf-8")
    made = pages()
    for path in HERE.glob("man?/*"):
        if str(path.relative_to(HERE)) not in made:
            path.unlink()
    for name, content in made.items():
        (HERE / name).write_text(content, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
