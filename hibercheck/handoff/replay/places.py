"""A resumer whose load address is random: every place where it may lie, in classes that come to the same.

What becomes of a CPU at an address depends on which of the frames that it uses are overwritten, and with what: the
pages of its loop, by the resumee's own text or by other memory, and the page tables of the resumer's image.  Addresses
that agree in that are one class, of which one is judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain

from hibercheck.addresses import PAGE_SHIFT, PAGE_SIZE, START_KERNEL_MAP
from hibercheck.data import dataclass
from hibercheck.errors import MissingFact
from hibercheck.handoff.facts.e820 import E820_RAM, E820Entry
from hibercheck.handoff.facts.resumee import Resumee
from hibercheck.handoff.scenario.known_place import ALIGNMENT, LARGEST_ALIGNMENT
from hibercheck.handoff.scenario.plan import Plan
from hibercheck.kernel.code.model import ParkLoop
from hibercheck.kernel.code.patching import same_code
from hibercheck.kernel.view import KernelView
from hibercheck.swsusp.image import Image

MAX_PLACEMENTS = 1 << 19
"""Places that are looked at, each some microseconds: those of 1 TiB of memory.  A map may claim any number of them."""

_LOAD_PHYSICAL_ADDRESS = 16 << 20  # CONFIG_PHYSICAL_START's default
_KASLR_RANGE = 1 << 30  # KERNEL_IMAGE_SIZE with RANDOMIZE_BASE, arch/x86/include/asm/page_64_types.h


@dataclass(frozen=True, slots=True)
class Sweep:
    """How many places there are, and in how many of them a CPU is lost or may be.

    Attributes:
        placements: How many there are.
        failing: In how many a CPU is lost, or may be.
        alignment: What they are multiples of, in bytes.
        places: All of them in ascending order: (physical displacement, how many follow one another in steps of the
            alignment, whether they fail).
    """

    placements: int
    failing: int
    alignment: int
    places: tuple[tuple[int, int, bool], ...] = ()


@dataclass(frozen=True, slots=True)
class PlaceClass:
    """Places that come to the same.

    Attributes:
        phys_base: The physical displacement of one of them.
        kaslr_offset: A virtual offset for it.
        count: How many there are.
        runs: All of them: (physical displacement, how many follow one another in steps of the alignment).
    """

    phys_base: int
    kaslr_offset: int
    count: int
    runs: tuple[tuple[int, int], ...] = ()


def placements(kernel: KernelView, e820: tuple[E820Entry, ...], lowest: int, alignment: int) -> list[range]:
    """Return every physical displacement at which the kernel may be loaded, as one range for each range of RAM.

    find_random_phys_addr() (arch/x86/boot/compressed/kaslr.c) takes aligned addresses in RAM, from where the kernel
    would be without KASLR upwards.  That it also avoids the initramfs and a few small regions is not modelled.

    Args:
        kernel: The resumer.
        e820: The machine's memory map.
        lowest: Its load address without KASLR.
        alignment: CONFIG_PHYSICAL_ALIGN.
    """
    size = kernel.require("_end").address - kernel.require("_text").address
    link = kernel.require("_text").address - START_KERNEL_MAP
    found = []
    for entry in e820:
        if entry.kind == E820_RAM:
            first = -(-max(entry.address, lowest) // alignment) * alignment
            found.append(range(first - link, entry.address + entry.size - size + 1 - link, alignment))
    return found


def classes_of(plan: Plan, levels: int) -> tuple[PlaceClass, ...]:
    """Put the places where the resumer may lie into classes.

    Raises:
        MissingFact: The image has no memory map, or one that no machine has.
    """
    offset = plan.placement.kaslr_offset
    offset = _other_offset(plan.resumee.space.kaslr_offset) if offset is None else offset
    if plan.placement.phys_base is not None:
        return (PlaceClass(plan.placement.phys_base, offset, 1),)
    if plan.resumee.e820 is None:
        problem = plan.resumee.missing.get("e820")
        raise MissingFact(f"the machine's memory map cannot be read from the image: {problem}")
    lowest = plan.traits.physical_start.value or _LOAD_PHYSICAL_ADDRESS
    ranges = placements(plan.resumer, plan.resumee.e820, lowest, alignment_of(plan))
    if not any(map(len, ranges)):
        raise MissingFact(f"the image's memory map has no place for {plan.resumer.release}")
    found: dict[tuple[object, ...], list[int]] = {}
    key_of = _key_of(plan, levels)
    for displacement in _looked_at(plan, ranges):
        found.setdefault(key_of(displacement), []).append(displacement)
    classes = [PlaceClass(same[0], offset, len(same), _runs(same, alignment_of(plan))) for same in found.values()]
    above = sum(map(len, ranges)) - sum(one.count for one in classes)
    if above:  # higher up nothing is copied
        highest = max(one[-1] for one in ranges if len(one))
        runs = tuple((one[-1] - (count - 1) * one.step, count) for one, count in _above(plan, ranges) if count)
        classes.append(PlaceClass(highest, offset, above, runs))
    return tuple(classes)


def alignment_of(plan: Plan) -> int:
    """Return what the resumer's random load address is a multiple of, in bytes."""
    return plan.asking.need(ALIGNMENT).value


