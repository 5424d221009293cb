"""A resumer whose load address is random: every place where it may lie, and in how many of them a CPU is lost."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from hibercheck.addresses import PAGE_SHIFT, PAGE_SIZE, START_KERNEL_MAP
from hibercheck.data import dataclass
from hibercheck.errors import MissingFact
from hibercheck.handoff.loop_replay import same_code
from hibercheck.handoff.resumee import E820_RAM, E820Entry, Resumee
from hibercheck.kernel.code.model import ParkLoop
from hibercheck.kernel.view import KernelView
from hibercheck.swsusp.image import Image

MAX_PLACEMENTS = 1 << 19
"""Places that are looked at, each some microseconds: those of 1 TiB of memory.  A map may claim any number of them."""

ALIGNMENT = 1 << 21
"""CONFIG_PHYSICAL_ALIGN is at least 2 MiB on x86-64 (arch/x86/Kconfig)."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """The result: how many placements there are and how many of them fail."""

    placements: int
    failing: int


def placements(kernel: KernelView, e820: tuple[E820Entry, ...], lowest: int) -> Iterator[range]:
    """Yield every physical displacement at which the kernel may be loaded, as one range for each range of RAM.

    find_random_phys_addr() (arch/x86/boot/compressed/kaslr.c) takes aligned addresses in RAM, from where the kernel
    would be without KASLR upwards.  That it also avoids the initramfs and a few small regions is not modelled.

    Args:
        kernel: The resumer.
        e820: The machine's memory map.
        lowest: Its load address without KASLR.
    """
    size = kernel.require("_end").address - kernel.require("_text").address
    link = kernel.require("_text").address - START_KERNEL_MAP
    for entry in e820:
        if entry.kind != E820_RAM:
            continue
        first = (max(entry.address, lowest) + ALIGNMENT - 1) & ~(ALIGNMENT - 1)
        yield range(first - link, entry.address + entry.size - size + 1 - link, ALIGNMENT)


def sweep(
    image: Image,
    resumer: KernelView,
    resumee: Resumee,
    loops: tuple[ParkLoop, ...],
    lowest: int,
    *,
    tables_matter: bool,
    levels: int,
) -> Sweep:
    """Count the placements in which a CPU that is woken is lost.

    Args:
        image: The image.
        resumer: The resumer.
        resumee: The resumee, for the memory map and its own text.
        loops: The loops in which woken CPUs wait.
        lowest: The resumer's load address without KASLR.
        tables_matter: Whether overwritten page tables alone are fatal: the resumee's do not map a random address of
            the resumer, so a CPU without a cached translation is lost.
        levels: The resumer's levels of page tables.

    Raises:
        MissingFact: The image has no memory map, or one that no machine has.
    """
    if resumee.e820 is None:
        raise MissingFact(f"the machine's memory map cannot be read from the image: {resumee.missing.get('e820')}")
    names = ["init_top_pgt", "level3_kernel_pgt", "level2_kernel_pgt"] + (["level4_kernel_pgt"] if levels == 5 else [])
    tables = [resumer.require(name).address - START_KERNEL_MAP for name in names]
    failing = 0
    ranges = list(placements(resumer, resumee.e820, lowest))
    total = sum(map(len, ranges))
    if not total:
        raise MissingFact(f"the image's memory map has no place for {resumer.release}")
    above = (image.pfns.last + 1 << PAGE_SHIFT) + START_KERNEL_MAP - resumer.require("_text").address
    looked_at = [one[: max(0, -(-(above - one.start) // ALIGNMENT))] for one in ranges]  # higher up nothing is copied
    if sum(map(len, looked_at)) > MAX_PLACEMENTS:
        raise MissingFact(f"the image's memory map has more than {MAX_PLACEMENTS} places for {resumer.release}")
    for displacement in chain.from_iterable(looked_at):
        lost = any(_loop_lost(image, resumer, resumee, loop, displacement) for loop in loops)
        if not lost and tables_matter:
            lost = any((table + displacement) >> PAGE_SHIFT in image.pfns for table in tables)
        failing += lost
    return Sweep(total, failing)


def _loop_lost(image: Image, resumer: KernelView, resumee: Resumee, loop: ParkLoop, displacement: int) -> bool:
    """Tell whether the frames of a loop are overwritten with other bytes."""
    for start, end in loop.ranges:
        address = start
        while address < end:
            size = min(end - address, PAGE_SIZE - address % PAGE_SIZE)
            physical = address - START_KERNEL_MAP + displacement
            if physical >> PAGE_SHIFT in image.pfns and not _same_bytes(
                image, resumer, resumee, loop, address, physical, size
            ):
                return True
            address += size
    return False


def _same_bytes(
    image: Image, resumer: KernelView, resumee: Resumee, loop: ParkLoop, address: int, physical: int, size: int
) -> bool:
    """Compare; only the resumee's own text can hold the same code, so nothing else need be decoded."""
    if not resumee.space.in_image(physical):
        return False
    content = image.frame(physical >> PAGE_SHIFT)
    if content is None:
        return False
    offset = physical % PAGE_SIZE
    return same_code(resumer.read(address, size), content[offset : offset + size], address, loop.patchable)
