"""The text report: what a reader sees first, what an expert can verify, and that it fits."""

from __future__ import annotations

import dataclasses
import io
import re
import shlex

import pytest

from hibercheck.cli.output import make_console
from hibercheck.handoff.replay.fate import Fate
from hibercheck.report import text, words
from hibercheck.report.gate import judge
from hibercheck.report.prose import explanation
from hibercheck.report.text import Detail
from tests.report.golden import DIRECTORY, GIVEN, WIDTHS, files, render
from tests.report.samples import SAMPLES

ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def test_they_are_the_committed_ones():
    committed = {path.name: path.read_text(encoding="utf-8") for path in DIRECTORY.glob("*.txt")}
    assert dict(files()) == committed, "python -m tests.report.golden writes them anew"


@pytest.mark.parametrize("name", SAMPLES)
def test_by_default_it_fits_a_screen_and_ends_with_the_verdict(name):
    for width in WIDTHS:
        lines = render(name, width).splitlines()
        limit = {60: 34, 80: 27, 120: 24}[width]
        assert name == "hostile" or len(lines) <= limit
        first = lines[0].split("  ")[0]
        assert any(line.startswith(f"{first}  Exit status ") for line in lines[-3:])


def test_in_a_pipe_no_line_is_broken():
    for name, one in SAMPLES.items():
        for detail in (Detail.NORMAL, Detail.VERBOSE):
            shown = render(name, None, detail=detail).splitlines()
            if name != "hostile":
                assert words.sentence(one().headline) in shown[0]
                for finding in one().findings if detail is Detail.VERBOSE else ():
                    assert any(words.sentence(finding.message) in line for line in shown)


def test_the_next_command_is_whole():
    for width, whole in ((None, True), (60, False)):
        shown = render("undetermined", width)
        command = "hibercheck image.bin --resumer vmlinux-6.12 --resumee vmlinux-6.1 --resumer-cmdline 'nokaslr nosmt' "
        joined = " ".join(part.strip() for part in shown.replace(" \\\n", " ").split("  ") if part.strip())
        assert f"{command}--resumer-symbols System.map" in joined
        assert (" \\\n" not in shown) == whole


def test_the_next_command_is_broken_between_the_words_of_the_shell():
    """A backslash at the end of a line counts within quotes: what was copied had it in the command line."""
    for width in range(40, 100):
        shown = render("undetermined", width)
        start = shown.index("  hibercheck image.bin")
        told = shown[start : shown.index("System.map", start)].replace("\\\n", " ")
        assert shlex.split(told) == ["hibercheck", *GIVEN, "--resumer-symbols"]


def test_the_locale_decides_about_characters(monkeypatch):
    monkeypatch.setattr("locale.nl_langinfo", lambda _: "ANSI_X3.4-1968")
    assert render("fatal", 80, detail=Detail.VERBOSE) == render("fatal", 80, detail=Detail.VERBOSE, encoding="ascii")


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
@pytest.mark.parametrize("name", SAMPLES)
def test_it_fits(name, width):
    assert max(map(len, render(name, width, detail=Detail.VERBOSE).splitlines())) <= width


@pytest.mark.parametrize("name", SAMPLES)
def test_colours_change_nothing_else(name):
    coloured = render(name, 100, color="always")
    assert "\x1b" in coloured
    plain = "".join(f"{line.rstrip()}\n" for line in ESCAPES.sub("", coloured).split("\n")[:-1])
    assert plain == render(name, 100)


@pytest.mark.parametrize("name", SAMPLES)
def test_the_first_words_are_the_outcome(name):
    report = SAMPLES[name]()
    first = render(name, 100).split("  ")[0]
    assert first.startswith("MAY RESET" if name in {"risk", "asleep"} else str(report.outcome).upper())


def test_an_expert_can_verify():
    shown = render("fatal", 100, detail=Detail.VERBOSE)
    for fact in ("0x1062b79", "native_play_dead+0x69", "apply_microcode_amd+0x49", "0x0000000001c12067", "511"):
        assert fact in shown
    assert "page fault, error code 0x10: level 2 entry not present" in shown
    assert "0f ae f0 48 0f ae 3b 4c 89 e2" in shown


def test_untrusted_text_never_reaches_the_terminal():
    for detail in Detail:
        shown = render("hostile", 120, detail=detail)
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\udc80-\udcff]", shown)
        assert "[bold red]" in shown  # printed, not obeyed


def test_many_cpus_are_grouped():
    shown = render("many-cpus", 100)
    assert "1-47" in shown
    assert len(shown.splitlines()) < 20
    shown = render("many-cpus", 100, detail=Detail.VERBOSE)
    assert "1-47" in shown
    assert "CPUs 48-63" in shown
    assert shown.count("HC201 error") == 1


def test_a_thousand_cpus_stay_readable():
    report = SAMPLES["many-cpus"]()
    last = report.cpus[-1]
    wide = dataclasses.replace(
        report, cpus=(*report.cpus, *(dataclasses.replace(last, cpu=cpu) for cpu in range(64, 1024)))
    )
    stream = io.StringIO()
    text.render(judge(wide), make_console(stream, color="never", width=80), text.Detail.VERBOSE)
    assert "48-1023" in stream.getvalue()
    assert len(stream.getvalue().splitlines()) < 200


def test_what_to_do_comes_before_what_proves_it():
    for name in ("fatal", "many-cpus"):
        lines = render(name, 80).splitlines()
        step = next(number for number, line in enumerate(lines) if line.startswith("What to do: "))
        assert step < 18
        assert any("hibercheck explain" in line or line.endswith("explain") for line in lines[step : step + 4])
    assert "What to do" not in render("safe", 80)
    whole = render("undetermined", 80, detail=Detail.VERBOSE)
    assert whole.index("\nMissing\n") < whole.index("\nCPUs\n")


def test_a_terminal_without_unicode_gets_a_picture_too():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    text.render(judge(SAMPLES["fatal"]()), make_console(stream, width=80), Detail.VERBOSE)
    stream.flush()
    assert b"#" in stream.buffer.getvalue()


def test_the_paragraph_is_about_the_cause_and_not_the_verdict_alone():
    """Latent is a CPU that stays parked, or one that the resumee starts anew and that lives by its TLB until then."""
    stays = SAMPLES["latent"]()
    cpus = tuple(dataclasses.replace(cpu, fate=Fate.REINITIALISED) if not cpu.boot_cpu else cpu for cpu in stays.cpus)
    assert "stays asleep in memory that has been replaced" in explanation(stays)
    assert "stays asleep" not in explanation(dataclasses.replace(stays, cpus=cpus))
    assert "translations that it has cached" in explanation(dataclasses.replace(stays, cpus=cpus))
    safe = explanation(SAMPLES["safe"]())
    assert "nothing supposed wakes it before the resumee's INIT" in safe
    assert "can wake it" not in safe
