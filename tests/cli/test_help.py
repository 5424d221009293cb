"""The help of every command: it fits a screen, explains what one needs, and names all the rest."""

from __future__ import annotations

import re

import click
import pytest

from hibercheck.cli.commands import root_help, summaries
from hibercheck.cli.group import root
from hibercheck.cli.options import GENERAL, GroupedOption
from hibercheck.cli.values import OutputType

SCREEN = 39
NAMES = list(summaries())
OWN = {"format", "scenario", "symbols", "kernel", "image", "verbose"}
"""Options that are each command's own: what they take differs."""


def options(name: str) -> list[GroupedOption]:
    command = root.get_command(click.Context(root), name)
    return [option for option in command.params if isinstance(option, GroupedOption)]


@pytest.mark.parametrize("name", NAMES)
def test_it_fits_a_screen(hibercheck, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "80")
    ran = hibercheck(name, "--help")
    lines = ran.out.splitlines()
    assert (ran.status, ran.err) == (0, "")
    assert len(lines) <= SCREEN
    assert max(map(len, lines)) <= 80
    assert not any(line != line.rstrip() for line in lines)


@pytest.mark.parametrize("name", NAMES)
def test_no_format_is_broken(hibercheck, monkeypatch, name):
    """A list of values with bars between them is one long word, which click breaks wherever the line ends."""
    monkeypatch.setenv("COLUMNS", "80")
    words = set(re.findall(r"[\w-]+", hibercheck(name, "--help").out))
    for option in options(name):
        if isinstance(option.type, OutputType):
            assert set(option.type.formats) <= words


def test_so_does_the_help_of_the_whole():
    lines = root_help().splitlines()
    assert len(lines) < 24  # the smallest terminal, with a line for the prompt
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_explained_or_named(hibercheck, name):
    short, every = hibercheck(name, "--help").out, hibercheck(name, "--help-all").out
    explained, _, named = short.partition("Explained by --help-all:")
    for option in options(name):
        where = named if option.more else explained
        assert f"--{option.long_name}" in where
        assert re.search(rf"^  .*--{option.long_name}\b", every, re.MULTILINE)
        assert option.help


@pytest.mark.parametrize("name", NAMES)
def test_it_has_examples_and_what_must_be_given_comes_first(hibercheck, name):
    if name in {"rules", "schema", "explain", "completion"}:
        return
    out = hibercheck(name, "--help").out
    assert "\nExamples:\n  hibercheck " in out
    for option in options(name):
        if option.required:
            assert f"--{option.long_name} {option.metavar}" in out.splitlines()[0]


def test_help_needs_no_configuration_and_reads_none(hibercheck, tmp_path):
    (tmp_path / "hibercheck.toml").write_text("nonsense = 1")
    assert hibercheck("check", "--help-all").status == 0


def test_what_commands_share_is_declared_once():
    """An option of one name means the same everywhere: same values, same words."""
    seen: dict[str, dict[str, tuple[object, ...]]] = {}
    for name in NAMES:
        for option in options(name):
            if option.group != GENERAL and option.long_name not in OWN:
                what = (option.opts, option.help, option.type.to_info_dict(), option.default, option.multiple)
                seen.setdefault(option.long_name, {})[name] = (*what, option.group, option.more, option.metavar)
    shared = {name: users for name, users in seen.items() if len(users) > 1}
    assert {"resumer", "resumer-cmdline", "suppose", "spurious-mwait", "fail-on", "cpus", "output"} <= set(shared)
    for name, users in shared.items():
        assert len({repr(declaration) for declaration in users.values()}) == 1, (name, users)
