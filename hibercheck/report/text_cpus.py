"""The table of CPUs and the frames they would touch."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from hibercheck.cpulist import format_cpu_list
from hibercheck.handoff.findings import CpuReport, Fate, FrameUse, Report
from hibercheck.report import words
from hibercheck.report.sanitise import clean
from hibercheck.report.sheet import Columns, Sheet

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
FRAMES = 12
"""Rows of a footprint that are shown unless everything is asked for."""


def cpu_section(report: Report, sheet: Sheet, *, verbose: bool) -> None:
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
        if cpus[0].footprint and (verbose or cpus[0].fate in (Fate.DIES, Fate.UNKNOWN)):
            _footprint(cpus[0], sheet, verbose=verbose)


def group(cpus: Sequence[CpuReport]) -> list[list[CpuReport]]:
    """Put CPUs of one fate together where there are too many to list one by one."""
    if len(cpus) <= SINGLY:
        return [[cpu] for cpu in cpus]
    groups: dict[tuple[object, ...], list[CpuReport]] = {}
    for cpu in cpus:
        groups.setdefault((cpu.boot_cpu, cpu.state, cpu.loop, cpu.wakes, cpu.fate), []).append(cpu)
    return list(groups.values())


def _state(cpu: CpuReport) -> Text:
    if cpu.boot_cpu:
        return Text("not parked: it copies")
    state = Text(STATES.get(cpu.state, clean(cpu.state)))
    if cpu.loop:
        state.append(f"\n{clean(cpu.loop)}", style="dim")
    return state


def _wakes(cpu: CpuReport) -> Text:
    if cpu.boot_cpu:
        return Text("")
    return Text(clean(", ".join(cpu.wakes)) or "nothing")


def _fate(cpu: CpuReport) -> Text:
    return Text(fate(cpu), style=FATES[cpu.fate])


def fate(cpu: CpuReport) -> str:
    """Return what becomes of a CPU in a word or two: the copying one that lives on is the resumee's first."""
    return "enters the resumee" if cpu.boot_cpu and cpu.fate is Fate.UNTOUCHED else str(cpu.fate)


def _sentences(cpus: Sequence[CpuReport], sheet: Sheet) -> None:
    cpu = cpus[0]
    told = [cpu.sentence if cpu.fate is not Fate.UNTOUCHED else ""] if cpu.boot_cpu else [cpu.why, cpu.sentence]
    told.append(cpu.executed or "")
    parts = [words.sentence(clean(part)) for part in told if part]
    if not parts:
        return
    who = f"{words.cpu_phrase([each.cpu for each in cpus])}: "
    more = " (The first of them is described.)" if len(cpus) > 1 else ""
    sheet.print(Text.assemble("\n", (who, "bold"), " ".join(parts) + more), indent=2, width=_prose(sheet))


def _prose(sheet: Sheet) -> int:
    return min(sheet.width, 100)


def _footprint(cpu: CpuReport, sheet: Sheet, *, verbose: bool) -> None:
    uses = cpu.footprint if verbose else _worst(cpu.footprint)
    registers = ", ".join(
        f"{name} {value:#x}" for name, value in (("RIP", cpu.rip), ("CR3", cpu.cr3)) if value is not None
    )
    title = f"\n  What CPU {cpu.cpu} uses when it wakes" + (f" ({registers})" if registers else "")
    sheet.print(Text(title, style="bold"))
    wide = verbose and sheet.width >= WIDE
    rows = Columns("For", "Frame", *(["Address"] if wide else []), "In the resumer", "After the copy")
    rows.keep(0, min(max(len(use.role) for use in uses), ROLE))
    if sheet.width >= SYMBOLS_WHOLE:
        rows.keep(3 if wide else 2, min(max(len(clean(use.resumer or "")) for use in uses), ROLE))
    for use in uses:
        address = "" if use.virtual is None else f"{use.virtual:#x}"
        rows.add_row(
            Text(clean(use.role)),
            Text("unknown" if use.pfn is None else f"{use.pfn:#x}"),
            *([Text(address, style="dim")] if wide else []),
            Text(clean(use.resumer or "")),
            after(use),
        )
    sheet.print(rows, indent=4)
    left = len(cpu.footprint) - len(uses)
    if left:
        sheet.print(Text(f"and {left} more, shown by -v", style="dim"), indent=4)


def _worst(footprint: Sequence[FrameUse]) -> Sequence[FrameUse]:
    """Return at most `FRAMES` rows, dropping those that matter least but keeping the order."""
    if len(footprint) <= FRAMES:
        return footprint
    ranked = sorted(range(len(footprint)), key=lambda index: (_harmless(footprint[index]), index))
    return [footprint[index] for index in sorted(ranked[:FRAMES])]


def _harmless(use: FrameUse) -> int:
    if use.overwritten and not use.same:
        return 0
    return 2 if use.overwritten is False else 1


def after(use: FrameUse) -> Text:
    """Say what lies in the frame after the copy."""
    if use.overwritten is None:
        return Text("unknown", style="cyan")
    if not use.overwritten:
        return Text("left alone", style="green")
    what = clean(use.resumee or "data of the resumee")
    if use.same is None:
        return Text(f"replaced: {what}", style="cyan")
    return Text(f"the same: {what}", style="green") if use.same else Text(f"replaced: {what}", style="red")
