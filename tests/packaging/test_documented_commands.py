"""Every command line that README, the guides and the helps show is one that the command accepts."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from hibercheck.cli.commands import root_help, summaries
from hibercheck.cli.group import root

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [ROOT / "README.md", *sorted((ROOT / "man" / "source").glob("*.md"))]
SHOWN = re.compile(r"^\s*(?:[\w./]*/)?(hibercheck\s(?!COMMAND|IMAGE).*)$", re.MULTILINE)


def commands() -> Iterator[tuple[str, str]]:
    texts = {path.name: path.read_text(encoding="utf-8") for path in SOURCES}
    texts |= {"--help": root_help()}
    for name in summaries():
        command = root.get_command(click.Context(root), name)
        texts[f"{name} --help"] = (command.epilog or "").replace("\b", "")
    for source, text in texts.items():
        blocks = text if source.endswith("help") else "\n".join(code(text))
        for line in SHOWN.findall(re.sub(r"\\\n\s*", " ", blocks)):
            yield source, line


def code(text: str) -> Iterator[str]:
    """Yield the fenced and the indented blocks of a Markdown text."""
    yield from re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
    yield from re.findall(r"(?:^    .*\n)+", text, re.MULTILINE)


def words(line: str) -> list[str]:
    line = re.sub(r"\$\([^)]*\)", "x", line)
    found = shlex.split(re.split(r"\s(?:#|>|\|)|\s{3,}", line)[0], comments=True)
    return found[1:]


@pytest.mark.parametrize(("source", "line"), sorted(set(commands())))
def test_it_is_accepted(source, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = words(line)
    if arguments in (["--help"], ["--version"]) or arguments[-1:] == ["--help"]:
        return
    with root.make_context("hibercheck", arguments) as above:
        name, command, rest = root.resolve_command(above, [*above._protected_args, *above.args])
        command.make_context(name, rest, parent=above)


def test_there_are_some():
    assert len(set(commands())) > 25
