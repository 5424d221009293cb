"""Tests of the machine: is its memory still the one that was saved, and is there room to load it."""

from __future__ import annotations

from hibercheck.addresses import PAGE_SHIFT, START_KERNEL_MAP
from hibercheck.handoff.acceptance.contents import MISMATCH
from hibercheck.handoff.acceptance.held import unloadable
from hibercheck.handoff.acceptance.refusal import EFAULT, ENOMEM, EPERM, Question, Refusal, failed
from hibercheck.handoff.facts.e820 import NAMES, Map, differences, e820_checksum, edited, pack_e820, ram_runs
from hibercheck.handoff.facts.firmware_map import FirmwareMap
from hibercheck.handoff.scenario.known_loading import FREE, MEMORY_MAP, PAGES, added_to

_RESIZED = "give the resumer the memory map that the hibernated kernel had: the same firmware, memory size and devices"
_SHOWN = 4
"""Ranges that a sentence names."""


def memory_map(question: Question) -> Refusal | None:
    """arch_hibernation_header_restore() compares checksums of e820_table_firmware (arch/x86/power/hibernate.c)."""
    found = question.value(MEMORY_MAP)
    if found is None or _agrees(question, found.entries) is not False:
        return _ram_end(question) if found is None or question.open(MEMORY_MAP) else None
    theirs = question.resumee.e820
    if question.open(MEMORY_MAP):
        reason = (
            "compares the checksum of the firmware's memory map, and that in the image is not even that of its own map"
        )
        return _map_refusal(reason, "the image is damaged; hibernate again")
    whole = theirs if theirs is not None and _agrees(question, theirs) else None
    if found.source == "sysfs" and (whole is None or found.same_machine(whole)):
        question.remarks.append(_not_the_same(found, whole))
        return None
    what = f"{len(found.entries)} ranges, of which the checksum is not the one that the image has"
    if whole is not None:
        what = _ranges(found.entries, whole)
    return _map_refusal(f"has another firmware memory map than that with which the image was made: {what}")


def _map_refusal(reason: str, advice: str = _RESIZED) -> Refusal:
    found = "Hibernate inconsistent memory map detected!"
    return Refusal("memory-map", reason, EPERM, failed(EPERM, found, f"{MISMATCH}architecture specific data"), advice)


def _agrees(question: Question, entries: Map) -> bool | None:
    """Tell whether a map has the image's checksum; None where the resumer compares none, or the image has none."""
    kind, record = question.traits.e820_check.value, question.image.record
    if kind == "crc32" and record.e820_checksum is not None:
        return e820_checksum(entries) == record.e820_checksum
    if kind == "md5" and record.e820_digest is not None and any(record.e820_digest):
        import hashlib  # noqa: PLC0415 - it loads OpenSSL, for images of kernels before 5.14 only

        return hashlib.md5(pack_e820(entries), usedforsecurity=False).digest() == record.e820_digest
    return None


def _ranges(ours: Map, theirs: Map) -> str:
    """Name the ranges that differ, as the kernel prints them."""
    found = differences(ours, theirs)
    if not found:
        return "the same ranges, cut or ordered otherwise"
    said = [
        f"{start:#x}-{end - 1:#x} is {_kind(mine)} and was {_kind(other)}" for start, end, mine, other in found[:_SHOWN]
    ]
    more = f", and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"{'; '.join(said)}{more}"


def _kind(kind: int) -> str:
    return "nothing" if kind == 0 else NAMES.get(kind, f"type {kind}")


def _not_the_same(found: FirmwareMap, theirs: Map | None) -> str:
    what = _ranges(found.entries, theirs) if theirs is not None else "its checksum is another"
    return (
        f"the memory map in the facts (/sys/firmware/memmap) is not the image's ({what}); the kernel may have changed "
        "that map, and compares its own: collect the facts as root, with the kernel's own map or its log"
    )


def _ram_end(question: Question) -> Refusal | None:
    """Compare where RAM ends, for want of the resumer's whole map: if that differs, the maps and their checksums do.

    Only where neither command line edits the map: /proc/iomem shows it edited, the checksum is of the firmware's.
    """
    facts, theirs = question.plan.facts, question.resumee.e820
    edits = any(line.memory_edits for line in (question.cmdline, question.resumee.parameters))
    if facts is None or facts.ram_end is None or theirs is None or edits or _agrees(question, theirs) is None:
        return None
    expected = max((one.end for one in theirs if one.kind == 1), default=facts.ram_end)
    if expected == facts.ram_end:
        return None
    reason = f"has RAM up to {facts.ram_end:#x}, and the machine of the image up to {expected:#x}"
    return _map_refusal(reason)


