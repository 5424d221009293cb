"""The preflight command's report: what both its forms show, and JSON."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from hibercheck import __version__
from hibercheck.handoff.facts.session import rfc3339
from hibercheck.handoff.preflight.answers import PROVED, Preflight, Row, RowVerdict, Step
from hibercheck.handoff.preflight.waiting import Waiting
from hibercheck.handoff.verdict.findings import Condition, Verdict
from hibercheck.report.gate import NEVER, Exit
from hibercheck.report.matrix import exit_status
from hibercheck.report.sanitise import clean

SCHEMA_VERSION = 1


def status(shown: Preflight, fail_on: str, *, strict: bool = False) -> Exit:
    """Return what the default entry means for the caller.

    Args:
        shown: The rows.
        fail_on: The least verdict that fails.
        strict: Whether to judge as if the worst condition held; a file system that was used since an image was written
            counts too.
    """
    row = shown.rows[0]
    found = [_status(row.verdict, fail_on)]
    if strict and fail_on != NEVER:
        found += [exit_status(one.verdict, fail_on, refused_fails=True) for one in row.conditions]
        found += [Exit.FAILED] if shown.waiting is not None and shown.waiting.used_since else []
    return next((one for one in (Exit.FAILED, Exit.UNDETERMINED) if one in found), Exit.PASSED)


def _status(verdict: RowVerdict, fail_on: str) -> Exit:
    if verdict is RowVerdict.NOT_FOUND:
        return Exit.PASSED if fail_on == NEVER else Exit.FAILED
    return exit_status(Verdict(verdict.value), fail_on, refused_fails=True)


def render(shown: Preflight) -> str:
    """Return the report as JSON."""
    return json.dumps(document(shown), indent=2) + "\n"


def document(shown: Preflight) -> dict[str, Any]:
    """Return the report as JSON values."""
    return {
        "kind": "hibercheck preflight",
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": "hibercheck", "version": __version__},
        "root": clean(shown.root),
        "running": shown.running,
        "resumee": {
            "release": shown.resumee,
            "kernel": shown.resumee_kernel,
            "command_line": shown.resumee_command_line,
        },
        "image": {"where": shown.target, "share": shown.image_share},
        "entries": [_row(row) for row in shown.rows],
        "waiting": None if shown.waiting is None else _waiting(shown.waiting),
        "warnings": list(shown.warnings),
    }


def _waiting(found: Waiting) -> dict[str, Any]:
    return {
        "disk": found.disk,
        "partition": found.partition,
        "release": found.release,
        "written": None if found.written is None else rfc3339(found.written),
        "used_since": [
            {"place": one.place, "kind": one.superblock.kind, "uuid": one.superblock.uuid, "what": one.what}
            for one in found.used_since
        ],
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "title": row.title,
        "default": row.default,
        "source": row.source,
        "kernel": row.kernel,
        "release": row.release,
        "command_line": row.command_line,
        "verdict": str(row.verdict),
        "proved": row.verdict in PROVED,
        "share": row.share,
        "find": _step(row.find),
        "load": _step(row.load),
        "survive": _step(row.survive),
        "conditions": [_condition(one) for one in row.conditions],
    }


def _step(step: Step) -> dict[str, Any]:
    return {**dataclasses.asdict(step), "answer": str(step.answer), "log": list(step.log)}


def _condition(condition: Condition) -> dict[str, Any]:
    return {
        "id": condition.id,
        "fact": condition.fact,
        "value": condition.value,
        "reason": condition.reason,
        "verdict": str(condition.verdict),
        "how": condition.how,
    }
