"""What is the same of many CPUs as one, for formats that list CPUs, findings or defects."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any

from hibercheck.cpulist import cpu_phrase
from hibercheck.data import all_but, dataclass
from hibercheck.handoff.verdict.findings import CpuReport, Finding, Level
from hibercheck.report.fingerprint import fingerprints, identity
from hibercheck.report.gate import Judged, Mark

_CPU_REPORT = all_but(CpuReport, "cpu", "apic_id", "why", "sentence", "executed")
_FINDING = all_but(Finding, "cpu", "message")
_CPU = re.compile(r"\bCPU (\d+)\b")


def _of_any(text: str | None, cpu: int | None) -> str | None:
    """Return a sentence of a CPU without its number, which is all by which it may differ from that of another."""
    return text and _CPU.sub(lambda found: "CPU" if found[1] == str(cpu) else found[0], text)


def numbered(rows: Iterable[tuple[int, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Put rows of JSON together that are the same but for the CPU, each with the number of the first and of all."""
    groups: dict[Hashable, tuple[list[int], dict[str, Any]]] = {}
    for cpu, row in rows:
        key = tuple(_of_any(value, cpu) if isinstance(value, str) else value for value in row.values())
        groups.setdefault(key, ([], row))[0].append(cpu)
    return [{"cpu": cpus[0], "cpus": cpus, **row} for cpus, row in groups.values()]


def alike_cpus(cpus: Iterable[CpuReport]) -> list[list[CpuReport]]:
    """Put CPUs together of which everything is the same but their numbers."""
    groups: dict[Hashable, list[CpuReport]] = {}
    for cpu in cpus:
        texts = (_of_any(text, cpu.cpu) for text in (cpu.why, cpu.sentence, cpu.executed))
        groups.setdefault((_CPU_REPORT(cpu), *texts), []).append(cpu)
    return list(groups.values())


Listed = tuple[Finding, Mark | None, str]
"""A finding, why it does not count, and its fingerprint."""


def alike_findings(judged: Judged) -> list[Sequence[Listed]]:
    """Put findings together of which everything is the same but the CPU."""
    groups: dict[Hashable, list[Listed]] = {}
    prints = fingerprints(judged.report.findings)
    for (finding, mark), fingerprint in zip(judged.marked, prints, strict=True):
        key = _FINDING(finding), finding.cpu is None, _of_any(finding.message, finding.cpu), mark
        groups.setdefault(key, []).append((finding, mark, fingerprint))
    return list(groups.values())


@dataclass(frozen=True, slots=True)
class Defect:
    """One defect.

    Attributes:
        finding: The first of its findings.
        mark: Why they do not count, or None.
        fingerprint: Of the first.
        cpus: The CPUs that have it, in order; empty where it is not a CPU's.
    """

    finding: Finding
    mark: Mark | None
    fingerprint: str
    cpus: tuple[int, ...]

    @property
    def more(self) -> str:
        """The other CPUs in a sentence, after a blank; nothing where there are none."""
        others = [cpu for cpu in self.cpus if cpu != self.finding.cpu]
        return f" The same on {cpu_phrase(others)}." if others else ""


def defects(judged: Judged) -> Iterator[Defect]:
    """Yield each defect once: what is the same of several CPUs, of one level, and counts or not alike."""
    groups: dict[tuple[str, Level, Mark | None], list[tuple[Finding, str]]] = {}
    prints = fingerprints(judged.report.findings)
    for (finding, mark), fingerprint in zip(judged.marked, prints, strict=True):
        groups.setdefault((identity(finding), finding.level, mark), []).append((finding, fingerprint))
    for (_, _, mark), found in groups.items():
        cpus = sorted({finding.cpu for finding, _ in found if finding.cpu is not None})
        yield Defect(found[0][0], mark, found[0][1], tuple(cpus))
