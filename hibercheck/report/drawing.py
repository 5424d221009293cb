"""Physical memory and the copy as bars: what is drawn, as data, and the same as one SVG that needs nothing else.

A bar is as long as what it shows: memory from address 0 upwards, or the copy from its first page, which is the
highest, to its last.  The page of a check and the picture of a report are made of the same bars; each mark has its
words, so that nothing can only be seen.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from html import escape as escape_markup

from hibercheck.addresses import PAGE_SHIFT
from hibercheck.cpulist import cpu_phrase
from hibercheck.data import dataclass
from hibercheck.handoff.verdict.findings import CpuReport, FrameUse, ImageSummary, KernelSummary, Report
from hibercheck.report import words
from hibercheck.report.sanitise import one_line
from hibercheck.report.text_cpus import alike, fate

LENGTH = 1000
"""Units of a bar."""
LEAST = 4
"""Units of the smallest mark: less could not be seen."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One mark on a bar.

    Attributes:
        start: Where it begins, 0 to 1.
        end: Where it ends.
        kind: ``image``, ``kernel``, ``replaced``, ``same``, ``kept``, ``unknown``, ``fails`` or ``holds``.
        what: What it is, in words.
        where: Where it is, in words: an address, or a copy.
    """

    start: float
    end: float
    kind: str
    what: str
    where: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A row of marks.

    Attributes:
        label: What it shows.
        marks: The marks.
        listed: Whether each mark is a row of the table as well; what an image covers is told by its size.
        told: The whole in one sentence.
    """

    label: str
    marks: tuple[Mark, ...]
    told: str
    listed: bool = True


KINDS = {
    "image": "in the image",
    "kernel": "a kernel",
    "replaced": "replaced by other bytes",
    "same": "replaced by the same bytes",
    "kept": "left alone",
    "unknown": "not known",
    "fails": "the resume fails with the resumer here",
    "holds": "the resume works with the resumer here",
}
"""The kinds of marks, and what each means."""
HEIGHTS = {
    "image": 1.0,
    "kernel": 1.0,
    "replaced": 1.0,
    "same": 0.55,
    "kept": 0.3,
    "unknown": 0.75,
    "fails": 1.0,
    "holds": 0.4,
}
"""Part of a bar's height: what a mark means is told by more than its colour."""


def memory_top(report: Report) -> int:
    """Return one past the last frame that is drawn."""
    ends = [first + length for first, length in report.image.runs]
    touched = [use.pfn + 1 for cpu in report.cpus for use in cpu.footprint if use.pfn is not None]
    return max([report.image.ram_pages, *ends, *touched], default=1) or 1


def memory(report: Report) -> tuple[Bar, ...]:
    """Return the bars of physical memory: the image, the kernels, a sweep of load addresses, each kind of CPU."""
    top = memory_top(report)
    bars = [_covered(report.image, top)]
    bars += [bar for role, kernel in _kernels(report) if (bar := _placed(role, kernel, top)) is not None]
    if report.share is not None and report.share.places:
        bars.append(_sweep(report, top))
    bars += [_frames(cpus, top) for cpus in alike(report.cpus) if any(use.pfn is not None for use in cpus[0].footprint)]
    return tuple(bars)


def _kernels(report: Report) -> tuple[tuple[str, KernelSummary], ...]:
    return ("resumer", report.resumer), ("resumee", report.resumee)


def _covered(image: ImageSummary, top: int) -> Bar:
    marks = tuple(
        Mark(first / top, (first + length) / top, "image", words.count(length, "page"), f"{first << PAGE_SHIFT:#x}")
        for first, length in image.runs
    )
    told = f"The image covers {words.size(image.pages)} of {words.size(image.ram_pages or top)}."
    return Bar("Image", marks, told, listed=False)


def _placed(role: str, kernel: KernelSummary, top: int) -> Bar | None:
    if kernel.load_address is None:
        return None
    first = kernel.load_address >> PAGE_SHIFT
    pages = (kernel.size or 1) >> PAGE_SHIFT or 1
    where = f"{kernel.load_address:#x}"
    mark = Mark(first / top, (first + pages) / top, "kernel", one_line(kernel.release), where)
    return Bar(role.capitalize(), (mark,), f"The {role}'s kernel lies at {where} ({words.size(pages)}).")


