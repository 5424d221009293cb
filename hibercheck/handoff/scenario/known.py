"""The facts of a run of the resumer that can decide, in one table: where each may be found, and what settles it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hibercheck.handoff.facts.standing import Known
from hibercheck.handoff.scenario.known_cpus import BOOTED, BY_HAND, IDLE, MWAIT, MWAIT_STATES, ONLINE, SMT_OFF, TLB
from hibercheck.handoff.scenario.known_loading import (
    COMPRESSOR,
    FREE,
    HIBERNATES,
    LOCKDOWN,
    MEMORY_MAP,
    PAGES,
    RESUMED_BY,
    SIGNATURE,
)
from hibercheck.handoff.scenario.known_machine import COMMAND_LINE, FEATURES, MACHINE_MODES, PRESENT, TOPOLOGY
from hibercheck.handoff.scenario.known_place import ALIGNMENT, FRED, KASLR_OFFSET, LEVELS, LOAD_ADDRESS
from hibercheck.handoff.scenario.known_timing import COPY_RATE, EXIT_LATENCY, LINE_SIZE, WAKE_LATENCY
from hibercheck.handoff.scenario.sources import RunFact

TABLE: tuple[RunFact[Any], ...] = (
    COMMAND_LINE,
    PRESENT,
    BY_HAND,
    IDLE,
    MWAIT_STATES,
    MWAIT,
    TLB,
    WAKE_LATENCY,
    EXIT_LATENCY,
    COPY_RATE,
    LINE_SIZE,
    LOAD_ADDRESS,
    TOPOLOGY,
    FEATURES,
    SMT_OFF,
    BOOTED,
    ONLINE,
    KASLR_OFFSET,
    ALIGNMENT,
    LEVELS,
    FRED,
    HIBERNATES,
    LOCKDOWN,
    RESUMED_BY,
    SIGNATURE,
    COMPRESSOR,
    MEMORY_MAP,
    PAGES,
    FREE,
    MACHINE_MODES,
)
"""All facts, in the order in which a report shows them."""


def shown(known: Mapping[str, Known[Any]]) -> Iterator[tuple[RunFact[Any], Known[Any], str]]:
    """Yield the facts that are known and worth showing, each with its value in words."""
    for fact in TABLE:
        found = known.get(fact.name)
        text = None if found is None else fact.show(found.value)
        if found is not None and text is not None:
            yield fact, found, text
