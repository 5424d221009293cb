"""What happened, in the form of the cases: exceptions from QEMU's log, registers, outcome."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

EXCEPTION = re.compile(
    r"^ *\d+: v=([0-9a-f]+) e=([0-9a-f]+) i=(\d) cpl=\d IP=[0-9a-f]+:([0-9a-f]+) pc=[0-9a-f]+ "
    r"SP=[0-9a-f]+:([0-9a-f]+)(?: env->regs\[R_EAX\]=[0-9a-f]+| CR2=([0-9a-f]+)| EAX=[0-9a-f]+)?",
    re.MULTILINE,
)
"""One line of ``-d int`` (QEMU, target/i386/tcg/seg_helper.c, do_interrupt_all)."""


LOOP_REACH = 0x60
"""No park loop is longer than this."""


RESET_VECTOR = "0xfff0"
"""RIP of a CPU that waits for SIPI."""
WAITING = "wait-for-sipi"


SPINS = {bytes.fromhex("0f01c9"): "mwait", bytes.fromhex("f390"): "pause"}
"""What a CPU that is not halted spins on: TCG ends MWAIT at once, so a CPU in MWAIT is seen going round its loop."""


def state_of(registers: dict[str, Any], code: bytes) -> str:
    """In which state a CPU spends its time, by its registers and the code round its next instruction."""
    if registers["rip"] == RESET_VECTOR:
        return WAITING
    if registers["halted"]:
        return "hlt"
    return next((state for instruction, state in SPINS.items() if instruction in code), "active")


@dataclass(slots=True)
class Truth:
    """What became of the machine."""

    outcome: str
    triple_fault: bool = False
    errno: int | None = None
    fault: dict[str, Any] | None = None
    parked: list[dict[str, Any]] | None = None
    boot_cpu: list[dict[str, Any]] | None = None
    when: str | None = None
    after_copy: list[dict[str, Any]] | None = None
    after_event: list[dict[str, Any]] | None = None
    rest: list[list[Any]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def strayed(self) -> list[int]:
        """CPUs outside their loop when the resumee was entered, or (those it left offline) after the event."""
        parked = {cpu["cpu"]: int(cpu["rip"], 16) for cpu in self.parked or []}
        rows = [row for row in (*(self.after_copy or []), *(self.after_event or [])) if row["rip"] != RESET_VECTOR]
        return [
            row["cpu"]
            for row in rows
            if row.get("loop_changed") or abs(int(row["rip"], 16) - parked[row["cpu"]]) > LOOP_REACH
        ]

    def to_dict(self) -> dict[str, Any]:
        """The truth as it stands in cases.json."""
        out: dict[str, Any] = {
            "outcome": self.outcome,
            "triple_fault": self.triple_fault,
            "errno": self.errno,
            "fault": self.fault,
            "parked": self.parked,
            "boot_cpu": self.boot_cpu,
            "when": self.when,
        }
        out |= {"after_copy": self.after_copy} if self.after_copy is not None else {}
        out |= {"after_event": self.after_event} if self.after_event else {}
        out |= {"rest": self.rest} if self.rest else {}
        return out | ({"remarks": self.remarks} if self.remarks else {})


def last_exceptions(log: str, count: int = 4) -> list[list[str]]:
    """The last exceptions (vector below 0x20) before the end of a log, as [vector, error code, RIP, RSP, CR2]."""
    found = [match for match in EXCEPTION.finditer(log) if int(match[1], 16) < 0x20]
    return [[m[1].zfill(2), m[2], m[4], m[5], m[6] or ""] for m in found[-count:]]


def exception_chain(log: str, count: int = 3) -> list[list[str]]:
    """The last ``check_exception old: 0xffffffff new 0xe`` lines of the log, which show nesting."""
    found = re.findall(r"check_exception old: 0x([0-9a-f]+) new 0x([0-9a-f]+)", log)
    return [list(pair) for pair in found[-count:]]


def fault_of(log: str) -> dict[str, Any] | None:
    """The fault record of a reset, None where nothing was logged."""
    exceptions = last_exceptions(log)
    if not exceptions:
        return None
    return {"last_exceptions": exceptions, "chain": exception_chain(log)}


def runaway(log: str, parked: list[dict[str, Any]]) -> list[str] | None:
    """The first exception that a parked CPU took, recognised by its stack; None where none did.

    A CPU that takes one has left its park loop: what it does then is chance, even if the machine survives.  Once it has
    taken the resumee's INIT it is the resumee's, whose own stacks may lie just there (a jump label that is being
    patched is an exception, too).
    """
    stacks = [(int(cpu["rsp"], 16), init_taken(log, cpu["cpu"])) for cpu in parked if cpu.get("gdt_base")]
    for match in EXCEPTION.finditer(log):
        own = int(match[1], 16) in range(0x20) and int(match[1], 16) not in (2, 0x12)  # NMI and #MC come from outside
        if own and any(abs(int(match[5], 16) - rsp) < 0x2000 for rsp, end in stacks if match.start() < end):
            return [match[1].zfill(2), match[2], match[4], match[5], match[6] or ""]
    return None


def init_taken(log: str, cpu: int) -> int:
    """Where in the log a CPU was reset by INIT; the log's end where it was not."""
    found = re.search(rf"^CPU Reset \(CPU {cpu}\)$", log, re.MULTILINE)
    return found.start() if found else len(log)


def was_triple_fault(log: str) -> bool:
    """Whether QEMU logged a triple fault."""
    return "Triple fault" in log


def errno_of(console: str) -> int | None:
    """The error of a refused image, from the kernel's own message."""
    found = re.findall(r"resume failed \((-?\d+)\)", console)
    return int(found[-1]) if found else None
