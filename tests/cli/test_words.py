"""What a user writes who does not know the options yet, and where a wrong value was said."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("words", [("help",), ("help", "matrix"), ("help", "check")])
def test_help_is_a_command_too(hibercheck, words):
    asked = hibercheck(*words)
    assert (asked.status, asked.err) == (0, "")
    assert asked.out == hibercheck(*words[1:], "--help").out


def test_version_is_a_command_too(hibercheck):
    assert hibercheck("version").out == hibercheck("--version").out


def test_help_of_nothing_names_the_commands(hibercheck):
    ran = hibercheck("help", "nonsense")
    assert ran.status == 2
    assert ran.err.startswith("hibercheck: no command 'nonsense'; there are check, image")


@pytest.mark.parametrize(
    ("files", "meant"),
    [
        (("b",), "--resumer b"),
        (("b", "c d"), "--resumer b --resumee 'c d'"),
    ],
)
def test_files_without_options_are_answered_with_them(hibercheck, files, meant):
    ran = hibercheck("a", *files)
    assert ran.status == 2
    assert f"only IMAGE is given without an option; did you mean {meant}?" in ran.err


def test_four_files_are_just_too_many(hibercheck):
    ran = hibercheck("a", "b", "c", "d")
    assert ran.status == 2
    assert "unexpected extra arguments" in ran.err


def test_a_wrong_value_names_its_variable(hibercheck, monkeypatch):
    monkeypatch.setenv("HIBERCHECK_FAIL_ON", "sometimes")
    ran = hibercheck("a")
    assert ran.status == 2
    assert ran.err.startswith("hibercheck: HIBERCHECK_FAIL_ON: 'sometimes' is not one of")


@pytest.mark.parametrize(
    ("name", "content", "command", "told"),
    [
        ("hibercheck.toml", '# mine\n\nfail-on = "sometimes"\n', "check", ":3: fail-on: 'sometimes' is not one of"),
        ("hibercheck.toml", "fail_on = 1.5\n", "check", ":1: fail-on takes text or a number"),
        ("hibercheck.toml", "[image]\nverify = 3\n", "image", ":2: verify is true or false"),
        ("hibercheck.toml", 'color = "never"\n[image]\nnonsense = 3\n', "image", ":3: no option is called 'nonsense'"),
        ("pyproject.toml", '[x]\nstrict = 1\n[tool.hibercheck]\nstrict = "a"\n', "check", ":4: strict is true or"),
        ("hibercheck.toml", 'output = "x"\n', "check", ":1: output says where to write"),
    ],
)
def test_a_wrong_value_in_a_file_names_the_line(hibercheck, tmp_path, monkeypatch, name, content, command, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(content)
    ran = hibercheck(command, "a")
    assert ran.status == 2
    assert f"{name}{told}" in ran.err
