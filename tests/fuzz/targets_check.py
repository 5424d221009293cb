"""The target that reads everything at once: a whole check of a measured case with one input damaged, and its report."""

from __future__ import annotations

import io
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from hibercheck.handoff.facts.resumer_facts import read_facts
from hibercheck.handoff.verdict.check import check
from hibercheck.handoff.verdict.findings import Report
from hibercheck.kernel.kernel import open_kernel
from hibercheck.report import formats, text
from hibercheck.report.gate import judge
from tests.fuzz.draw import Draw
from tests.fuzz.mutate import mutate_json, patch_fields
from tests.fuzz.seeds import Copy
from tests.fuzz.soundness import Measured, damageable
from tests.fuzz.targets_text import write

Target = Callable[[Draw], None]
FACTS = Path(__file__).resolve().parent.parent / "handoff" / "facts"
_RAW = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")


def render_all(report: Report) -> None:
    """Render a report in every format, and see that nothing of it reaches a terminal or a parser raw."""
    judged = judge(report, fail_on="risk", marks=[None] * len(report.findings), warnings=())
    console = Console(file=io.StringIO(), width=100, markup=False, emoji=False, highlight=False)
    text.render(judged, console, text.Detail.choose(quiet=False, verbose=True))
    produced = {"text": console.file.getvalue()}
    produced |= {name: formats.renderer(name)(judged) for name in formats.NAMES if name != formats.TEXT}
    for name, content in produced.items():
        assert not _RAW.search(content), (name, _RAW.search(content))
    ET.fromstring(produced["junit"])  # noqa: S314 - what we wrote ourselves


def collected_facts(directory: Path) -> Target:
    """What `hibercheck collect` writes on a resumer, parsed, and used for a check."""
    path = directory / "facts.json"
    seeds = [json.loads(one.read_text(encoding="utf-8"), strict=False) for one in sorted(FACTS.glob("*.json"))]
    measured = Measured("fatal", directory)
    with open_kernel(measured.paths[1]) as kernel:
        for seed in seeds:
            seed["version"] = kernel.banner
    options = replace(measured.options, resumer_facts=str(path), resumer_cmdline=None)

    def run(draw: Draw) -> None:
        write(path, draw, json.dumps(mutate_json(draw, draw.choice(seeds))))
        read_facts(str(path))
        render_all(check(*measured.paths, options))

    return run


def whole_checks(directory: Path) -> Target:
    """The measured cases that end in a reset, with one input damaged where the check reads it."""
    measured = [Measured(name, directory) for name in ("fatal", "latent")]
    places = [(case, copy, damageable(case)[name]) for case in measured for name, copy in case.copies.items()]

    def run(draw: Draw) -> None:
        case, copy, regions = draw.choice(places)
        assert isinstance(copy, Copy)
        with copy.damaged(patch_fields(draw, regions, copy.read)):
            render_all(check(*case.paths, case.options))

    return run
