"""Findings about file systems that were used after the image was written."""

from __future__ import annotations

from hibercheck.handoff.facts.session import read_session
from hibercheck.handoff.facts.used_since import UsedSince, used_since
from hibercheck.handoff.scenario.plan import Plan
from hibercheck.handoff.verdict.findings import Evidence, Finding, Level
from hibercheck.handoff.verdict.rules import RULES

RULE = "HC405"


def stale_findings(plan: Plan) -> tuple[Finding, ...]:
    """Return one finding for each file system on the image's disk that was used since."""
    written = read_session(plan.resumee.space).written
    return tuple(_finding(one) for one in used_since(plan.image, written))


def _finding(used: UsedSince) -> Finding:
    block = used.superblock
    where = f" (last mounted on {block.mounted_on})" if block.mounted_on else ""
    message = (
        f"the {block.kind} file system on {used.place}{where} {used.what}: resuming the image would corrupt it, "
        "because the resumee has its tables in memory as they were"
    )
    evidence = Evidence(f"superblock of {block.kind} file system {block.uuid} on {used.place}: it {used.what}")
    return Finding(RULE, Level.WARNING, None, "file system", message, evidence=(evidence,), advice=RULES[RULE].advice)
