"""Hold the exact replay against measured experiments, beyond their outcome: ``python -m tests.lab.exactness CASES``.

For each experiment with a dump: are the parked CPUs' registers those of the truth; did a machine that reset die of the
exceptions that the replay has, and if not, because a CPU first ran foreign bytes; is the static verdict never more
hopeful than the exact one?  Differences of the log that are QEMU's are left out of the comparison: it leaves P clear
where RSVD is set, and never sets EXT.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from hibercheck.dump.dump import Dump
from hibercheck.handoff.acceptance.refusal import Acceptance
from hibercheck.handoff.replay.compare import Difference
from hibercheck.handoff.replay.fate import When
from hibercheck.handoff.replay.judge import judge
from hibercheck.handoff.replay.judgement import ApResult, Judgement
from hibercheck.handoff.scenario.plan import Plan
from hibercheck.handoff.verdict.check import open_inputs
from hibercheck.handoff.verdict.decide import decide
from hibercheck.handoff.verdict.findings import Verdict
from hibercheck.handoff.verdict.summary import cpu_reports
from hibercheck.x86.cpu import ParkState
from hibercheck.x86.exceptions import Raised
from hibercheck.x86.paging import PAGE_FAULT, PageFaultCode
from tests.lab.kernels import kernels_of
from tests.support.cases import options_of

HOPE = (Verdict.SAFE, Verdict.BENIGN, Verdict.LATENT, Verdict.FATAL)
SPINNING = {ParkState.MWAIT.value, ParkState.PORT_IO.value, ParkState.RUNNING.value}
SELECTOR_CODES = frozenset({10, 11, 12, 13})
Event = tuple[int, int, int, int, int | None]


def main(place: Path) -> int:
    """Print what differs and why; return 1 if anything is left without an explanation."""
    document = json.loads((place / "cases.json").read_text())
    counts: dict[str, int] = {}
    for case in [*document["cases"], *document["oddities"]]:
        for kind, text in differences(case, place) if "memory" in case else ():
            counts[kind] = counts.get(kind, 0) + 1
            print(f"{case['name']}: {kind}: {text}")
    print(", ".join(f"{number} {kind}" for kind, number in sorted(counts.items())))
    return int("DIFFERS" in counts)


def differences(case: dict[str, Any], place: Path) -> list[tuple[str, str]]:
    """Return (kind, text): ``DIFFERS`` where the replay is wrong, another kind where the reason is known."""
    files = str(place / case["image"]), *kernels_of(case, place)
    with open_inputs(*files, options_of(case["args"])) as inputs:
        static = verdict(*inputs)
    with open_inputs(*files, options_of(case["args"], resumer_memory=str(place / case["memory"]))) as inputs:
        plan, acceptance, dump = inputs
        if acceptance.refusal is not None:
            return []
        judged = judge(plan, dump)
        exact = decide(acceptance, judged)[1]
        found = [("DIFFERS", text) for text in registers(case, plan, judged)]
        if static in HOPE and exact in HOPE and HOPE.index(static) < HOPE.index(exact):
            found.append(("DIFFERS", f"{static.value} without the dump, {exact.value} with it"))
        return found + ([exceptions(case, judged)] if case["truth"]["outcome"] == "resets" else [])


def verdict(plan: Plan, acceptance: Acceptance, dump: Dump | None) -> Verdict:
    """Return the verdict of a check."""
    return decide(acceptance, None if acceptance.refusal is not None else judge(plan, dump))[1]


def registers(case: dict[str, Any], plan: Plan, judged: Judgement) -> list[str]:
    """Say which parked CPUs are not where the truth has them."""
    reports = {cpu.cpu: cpu for cpu in cpu_reports(plan, judged)}
    found = []
    for truth in case["truth"]["parked"] or []:
        cpu = reports.get(truth["cpu"])
        wanted = int(truth["rip"], 16), int(truth["cr3"], 16), truth["halted"]
        if cpu is None or (cpu.rip, cpu.cr3, cpu.state not in SPINNING) != wanted:
            found.append(f"CPU {truth['cpu']} is {cpu and (cpu.state, cpu.rip, cpu.cr3)}, measured {wanted}")
    return found


def exceptions(case: dict[str, Any], judged: Judgement) -> tuple[str, str]:
    """Compare the exceptions of which the machine died with the replay's."""
    logged = [
        plain(int(vector, 16), int(code, 16), int(rip, 16), int(rsp, 16), int(cr2, 16) if cr2 else None)
        for vector, code, rip, rsp, cr2 in (case["truth"]["fault"] or {}).get("last_exceptions", [])
    ]
    dead = [result for result in judged.aps if result.cause is not None]
    if judged.boot_cpu is not None and judged.boot_cpu.walk.fault is not None and not judged.boot_cpu.survives:
        fault, address = judged.boot_cpu.walk.fault, judged.boot_cpu.walk.address
        if any((one[0], one[1], one[4]) == (fault.vector, fault.error_code, address) for one in logged):
            return "same", "the boot CPU's fault"
    for result in dead:
        chain = [as_logged(raised) for raised in delivered(result)]
        if chain and any(logged[start : start + len(chain)] == chain for start in range(len(logged))):
            return "same", f"CPU {result.parked.cpu}: {len(chain)} exceptions"
    for result in dead:
        event = result.fatal_event
        if event is not None and event.effect.ends_machine:
            return "without exceptions", f"CPU {result.parked.cpu}: {event.effect.value}"
        found = result.iteration if event is None else event if event.iterates else None
        if found is not None and found.difference is Difference.FOREIGN:
            return "foreign bytes", f"CPU {result.parked.cpu} ran them first"
        if event is not None and event.delivery is not None and result.when is When.AFTER:
            return "later", f"CPU {result.parked.cpu}: the resumee had run on before {result.cause} came"
    return "DIFFERS", f"logged {logged}, replayed {[delivered(result) for result in dead]}"


def delivered(result: ApResult) -> tuple[Raised, ...]:
    """Return the exceptions of the event that kills a CPU."""
    event = result.fatal_event
    return () if event is None or event.delivery is None else event.delivery.raised


def as_logged(raised: Raised) -> Event:
    """Bring an exception into the form of the log."""
    return plain(raised.vector, raised.error_code or 0, raised.rip, raised.rsp, raised.cr2)


def plain(vector: int, code: int, rip: int, rsp: int, cr2: int | None) -> Event:
    """Leave out what QEMU's log has otherwise."""
    if (vector == PAGE_FAULT and code & PageFaultCode.RSVD) or vector in SELECTOR_CODES:
        code &= ~1
    return vector, code, rip, rsp, cr2


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
