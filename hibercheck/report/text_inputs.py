"""What the report rests on: assumptions and how to change them, missing facts, the image and the kernels."""

from __future__ import annotations

from rich.text import Text

from hibercheck.handoff.findings import ImageSummary, KernelSummary, Report
from hibercheck.report import words
from hibercheck.report.sanitise import clean
from hibercheck.report.sheet import Columns, Sheet
from hibercheck.report.text_cpus import WIDE


def assumption_section(report: Report, sheet: Sheet) -> None:
    """Print what was taken for granted, where it came from, and the option that changes it."""
    if not report.assumptions:
        return
    sheet.print(Text("\nAssumed", style="bold"))
    wide = sheet.width >= WIDE
    rows = Columns("What", "Is", *(["Because of"] if wide else []), "To change it")
    for assumption in report.assumptions:
        value, source = Text(clean(assumption.value)), Text(clean(assumption.source), style="dim")
        if not wide:
            value = Text.assemble(value, " (", source, ")")
        cells = [value, source] if wide else [value]
        rows.add_row(Text(clean(assumption.fact)), *cells, Text(clean(assumption.option or "")))
    sheet.print(rows, indent=2)


def missing_section(report: Report, sheet: Sheet) -> None:
    """Print the facts that are missing and how to supply each."""
    if not report.missing:
        return
    sheet.print(Text("\nMissing", style="bold"))
    for missing in report.missing:
        line = Text.assemble((words.sentence(clean(missing.fact)), "cyan"), " ", words.sentence(clean(missing.supply)))
        sheet.print(line, indent=2, width=min(sheet.width, 100))


def input_section(report: Report, sheet: Sheet, *, verbose: bool) -> None:
    """Print what was read."""
    sheet.print(Text("\nRead", style="bold"))
    rows = Columns(columns=2)
    rows.add_row("image", Text(_image(report.image)))
    for role, kernel in (("resumer", report.resumer), ("resumee", report.resumee)):
        rows.add_row(role, Text(_kernel(kernel, verbose=verbose)))
    sheet.print(rows, indent=2)
    if verbose:
        _traits(report, sheet)
    sheet.print()


def _image(image: ImageSummary) -> str:
    share = f" of {words.size(image.ram_pages)} of memory" if image.ram_pages else ""
    zero = f", {words.count(image.zero_pages, 'zero page')}" if image.zero_pages else ""
    packing = "not compressed" if image.compressor == "none" else clean(image.compressor).upper()
    state = "; already consumed by a resume" if image.consumed else ""
    return (
        f"{clean(image.path)}: {words.count(image.pages, 'page')} ({words.size(image.pages)}{share}), {packing}{zero}; "
        f"CR3 {image.cr3:#x}, entered at {image.jump_address:#x} (physical {image.jump_address_phys:#x}){state}"
    )


def _kernel(kernel: KernelSummary, *, verbose: bool) -> str:
    where = "loaded at a random address" if kernel.load_address is None else f"loaded at {kernel.load_address:#x}"
    levels = f", {kernel.paging_levels}-level paging" if kernel.paging_levels else ""
    lines = [f"{clean(kernel.path)}: {clean(kernel.release)}, {where}{levels}"]
    if kernel.command_line is not None:
        lines.append(f"command line: {clean(kernel.command_line) or '(empty)'}")
    if verbose:
        lines.append(clean(kernel.banner.rstrip("\n")))
        lines += [f"build id {clean(kernel.build_id)}"] if kernel.build_id else []
        lines += [f"KASLR offset {kernel.kaslr_offset:#x}"] if kernel.kaslr_offset is not None else []
    return "\n".join(lines)


def _traits(report: Report, sheet: Sheet) -> None:
    for role, kernel in (("resumer", report.resumer), ("resumee", report.resumee)):
        if not kernel.traits:
            continue
        sheet.print(Text(f"\n  What the {role}'s code says", style="bold"))
        rows = Columns(columns=2)
        for name, value in kernel.traits:
            rows.add_row(Text(clean(name)), Text(clean(value)))
        sheet.print(rows, indent=4)
