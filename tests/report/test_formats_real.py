"""Every format on the reports of the committed cases: what the engine really says, not what we made up."""

from __future__ import annotations

import io
import json
import re

import pytest

from hibercheck.cli.output import make_console
from hibercheck.handoff.api import check
from hibercheck.report import formats, text
from hibercheck.report.gate import judge
from hibercheck.report.text_cpus import ROLE
from tests.conftest import ROOT
from tests.report.test_formats import CONTROLS, valid
from tests.support.cases import options_of
from tests.support.opened import opened
from tests.support.unpacked import plain_path

CASES = {case["name"]: case for case in json.loads((ROOT / "fixtures" / "cases.json").read_text())["cases"]}


@pytest.fixture(scope="module", params=CASES)
def judged(request):
    case = CASES[request.param]
    kernels = [opened(plain_path(case[role])) for role in ("resumer", "resumee")]
    return judge(check(plain_path(case["image"]), *kernels, options_of(case["args"], timeline=True)))


def test_json_and_sarif_follow_their_schemas(judged):
    for form in ("json", "sarif"):
        valid(json.loads(formats.renderer(form)(judged)), form)


def test_every_format_renders(judged):
    for form in formats.NAMES[1:]:
        content = formats.renderer(form)(judged)
        assert content
        assert not CONTROLS.search(content)
        assert str(judged.report.verdict) in content or form == "gitlab"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_text_fits(judged, width):
    stream = io.StringIO()
    text.render(judged, make_console(stream, color="never", width=width), text.Detail.VERBOSE)
    shown = stream.getvalue()
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= width
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", shown)
    assert "…" not in shown
    if width >= 80:
        symbols = {use.resumer for cpu in judged.report.cpus for use in cpu.footprint if use.resumer}
        assert not [symbol for symbol in symbols if len(symbol) <= ROLE and symbol not in shown]


def test_nothing_is_said_twice_in_a_row(judged):
    stream = io.StringIO()
    text.render(judged, make_console(stream, color="never", width=400))
    for line in stream.getvalue().splitlines():
        sentences = [part for part in re.split(r"(?<=[.:]) ", line.strip()) if len(part) > 20]
        assert len(set(sentences)) == len(sentences), line
