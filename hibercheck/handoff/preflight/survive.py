"""Whether the machine would survive: the engine on what is certain of an image that is not written yet.

Its resumee's own text, tables and data are certainly in it; of all other memory it covers a share, which is the chance
(`hibercheck.handoff.matrix`).  The scenario is that of a check, made of what the running machine tells.
"""

from __future__ import annotations

from hibercheck.handoff.matrix.pair import Cell, judge_run, overlap_of
from hibercheck.handoff.matrix.pairing import Run, grouped, left_behind
from hibercheck.handoff.matrix.scenario import Scenario, Settings
from hibercheck.handoff.matrix.summary import summary_of
from hibercheck.handoff.scenario.plan import Plan
from hibercheck.kernel.code.traits import Traits
from hibercheck.kernel.kernel import Kernel

ONE = (Scenario("now"),)


def judge_survival(plan: Plan, resumer: Kernel, resumee: Kernel, resumee_traits: Traits, settings: Settings) -> Cell:
    """Judge a plan whose image is not written yet.

    Args:
        plan: The scenario.
        resumer: The resumer's kernel.
        resumee: The resumee's.
        resumee_traits: What its code does.
        settings: What is supposed, and what part of memory the image covers; its scenarios are not looked at.
    """
    ours, theirs = summary_of(resumer, plan.traits), summary_of(resumee, resumee_traits)
    space, line, placement = plan.resumee.space, plan.resumee.parameters, plan.placement
    random = line.kaslr and resumee_traits.randomize_base.value is not False
    run = Run(
        waiting=grouped(plan.parked, plan.traits.park_loops),
        unknown=tuple(what for what, _ in plan.missing[:1]),
        refusal=None,
        placed=(placement.phys_base, placement.kaslr_offset, space.phys_base, random) == (0, 0, 0, False),
        resumer_levels=plan.levels,
        resumee_levels=plan.resumee.levels,
        reinitialised=plan.reinitialised,
        left_behind=left_behind(plan.parked),
    )
    levels = plan.levels or 4
    return judge_run(
        ours, theirs, run, settings, plan.options, lambda loop: overlap_of(ours, ours.loops[loop], theirs, levels)
    )