def _sweep(report: Report, top: int) -> Bar:
    share = report.share
    assert share is not None  # noqa: S101 - memory() has looked
    total = top << PAGE_SHIFT
    marks = []
    for first, count, fails in share.places:
        last = first + (count - 1) * share.step
        what = "1 load address" if count == 1 else f"{count:,} load addresses"
        where = f"{first:#x}" if count == 1 else f"{first:#x} to {last:#x}"
        marks.append(Mark(first / total, (last + share.step) / total, "fails" if fails else "holds", what, where))
    return Bar("Load addresses", tuple(marks), words.share(share))


def _frames(cpus: Sequence[CpuReport], top: int) -> Bar:
    cpu = cpus[0]
    uses = sorted((use for use in cpu.footprint if use.pfn is not None), key=lambda use: use.pfn or 0)
    marks = tuple(
        Mark(
            (use.pfn or 0) / top,
            ((use.pfn or 0) + 1) / top,
            _kind(use),
            _what(use),
            f"{(use.pfn or 0) << PAGE_SHIFT:#x}",
        )
        for use in uses
    )
    counts = [(kind, sum(mark.kind == kind for mark in marks)) for kind in KINDS]
    told = ", ".join(f"{number} {KINDS[kind]}" for kind, number in counts if number)
    label = cpu_phrase([one.cpu for one in cpus])
    first = f" (those of CPU {cpu.cpu})" if len(cpus) > 1 else ""
    return Bar(label, marks, f"{label}: {fate(cpu)}. Frames that it needs{first}: {told}.")


def _kind(use: FrameUse) -> str:
    if use.overwritten is None or (use.overwritten and use.same is None):
        return "unknown"
    if not use.overwritten:
        return "kept"
    return "same" if use.same else "replaced"


def _what(use: FrameUse) -> str:
    name = f" ({one_line(use.resumer)})" if use.resumer else ""
    becomes = f", replaced by {one_line(use.resumee)}" if use.overwritten and use.resumee else ""
    return f"{one_line(use.role)}{name}{becomes}"


def copy_line(report: Report) -> tuple[Bar, ...]:
    """Return the bars of the copy: for each kind of CPU when it loses its line, loop, tables, and exception path."""
    order = _Order(report.image)
    bars = []
    for cpus in alike(report.cpus):
        marks = sorted(_losses(cpus[0], order), key=lambda mark: mark.start)
        if marks:
            label = cpu_phrase([one.cpu for one in cpus])
            bars.append(Bar(label, tuple(marks), f"{label} loses {', then '.join(mark.what for mark in marks)}."))
    return tuple(bars)


class _Order:
    """In which order pages are copied: from the highest frame down.

    Args:
        image: What it covers; its runs may be coarse, so that a copy's number is about right.
    """

    def __init__(self, image: ImageSummary) -> None:
        self._runs = image.runs
        self.total = sum(length for _, length in image.runs) or 1

    def copy(self, pfn: int) -> int | None:
        """Return which copy, counted from 1, writes a frame; None for one that is not in the image."""
        index = bisect_right(self._runs, (pfn, 1 << 64)) - 1
        if index < 0 or pfn >= sum(self._runs[index]):
            return None
        first, length = self._runs[index]
        return sum(size for _, size in self._runs[index + 1 :]) + first + length - pfn


PARTS = ("its line", "its loop", "its page tables", "its data", "its exception path")


def part_of(role: str) -> str:
    """Say which part of what keeps a CPU parked a frame is, by its role."""
    if role == "monitored line":
        return PARTS[0]
    if role == "park loop":
        return PARTS[1]
    if any(word in role for word in ("IDT", "GDT", "TSS", "IST", "exception", "handler", "stack")):
        return PARTS[4]
    if role.startswith(("PML", "PDPT", "PD ", "PT ", "page table")):
        return PARTS[2]
    return PARTS[3]


def _losses(cpu: CpuReport, order: _Order) -> Iterator[Mark]:
    """Yield the first copy that takes each part of what keeps a CPU parked."""
    first: dict[str, tuple[int, FrameUse]] = {}
    for use in cpu.footprint:
        number = None if use.pfn is None or use.overwritten is False else order.copy(use.pfn)
        if number is not None:
            part = part_of(use.role)
            first[part] = min(first.get(part, (number, use)), (number, use), key=lambda one: one[0])
    for part, (number, use) in first.items():
        where = f"copy {number:,} of {order.total:,}, frame {use.pfn:#x}"
        yield Mark(
            (number - 1) / order.total, number / order.total, _kind(use), f"{part} ({one_line(use.role)})", where
        )


