"""The same defect of many CPUs as one, for formats that list defects."""

from __future__ import annotations

from collections.abc import Iterator

from hibercheck.data import dataclass
from hibercheck.handoff.verdict.findings import Finding, Level
from hibercheck.report.fingerprint import fingerprints, identity
from hibercheck.report.gate import Judged, Mark
from hibercheck.report.words import cpu_phrase


@dataclass(frozen=True, slots=True)
class Defect:
    """One defect.

    Attributes:
        finding: The first of its findings.
        mark: Why they do not count, or None.
        fingerprint: Of the first.
        cpus: The CPUs that have it, in order; empty where it is no CPU's.
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
