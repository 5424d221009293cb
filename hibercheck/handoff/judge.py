"""From the scenario to what becomes of each CPU: exactly with a dump, by the load address without, or by a sweep."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hibercheck.handoff.ap import ApResult
from hibercheck.handoff.findings import Fate
from hibercheck.handoff.judge_placed import judge_placed
from hibercheck.handoff.judge_swept import judge_swept
from hibercheck.handoff.judgement import Judgement
from hibercheck.handoff.plan import Plan

if TYPE_CHECKING:
    from hibercheck.dump.dump import Dump


def judge(plan: Plan, dump: Dump | None) -> Judgement:
    """Replay the handoff."""
    if dump is not None:
        from hibercheck.handoff.judge_exact import judge_exact  # noqa: PLC0415 - dumps are rare and their readers slow to load

        return judge_exact(plan, dump)
    if plan.levels is None:
        missing = (
            "whether the CPU supports five levels of page tables",
            "no5lvl in --resumer-cmdline, or --resumer-memory",
        )
        aps = tuple(ApResult(parked, Fate.UNKNOWN, missing=missing) for parked in plan.parked)
        return Judgement(None, None, aps, {}, missing=(missing,))
    if plan.placement.known:
        return judge_placed(plan, plan.levels)
    return judge_swept(plan, plan.levels)
