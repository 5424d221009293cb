"""Untrusted text reaches no output raw: not the terminal, and no format that a program or a browser reads."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest
from rich.console import Console

from hibercheck.handoff.designs.catalogue import DESIGNS
from hibercheck.handoff.designs.compare import Comparison, CpuLine, Exposure, Named, Row
from hibercheck.handoff.designs.rest import Rest
from hibercheck.handoff.diff import Change, Difference, Pair, Part
from hibercheck.handoff.matrix.pair import Cell
from hibercheck.handoff.matrix.table import Matrix, Member
from hibercheck.handoff.verdict.findings import Fate, Outcome, Verdict
from hibercheck.report import designs, diff, formats, matrix_text, text
from hibercheck.report.gate import Exit, Mark, judge
from hibercheck.report.matrix import csv_parts, json_parts
from hibercheck.report.matrix_html import html_parts
from hibercheck.x86.events import Event
from tests.fuzz.poison import EVIL, RAW, poison
from tests.report.samples import SAMPLES

SAFE = sorted(set(SAMPLES) - {"hostile"})


def judged(name, evil=EVIL):
    report = poison(SAMPLES[name](), evil)
    marks = [Mark("suppressed", evil) if number % 2 else None for number in range(len(report.findings))]
    return judge(report, fail_on="risk", marks=marks, warnings=(evil,))


def on_terminal(render, *, colour=False, width=100):
    console = Console(
        file=io.StringIO(), width=width, markup=False, emoji=False, highlight=False, force_terminal=colour,
        color_system="truecolor" if colour else None,
    )  # fmt: skip
    render(console)
    return console.file.getvalue()


@pytest.mark.parametrize("name", SAFE)
@pytest.mark.parametrize("form", sorted(set(formats.NAMES) - {"text"}))
def test_formats(name, form):
    content = formats.renderer(form)(judged(name))
    assert not RAW.search(content), RAW.search(content)
    content.encode("utf-8")  # no lone surrogates
    {
        "json": json.loads, "sarif": json.loads, "gitlab": json.loads, "junit": junit, "ktap": ktap,
        "github": github, "markdown": markdown, "html": page,
    }[form](content)  # fmt: skip


def page(content):
    reader = Tags()
    reader.feed(content)
    assert not {"script", "img", "iframe", "link"} & reader.tags
    assert not {name for name in reader.names if name.startswith("on") or name in {"src", "href"}}


def junit(content):
    root = ET.fromstring(content)  # noqa: S314 - what we wrote ourselves
    assert {one.tag for one in root.iter()} <= {
        "testsuites", "testsuite", "testcase", "properties", "property", "failure", "error", "skipped", "system-out",
        "system-err",
    }  # fmt: skip
    assert "<!--" not in content
    assert "<script" not in content
    assert content.count("]]>") == 0


def ktap(content):
    head, *lines = content.splitlines()
    assert head == "KTAP version 1"
    assert all(re.match(r"(# |1\.\.\d+$|(not )?ok \d+ )", line) for line in lines), lines
    results = [line for line in lines if not line.startswith("#")][1:]
    assert [int(re.search(r"ok (\d+) ", line)[1]) for line in results] == list(range(1, len(results) + 1))
    assert all(line.count("#") <= 1 and "# SKIP z" not in line for line in results)


def github(content):
    for line in content.splitlines():
        found = re.match(r"::(error|warning|notice) title=([^:,]*)::(.*)$", line)
        assert found, line
        assert "\n" not in found[3]
        assert not re.search(r"%(?!25|0D|0A|3A|2C)", found[3]), line
        assert "%0A" not in found[3].replace("%250A", "")


def markdown(content):
    columns, plain, fence = 0, [], None
    for line in content.splitlines():
        found = re.match(r"(`{3,})(\w*)$", line)
        if fence is None and found:
            fence = found[1]
        elif fence is not None:
            fence = None if line == fence else fence
        else:
            plain.append(re.sub(r"(`+)(?:(?!\1).)+?\1(?!`)", "", line) if "`" in line else line)
            cells = len(re.findall(r"(?<!\\)\|", line))
            columns = cells if line.startswith("|") and (columns or cells) and not columns else columns
            assert not line.startswith("|") or cells == columns, line
            columns = columns if line.startswith("|") else 0
    assert fence is None
    outside = "\n".join(plain)
    assert not re.search(r"(?<!\\)<", outside), re.search(r".*(?<!\\)<.*", outside)[0]
    assert not re.search(r"(?<!\\)\[bold", outside)
    assert not re.search(r"^::", outside, re.MULTILINE)


@pytest.mark.parametrize("name", SAFE)
@pytest.mark.parametrize("width", [40, 400])
def test_text(name, width):
    for detail in (text.Detail.NORMAL, text.Detail.VERBOSE):
        plain = on_terminal(lambda console, d=detail: text.render(judged(name), console, d), width=width)
        assert not RAW.search(plain), RAW.search(plain)
        assert "owned" in plain


def test_colours_are_only_ours():
    """What a terminal gets in colours is, without the colours, what it gets without."""

    def lines(name, *, colour):
        shown = on_terminal(lambda console: text.render(judged(name), console, text.Detail.VERBOSE), colour=colour)
        return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", shown).split("\n")]

    for name in ("fatal", "undetermined"):
        bare = lines(name, colour=True)
        assert not RAW.search("\n".join(bare)), RAW.search("\n".join(bare))
        assert bare == lines(name, colour=False)


def test_a_line_of_a_million_characters():
    content = on_terminal(lambda console: text.render(judged("fatal", "a" * 1_000_000), console))
    assert "more characters" in content
    assert len(content) < 1_000_000


@pytest.fixture
def matrix():
    made = Matrix((Member(EVIL, EVIL, EVIL, EVIL), Member("=1+1", None, "/boot/x")), (f"s{EVIL}",), ((EVIL, EVIL),))
    cell = Cell(Outcome.RESETS, Verdict.FATAL, EVIL, 0.5)
    for resumer in range(2):
        made.add(resumer, [cell], [[0, 0]])
    return made


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.names = set(), set()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.names.update(name for name, _ in attributes)

    def handle_comment(self, data):
        raise AssertionError(data)


def test_matrix_page(matrix):
    page = "".join(html_parts(matrix))
    assert not RAW.search(page), RAW.search(page)
    reader = Tags()
    reader.feed(page)
    assert not {"script", "img", "iframe", "link"} & reader.tags
    assert all(target.startswith("#") for target in re.findall(r'<a href="([^"]*)"', page))
    assert page.count("<a ") == len(re.findall(r'<a href="#[a-zA-Z0-9-]+">', page)) > 0
    assert not {name for name in reader.names if name.startswith("on")}


def test_matrix_text(matrix):
    shown = on_terminal(lambda console: matrix_text.render(matrix, console))
    assert not RAW.search(shown), RAW.search(shown)


def test_matrix_tables(matrix):
    content = "".join(json_parts(matrix))
    assert not RAW.search(content)
    json.loads(content)
    content = "".join(csv_parts(matrix))
    assert not RAW.search(content), RAW.search(content)
    rows = list(csv.reader(io.StringIO(content)))
    assert len(rows) == 5
    assert {len(row) for row in rows} == {13}
    # A spreadsheet takes what begins so for a formula.
    assert not [cell for row in rows for cell in row if cell[:1] in ("=", "+", "-", "@", "\t")]


def test_designs():
    line = CpuLine(1, EVIL, EVIL, Fate.DIES, EVIL)
    row = Row(
        DESIGNS[0], True, Outcome.RESETS,
        Verdict.FATAL, (Exposure(Event.NMI, "dies", "survives"),), (line,), (Rest(1, None, "resumer", EVIL),),
        ((5, EVIL),), EVIL, (EVIL,),
    )  # fmt: skip
    evil = Named(EVIL, EVIL)
    for refusal in (None, EVIL):
        made = Comparison(EVIL, evil, evil, EVIL, refusal, (Outcome.RESETS, Verdict.FATAL), (row,), warnings=(EVIL,))
        shown = on_terminal(lambda console, one=made: designs.render(one, console))
        assert not RAW.search(shown), RAW.search(shown)
        assert not RAW.search(json.dumps(designs.to_dict(made)))


def test_diff():
    cell = Cell(Outcome.RESETS, Verdict.FATAL, EVIL)
    good = dataclasses.replace(cell, outcome=Outcome.RESUMES, verdict=Verdict.SAFE)
    member = Member(EVIL, EVIL, EVIL, EVIL)
    pair = Pair(EVIL, member, member, member, member, good, cell)
    changes = tuple(Change(part, EVIL, EVIL, EVIL, EVIL) for part in Part)
    made = Difference(EVIL, EVIL, same_build=False, changes=changes, pairs=(pair,))
    shown = on_terminal(lambda console: diff.render(made, console, Exit.FAILED))
    assert not RAW.search(shown), RAW.search(shown)
    assert not RAW.search(json.dumps(diff.to_dict(made, Exit.FAILED)))
