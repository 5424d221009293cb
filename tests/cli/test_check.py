"""The main job's command line, on an engine that answers with made-up reports."""

from __future__ import annotations

import json
import os

import pytest

from hibercheck.errors import MalformedImage, MissingFact, UsageProblem
from hibercheck.handoff.scenario.options import CheckOptions
from tests.report.samples import SAMPLES

KERNELS = ("--resumer", "r", "--resumee", "e")


def test_the_resumee_may_be_left_out(hibercheck, engine):
    assert hibercheck("i", "--resumer", "r", "--fail-on", "never").status == 0
    assert (engine.asked.resumer, engine.asked.resumee) == ("r", None)


@pytest.mark.parametrize(
    ("sample", "fail_on", "status"),
    [
        ("safe", "risk", 0),
        ("safe", "safe", 1),
        ("benign", "risk", 0),
        ("benign", "benign", 1),
        ("latent", "risk", 0),
        ("latent", "latent", 1),
        ("risk", "risk", 1),
        ("risk", "fatal", 0),
        ("fatal", "fatal", 1),
        ("fatal", "never", 0),
        ("refused", "fatal", 1),
        ("refused", "never", 0),
        ("undetermined", "risk", 4),
        ("undetermined", "never", 4),
    ],
)
def test_exit_status(hibercheck, engine, sample, fail_on, status):
    engine.answer = SAMPLES[sample]()
    assert hibercheck("i", *KERNELS, "--fail-on", fail_on).status == status


def test_check_is_the_default_and_can_be_spelt_out(hibercheck, engine):
    short = hibercheck("i", *KERNELS)
    assert (engine.asked.image, engine.asked.resumer, engine.asked.resumee) == ("i", "r", "e")
    assert hibercheck("check", "i", *KERNELS).out == short.out
    assert hibercheck(*KERNELS, "i").out == short.out


def test_a_file_named_like_a_command_is_written_with_its_directory(hibercheck, engine):
    hibercheck("./check", *KERNELS)
    assert engine.asked.image == "./check"


def test_every_option_reaches_the_engine(hibercheck, engine):
    hibercheck(
        "i", *KERNELS, "--resumer-cmdline", "nosmt nokaslr", "--resumer-offline", "2,3", "--resumer-idle", "mwait",
        "--resumer-phys-base", "16M", "--spurious-mwait", "--suppose", "nmi", "--suppose", "mce",
        "--resume-offset", "8",
        "--resumer-memory", "m", "--resumer-registers", "g", "--resumer-symbols", "s",
        "--resumee-symbols", "t",
    )  # fmt: skip
    options = engine.asked.options
    assert options.resumer_cmdline == "nosmt nokaslr"
    assert options.resumer_offline == {2, 3}
    assert options.resumer_idle == "mwait"
    assert options.resumer_phys_base == 0x1000000
    assert options.spurious_mwait is True
    assert options.suppose == {"nmi", "mce"}
    assert options.resume_offset == 8
    assert options.resumer_memory == "m"
    assert options.resumer_registers == "g"
    assert options.resumer_symbols == "s"
    assert options.resumee_symbols == "t"


def test_defaults_leave_everything_open(hibercheck, engine):
    hibercheck("i", *KERNELS)
    assert engine.asked.options == CheckOptions()


def test_json_goes_to_standard_output(hibercheck, engine):
    ran = hibercheck("i", *KERNELS, "--format", "json")
    document = json.loads(ran.out)
    assert (document["outcome"], document["verdict"], document["gate"]["exit_status"]) == (
        "resets",
        "fatal",
        ran.status,
    )
    assert ran.err == ""


def test_several_formats_at_once(hibercheck, engine, tmp_path):
    ran = hibercheck("i", *KERNELS, "--format", "json=out.json", "--format", "text")
    assert ran.out.startswith("RESETS (fatal)")
    assert json.loads((tmp_path / "out.json").read_text())["verdict"] == "fatal"


def test_an_output_file_is_whole_and_plain(hibercheck, engine, tmp_path):
    (tmp_path / "out").write_text("old")
    (tmp_path / "out").chmod(0o640)
    ran = hibercheck("i", *KERNELS, "-o", "out")
    assert ran.out == ""
    text = (tmp_path / "out").read_text()
    assert text.startswith("RESETS (fatal)")
    assert "\x1b" not in text
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_failed_run_leaves_the_old_output(hibercheck, engine, tmp_path):
    (tmp_path / "out").write_text("old")
    engine.answer = MalformedImage("the swap map loops", path="i", offset=4096)
    ran = hibercheck("i", *KERNELS, "-o", "out")
    assert ran.status == 3
    assert (tmp_path / "out").read_text() == "old"


@pytest.mark.parametrize("arguments", [("-o", "no/such/dir"), ("--format", "json=.")])
def test_an_output_that_cannot_be_written(hibercheck, engine, arguments):
    ran = hibercheck("i", *KERNELS, *arguments)
    assert ran.status == 3
    assert ran.err.startswith("hibercheck: ")
    assert ran.err.count("\n") == 1


