"""What is known of time: how long a parked CPU may take to wake, how fast pages are copied, how long its line is."""

from __future__ import annotations

from hibercheck.handoff.facts.standing import Known, Standing
from hibercheck.handoff.scenario.idle_outlook import intel_states
from hibercheck.handoff.scenario.known_cpus import MWAIT_STATES
from hibercheck.handoff.scenario.known_machine import COMMAND_LINE, FEATURES
from hibercheck.handoff.scenario.sources import Asking, RunFact, Source, collected, derived, given

USUAL_LINE = 64
"""Bytes: CPUID.5 of every Intel CPU with MWAIT so far."""
USUAL_RATE = 2500
"""Pages a millisecond: 10 GB/s, as one CPU copies memory (0.4 us a page).  A slower copy makes fewer of them."""

LINE_SIZE = RunFact[int](
    "line-size",
    "the length of the line that MWAIT monitors",
    (
        collected(lambda facts: None if facts.monitor is None else facts.monitor.line),
        given("--fact line-size=", lambda asking: asking.given.get("line-size")),
        Source(lambda _: Known(USUAL_LINE, Standing.USUAL, "default: no image or dump has CPUID.5")),
    ),
    show=lambda size: f"{size} bytes",
    option="--fact line-size=",
    of_machine=True,
    detail=True,
    on_demand=True,
)


def _by_table(asking: Asking) -> Known[int] | None:
    """Take the deepest state that the resumer's own intel_idle has for this CPU.

    Its table has the latency of the worst case, of a whole package; while it copies the boot CPU keeps that awake.
    """
    line, features = asking.need(COMMAND_LINE), asking.known(FEATURES)
    states = asking.value(MWAIT_STATES)
    found = intel_states(line.value, asking.inputs.traits, None if features is None else features.value, states)
    if found is None or found.deepest is None or features is None:
        return None
    return Known(found.deepest.latency, derived(features), f"{found.deepest.name}, its intel_idle's deepest state")


EXIT_LATENCY = RunFact[int](
    "exit-latency",
    "how long a parked CPU may take to wake",
    (
        collected(lambda facts: facts.exit_latency, of_run=True),
        given("--fact exit-latency=", lambda asking: asking.given.get("exit-latency")),
        Source(_by_table),
    ),
    show=lambda microseconds: f"up to {microseconds:,} us",
    option="--fact exit-latency=",
    detail=True,
    on_demand=True,
)

COPY_RATE = RunFact[int](
    "copy-rate",
    "how many pages are copied in a millisecond",
    (
        given("--fact copy-rate=", lambda asking: asking.given.get("copy-rate")),
        Source(lambda _: Known(USUAL_RATE, Standing.USUAL, "default: 10 GB/s")),
    ),
    show=lambda pages: f"{pages:,}",
    option="--fact copy-rate=",
    detail=True,
    on_demand=True,
)


def _in_copies(asking: Asking) -> Known[int] | None:
    latency = asking.known(EXIT_LATENCY)
    if latency is None:
        return None
    rate = asking.need(COPY_RATE)
    copies = -(-latency.value * rate.value // 1000)
    return Known(copies, derived(latency, rate), f"{latency.value:,} us at {rate.value:,} pages a millisecond")


WAKE_LATENCY = RunFact[int](
    "wake-latency",
    "how many pages are copied at most before a CPU whose line was written runs",
    (given("--wake-latency", lambda asking: asking.options.wake_latency), Source(_in_copies)),
    show=lambda copies: f"{copies:,}",
    option="--wake-latency",
    on_demand=True,
)
