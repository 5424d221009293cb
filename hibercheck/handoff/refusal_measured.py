"""Whether the resumer loads the image, by its own memory map and page count: facts of a dump or of a facts file."""

from __future__ import annotations

from dataclasses import replace

from hibercheck.errors import MissingFact
from hibercheck.handoff.cmdline import CommandLine
from hibercheck.handoff.refusal import EPERM, Acceptance, Refusal
from hibercheck.handoff.resumee import E820_RAM, E820Entry, Resumee, e820_checksum, pack_e820, read_e820
from hibercheck.handoff.space import KernelSpace
from hibercheck.kernel.code.traits import Traits
from hibercheck.swsusp.image import Image

MAX_NODES = 1024
"""The largest MAX_NUMNODES: 1 << NODES_SHIFT, which is at most 10 (arch/x86/Kconfig)."""

_RESIZED = "give the resumer the memory that the hibernated kernel had: same firmware, same size, same devices"


def judge_measured(
    acceptance: Acceptance, image: Image, traits: Traits, e820: tuple[E820Entry, ...] | None, pages: int | None
) -> Acceptance:
    """Apply check_header()'s two tests of the machine to what the resumer itself has.

    Args:
        acceptance: The answer so far; a refusal stands.
        image: The image.
        traits: The resumer's code.
        e820: Its firmware memory map, or None where not known.
        pages: Its get_num_physpages(), or None where not known.
    """
    if acceptance.refusal is not None:
        return acceptance
    refusal = _memory_map(image, traits, e820) or _page_count(image, pages)
    return acceptance if refusal is None else replace(acceptance, refusal=refusal)


def _memory_map(image: Image, traits: Traits, e820: tuple[E820Entry, ...] | None) -> Refusal | None:
    """arch_hibernation_header_restore() compares checksums (arch/x86/power/hibernate.c); -EPERM."""
    if e820 is None:
        return None
    kind, record = traits.e820_check.value, image.record
    if kind == "crc32" and record.e820_checksum is not None:
        ours, theirs = f"{e820_checksum(e820):#010x}", f"{record.e820_checksum:#010x}"
    elif kind == "md5" and record.e820_digest is not None and any(record.e820_digest):
        import hashlib  # noqa: PLC0415 - it loads OpenSSL, for images of kernels before 5.14 only

        digest = hashlib.md5(pack_e820(e820), usedforsecurity=False)
        ours, theirs = digest.hexdigest(), record.e820_digest.hex()
    else:
        return None
    if ours == theirs:
        return None
    ram = sum(entry.size for entry in e820 if entry.kind == E820_RAM) >> 20
    return Refusal(
        f"has another firmware memory map than the image was made with: {len(e820)} ranges with {ram} MiB of RAM and "
        f"checksum {ours}, and the image says {theirs}",
        EPERM,
        _RESIZED,
    )


def _page_count(image: Image, pages: int | None) -> Refusal | None:
    if pages is None or pages == image.info.num_physpages:
        return None
    return Refusal(f"has {pages} pages of memory, and the image says {image.info.num_physpages}", EPERM, _RESIZED)


def judge_ram_end(acceptance: Acceptance, resumee: Resumee, cmdline: CommandLine, end: int | None) -> Acceptance:
    """Compare where RAM ends, for want of the resumer's whole map: if that differs, the maps and their checksums do.

    Only where neither command line edits the map: /proc/iomem shows it edited, the checksum is of the firmware's.
    """
    edited = any(line.mem_limit is not None or line.memmap for line in (cmdline, resumee.parameters))
    if acceptance.refusal is not None or edited or end is None or resumee.e820 is None:
        return acceptance
    expected = max((one.address + one.size for one in resumee.e820 if one.kind == E820_RAM), default=end)
    if expected == end:
        return acceptance
    reason = f"has RAM up to {end:#x}, and the machine of the image up to {expected:#x}"
    return replace(acceptance, refusal=Refusal(reason, EPERM, _RESIZED))


def firmware_map(space: KernelSpace) -> tuple[E820Entry, ...] | None:
    """Read the resumer's own firmware map out of its memory, or None where that cannot be done."""
    try:
        return read_e820(space)
    except MissingFact:
        return None


def physical_pages(space: KernelSpace) -> int | None:
    """Read get_num_physpages(): the sum of all nodes' node_present_pages (include/linux/mm.h).

    Returns:
        The number, or None where the kernel has no types or its nodes cannot be read.
    """
    try:
        offset = space.kernel.offset_of("pglist_data", "node_present_pages")
        return sum(space.number(node + offset) for node in _nodes(space))
    except MissingFact:
        return None


def _nodes(space: KernelSpace) -> list[int]:
    """Return the addresses of the memory nodes: node_data[] with NUMA, contig_page_data without."""
    if space.kernel.symbol("contig_page_data") is not None:
        return [space.address("contig_page_data")]
    symbol = space.kernel.require("node_data")
    if not symbol.size:
        raise MissingFact("the size of node_data is not known")
    count = min(symbol.size // 8, MAX_NODES)
    start = space.address("node_data")
    return [node for node in (space.number(start + 8 * index) for index in range(count)) if node]
