"""The text report: what a reader sees first, what an expert can verify, and that it fits."""

from __future__ import annotations

import dataclasses
import io
import re

import pytest

from hibercheck.cli.output import make_console
from hibercheck.report import text
from hibercheck.report.gate import judge
from hibercheck.report.text import Detail
from tests.report.golden import DIRECTORY, WIDTHS, render
from tests.report.samples import SAMPLES

ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", SAMPLES)
def test_it_is_the_committed_one(name, width):
    committed = (DIRECTORY / f"{name}-{width}.txt").read_text(encoding="utf-8")
    assert render(name, width) == committed, "python -m tests.report.golden writes them anew"


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
@pytest.mark.parametrize("name", SAMPLES)
def test_it_fits(name, width):
    assert max(map(len, render(name, width, detail=Detail.VERBOSE).splitlines())) <= width


@pytest.mark.parametrize("name", SAMPLES)
def test_colours_change_nothing_else(name):
    coloured = render(name, 100, color="always")
    assert "\x1b" in coloured
    plain = "".join(f"{line.rstrip()}\n" for line in ESCAPES.sub("", coloured).splitlines())
    assert plain == render(name, 100)


@pytest.mark.parametrize("name", SAMPLES)
def test_the_first_words_are_the_outcome(name):
    report = SAMPLES[name]()
    first = render(name, 100).split("  ")[0]
    assert first.startswith("MAY RESET" if name == "risk" else str(report.outcome).upper())


def test_an_expert_can_verify():
    shown = render("fatal", 100)
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
    assert render("undetermined", 80).index("\nMissing\n") < render("undetermined", 80).index("\nCPUs\n")


def test_a_terminal_without_unicode_gets_a_picture_too():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    text.render(judge(SAMPLES["fatal"]()), make_console(stream, width=80))
    stream.flush()
    assert b"#" in stream.buffer.getvalue()
