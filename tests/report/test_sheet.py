"""The report's own columns against rich's tables, which they replace for their cost alone."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.padding import Padding
from rich.table import Table

from hibercheck.cli.output import make_console
from hibercheck.report.sheet import Columns, Sheet
from hibercheck.report.styled import Text

PLAIN = "\x1b[0m"
STYLES = ("", "dim", "bold red")
WORDS = st.text("ab-/ ", max_size=12) | st.text("aé漢\n ", max_size=8) | st.sampled_from(["", "0xffffffff81000000"])
WORDS = WORDS.filter(lambda text: not text or text.strip())  # blank lines in a column without width: rich drops some


def _printed(content, *, width, color, indent=0):
    stream = io.StringIO()
    console = make_console(stream, color=color, width=width)
    if isinstance(content, (Columns, Text)):
        sheet = Sheet(console)
        sheet.print(content, indent=indent)
        sheet.flush()
    else:
        console.print(content)
    return "".join(f"{line.rstrip()}\n" for line in stream.getvalue().split("\n")[:-1])


def _seen(printed):
    """Each line's characters with their styles: into how many runs they are put, and blanks at the end, nobody sees."""
    lines, style = [], PLAIN
    for line in printed.split("\n"):
        lines.append(seen := [])
        for part in re.split(r"(\x1b\[[0-9;]*m)", line):
            if part.startswith("\x1b"):
                style = part
            else:
                seen += [(character, style) for character in part]
        while seen and seen[-1][0] == " ":
            seen.pop()
    return lines


@settings(max_examples=300, deadline=None)
@given(
    headers=st.sampled_from([(), ("For", "Frame", "In the resumer")]),
    rows=st.lists(st.tuples(*[st.tuples(WORDS, st.sampled_from(STYLES))] * 3), min_size=1, max_size=5),
    width=st.integers(40, 60),
    color=st.sampled_from(["never", "always"]),
    as_text=st.booleans(),
)
@example(headers=(), rows=[(("a " * 40, "dim"), ("b" * 70, ""), ("c", "dim"))], width=40, color="always", as_text=False)
def test_columns_are_those_of_rich(headers, rows, width, color, as_text) -> None:
    theirs = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", show_header=bool(headers))
    ours = Columns(*headers, columns=0 if headers else 3)
    for header in headers or ("",) * 3:
        theirs.add_column(header, overflow="fold")
    for row in rows:
        cells = [Text(text, style=style) for text, style in row]
        ours.add_row(*(cells if as_text else row))
        theirs.add_row(*cells)
    wanted = _printed(Padding(theirs, (0, 0, 0, 4)), width=width, color=color)
    assert _seen(_printed(ours, width=width, color=color, indent=4)) == _seen(wanted)


@pytest.mark.parametrize("color", ["never", "always"])
def test_cells_of_several_styles_and_rows_that_are_short(color) -> None:
    mixed = Text.assemble(("other", "red"), " bytes", style="dim")
    ours, theirs = Columns(columns=3), Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for _ in range(3):
        theirs.add_column("", overflow="fold")
    for row in (("a", mixed, "c"), ("a", mixed), ("a", Text("x " * 30), "c"), ()):
        ours.add_row(*row)
        theirs.add_row(*row)
    assert ours.row_count == 4
    wanted = _printed(Padding(theirs, (0, 0, 0, 2)), width=30, color=color)
    assert _seen(_printed(ours, width=30, color=color, indent=2)) == _seen(wanted)


@pytest.mark.parametrize("color", ["never", "always"])
def test_prose_is_that_of_rich(color) -> None:
    text = Text.assemble("\n", ("What to do: ", "bold"), "bring all CPUs online, or " * 9, ("end", "dim"))
    wanted = _printed(Padding(text, (0, 0, 0, 6)), width=50, color=color)
    assert _printed(text, width=50, color=color, indent=6) == wanted


def test_what_is_to_be_kept_is_not_broken_and_nothing_is_lost() -> None:
    rows = Columns("For", "What")
    rows.keep(0, 20)
    rows.add_row("PDPT of the park loop", "x" * 100)
    printed = _printed(rows, width=40, color="never")
    assert "PDPT of the park" in printed.splitlines()[1]
    assert printed.count("x") == 100
    assert max(map(len, printed.splitlines())) <= 40
