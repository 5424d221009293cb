"""Configuration files and the environment: where each value comes from, and what is refused."""

from __future__ import annotations

import pytest

KERNELS = ("--resumer", "r", "--resumee", "e")


def test_the_file_gives_defaults(hibercheck, engine, tmp_path):
    (tmp_path / "hibercheck.toml").write_text(
        'resumer = "r"\nresumee = "e"\nfail-on = "never"\nsuppose = ["nmi", "smi"]\nspurious_mwait = true\n'
        'resumer-offline = "2,3"\nresume-offset = 7\nformat = ["json=x.json", "text"]\n'
    )
    ran = hibercheck("i")
    assert ran.status == 0
    assert engine.asked.resumer == "r"
    assert engine.asked.options.suppose == {"nmi", "smi"}
    assert engine.asked.options.spurious_mwait is True
    assert engine.asked.options.resumer_offline == {2, 3}
    assert engine.asked.options.resume_offset == 7
    assert (tmp_path / "x.json").exists()


def test_pyproject_has_a_table(hibercheck, engine, tmp_path):
    (tmp_path / "pyproject.toml").write_text('[tool.hibercheck]\nresumer-cmdline = "nosmt"\n[tool.other]\nx = 1\n')
    hibercheck("i", *KERNELS)
    assert engine.asked.options.resumer_cmdline == "nosmt"


def test_the_nearest_file_upwards_counts_but_not_beyond_the_repository(hibercheck, engine, tmp_path, monkeypatch):
    (tmp_path / "hibercheck.toml").write_text('resumer-cmdline = "outer"\n')
    (tmp_path / "repository" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "repository" / "deep")
    hibercheck("i", *KERNELS)
    assert engine.asked.options.resumer_cmdline == "outer"
    (tmp_path / "repository" / ".git").mkdir()
    hibercheck("i", *KERNELS)
    assert engine.asked.options.resumer_cmdline is None


def test_who_wins(hibercheck, engine, tmp_path, monkeypatch):
    (tmp_path / "hibercheck.toml").write_text('resumer-cmdline = "file"\nfail-on = "latent"\nwidth = 90\n')
    monkeypatch.setenv("HIBERCHECK_RESUMER_CMDLINE", "environment")
    monkeypatch.setenv("HIBERCHECK_FAIL_ON", "never")
    hibercheck("i", *KERNELS)
    assert engine.asked.options.resumer_cmdline == "environment"
    hibercheck("i", *KERNELS, "--resumer-cmdline", "line")
    assert engine.asked.options.resumer_cmdline == "line"
    shown = hibercheck("check", "--show-config", "--resumer-cmdline", "line").out
    assert 'resumer-cmdline = "line"  # command line\n' in shown
    assert 'fail-on = "never"  # environment: HIBERCHECK_FAIL_ON\n' in shown
    assert f"width = 90  # file: {tmp_path / 'hibercheck.toml'}\n" in shown
    assert 'color = "auto"  # default\n' in shown
    assert "# baseline is not set\n" in shown


def test_a_file_named_in_it_lies_beside_it(hibercheck, engine, tmp_path, monkeypatch):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "s.toml").write_text('[[suppress]]\nrule = "HC201"\nsymbol = "*"\nreason = "known"\n')
    (tmp_path / "conf" / "hibercheck.toml").write_text('suppressions = "s.toml"\nresumer = "6.1.0"\n')
    hibercheck("i", *KERNELS, "--config", "conf/hibercheck.toml")
    shown = hibercheck("check", "--show-config", "--config=conf/hibercheck.toml").out
    assert 'suppressions = ["conf/s.toml"]' in shown
    assert 'resumer = "6.1.0"' in shown


def test_each_command_has_its_table(hibercheck, tmp_path):
    (tmp_path / "hibercheck.toml").write_text('fail-on = "never"\ncolor = "never"\n[rules]\nformat = "json"\n')
    assert hibercheck("rules").out.startswith("{")
    assert hibercheck("explain", "HC201").status == 0


def test_another_commands_variable_carries_its_name(hibercheck, monkeypatch):
    monkeypatch.setenv("HIBERCHECK_FORMAT", "sarif")
    assert hibercheck("rules").out.startswith("Rule")
    monkeypatch.setenv("HIBERCHECK_RULES_FORMAT", "json")
    assert hibercheck("rules").out.startswith("{")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('failon = "risk"', "did you mean 'fail-on'?"),
        ("nonsense = 1", "no option is called 'nonsense'"),
        ("config = 'x'", "config cannot be set in a file; give it on the command line"),
        ("debug = true", "debug cannot be set in a file"),
        ("[chekc]\n", "did you mean 'check'?"),
        ("fail-on = 'sometimes'", "'sometimes' is not one of"),
        ("spurious-mwait = 'yes'", "spurious-mwait is true or false"),
        ("fail-on = true", "fail-on takes text or a number"),
        ("suppose = [['nmi']]", "suppose takes text or a number"),
        ("fail-on =", "not TOML"),
        ("\xff", "not TOML"),
    ],
)
def test_a_bad_file_is_one_line(hibercheck, engine, tmp_path, text, said):
    (tmp_path / "hibercheck.toml").write_bytes(text.encode("latin-1"))
    ran = hibercheck("i", *KERNELS)
    assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert said in ran.err


def test_a_named_file_must_be_there(hibercheck, engine):
    ran = hibercheck("i", *KERNELS, "--config", "none.toml")
    assert (ran.status, ran.err) == (3, "hibercheck: none.toml: cannot read: No such file or directory\n")


def test_an_empty_file_turns_the_search_off(hibercheck, engine, tmp_path):
    (tmp_path / "hibercheck.toml").write_text("nonsense = 1")
    assert hibercheck("i", *KERNELS, "--config", "/dev/null").status == 1


def test_what_is_shown_can_be_a_file(hibercheck, engine, tmp_path, monkeypatch):
    monkeypatch.setenv("HIBERCHECK_SPURIOUS_MWAIT", "1")
    monkeypatch.setenv("HIBERCHECK_SUPPOSE", "nmi smi")
    arguments = (*KERNELS, "--resumer-offline", "2-3", "--width", "90", "--resume-offset", "7", "--format", "json=j")
    shown = hibercheck("check", *arguments, "--show-config").out
    (tmp_path / "hibercheck.toml").write_text(shown)
    monkeypatch.delenv("HIBERCHECK_SPURIOUS_MWAIT")
    monkeypatch.delenv("HIBERCHECK_SUPPOSE")
    again = hibercheck("check", "--show-config").out
    assert [line.partition("  # ")[0] for line in again.splitlines()[1:]] == [
        line.partition("  # ")[0] for line in shown.splitlines()[1:]
    ]
    hibercheck("i")
    assert engine.asked.options.spurious_mwait is True
    assert engine.asked.options.suppose == {"nmi", "smi"}
    assert engine.asked.options.resumer_offline == {2, 3}
