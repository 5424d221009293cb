#!/usr/bin/env python3
"""Write the report that README.md shows, as text and as SVG: ``python man/examples/report.py``.

It is the real report on a real image: the case ``fatal`` of ``fixtures/``.
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

from hibercheck import check
from hibercheck.cli.output import make_console
from hibercheck.handoff.options import CheckOptions
from hibercheck.report import text
from hibercheck.report.gate import Judged, judge

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CASE = "fatal"
CMDLINE = "nokaslr nosmt"
WIDTH = 100


def judged() -> Judged:
    """Check the case, as the command in README.md does."""
    cases = json.loads((ROOT / "fixtures" / "cases.json").read_text(encoding="utf-8"))["cases"]
    case = next(case for case in cases if case["name"] == CASE)
    os.chdir(ROOT)
    files = [str(Path("fixtures") / case[role]) for role in ("image", "resumer", "resumee")]
    return judge(check(*files, CheckOptions(resumer_cmdline=CMDLINE, spurious_mwait=True)))


def plain(report: Judged) -> str:
    """Return the report as the command writes it to a file."""
    stream = io.StringIO()
    text.render(report, make_console(stream, color="never", width=WIDTH))
    return "".join(f"{line.rstrip()}\n" for line in stream.getvalue().splitlines())


def picture(report: Judged) -> str:
    """Return the report as it looks in a terminal."""
    console = make_console(io.StringIO(), color="always", width=WIDTH)
    console.record = True
    text.render(report, console)
    return console.export_svg(title="hibercheck", unique_id="hibercheck-report")


def main() -> None:
    """Write both."""
    report = judged()
    (HERE / "report.txt").write_text(plain(report), encoding="utf-8")
    (HERE / "report.svg").write_text(picture(report), encoding="utf-8")


if __name__ == "__main__":
    main()
