"""Hold what was collected on the running resumer against its dump: ``python -m tests.lab.collected CASES``.

For each experiment in which ``hibercheck collect`` ran (``Experiment.collect``): does the kernel lie where the facts
say, do its page tables lead where the dump's lead, and does a check by the facts say what a check by the dump says: the
verdict, the findings, each CPU's registers and every frame that it uses?  Of the command line a check by facts is told
nothing: it is among them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from hibercheck.addresses import CPU_ENTRY_AREA
from hibercheck.errors import HibercheckError, MissingFact
from hibercheck.handoff.api import check
from hibercheck.handoff.facts.space import KernelSpace
from hibercheck.handoff.replay.judge import judge
from hibercheck.handoff.scenario.options import CheckOptions
from hibercheck.handoff.verdict.check import open_inputs
from hibercheck.handoff.verdict.findings import Report
from tests.lab.kernels import kernels_of
from tests.support.cases import options_of

FOUND_BY_FACTS = frozenset({"--resumer-cmdline", "--resumer-offline"})
WALKED = ("_text", "restore_image", "hlt_play_dead", "mwait_play_dead", "asm_exc_nmi", "__per_cpu_offset")
PERCPU = ("gdt_page", "cpu_tss_rw", "_cea_offset", "mwait_cpu_dead")
Place = dict[str, int | None]


def main(place: Path) -> int:
    """Print what differs; return 1 if anything does."""
    cases = [case for case in everything(place) if "facts" in case and "memory" in case]
    lost = 0
    for case in cases:
        found = differences(case, place)
        lost += bool(found)
        print(f"{case['name']}: {'; '.join(found) or 'the facts say what the dump says'}")
    print(f"{len(cases) - lost} of {len(cases)} the same")
    return int(bool(lost))


def everything(place: Path) -> list[dict[str, Any]]:
    """All measured cases."""
    document = json.loads((place / "cases.json").read_text())
    return [*document["cases"], *document["oddities"]]


def differences(case: dict[str, Any], place: Path) -> list[str]:
    """Say in which points the facts of a case differ from its dump."""
    files = str(place / case["image"]), *kernels_of(case, place)
    dumped = options_of(case["args"], resumer_memory=str(place / case["memory"]))
    facts = options_of(without(case["args"], FOUND_BY_FACTS), resumer_facts=str(place / case["facts"]))
    script = Path(case["facts"]).with_suffix(".script.json")
    scripted = options_of(without(case["args"], FOUND_BY_FACTS), resumer_facts=str(place / script))
    try:
        ours, theirs = whereabouts(files, facts), whereabouts(files, dumped)
        found = [
            f"{key} is {ours.get(key)}, in the dump {theirs[key]}" for key in theirs if ours.get(key) != theirs[key]
        ]
        exact = check(*files, dumped)
        found += compare(check(*files, facts), exact)
        alone = check(*files, scripted)
    except HibercheckError as error:
        return [str(error)]
    if alone.outcome is not exact.outcome and alone.outcome.value != "undetermined":
        found.append(f"by the script it {alone.outcome.value}, by the dump it {exact.outcome.value}")
    return found


def without(arguments: list[str], names: frozenset[str]) -> list[str]:
    """Leave out options that have a value."""
    dropped = {number + step for number, text in enumerate(arguments) if text in names for step in (0, 1)}
    return [text for number, text in enumerate(arguments) if number not in dropped]


def whereabouts(files: tuple[str, str, str], options: CheckOptions) -> Place:
    """Where the resumer is, and where its tables lead."""
    with open_inputs(*files, options) as (plan, _acceptance, dump):
        memory = judge(plan, dump).memory
        if memory is None:
            return {}
        resumer = memory.resumer
        space = KernelSpace(resumer.kernel, resumer, resumer.mode, resumer.cr3, resumer.kaslr_offset, resumer.phys_base)
        found: Place = {name: getattr(resumer, name) for name in ("kaslr_offset", "phys_base", "cr3")}
        addresses = {name: space.address(name) for name in WALKED if resumer.kernel.symbol(name) is not None}
        addresses["IDT"] = CPU_ENTRY_AREA
        for name in filter(resumer.kernel.symbol, PERCPU):
            places = {f"{name} of CPU {parked.cpu}": space.percpu_address(name, parked.cpu) for parked in plan.parked}
            found |= dict(places)
            addresses |= {f"{what} in memory": address for what, address in places.items()}
        for name, address in addresses.items():
            try:
                found[name] = space.physical(address)
            except MissingFact:
                found[name] = None
        return found


def compare(ours: Report, theirs: Report) -> list[str]:
    """Say in which points two reports differ."""
    found = []
    for name in ("outcome", "verdict"):
        if getattr(ours, name) is not getattr(theirs, name):
            found.append(f"{name} is {getattr(ours, name).value}, by the dump {getattr(theirs, name).value}")
    said, wanted = ({(one.rule, one.message) for one in report.findings} for report in (ours, theirs))
    found += [f"does not say {rule}: {message}" for rule, message in sorted(wanted - said)]
    found += [f"says {rule}: {message}, unlike the dump" for rule, message in sorted(said - wanted)]
    for one, other in zip(ours.cpus, theirs.cpus, strict=True):
        state, seen = ((cpu.state, cpu.fate, cpu.rip, cpu.cr3) for cpu in (one, other))
        if state != seen:
            found.append(f"CPU {one.cpu} is {state}, by the dump {seen}")
        used, there = ({(use.role, use.pfn, use.overwritten) for use in cpu.footprint} for cpu in (one, other))
        if used != there:
            found.append(f"CPU {one.cpu} uses {sorted(used - there)} and not {sorted(there - used)}")
    return found


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
