"""What the report rests on: assumptions and how to change them, missing facts, the image and the kernels."""

from __future__ import annotations

from hibercheck.handoff.facts.session import shown_time
from hibercheck.handoff.verdict.findings import ImageSummary, KernelSummary, Report, Verdict
from hibercheck.report import words
from hibercheck.report.gate import Judged
from hibercheck.report.sanitise import clean
from hibercheck.report.sheet import Columns, Sheet
from hibercheck.report.styled import Text
from hibercheck.report.text_cpus import WIDE


def assumption_section(report: Report, sheet: Sheet) -> None:
    """Print what the report rests on, where it came from, and the option that changes it."""
    if not report.assumptions:
        return
    sheet.print(Text("\nAssumed", style="bold"))
    wide = sheet.whole or sheet.width >= WIDE
    rows = Columns("What", "Is", *(["Because of"] if wide else []), "To change it")
    for assumption in report.assumptions:
        value, source = Text(clean(assumption.value)), Text(clean(assumption.source), style="dim")
        if not wide:
            value = Text.assemble(value, " (", source, ")")
        cells = [value, source] if wide else [value]
        rows.add_row(clean(assumption.fact), *cells, clean(assumption.option or ""))
    sheet.print(rows, indent=2)


def condition_section(judged: Judged, sheet: Sheet) -> None:
    """Print how far the verdict holds: what would change it, to which, and how to say so or to find out."""
    report = judged.report
    if report.verdict is Verdict.UNDETERMINED and not report.conditions:
        return
    granted = Text(clean(words.taken_for_granted(report) or ""), style="dim")
    sheet.print(Text(f"\n{clean(words.holds(report))}", style="bold"), prose=True)
    for condition, mark in judged.conditions:
        verdict = Text.assemble(
            f"{clean(condition.fact)}: {clean(condition.value)}  -> ",
            (words.outcome(condition.outcome, condition.verdict), "bold"),
            (f"  [{clean(condition.id)}]", "dim"),
        )
        sheet.print(verdict, indent=2, prose=True)
        sheet.print(Text(words.sentence(clean(condition.reason))), indent=4, prose=True)
        said = Text.assemble("To judge that case: ", (clean(condition.arguments), "cyan"))
        sheet.print(said, indent=4, prose=True)
        if condition.how:
            sheet.print(Text(words.sentence(f"To find out: {clean(condition.how)}")), indent=4, prose=True)
        if mark is not None:
            text = f"Does not count ({mark.kind}): {clean(mark.reason)}"
            sheet.print(Text(words.sentence(text), style="dim"), indent=4, prose=True)
    if supposed := words.supposed(report):
        sheet.print(Text(supposed, style="dim"), indent=2, prose=True)
    if granted:
        sheet.print(granted, indent=2, prose=True)


def missing_section(report: Report, sheet: Sheet) -> None:
    """Print the facts that are missing and how to supply each."""
    if not report.missing:
        return
    sheet.print(Text("\nMissing", style="bold"))
    for missing in report.missing:
        line = Text.assemble((words.sentence(clean(missing.fact)), "cyan"), " ", words.sentence(clean(missing.supply)))
        sheet.print(line, indent=2, prose=True)


def unexamined_section(report: Report, sheet: Sheet) -> None:
    """Print the rules that could not be looked at for some CPU; what is not about a CPU is among the assumptions."""
    notes = [note for note in report.unexamined if note.cpus]
    if not notes:
        return
    sheet.print(Text("\nNot examined", style="bold"))
    rows = Columns("Rules", "Why", "To examine them")
    for note in notes:
        rows.add_row(clean(", ".join(note.rules)), words.sentence(clean(words.in_words(note))), clean(note.supply))
    sheet.print(rows, indent=2)


def input_section(report: Report, sheet: Sheet) -> None:
    """Print what was read."""
    sheet.print(Text("\nRead", style="bold"))
    rows = Columns(columns=2)
    rows.add_row("image", _image(report.image))
    for role, kernel in (("resumer", report.resumer), ("resumee", report.resumee)):
        rows.add_row(role, _kernel(kernel))
    sheet.print(rows, indent=2)
    _traits(report, sheet)
    sheet.print()


def _image(image: ImageSummary) -> str:
    share = f" of {words.size(image.ram_pages)} of memory" if image.ram_pages else ""
    zero = f", {words.count(image.zero_pages, 'zero page')}" if image.zero_pages else ""
    packing = "not compressed" if image.compressor == "none" else clean(image.compressor).upper()
    state = "; already consumed by a resume" if image.consumed else ""
    when = "" if image.written is None else f"; written at {shown_time(image.written)}"
    where = f" on {clean(image.node)}" if image.node else ""
    return (
        f"{clean(image.path)}: {words.count(image.pages, 'page')} ({words.size(image.pages)}{share}), {packing}{zero}; "
        f"CR3 {image.cr3:#x}, entered at {image.jump_address:#x} (physical {image.jump_address_phys:#x}){state}"
        f"{when}{where}"
    )


def _kernel(kernel: KernelSummary) -> str:
    where = "loaded at a random address" if kernel.load_address is None else f"loaded at {kernel.load_address:#x}"
    levels = f", {kernel.paging_levels}-level paging" if kernel.paging_levels else ""
    lines = [f"{clean(kernel.path)}: {clean(kernel.release)}, {where}{levels}"]
    if kernel.command_line is not None:
        lines.append(f"command line: {clean(kernel.command_line) or '(empty)'}")
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
            rows.add_row(clean(name), clean(value))
        sheet.print(rows, indent=4)
