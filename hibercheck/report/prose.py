"""The paragraph that tells a newcomer what this is about, made to fit what was found."""

from __future__ import annotations

from hibercheck.handoff.replay.fate import Fate
from hibercheck.handoff.verdict.findings import Finding, Level, Outcome, Report, Verdict
from hibercheck.report.gate import Judged

_WHAT = (
    "To resume, one CPU copies the saved memory of the hibernated kernel (the resumee) over that of the running "
    "kernel (the resumer), and jumps into it: the handoff. All other CPUs are parked before that. A parked CPU only "
    "sleeps: when something wakes it, it goes on with the resumer's instructions, found through the resumer's page "
    "tables."
)

_RESET = (
    "Where these have been replaced it executes or reads something else, cannot handle the fault that follows, "
    "and the processor's last resort is a reset: nothing is printed, and the machine boots as if it had crashed."
)

_VERDICTS = {
    Verdict.SAFE: (
        "Here nothing that a parked CPU could use is replaced, or nothing supposed wakes it before the resumee's INIT."
    ),
    Verdict.BENIGN: (
        "Here some of these are replaced, but by the same bytes and equivalent tables, so that a CPU that wakes "
        "parks again. That is luck, not safety: it ends with another build or another load address."
    ),
    Verdict.LATENT: (
        "Here every CPU survives the copy, but one stays asleep in memory that has been replaced. When something "
        "wakes it later, such as an NMI, it runs whatever is in that memory by then."
    ),
    Verdict.RISK: (
        "Whether these are replaced depends on facts that differ from boot to boot, such as the address at which the "
        "resumer or its per-CPU memory lies; so the resume may work on one boot and reset the machine on the next."
    ),
    Verdict.UNDETERMINED: "Whether these are replaced cannot be said from the inputs alone.",
}

_CACHED = (
    "Here every CPU survives the copy and is re-initialised by the resumee, but until then one runs on translations "
    "that it has cached: its page tables have been replaced, and had it lost what it cached, the machine would reset."
)
"""Latent without a CPU that stays parked (`hibercheck.handoff.verdict.decide.borrowed_time`)."""
_MAYBE_CACHED = (
    "Here every CPU survives the copy and is re-initialised by the resumee, but until then one runs on translations "
    "that it has cached: whether its page tables have been replaced is not known, and if they were, and it had lost "
    "what it cached, the machine would reset."
)

_REFUSED = (
    "To resume, the kernel that was booted (the resumer) looks at the image that the hibernated kernel (the resumee) "
    "has left on the disk, and loads it if it can. Here it cannot, and boots as if the machine had been switched "
    "off. Nothing crashes; "
)
_LOST = "but by then it has taken the image's mark off the disk, and the hibernated session is lost."
_KEPT = "and the image stays on the disk: it can be resumed later, if no file system of the session is used until then."

_OTHER_CPU = (
    "To resume, one CPU copies the saved memory of the hibernated kernel (the resumee) over that of the running "
    "kernel (the resumer), and jumps into it. The resumee then goes on as if it ran on the same CPU, but here that "
    "is another model: it sets the CPU up for something that this one cannot do, and cannot handle the fault that "
    "follows yet. The machine hangs or resets, and nothing is printed."
)

_FIRST = ("HC4", "HC3", "HC6", "HC1", "HC2")
"""Families of rules, those first whose advice ends the trouble at its root: inputs, who is parked, where."""


def explanation(report: Report) -> str:
    """Return one short paragraph for a reader who has never heard of parked CPUs."""
    if any(finding.rule == "HC406" for finding in report.findings):
        return _OTHER_CPU
    if report.outcome is Outcome.RESETS and boot_cpu_dies(report):
        return (
            "To resume, one CPU copies the saved memory of the hibernated kernel (the resumee) over that of the "
            "running kernel (the resumer), and jumps into it with the page tables of the resumee. Here these have "
            "another number of levels than the processor has been set up for: it cannot find the first instruction "
            "after the jump, cannot handle the fault, and its last resort is a reset."
        )
    if report.verdict is Verdict.REFUSED:
        return _REFUSED + (_KEPT if report.refusal is not None and report.refusal.keeps_image else _LOST)
    if report.outcome is Outcome.RESETS and report.verdict is not Verdict.RISK:
        return f"{_WHAT} {_RESET}"
    stays = any(cpu.fate is Fate.STAYS_PARKED for cpu in report.cpus)
    ending = _VERDICTS.get(report.verdict, "")
    if report.verdict is Verdict.LATENT and not stays:
        ending = _CACHED if any(finding.rule == "HC202" for finding in report.findings) else _MAYBE_CACHED
    return f"{_WHAT} {ending}".strip()


def next_step(judged: Judged) -> Finding | None:
    """Return the finding whose advice is the first to follow; None where nothing that counts has one."""
    counted = [finding for finding, mark in judged.marked if mark is None and finding.advice]
    heavy = [finding for finding in counted if finding.level > Level.NOTE]
    return min(heavy, key=lambda finding: (-finding.level, _rank(finding.rule)), default=None)


def _rank(rule: str) -> int:
    return next((rank for rank, family in enumerate(_FIRST) if rule.startswith(family)), len(_FIRST))


def boot_cpu_dies(report: Report) -> bool:
    """Tell whether it is the copying CPU that dies."""
    return any(cpu.boot_cpu and cpu.fate is Fate.DIES for cpu in report.cpus)
