"""Small parts of the report: words, sanitising, the memory picture, the catalogue."""

from __future__ import annotations

import dataclasses
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from hibercheck.handoff.verdict.findings import FrameUse
from hibercheck.handoff.verdict.rules import RULES
from hibercheck.report import picture, walks, words
from hibercheck.report.sanitise import clean, one_line
from tests.report.samples import IMAGE, MWAIT_CPU, WALK


@given(st.text())
def test_nothing_invisible_survives(text):
    for shown in (clean(text), one_line(text)):
        assert all(unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Zl", "Zp"} for char in shown)
        shown.encode("utf-8")


def test_ordinary_text_is_left_alone():
    text = "Linux version 6.1.0 (größer) #1 SMP ✓"
    assert clean(text) == text


def test_sizes_and_shares():
    assert words.size(0) == "0 B" or words.size(0) == "0 KiB"
    assert words.size(1) == "4 KiB"
    assert words.size(32_768) == "128 MiB"
    assert words.percent(0, 7) == "0 %"
    assert words.percent(7, 7) == "100 %"
    assert words.percent(1, 10_000) == "0.1 %"
    assert words.percent(9_999, 10_000) == "99.9 %"


def test_sentences():
    assert words.sentence("the image") == "The image."
    assert words.sentence("mwait_play_dead+0x1 loops") == "mwait_play_dead+0x1 loops."
    assert words.sentence("nosmt is set.") == "nosmt is set."
    assert words.sentence("") == ""


@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(1, 50)), max_size=8),
    st.integers(0, 5000),
    st.integers(1, 150),
)
def test_the_picture_covers_all_memory_and_fits(gaps, ram, width):
    runs, first = [], 0
    for gap, length in gaps:
        runs.append((first + gap, length))
        first += gap + length + 1
    drawn = picture.draw(dataclasses.replace(IMAGE, runs=tuple(runs), ram_pages=ram), [MWAIT_CPU], width, picture.ASCII)
    assert len(drawn.strip) <= width
    assert len(drawn.strip) * drawn.frames >= drawn.top
    assert (drawn.strip.count(".") == len(drawn.strip)) == (not runs)
    assert all(len(row.marks) <= len(drawn.strip) for row in drawn.rows)


def test_the_picture_shows_the_worst_of_a_cell():
    image = dataclasses.replace(IMAGE, runs=((0, 10), (15, 5)), ram_pages=40)
    uses = (
        FrameUse("a", None, 0, None, True, None, True),
        FrameUse("b", None, 1, None, True, None, False),
        FrameUse("c", None, 12, None, False),
        FrameUse("d", None, 39, None, None),
    )
    drawn = picture.draw(image, [dataclasses.replace(MWAIT_CPU, footprint=uses)], 4, picture.ASCII)
    assert drawn.strip == "#+.."
    assert drawn.rows[0].marks == "xo ?"


def test_a_walk_row_by_row():
    rows = list(walks.rows(WALK))
    assert rows[0] == ("PML4", "0x1c10000", "511", "0x0000000001c12067", "P W U A D")
    assert rows[2][4] == "not present"
    assert walks.ending(WALK) == "page fault, error code 0x10: level 2 entry not present"


def test_every_rule_is_complete():
    assert list(RULES) == sorted(RULES)
    assert len({rule.name for rule in RULES.values()}) == len(RULES)
    for rule in RULES.values():
        for text in (rule.summary, rule.meaning, rule.why, rule.remedy):
            assert text.endswith("."), (rule.id, text)
        assert rule.references
