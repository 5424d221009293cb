#!/usr/bin/env python3
"""Write the report that README.md shows: ``python man/examples/report.py``.

It is the real report on a real image: that of the case ``fatal`` of ``fixtures/``.  ``report.txt`` is what a pipe gets,
``report-verbose.txt`` the same with ``-v``, ``report.svg`` what a terminal shows, ``drawing.svg`` what a page draws.
A test holds README.md's to them.
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

from hibercheck import check
from hibercheck.cli.output import FILE_WIDTH, make_console
from hibercheck.report import drawing, text
from hibercheck.report.gate import Judged, judge

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CASE = "fatal"
WIDTH = 80


def command() -> list[str]:
    """Return the words of the command that README.md shows, after its name."""
    cases = json.loads((ROOT / "fixtures" / "cases.json").read_text(encoding="utf-8"))["cases"]
    case = next(case for case in cases if case["name"] == CASE)
    return [f"fixtures/{case['image']}", "--resumer", f"fixtures/{case['resumer']}", "--spurious-mwait"]


def judged() -> Judged:
    """Check the case, as the command in README.md does."""
    os.chdir(ROOT)
    image, _, resumer, _ = command()
    return judge(check(image, resumer, spurious_mwait=True))


def plain(report: Judged, detail: text.Detail = text.Detail.NORMAL, *, width: int | None = None) -> str:
    """Return the report as the command writes it to a pipe, or to a terminal of ``width`` columns."""
    stream = io.StringIO()
    console = make_console(stream, color="never", width=width or FILE_WIDTH)
    console.soft_wrap = width is None
    text.render(report, console, detail, given=command())
    return "".join(f"{line.rstrip()}\n" for line in stream.getvalue().splitlines())


def picture(report: Judged) -> str:
    """Return the report as it looks in a terminal."""
    console = make_console(io.StringIO(), color="always", width=WIDTH)
    console.record = True
    text.render(report, console, given=command())
    return console.export_svg(title="hibercheck", unique_id="hibercheck-report")


def main() -> None:
    """Write both."""
    report = judged()
    (HERE / "report.txt").write_text(plain(report), encoding="utf-8")
    (HERE / "report-verbose.txt").write_text(plain(report, text.Detail.VERBOSE), encoding="utf-8")
    (HERE / "report.svg").write_text(picture(report), encoding="utf-8")
    (HERE / "drawing.svg").write_text(drawing.svg(report.report), encoding="utf-8")


if __name__ == "__main__":
    main()
