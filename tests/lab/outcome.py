"""What a machine did, as far as a record keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a machine did.

    Args:
        outcome: ``resumes``, ``resets``, ``refused``, ``hangs`` or ``survives``.
        when: ``in the handoff`` or ``after the handoff``, if it did not come through.
        errno: Of a refused image.
        events: Reduced events (:data:`tests.lab.records.EVENTS`), where the machine tells them.
    """

    outcome: str
    when: str | None
    errno: int | None
    events: dict[str, Any]