def test_an_input_is_never_written_to(hibercheck, engine, tmp_path):
    (tmp_path / "i").write_bytes(b"image")
    os.link(tmp_path / "i", tmp_path / "same")
    for output in ("i", "./i", "same"):
        ran = hibercheck("i", *KERNELS, "-o", output)
        assert (ran.status, ran.err.count("\n")) == (2, 1)
    assert (tmp_path / "i").read_bytes() == b"image"


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("i", *KERNELS, "more"),
        ("i", *KERNELS, "--nonsense"),
        ("i", *KERNELS, "--resumer-offline", "3-1"),
        ("i", *KERNELS, "--resumer-phys-base", "1"),
        ("i", *KERNELS, "--suppose", "luck"),
        ("i", *KERNELS, "--format", "json", "--format", "text"),
        ("i", *KERNELS, "--format", "json=a", "-o", "b"),
        ("i", *KERNELS, "--format", "json=a", "--format", "text=a"),
        ("chekc",),
    ],
)
def test_bad_usage_is_one_line_and_status_2(hibercheck, engine, arguments):
    ran = hibercheck(*arguments)
    assert ran.status == 2
    assert ran.out == ""
    assert ran.err.startswith("hibercheck: ")
    assert ran.err.count("\n") == 1


def test_a_mistyped_command_is_answered_with_its_name(hibercheck, engine):
    assert "did you mean 'check'" in hibercheck("chekc").err


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (MalformedImage("the swap map loops", path="i", offset=4096), 3, "i: the swap map loops (at byte 0x1000)"),
        (UsageProblem("no CPU 9"), 2, "no CPU 9"),
        (MissingFact("no symbol", advice="give --resumer-symbols"), 4, "no symbol; give --resumer-symbols"),
        (FileNotFoundError(2, "No such file or directory", "x"), 3, "x: No such file or directory"),
        (KeyError("x"), 3, "internal error: KeyError: 'x'; this is a bug, please report it with what --debug prints"),
        (MalformedImage("evil\x1b[31m\nline", path="a\rb"), 3, "a\\x0db: evil\\x1b[31m line"),
    ],
)
def test_failures_are_one_line(hibercheck, engine, error, status, line):
    engine.answer = error
    ran = hibercheck("i", *KERNELS)
    assert (ran.status, ran.out, ran.err) == (status, "", f"hibercheck: {line}\n")


def test_debug_shows_the_traceback(hibercheck, engine):
    engine.answer = KeyError("x")
    with pytest.raises(KeyError):
        hibercheck("i", *KERNELS, "--debug")


def test_an_interrupt_is_130(hibercheck, engine):
    engine.answer = KeyboardInterrupt()
    assert hibercheck("i", *KERNELS).status == 130


def test_color(hibercheck, engine, monkeypatch):
    assert "\x1b" not in hibercheck("i", *KERNELS).out
    assert "\x1b" in hibercheck("i", *KERNELS, "--color", "always").out
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b" in hibercheck("i", *KERNELS).out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in hibercheck("i", *KERNELS).out


def test_quiet_is_one_sentence(hibercheck, engine):
    ran = hibercheck("i", *KERNELS, "-q", "--width", "200")
    assert ran.out.count("\n") == 1


def test_width_holds(hibercheck, engine):
    for width in (40, 60, 80, 120):
        lines = hibercheck("i", *KERNELS, "--width", width, "-v").out.splitlines()
        assert max(map(len, lines)) <= width


@pytest.mark.parametrize("name", ["resumer_cmdline", "width", "fail_on"])
def test_options_come_from_the_environment_too(hibercheck, engine, monkeypatch, name):
    values = {"resumer_cmdline": "nosmt", "width": "90", "fail_on": "never"}
    monkeypatch.setenv(f"HIBERCHECK_{name.upper()}", values[name])
    ran = hibercheck("i", *KERNELS)
    if name == "resumer_cmdline":
        assert engine.asked.options.resumer_cmdline == "nosmt"
    elif name == "fail_on":
        assert ran.status == 0
    else:
        assert max(map(len, ran.out.splitlines())) <= 90


@pytest.mark.parametrize(
    "twice",
    [("--resumer", "x"), ("--resumee", "x"), ("--fail-on", "safe"), ("--resumer-cmdline", "x"), ("--color", "never"),
     ("--max-memory", "1G")],
)  # fmt: skip
def test_an_option_that_would_be_dropped_is_told(hibercheck, engine, twice):
    once = () if twice[0] in {"--resumer", "--resumee"} else twice
    ran = hibercheck("i", *KERNELS, *once, *twice)
    assert (ran.status, ran.out) == (2, "")
    assert f"{twice[0]} is given twice" in ran.err
    assert engine.asked is None


def test_a_fact_with_two_values_is_told(hibercheck, engine):
    ran = hibercheck("i", *KERNELS, "--fact", "smt=on", "--fact", "cpus=0-3", "--fact", "smt=off")
    assert (ran.status, ran.out) == (2, "")
    assert "'--fact': smt is both on and off; give it once" in ran.err
    assert engine.asked is None


def test_what_may_be_there_again(hibercheck, engine):
    again = ("--suppose", "nmi", "--suppose", "smi", "--verify", "--verify", "-q", "-q")
    alike = ("--fact", "smt=on", "--fact", "smt=on")
    assert hibercheck("i", *KERNELS, *again, *alike).status == 1


def test_registers_without_a_dump_have_no_effect(hibercheck, engine):
    ran = hibercheck("i", *KERNELS, "--resumer-registers", "r.txt")
    assert (ran.status, engine.asked) == (2, None)
    assert "have no effect without a dump" in ran.err