def rectangles(bar: Bar, *, length: float = LENGTH, height: float = 20) -> Iterator[str]:
    """Yield a bar's marks as SVG; those of one kind that run into one another are one."""
    for start, end, kind in _merged(bar.marks):
        tall = height * HEIGHTS[kind]
        yield (
            f'<rect class="{kind}" x="{start * length / LENGTH:.2f}" y="{height - tall:.1f}" '
            f'width="{(end - start) * length / LENGTH:.2f}" height="{tall:.1f}"/>'
        )


def _merged(marks: Iterable[Mark]) -> Iterator[tuple[float, float, str]]:
    """Yield begin, end and kind in units, none narrower than `LEAST`."""
    spans: dict[str, list[tuple[float, float]]] = {}
    for mark in sorted(marks, key=lambda one: one.start):
        begin = min(mark.start * LENGTH, LENGTH - LEAST)
        end = max(min(mark.end * LENGTH, LENGTH), begin + (0.5 if mark.kind == "image" else LEAST))
        known = spans.setdefault(mark.kind, [])
        if known and begin <= known[-1][1] + 0.2:
            known[-1] = known[-1][0], max(known[-1][1], end)
        else:
            known.append((begin, end))
    order = sorted(spans, key=lambda kind: -HEIGHTS[kind])  # the shorter in front
    yield from ((begin, end, kind) for kind in order for begin, end in spans[kind])


COLOURS = """
.image{fill:#5b7ea6}.kernel{fill:#6b4fa0}.replaced,.fails{fill:#c62828}.same{fill:#8a6d00}.kept,.holds{fill:#2e7d32}
.unknown{fill:#757575}.bar{fill:#e4e7eb}
@media(prefers-color-scheme:dark){.image{fill:#7fa3cc}.kernel{fill:#b39ddb}.replaced,.fails{fill:#ef5350}
.same{fill:#e0b93b}.kept,.holds{fill:#66bb6a}.unknown{fill:#a0a0a0}.bar{fill:#2b2f36}}
"""


def svg(report: Report, *, width: int = 760) -> str:
    """Return the drawing as one SVG that fetches nothing: memory, and the copy below it."""
    label, line, height = 130, 26, 16
    room = width - label - 10
    rows: list[str] = []
    y = 20
    total = f"{memory_top(report) << PAGE_SHIFT:#x}"
    for heading, bars, (left, right) in (
        ("Physical memory", memory(report), ("0", total)),
        ("The copy, from the highest frame down", copy_line(report), ("first page", "last page")),
    ):
        if not bars:
            continue
        rows.append(f'<text class="head" x="0" y="{y}">{heading}</text>')
        y += 10
        for bar in bars:
            rows.append(f'<text x="0" y="{y + height - 3}">{escape(bar.label)}</text>')
            rows.append(f'<g transform="translate({label},{y})"><title>{escape(bar.told)}</title>')
            rows.append(f'<rect class="bar" width="{room}" height="{height}"/>')
            rows += rectangles(bar, length=room, height=height)
            rows.append("</g>")
            y += line
        rows.append(f'<text class="axis" x="{label}" y="{y}">{left}</text>')
        rows.append(f'<text class="axis" x="{label + room}" y="{y}" text-anchor="end">{right}</text>')
        y += 32
    told = words.sentence(one_line(report.headline))
    style = (
        "text{font:13px system-ui,sans-serif;fill:#222}.head{font-weight:600}.axis{font-size:11px;fill:#555}"
        f"{COLOURS}"
        "@media(prefers-color-scheme:dark){text{fill:#ddd}.axis{fill:#aaa}}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y}" width="{width}" role="img" '
        f'aria-label="{escape(told)}"><title>{escape(told)}</title><style>{style}</style>\n'
        + "\n".join(rows)
        + "\n</svg>\n"
    )


def escape(text: str) -> str:
    """Return untrusted text as the content of an element or of a quoted attribute."""
    return escape_markup(one_line(text))
