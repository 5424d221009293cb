"""A kernel without CONFIG_SMP on a machine with two CPUs: what QEMU made of the pair, and what is said of it.

The image is cut from the real one: all its frames, with the contents of those that these checks read.
"""

from __future__ import annotations

import json

import pytest

from hibercheck.cli.run import run
from hibercheck.handoff.designs.compare import compare_designs
from hibercheck.handoff.facts.resumee import read_resumee
from hibercheck.handoff.facts.running import read_running
from hibercheck.handoff.scenario.options import CheckOptions
from hibercheck.handoff.verdict.check import check
from hibercheck.handoff.verdict.findings import Outcome, Verdict
from hibercheck.swsusp.image import open_image
from hibercheck.x86.cpu import ParkState
from tests.support.opened import opened
from tests.support.unpacked import plain_path

IMAGE, ALONE = "one-cpu/one-cpu.bin.xz", "one-cpu/up-stock.json.xz"
OTHERS = {name: f"kernels/{name}.vmlinux.xz" for name in ("small-hlt", "small-current")}
NMI = frozenset({"nmi"})


@pytest.mark.parametrize(
    ("resumer", "line", "events", "outcome", "verdict"),
    [
        ("small-current", "nokaslr", frozenset(), Outcome.RESUMES, Verdict.LATENT),
        ("small-current", "nokaslr nosmt", frozenset(), Outcome.RESUMES, Verdict.LATENT),
        ("small-hlt", "nokaslr", frozenset(), Outcome.RESUMES, Verdict.LATENT),
        ("small-hlt", "nokaslr", NMI, Outcome.RESETS, Verdict.FATAL),
        (None, "nokaslr", frozenset(), Outcome.RESUMES, Verdict.SAFE),
        (None, "nokaslr", NMI, Outcome.RESETS, Verdict.FATAL),
    ],
)
def test_as_the_resumee_it_leaves_the_other_cpu_where_it_is(resumer, line, events, outcome, verdict):
    ours, alone = plain_path(OTHERS.get(resumer, ALONE)), plain_path(ALONE)
    report = check(plain_path(IMAGE), ours, alone, CheckOptions(resumer_cmdline=line, suppose=events))
    assert (report.outcome, report.verdict) == (outcome, verdict)
    assert [cpu.cpu for cpu in report.cpus] == [0, 1]


@pytest.mark.parametrize("events", [frozenset(), NMI])
def test_as_the_resumer_it_parks_nobody(events):
    """What the resumee starts waits in the firmware until then."""
    image, resumee = (plain_path(name) for name in ("images/9c031ac5a1.bin.xz", "kernels/mid-current.vmlinux.xz"))
    report = check(image, plain_path(ALONE), resumee, CheckOptions(resumer_cmdline="nokaslr", suppose=events))
    assert (report.outcome, report.verdict) == (Outcome.RESUMES, Verdict.SAFE)
    assert report.cpus[1].why == "never started by the resumer, which is built for one CPU"


def test_as_the_resumee_it_starts_nobody_of_whom_a_design_tells_it():
    files = (plain_path(IMAGE), plain_path(OTHERS["small-hlt"]), plain_path(ALONE))
    rows = compare_designs(*files, CheckOptions(resumer_cmdline="nokaslr"), names=["self-contained"]).rows
    assert [(row.known, {rest.state for rest in row.rest}) for row in rows] == [
        (known, {ParkState.HLT}) for known in (False, True)
    ]


def test_the_cpus_that_it_leaves_out_are_read_of_it_while_it_runs_too():
    with open_image(plain_path(IMAGE)) as image:
        space = read_resumee(image, opened(plain_path(ALONE))).space
        assert set(read_running(space).topology.apic_ids) == {0, 1}


def test_a_scenario_of_cpus_that_it_does_not_have_is_judged_with_its_image_as_without(capsys, tmp_path):
    ours, theirs = plain_path(OTHERS["small-hlt"]), plain_path(ALONE)
    words = ["matrix", ours, theirs, "--cpus", "2", "--scenario", "a=nokaslr;offline=1;resumee-online=1"]
    verdicts = []
    for more in ([], ["--image", f"{theirs}={plain_path(IMAGE)}"]):
        run([*words, "--format", "json", "--cache-dir", str(tmp_path), *more])
        document = json.loads(capsys.readouterr().out)
        by_row = {row["resumer"]: row["cells"][0] for row in document["rows"]}
        verdicts.append([document["cells"][by_row[number][1]]["verdict"] for number in (0, 1)])
    assert verdicts == [["risk", "safe"]] * 2


def test_of_a_cpu_that_firmware_has_nothing_is_said_to_run_in_memory(capsys, tmp_path):
    words = ["matrix", plain_path(ALONE), "--cpus", "2", "--scenario", "a=nokaslr", "--suppose", "nmi"]
    assert run([*words, "--cache-dir", str(tmp_path)]) == 1
    assert "after an NMI after the handoff a CPU shuts down: CPU 1 in the firmware's care" in capsys.readouterr().out