def pages(question: Question) -> Refusal | None:
    """check_header() compares get_num_physpages() (kernel/power/snapshot.c)."""
    ours, theirs = question.value(PAGES), question.image.info.num_physpages
    if ours is None and question.cmdline.memory_edits != question.resumee.parameters.memory_edits:
        question.unknown.append(("how much memory mem= or memmap= leaves the resumer", "--fact pages="))
    if ours is None or ours == theirs:
        return None
    return Refusal(
        "pages",
        f"has {ours} pages of memory, and the image says {theirs}{_why_other(question)}",
        EPERM,
        failed(EPERM, f"{MISMATCH}memory size"),
        _pages_advice(question),
    )


def _why_other(question: Question) -> str:
    """Say where the difference comes from, if it is worked out and not measured."""
    if not question.open(PAGES):
        return ""
    ours, theirs = (
        " ".join(edit.given for edit in line.memory_edits) for line in (question.cmdline, question.resumee.parameters)
    )
    said = []
    if ours != theirs:
        said.append(f"{ours} on its command line" if ours else f"the resumee was booted with {theirs}")
    added = added_to(question.resumee, question.image.info.num_physpages)
    if added:
        said.append(f"{abs(added)} pages were {'added to' if added > 0 else 'taken from'} the resumee while it ran")
    return f": {' and '.join(said)}" if said else ""


def _pages_advice(question: Question) -> str:
    ours, theirs = question.cmdline.memory_edits, question.resumee.parameters.memory_edits
    if question.open(PAGES) and ours != theirs:
        words = " ".join(edit.given for edit in theirs or ours)
        return f"boot it {'with' if theirs else 'without'} {words}"
    return _RESIZED


def frames(question: Question) -> Refusal | None:
    """unpack_orig_pfns() takes a frame that is within the zones of memory, and has a struct page.

    So one in a hole loads, if memory is near it: pfn_valid() is true for all of a section of 128 MiB that has any
    (include/linux/mmzone.h), and the zones of a node go from its first frame to its last.
    """
    whole = question.resumee.e820  # by now known to be the resumer's too
    if whole is None or question.value(PAGES) != question.image.info.num_physpages or _grown(question):
        return None
    lost = unloadable(question.image.pfns.runs(), ram_runs(edited(whole, question.cmdline.memory_edits)))
    if lost is None:
        return None
    return Refusal(
        "frames",
        f"has no memory at frame {lost:#x}, which the image holds",
        EFAULT,
        failed(EFAULT),
        "the image is damaged, or of another machine; hibernate again",
    )


def _grown(question: Question) -> bool:
    """Tell whether there is more memory than the firmware's map has, plugged in at run time."""
    return added_to(question.resumee, question.image.info.num_physpages) > 0


def room(question: Question) -> Refusal | None:
    """prepare_image() takes a frame for each frame of the image out of what is free, or fails with -ENOMEM.

    That a frame of the image is free in the resumer too saves none: it is then loaded in place, into that frame.
    """
    held = len(question.image.pfns)
    free = question.value(FREE)
    if free is not None:
        return _no_room(f"has {free} pages free, and the image has {held}") if free < held else None
    total, huge = question.value(PAGES), question.cmdline.huge_pages >> PAGE_SHIFT
    own = least_used(question)
    if total is None or total - huge - own >= held:
        return None
    what = f"{huge} pages set aside for huge pages, " if huge else ""
    return _no_room(f"has {total} pages, with {what}{own} of its own at least, and the image has {held}")


def least_used(question: Question) -> int:
    """Return how many frames the resumer's kernel certainly has for itself: its image, and a struct page for each."""
    text, end = question.plan.resumer.symbol("_text"), question.plan.resumer.symbol("_end")
    size = 0 if text is None or end is None else max(end.address - max(text.address, START_KERNEL_MAP), 0)
    total = question.value(PAGES) or 0
    return (size >> PAGE_SHIFT) + (total >> 6)


def _no_room(reason: str) -> Refusal:
    advice = "boot it without hugepages=, or hibernate with a smaller image (/sys/power/image_size)"
    return Refusal("room", f"has no room for the image: it {reason}", ENOMEM, failed(ENOMEM), advice)
