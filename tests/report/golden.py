"""The text reports that are committed: ``python -m tests.report.golden`` writes them anew, for a reviewer to read."""

from __future__ import annotations

import io
from pathlib import Path

from hibercheck.cli.output import make_console
from hibercheck.report import text
from hibercheck.report.gate import judge
from tests.report.samples import SAMPLES

DIRECTORY = Path(__file__).resolve().parent / "golden"
WIDTHS = (80, 120)


def render(name: str, width: int, *, color: str = "never", detail: text.Detail = text.Detail.NORMAL) -> str:
    """Return a sample as the command prints it to a file."""
    stream = io.StringIO()
    text.render(judge(SAMPLES[name]()), make_console(stream, color=color, width=width), detail)
    return "".join(f"{line.rstrip()}\n" for line in stream.getvalue().splitlines())


def main() -> None:
    """Write every golden file."""
    for name in SAMPLES:
        for width in WIDTHS:
            (DIRECTORY / f"{name}-{width}.txt").write_text(render(name, width), encoding="utf-8")


if __name__ == "__main__":
    main()