def _runs(places: Sequence[int], step: int) -> tuple[tuple[int, int], ...]:
    """Put ascending places that follow one another together."""
    runs: list[tuple[int, int]] = []
    for place in places:
        if runs and place == runs[-1][0] + runs[-1][1] * step:
            runs[-1] = runs[-1][0], runs[-1][1] + 1
        else:
            runs.append((place, 1))
    return tuple(runs)


def _other_offset(theirs: int) -> int:
    """Return a virtual offset that is not the resumee's: both at the same one of 500 is not reckoned with."""
    return (theirs + LARGEST_ALIGNMENT) % (_KASLR_RANGE // 2)


def _looked_at(plan: Plan, ranges: list[range]) -> Iterator[int]:
    """Yield the places up to the last frame that is copied.

    Raises:
        MissingFact: There are more than can be looked at.
    """
    looked_at = [one[: len(one) - above] for one, above in _above(plan, ranges)]
    if sum(map(len, looked_at)) > MAX_PLACEMENTS:
        raise MissingFact(f"the image's memory map has more than {MAX_PLACEMENTS} places for {plan.resumer.release}")
    yield from chain.from_iterable(looked_at)


def _above(plan: Plan, ranges: list[range]) -> Iterator[tuple[range, int]]:
    """Yield each range with how many of its places lie above the last frame that is copied."""
    end = (plan.image.pfns.last + 1 << PAGE_SHIFT) + START_KERNEL_MAP - plan.resumer.require("_text").address
    for one in ranges:
        yield one, max(0, len(one) - max(0, -(-(end - one.start) // one.step)))


def _key_of(plan: Plan, levels: int) -> Callable[[int], tuple[object, ...]]:
    """Return a function that says of a place all that decides there."""
    names = ["init_top_pgt", "level3_kernel_pgt", "level2_kernel_pgt"] + (["level4_kernel_pgt"] if levels == 5 else [])
    tables = [plan.resumer.require(name).address - START_KERNEL_MAP for name in names]
    loops = tuple(dict.fromkeys(parked.loop for parked in plan.parked if parked.loop is not None))
    pages = [(loop, *piece) for loop in loops for piece in _pages_of(loop)]
    image, space = plan.image, plan.resumee.space

    def key(displacement: int) -> tuple[object, ...]:
        states = [
            _page_state(image, plan.resumer, plan.resumee, loop, address, size, displacement)
            for loop, address, size in pages
        ]
        covered = tuple((table + displacement) >> PAGE_SHIFT in image.pfns for table in tables)
        return (*states, covered, displacement == space.phys_base)

    return key


def _pages_of(loop: ParkLoop) -> Iterator[tuple[int, int]]:
    for start, end in loop.ranges:
        address = start
        while address < end:
            size = min(end - address, PAGE_SIZE - address % PAGE_SIZE)
            yield address, size
            address += size


def _page_state(
    image: Image, resumer: KernelView, resumee: Resumee, loop: ParkLoop, address: int, size: int, displacement: int
) -> str:
    """Say whether a page of a loop is overwritten, and whether with the same code.

    Only the resumee's own text can hold the same code, so nothing else need be decoded.
    """
    physical = address - START_KERNEL_MAP + displacement
    if physical >> PAGE_SHIFT not in image.pfns:
        return "kept"
    if not resumee.space.in_image(physical):
        return "other"
    content = image.frame(physical >> PAGE_SHIFT)
    offset = physical % PAGE_SIZE
    if content is None or not same_code(
        resumer.read(address, size), content[offset : offset + size], address, loop.patchable
    ):
        return "other"
    return "same"
