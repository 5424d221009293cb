"""A measured case as the matrix sees it: its machine, and both runs."""

from __future__ import annotations

import re

from hibercheck.handoff.facts.kernels import open_resumee
from hibercheck.handoff.facts.resumee import read_resumee
from hibercheck.handoff.matrix.pair import Cell, judge_pair
from hibercheck.handoff.matrix.scenario import Machine, Scenario, Settings
from hibercheck.handoff.matrix.summary import summary_of
from hibercheck.kernel.kernel import open_kernel
from hibercheck.swsusp.image import open_image
from tests.support.cases import options_of


def machine_of(case) -> Machine:
    cpus, threads = (int(re.search(pattern, case["machine"]["smp"])[1]) for pattern in (r"^(\d+)", r"threads=(\d+)"))
    model = case["machine"]["cpu"]
    return Machine(cpus, threads, "intel", "+monitor" in model, "+la57" in model, case["machine"]["memory_mib"] << 20)


def resumee_of(image: str, resumee: str):
    """What E was: its command line, and the CPUs that were offline in it by hand."""
    with open_image(image) as opened, open_resumee(resumee, None) as kernel:
        facts = read_resumee(opened, kernel)
    by_hand = facts.present - facts.frozen - {min(facts.present)}
    if facts.smt_disabled:
        by_hand &= facts.topology.primaries
    return facts.command_line, frozenset(by_hand)


def settings_of(case, image: str, resumee: str) -> Settings:
    options = options_of(case["args"])
    cmdline, offline = resumee_of(image, resumee)
    scenario = Scenario(
        "measured", options.resumer_cmdline, cmdline, options.resumer_offline, offline, options.resumer_idle
    )
    # measured in QEMU, which is what the cases mean by --spurious-mwait
    spins = options.spurious_mwait or options.mwait_spins
    return Settings(machine_of(case), (scenario,), suppose=options.suppose, mwait_spins=spins)


def cell_of(case, image: str, resumer: str, resumee: str) -> Cell:
    settings = settings_of(case, image, resumee)
    with open_kernel(resumer) as ours, open_kernel(resumee) as theirs:
        (cell,) = judge_pair(summary_of(ours), summary_of(theirs), settings)
    return cell
