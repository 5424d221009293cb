"""A condition as JSON values: what is the same of it in every report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hibercheck.handoff.verdict.findings import Condition


def stated(condition: Condition) -> dict[str, Any]:
    """Return what a condition is about, and what it leads to."""
    return {
        "id": condition.id,
        "fact": condition.fact,
        "value": condition.value,
        "reason": condition.reason,
        "outcome": str(condition.outcome),
        "verdict": str(condition.verdict),
    }


def settled(condition: Condition) -> dict[str, Any]:
    """Return the same with the arguments of a check that judges so, and how to find out."""
    return {
        **stated(condition),
        "arguments": [word for argument in condition.settle for word in argument if word],
        "settle": condition.how,
    }
