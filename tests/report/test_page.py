"""The page of a check: whole, self-contained, and clean for those who do not see it."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest

from hibercheck.handoff.verdict.findings import FrameUse
from hibercheck.report import drawing, page
from hibercheck.report.gate import judge
from tests.report.samples import SAMPLES
from tests.support.browser import CHROMIUM, axe_core, dom, violations

ALL = pytest.mark.parametrize("name", SAMPLES)
VOID = {"meta", "br", "img", "hr", "link", "input"}


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.seen, self.sources = [], [], []

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        self.sources += [
            value for name, value in attributes if name in {"src", "href", "style"} or name.startswith("on")
        ]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def rendered(name):
    return page.render(judge(SAMPLES[name]()))


@ALL
def test_it_is_whole_and_fetches_nothing(name):
    content = rendered(name)
    tags = Tags()
    tags.feed(content)
    assert not tags.open
    assert tags.seen.count("main") == tags.seen.count("h1") == 1
    assert not tags.sources
    assert not {"script", "img", "link", "iframe"} & set(tags.seen)
    assert not re.search(r"url\(|@import|https?://", content)


@ALL
def test_every_mark_is_a_row_too(name):
    report = SAMPLES[name]()
    content = re.sub(r' data-label="[^"]*"', "", rendered(name))
    for bar in (*drawing.memory(report), *drawing.copy_line(report)):
        for mark in bar.marks if bar.listed else ():
            assert f"<td>{drawing.escape(bar.label)}</td><td><code>{mark.where}</code></td>" in content
            assert f"<td>{drawing.escape(mark.what)}</td>" in content


@ALL
def test_the_drawing_is_an_svg_that_stands_alone(name):
    root = ET.fromstring(drawing.svg(SAMPLES[name]()))  # noqa: S314 - what we wrote ourselves
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("aria-label")


def test_marks_stand_where_their_frames_lie():
    report = SAMPLES["fatal"]()
    image, resumer, _, cpu = drawing.memory(report)
    assert image.marks[0].start == pytest.approx(1 / 32_768)
    assert resumer.marks[0].where == "0x1000000"
    loop = next(mark for mark in cpu.marks if mark.what.startswith("park loop"))
    assert (loop.kind, loop.where, loop.start) == ("replaced", "0x1062000", pytest.approx(0x1062 / 32_768))
    assert [mark.kind for mark in cpu.marks] == ["replaced", "replaced", "same", "kept"]


def test_the_copy_goes_down_from_the_highest_frame():
    report = SAMPLES["fatal"]()
    image = dataclasses.replace(report.image, runs=((10, 10), (100, 5)))
    roles = {"monitored line": 104, "park loop": 100, "PD of the park loop": 19, "IDT gate": 10, "per-CPU data": 50}
    uses = tuple(FrameUse(role, None, pfn, None, pfn != 50, None, False) for role, pfn in roles.items())
    cpu = dataclasses.replace(report.cpus[1], footprint=uses)
    (bar,) = drawing.copy_line(dataclasses.replace(report, image=image, cpus=(report.cpus[0], cpu)))
    assert [mark.where.partition(",")[0] for mark in bar.marks] == [
        "copy 1 of 15",
        "copy 5 of 15",
        "copy 6 of 15",
        "copy 15 of 15",
    ]
    assert [drawing.part_of(role) for role in roles] == [
        "its line",
        "its loop",
        "its page tables",
        "its exception path",
        "its data",
    ]


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize("width", [390, 1200])
def test_nothing_is_wider_than_the_window(width, tmp_path):
    probe = "<script>document.title = document.documentElement.scrollWidth + ' of ' + innerWidth</script></body>"
    for name in ("fatal", "risk"):
        shown = dom(rendered(name).replace("</body>", probe), tmp_path, width=width)
        needed, there = map(int, re.search(r"<title>(\d+) of (\d+)</title>", shown).groups())
        assert needed <= there


@pytest.mark.skipif(CHROMIUM is None or axe_core() is None, reason="chromium or axe-core is not installed")
def test_axe_finds_nothing(tmp_path):
    for name, width in (("fatal", 1200), ("safe-unless", 390), ("undetermined", 1200)):
        assert not violations(rendered(name), tmp_path, width=width)


def test_a_row_on_a_phone_names_its_columns():
    """There the table is a list: each cell has its column's name before it."""
    content = rendered("fatal")
    heads = set(re.findall(r'<th scope="col">([^<]*)</th>', content))
    labels = set(re.findall(r'<td data-label="([^"]*)">', content))
    assert labels == heads
    assert "<td>" not in content
