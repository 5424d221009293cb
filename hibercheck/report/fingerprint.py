"""What makes two findings of different runs the same finding.

Rule, role and the resumer's symbol: never a frame number, an address or a path, which change from run to run while
the defect stays.  The offset within the symbol is left out as well: it changes with every compiler.  One defect on
eight CPUs is eight findings; they are numbered in the order of the report, so that each has a fingerprint of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from hibercheck.handoff.verdict.findings import Condition, Finding, Level


def fingerprints(findings: Sequence[Finding]) -> tuple[str, ...]:
    """Return a fingerprint of 32 hexadecimal digits for each finding; no two are alike."""
    import hashlib  # noqa: PLC0415 - it loads OpenSSL, and the text report shows no fingerprints

    seen: dict[str, int] = {}
    result = []
    for finding in findings:
        key = identity(finding)
        seen[key] = seen.get(key, 0) + 1
        result.append(hashlib.sha256(f"{key}\0{seen[key]}".encode("utf-8", "backslashreplace")).hexdigest()[:32])
    return tuple(result)


def condition_fingerprint(condition: Condition) -> str:
    """Return a fingerprint of a condition: of its kind, whatever it leads to."""
    return name_fingerprint("condition", condition.id)


def name_fingerprint(kind: str, name: str) -> str:
    """Return a fingerprint of what has a name of its own, by that."""
    import hashlib  # noqa: PLC0415 - as above

    return hashlib.sha256(f"{kind}\0{name}".encode("utf-8", "surrogatepass")).hexdigest()[:32]


def identity(finding: Finding) -> str:
    """Return what identifies the defect behind a finding, whichever CPU it hits.

    That it is only a note is part of it: what is noted of one CPU and fails on another are two things, of which nobody
    who knows the one need know the other.
    """
    symbol = (finding.resumer.symbol or "").partition("+")[0]
    kind = ("note",) if finding.level is Level.NOTE else ()
    return "\0".join((finding.rule, finding.role, symbol, *kind))
