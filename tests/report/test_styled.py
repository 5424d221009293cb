"""Our styled text against rich's, which it stands for: the same characters and styles, and the same lines in a pipe."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text as RichText

from hibercheck.cli.output import make_console
from hibercheck.report.sheet import Columns, Sheet
from hibercheck.report.styled import PlainConsole, Raw, Text

WORDS = st.text("ab \né漢█", max_size=12).filter(lambda text: not text or text.strip())  # as in test_sheet.py
PARTS = st.lists(WORDS | st.tuples(WORDS, st.sampled_from(["", "bold", "red"])), max_size=5)


def _as_rich_has_it(text):
    return text.plain, str(text.style), [(span.start, span.end, str(span.style)) for span in text.spans]


@given(first=PARTS, second=PARTS, style=st.sampled_from(["", "dim"]))
def test_it_is_put_together_as_rich_does(first, second, style):
    inner, theirs = Text.assemble(*second, style=style), RichText.assemble(*second, style=style)
    ours, theirs = Text.assemble(*first, inner, style=style), RichText.assemble(*first, theirs, style=style)
    ours.stylize("cyan", 0, 1)
    theirs.stylize("cyan", 0, 1)
    assert _as_rich_has_it(ours.rich()) == _as_rich_has_it(theirs)


def test_control_codes_are_left_out_as_rich_does():
    ours, theirs = Text("a\a\bb"), RichText("a\a\bb")
    ours.append("\v\f\rc", "red")
    theirs.append("\v\f\rc", "red")
    assert _as_rich_has_it(ours.rich()) == _as_rich_has_it(theirs)


def _printed(console, texts, row):
    sheet = Sheet(console)
    for text in texts:
        sheet.print(text, indent=2, prose=True)
    columns = Columns("Head", "Other")
    columns.add_row(*row)
    sheet.print(columns, indent=1)
    sheet.flush()
    console.print(texts[0], soft_wrap=True)
    console.print(Raw("as it is\n"))
    console.print()


@given(texts=st.lists(PARTS, min_size=1, max_size=3), row=st.tuples(WORDS, PARTS))
def test_a_pipe_gets_the_lines_that_rich_would_print(texts, row):
    stream = io.StringIO()
    theirs, ours = make_console(stream, color="never", width=60), PlainConsole(60, "utf-8")
    theirs.soft_wrap = True
    for console in (theirs, ours):
        _printed(console, [Text.assemble(*parts) for parts in texts], (row[0], Text.assemble(*row[1])))
    assert _lines(ours.text) == _lines(stream.getvalue())


def _lines(printed):
    return [line.rstrip() for line in printed.split("\n")]


@pytest.mark.parametrize("width", [5, 7, 8, 40])
def test_what_is_cropped_is_cropped_at_the_same_character(width):
    cropped = []
    for console in (make_console(io.StringIO(), color="never", width=width), PlainConsole(width, "utf-8")):
        sheet = Sheet(console)
        sheet.crop(Text.assemble("ab漢", ("字é█", "red")))
        sheet.flush()
        cropped.append(console.text if isinstance(console, PlainConsole) else console.file.getvalue())
    wanted = RichText("ab漢字é█")
    wanted.truncate(width, overflow="crop")
    assert [_lines(text) for text in cropped] == [_lines(f"{wanted.plain}\n")] * 2
