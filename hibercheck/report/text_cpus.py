"""The table of CPUs and the frames they would touch."""

from __future__ import annotations

from collections.abc import Sequence

from hibercheck.cpulist import cpu_phrase, format_cpu_list
from hibercheck.handoff.replay.fate import Fate, When
from hibercheck.handoff.verdict.findings import CpuReport, FrameUse, Report
from hibercheck.handoff.verdict.words import WHEN, either, with_article
from hibercheck.report import words
from hibercheck.report.sanitise import clean, one_line
from hibercheck.report.sheet import Columns, Sheet
from hibercheck.report.styled import Text

FATES = {
    Fate.UNTOUCHED: "green",
    Fate.PARKS_AGAIN: "green",
    Fate.REINITIALISED: "green",
    Fate.STAYS_PARKED: "yellow",
    Fate.DIES: "bold red",
    Fate.UNKNOWN: "cyan",
}
STATES = {
    "mwait": "MWAIT",
    "hlt": "HLT",
    "port_io": "port read",
    "wait_for_sipi": "wait-for-SIPI",
    "never_booted": "never started",
    "running": "running",
}
SINGLY = 8
"""Up to this many CPUs each has a row of its own; beyond, those that share everything share a row."""
WIDE = 110
"""Columns from which virtual addresses fit beside everything else."""
ROLE = 24
"""Columns in which what a frame is for is not broken: ``PDPT of the exception's handler`` may be."""
SYMBOLS_WHOLE = 80
"""Columns from which a symbol of usual length is not broken either."""


def cpu_section(report: Report, sheet: Sheet) -> None:
    """Print the table of CPUs, a sentence for each, and the footprints that matter."""
    if not report.cpus:
        return
    sheet.print(Text("\nCPUs", style="bold"))
    groups = group(report.cpus)
    rows = Columns("CPU", "Parked in", "Woken by", "What becomes of it")
    for cpus in groups:
        cpu = cpus[0]
        rows.add_row(format_cpu_list(each.cpu for each in cpus), _state(cpu), _wakes(cpu), _fate(cpu))
    sheet.print(rows, indent=2)
    for cpus in groups:
        _sentences(cpus, sheet)
    for cpus in groups:
        if cpus[0].footprint:
            _footprint(cpus[0], sheet)


def group(cpus: Sequence[CpuReport]) -> list[list[CpuReport]]:
    """Put CPUs of one fate together where there are too many to list one by one."""
    return [[cpu] for cpu in cpus] if len(cpus) <= SINGLY else alike(cpus)


def alike(cpus: Sequence[CpuReport]) -> list[list[CpuReport]]:
    """Put CPUs together that are parked alike, by the same code, and of one fate for one reason."""
    groups: dict[tuple[object, ...], list[CpuReport]] = {}
    for cpu in cpus:
        key = (
            cpu.boot_cpu,
            cpu.state,
            cpu.loop,
            cpu.wakes,
            cpu.fate,
            cpu.when,
            cpu.cause,
            cpu.doubt,
            cpu.exposure,
            cpu.exposure_unknown,
            cpu.lent,
        )
        groups.setdefault(key, []).append(cpu)
    return list(groups.values())


def state(cpu: CpuReport) -> str:
    """Say in a word or two how a CPU is parked."""
    return "copies the image" if cpu.boot_cpu else STATES.get(cpu.state, clean(cpu.state))


def _state(cpu: CpuReport) -> Text:
    where = Text(state(cpu))
    if cpu.loop and not cpu.boot_cpu:
        where.append(f"\n{clean(cpu.loop)}", style="dim")
    return where


def _wakes(cpu: CpuReport) -> str:
    return "" if cpu.boot_cpu else clean(", ".join(cpu.wakes)) or "nothing"


def _fate(cpu: CpuReport) -> tuple[str, str]:
    return fate(cpu), FATES[cpu.fate]


def fate(cpu: CpuReport) -> str:
    """Say in a few words what becomes of a CPU; its ``sentence`` says why."""
    if cpu.boot_cpu and cpu.fate is Fate.UNTOUCHED:
        return "enters the resumee"
    if cpu.fate is Fate.STAYS_PARKED and cpu.exposure:
        certain = [event for event in cpu.exposure if event not in cpu.exposure_unknown]
        resets = f"the next {one_line(either(certain or cpu.exposure))} {'resets' if certain else 'may reset'}"
        return f"stays parked; {resets} the machine"
    if cpu.fate is Fate.STAYS_PARKED and cpu.lent:
        return "stays parked in memory that is free in the resumee"
    if cpu.fate is Fate.DIES or cpu.doubt is not None:
        verb = "dies" if cpu.fate is Fate.DIES else "may die"
        when = f" {WHEN[When(cpu.when)]}" if cpu.when else ""
        return f"{verb}{when}{f', of {one_line(with_article(cpu.cause))}' if cpu.cause else ''}"
    return "re-initialised by the resumee" if cpu.fate is Fate.REINITIALISED else str(cpu.fate)


def _sentences(cpus: Sequence[CpuReport], sheet: Sheet) -> None:
    cpu = cpus[0]
    told = [cpu.sentence if cpu.fate is not Fate.UNTOUCHED else ""] if cpu.boot_cpu else [cpu.why, cpu.sentence]
    told.append("" if cpu.owner is None else f"the line that it monitors is then {cpu.owner.sentence}")
    told.append(cpu.executed or "")
    parts = [words.sentence(clean(part)) for part in told if part]
    if not parts:
        return
    who = f"{cpu_phrase([each.cpu for each in cpus])}: "
    more = " (The first of them is described.)" if len(cpus) > 1 else ""
    sheet.print(Text.assemble("\n", (who, "bold"), " ".join(parts) + more), indent=2, prose=True)


def _footprint(cpu: CpuReport, sheet: Sheet) -> None:
    uses = cpu.footprint
    registers = ", ".join(
        f"{name} {value:#x}" for name, value in (("RIP", cpu.rip), ("CR3", cpu.cr3)) if value is not None
    )
    title = f"\n  What CPU {cpu.cpu} uses when it wakes" + (f" ({registers})" if registers else "")
    sheet.print(Text(title, style="bold"))
    wide = sheet.whole or sheet.width >= WIDE
    rows = Columns("For", "Frame", *(["Address"] if wide else []), "In the resumer", "After the copy")
    rows.keep(0, min(max(len(use.role) for use in uses), ROLE))
    if sheet.width >= SYMBOLS_WHOLE:
        rows.keep(3 if wide else 2, min(max(len(clean(use.resumer or "")) for use in uses), ROLE))
    for use in uses:
        address = "" if use.virtual is None else f"{use.virtual:#x}"
        rows.add_row(
            clean(use.role),
            "unknown" if use.pfn is None else f"{use.pfn:#x}",
            *([(address, "dim")] if wide else []),
            clean(use.resumer or ""),
            after(use),
        )
    sheet.print(rows, indent=4)


def after(use: FrameUse) -> tuple[str, str]:
    """Say what lies in the frame after the copy, and in which style."""
    if use.overwritten is None:
        return "unknown", "cyan"
    if not use.overwritten:
        return "left alone", "green"
    what = clean(use.resumee or "data of the resumee")
    if use.same is None:
        return f"replaced: {what}", "cyan"
    return (f"the same: {what}", "green") if use.same else (f"replaced: {what}", "red")
