"""The text reports that are committed: ``python -m tests.report.golden`` writes them anew, for a reviewer to read."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

from hibercheck.cli.output import make_console
from hibercheck.report import text
from hibercheck.report.gate import judge
from tests.report.samples import SAMPLES

DIRECTORY = Path(__file__).resolve().parent / "golden"
WIDTHS = (60, 80, 120)
GIVEN = ("image.bin", "--resumer", "vmlinux-6.12", "--resumee", "vmlinux-6.1", "--resumer-cmdline", "nokaslr nosmt")
"""A command line, to show the next one."""
Detail = text.Detail


def render(
    name: str,
    width: int | None,
    *,
    color: str = "never",
    detail: Detail = Detail.NORMAL,
    encoding: str = "utf-8",
) -> str:
    """Return a sample as the command prints it; without a width as it does to a pipe, where lines stay whole."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace", newline="\n")
    console = make_console(stream, color=color, width=width or 100)
    console.soft_wrap = width is None
    text.render(judge(SAMPLES[name]()), console, detail, given=GIVEN)
    stream.flush()
    shown = stream.buffer.getvalue().decode(encoding)
    return "".join(f"{line.rstrip()}\n" for line in shown.split("\n")[:-1])


def files() -> Iterator[tuple[str, str]]:
    """Yield each file's name and what it has to hold."""
    for name in SAMPLES:
        for width in WIDTHS:
            yield f"{name}-{width}.txt", render(name, width)
        yield f"{name}-pipe.txt", render(name, None)
        yield f"{name}-verbose-80.txt", render(name, 80, detail=Detail.VERBOSE)
        yield f"{name}-verbose-120.txt", render(name, 120, detail=Detail.VERBOSE)
    for name in ("fatal", "risk"):
        yield f"{name}-verbose-ascii-80.txt", render(name, 80, detail=Detail.VERBOSE, encoding="ascii")
        yield f"{name}-colour-80.txt", render(name, 80, color="always")


def main() -> None:
    """Write every golden file, and remove what is none any more."""
    kept = dict(files())
    for old in DIRECTORY.glob("*.txt"):
        if old.name not in kept:
            old.unlink()
    for name, content in kept.items():
        (DIRECTORY / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
