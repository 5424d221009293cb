"""Configuration files and the environment: where each value comes from, and what is refused."""

from __future__ import annotations

import os

import pytest

KERNELS = ("--resumer", "r", "--resumee", "e")


def test_the_file_gives_defaults(hibercheck, engine, tmp_path):
    (tmp_path / "hibercheck.toml").write_text(
        'resumer = "r"\nresumee = "e"\nfail-on = "never"\nsuppose = ["nmi", "smi"]\nspurious_mwait = true\n'
        'resumer-offline = "2,3"\nresume-offset = 7\nformat = ["json=x.json", "text"]\n'
    )
    ran = hibercheck("i", "--config", "hibercheck.toml")
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
    assert (ran.status, ran.err) == (3, "hibercheck: none.toml: cannot be opened: No such file or directory\n")


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
    again = hibercheck("check", "--show-config", "--config", "hibercheck.toml").out
    assert [line.partition("  # ")[0] for line in again.splitlines()[1:]] == [
        line.partition("  # ")[0] for line in shown.splitlines()[1:]
    ]
    hibercheck("i", "--config", "hibercheck.toml")
    assert engine.asked.options.spurious_mwait is True
    assert engine.asked.options.suppose == {"nmi", "smi"}
    assert engine.asked.options.resumer_offline == {2, 3}


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@as_root
@pytest.mark.parametrize("name", ["hibercheck.toml", "pyproject.toml"])
@pytest.mark.parametrize("text", ['fail-on = "never"\n', "not toml"])
def test_a_file_of_another_user_ends_the_run(hibercheck, engine, tmp_path, name, text):
    """It could turn a fatal into a pass; to pass it over could do so as well."""
    (tmp_path / name).write_text(f"[tool.hibercheck]\n{text}" if name == "pyproject.toml" else text)
    os.chown(tmp_path / name, 1234, 1234)
    ran = hibercheck("i", *KERNELS)
    assert (ran.status, ran.out, engine.asked) == (3, "", None)
    path = tmp_path / name
    assert ran.err == (
        f"hibercheck: {path}: a configuration that was found here belongs to another user (uid 1234); "
        f"give --config {path} to obey it, or --config /dev/null to do without\n"
    )
    assert hibercheck("i", *KERNELS, "--config", "/dev/null").status == 1
    if text != "not toml":
        assert hibercheck("i", *KERNELS, "--config", path).status == 0


@as_root
def test_another_users_project_that_is_not_about_this_tool(hibercheck, engine, tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool.other]\nx = 1\n")
    os.chown(tmp_path / "pyproject.toml", 1234, 1234)
    assert hibercheck("i", *KERNELS).status == 1


@as_root
def test_who_became_root_is_trusted(hibercheck, engine, tmp_path, monkeypatch):
    (tmp_path / "hibercheck.toml").write_text('fail-on = "never"\n')
    os.chown(tmp_path / "hibercheck.toml", 1234, 1234)
    monkeypatch.setenv("SUDO_UID", "1234")
    assert hibercheck("i", *KERNELS).status == 0
    monkeypatch.setenv("SUDO_UID", "x")
    assert hibercheck("i", *KERNELS).status == 3


@as_root
def test_a_link_of_another_user(hibercheck, engine, tmp_path):
    """It leads to a file of ours that was not meant to be obeyed here."""
    (tmp_path / "elsewhere.toml").write_text('fail-on = "never"\n')
    (tmp_path / "hibercheck.toml").symlink_to("elsewhere.toml")
    assert hibercheck("i", *KERNELS).status == 0
    os.chown(tmp_path / "hibercheck.toml", 1234, 1234, follow_symlinks=False)
    ran = hibercheck("i", *KERNELS)
    assert ran.status == 3
    assert "belongs to another user (uid 1234)" in ran.err


def test_a_file_that_everyone_may_write(hibercheck, engine, tmp_path):
    (tmp_path / "hibercheck.toml").write_text('fail-on = "never"\n')
    (tmp_path / "hibercheck.toml").chmod(0o666)
    ran = hibercheck("i", *KERNELS)
    assert (ran.status, ran.err.count("\n")) == (3, 1)
    assert "was found here may be written by everyone; give --config" in ran.err
    (tmp_path / "hibercheck.toml").chmod(0o664)
    assert hibercheck("i", *KERNELS).status == 0


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('output = "victim"', "output"),
        ('write-baseline = "victim"', "write-baseline"),
        ('write_baseline = "victim"', "write-baseline"),
        ('format = "json=victim"', "format"),
        ('format = ["text", "json=victim"]', "format"),
        ('[check]\noutput = "victim"', "output"),
    ],
)
def test_a_file_that_was_found_does_not_say_where_to_write(hibercheck, engine, tmp_path, text, key):
    (tmp_path / "victim").write_text("keep")
    (tmp_path / "hibercheck.toml").write_text(text)
    ran = hibercheck("i", *KERNELS)
    assert (ran.status, engine.asked, (tmp_path / "victim").read_text()) == (2, None, "keep")
    line = 1 + text.startswith("[check]")
    assert (
        f"hibercheck.toml:{line}: {key} says where to write, which a configuration that was only found may not"
        in ran.err
    )
    assert ran.err.count("\n") == 1
    assert hibercheck("i", *KERNELS, "--config", "hibercheck.toml").status == (0 if key == "write-baseline" else 1)
    assert (tmp_path / "victim").read_text() != "keep"


def test_the_cache_of_a_matrix_is_a_place_too(hibercheck, tmp_path):
    (tmp_path / "hibercheck.toml").write_text('[matrix]\ncache-dir = "here"\n')
    ran = hibercheck("matrix", "x")
    assert ran.status == 2
    assert "cache-dir says where to write" in ran.err


def test_what_set_the_gate_is_said(hibercheck, engine, tmp_path, monkeypatch):
    (tmp_path / "hibercheck.toml").write_text('fail-on = "never"\nresumer-cmdline = "nosmt"\nsuppressions = "s.toml"\n')
    (tmp_path / "s.toml").write_text("")
    settings = f'fail-on = "never", suppressions = ["{tmp_path}/s.toml"]'
    said = f"hibercheck: gate: {settings} (file: {tmp_path}/hibercheck.toml)\n"
    for quiet in ((), ("-q",)):
        assert hibercheck("i", *KERNELS, *quiet).err == said
    (tmp_path / "hibercheck.toml").unlink()
    monkeypatch.setenv("HIBERCHECK_FAIL_ON", "fatal")
    assert hibercheck("i", *KERNELS).err == 'hibercheck: gate: fail-on = "fatal" (environment: HIBERCHECK_FAIL_ON)\n'
    assert hibercheck("i", *KERNELS, "--fail-on", "risk").err == ""
    assert hibercheck("check", "--show-config").err == ""
