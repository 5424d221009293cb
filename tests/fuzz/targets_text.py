"""Targets that read what people write: suppressions, baselines, configuration, kernel and shell command lines."""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

from hibercheck.cli.commands import summaries as all_summaries
from hibercheck.cli.run import run as run_command
from hibercheck.handoff.facts.cmdline import parse_command_line
from hibercheck.report import baseline, suppressions
from hibercheck.report.gate import judge
from tests.fuzz.draw import Draw
from tests.fuzz.mutate import NASTY, mutate_bytes, mutate_json, mutate_text
from tests.report.samples import SAMPLES
from tests.support.image_writer import ImageWriter

Target = Callable[[Draw], None]

RUNS_OTHERS = {"collect", "matrix", "preflight"}
"""Commands that start processes on purpose: the shell that collects, workers."""


def summaries() -> list[str]:
    """The commands that are tried."""
    return [name for name in all_summaries() if name not in RUNS_OTHERS]


SUPPRESSIONS = """\
[[suppress]]
rule = "HC203"
cpu = "2,3"
resumer = "6.12.*"
symbol = "[!a]*"
reason = "brought online by our resume hook"
owner = "kernel team"
expires = 2027-01-31

[[suppress]]
rule = "HC302"
role = "*"
reason = "known"
"""

CONFIGURATION = """\
resumer = "vmlinux-a"
resumee = "vmlinux-b"
suppose = ["nmi", "mce"]
fail-on = "latent"
spurious-mwait = true
width = 100
format = ["text"]

[image]
verify = true

[tool.hibercheck]
color = "never"
"""


def write(path: Path, draw: Draw, content: str) -> None:
    """Write a mutated text, sometimes with bytes that are no text."""
    data = content.encode("utf-8", "surrogatepass")
    path.write_bytes(mutate_bytes(draw, data) if draw.chance(4) else data)


def suppression_files(directory: Path) -> Target:
    """Suppressions, applied to a report."""
    path, report = directory / "suppressions.toml", SAMPLES["fatal"]()
    words = ("rule", "HC101", "cpu", "0-99999999", "1-", "expires", "1979-05-27T07:32:00Z", "[[suppress]]", "'''")

    def run(draw: Draw) -> None:
        write(path, draw, mutate_text(draw, SUPPRESSIONS, words))
        applied = suppressions.apply(report, suppressions.load(str(path)), datetime.date(2026, 1, 1))
        judge(report, fail_on="risk", marks=applied.marks, warnings=applied.warnings)

    return run


def baseline_files(directory: Path) -> Target:
    """Baselines, applied to a report."""
    path, report = directory / "baseline.json", SAMPLES["fatal"]()
    document = json.loads(baseline.write(report))

    def run(draw: Draw) -> None:
        write(path, draw, json.dumps(mutate_json(draw, document)))
        plain = [None] * len(report.findings)
        marks, warnings = baseline.apply(report, baseline.load(str(path)), plain, str(path))
        judge(report, fail_on="risk", marks=marks, warnings=warnings)

    return run


def kernel_command_lines(directory: Path) -> Target:
    """Kernel command lines, which images hold and users give."""
    del directory
    line = 'nokaslr nosmt mitigations=auto,nosmt maxcpus=2 nr_cpus=0x4 mem=512M possible_cpus=8 quoted="a b" -- init'
    words = ("maxcpus=", "nosmt=force", "mem=", "no5lvl", "idle=", "l1tf=full,force", "mds=full,nosmt", "=", '"', "--")

    def run(draw: Draw) -> None:
        parse_command_line(mutate_text(draw, line * draw.choice((1, 1, 100)), words))

    return run


def command_lines(directory: Path) -> Target:
    """Our own command lines and configuration files, run in this process on small files."""
    os.chdir(directory)
    (directory / ".git").mkdir(exist_ok=True)
    image = ImageWriter(frames={n: bytes([n & 255]) * 4096 for n in range(0x100, 0x140)}).encode()
    Path("image.bin").write_bytes(image)
    Path("suppress.toml").write_text(SUPPRESSIONS, encoding="utf-8")
    config = directory / "hibercheck.toml"
    options = _options()
    paths = (
        "image.bin",
        "suppress.toml",
        "hibercheck.toml",
        "absent",
        ".",
        "/dev/null",
        "/dev/zero",
        "/dev/full",
        "",
        "-",
    )
    values = (*paths, "out", "./out", "absent/out", "text", "json=out", "nmi", "1-3", "16M", "80", "0x200000", "auto")

    def line(draw: Draw) -> list[str]:
        words = [draw.choice(("check", "check", *summaries()))] if draw.chance(2) else []
        for _ in range(draw.between(0, 8)):
            kind = draw.below(4)
            value = draw.choice(values) if draw.below(3) else draw.choice(NASTY).replace("\0", "").replace("\ud800", "")
            name = draw.choice(options)
            words += [value] if kind == 0 else [f"{name}={value}"] if kind == 1 else [name, value]
        return [word for word in words if not word.startswith("../")]

    def run(draw: Draw) -> None:
        config.unlink(missing_ok=True)
        if draw.chance(3):
            write(config, draw, mutate_text(draw, CONFIGURATION, ("[check]", "'''", "1979-05-27", "[[image]]", "inf")))
        words = line(draw)
        if "--debug" in words:
            words.remove("--debug")
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = run_command(words)
        said = "".join(line for line in err.getvalue().splitlines(True) if not line.startswith("hibercheck: gate: "))
        assert status in {0, 1, 2, 3, 4, 141}, (status, words, said)
        assert "internal error" not in said, (words, said)
        assert said.strip().count("\n") == 0, (words, said)
        assert (said != "") == (status in {2, 3, 4}) or status in {0, 1, 4}, (status, words, said)
        assert not set(map(chr, (*range(9), *range(11, 32)))) & set(out.getvalue() + said) or "--color" in " ".join(
            words
        )

    return run


def _options() -> list[str]:
    from importlib import import_module  # noqa: PLC0415 - click is slow to load where it is not wanted

    found = {"-h", "-V", "--help", "--version", "--no-such", "--", "-"}
    for name in summaries():
        for parameter in import_module(f"hibercheck.cli.{name}").command.params:
            found.update(parameter.opts if parameter.param_type_name == "option" else ())
    return sorted(found - {"--debug"})
