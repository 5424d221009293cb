"""What a check takes for granted, where each fact comes from, and which option changes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hibercheck.handoff.bringup import Bringup
from hibercheck.handoff.cmdline import CommandLine
from hibercheck.handoff.facts import ResumerFacts
from hibercheck.handoff.findings import Assumption
from hibercheck.handoff.options import CheckOptions
from hibercheck.handoff.resumee import Resumee

if TYPE_CHECKING:
    from hibercheck.handoff.judgement import Judgement
    from hibercheck.handoff.plan import Plan

COLLECTED = "collected on the resumer"


def scenario_assumptions(
    options: CheckOptions,
    resumee: Resumee,
    cmdline: CommandLine,
    idle: str | None,
    bringup: Bringup,
    facts: ResumerFacts | None,
) -> tuple[Assumption, ...]:
    """Say what is assumed of the resumer's command line, its CPUs and its cpuidle driver."""
    found = [
        Assumption(
            "the resumer's command line",
            cmdline.text or "(empty)",
            _source(
                facts is not None and facts.command_line is not None,
                options.resumer_cmdline is not None,
                "the resumee's, out of the image",
            ),
            "--resumer-cmdline",
        ),
        Assumption(
            "the resumer's CPUs",
            _listed(bringup.present),
            _source(
                facts is not None and facts.present is not None, False, "the resumee's present CPUs, out of the image"
            ),
            "--resumer-cmdline nr_cpus=",
        ),
        Assumption(
            "CPUs taken offline by hand in the resumer",
            _listed(bringup.by_hand) or "none",
            _source(facts is not None and facts.online is not None, bool(options.resumer_offline), "default"),
            "--resumer-offline",
        ),
    ]
    if options.park is not None:
        found.append(Assumption("how the resumer parks CPUs", f"by the design {options.park}", "given", "--park"))
    if idle is not None:
        theirs = f"the resumee's driver ({resumee.idle.name or 'none'})" if resumee.idle else "command line"
        source = _source(facts is not None and facts.idle is not None, bool(options.resumer_idle), theirs)
        found.append(Assumption("how the resumer's cpuidle driver parks a dead CPU", idle, source, "--resumer-idle"))
    return tuple(found)


def _source(collected: bool, given: bool, otherwise: str) -> str:
    return COLLECTED if collected else "given" if given else otherwise


def _listed(cpus: frozenset[int]) -> str:
    return ",".join(map(str, sorted(cpus)))


def place_assumptions(plan: Plan, judgement: Judgement | None, facts: ResumerFacts | None) -> tuple[Assumption, ...]:
    """Say what is assumed of the resumer's place and of its run-time memory."""
    what, option = "the resumer's load address", "--resumer-phys-base"
    memory = judgement.memory if judgement is not None else None
    if judgement is not None and memory is not None and memory.resumer.exact:
        parked = "parked" if judgement.dump_shows_parked else "not parked yet; they will be as its code has it"
        return (
            Assumption(what, f"{_load(plan, memory.resumer.phys_base):#x}", "its memory dump"),
            Assumption("the resumer's CPUs in the dump", parked, "its memory dump"),
        )
    if plan.placement.phys_base is None:
        return (Assumption(what, "random", "no nokaslr on its command line", option),)
    collected = facts is not None and facts.load_address is not None
    source = _source(collected, plan.options.resumer_phys_base is not None, "fixed: no KASLR")
    return (
        Assumption(what, f"{_load(plan, plan.placement.phys_base):#x}", source, option),
        Assumption(
            "the resumer's run-time memory (per-CPU areas, stacks)",
            "not known; only what does not depend on it is used",
            "no dump",
            "--resumer-memory",
        ),
    )


def _load(plan: Plan, phys_base: int) -> int:
    return (plan.traits.physical_start.value or 0) + phys_base
