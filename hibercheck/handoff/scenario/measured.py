"""What was measured of the resumer: whether it is of this kernel and of this resume, and where the kernel lies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hibercheck.addresses import START_KERNEL_MAP
from hibercheck.errors import Mismatch
from hibercheck.handoff.facts.resumee import Resumee
from hibercheck.handoff.facts.session import boot_id_of, shown_time, written_by
from hibercheck.handoff.scenario.sources import Asking, InDump
from hibercheck.kernel.view import KernelView
from hibercheck.swsusp.image import Image

if TYPE_CHECKING:
    from hibercheck.handoff.facts.logged import LogFacts
    from hibercheck.handoff.facts.resumer_facts import ResumerFacts


def check_facts(facts: ResumerFacts | LogFacts, resumer: KernelView) -> None:
    """Refuse facts, or a log, of another kernel.

    Raises:
        Mismatch: /proc/version is not the resumer's banner.
    """
    from hibercheck.handoff.facts.logged import LogFacts  # noqa: PLC0415 - few checks are given either

    if facts.banner is not None and facts.banner.strip() != resumer.banner.strip():
        raise Mismatch(
            f"is of '{facts.banner.strip()}', not of '{resumer.banner.strip()}'"
            if isinstance(facts, LogFacts)
            else f"was collected on '{facts.banner.strip()}', not on '{resumer.banner.strip()}'",
            path=facts.path,
            advice="give the log of the resumer's boot" if isinstance(facts, LogFacts) else "collect it on the resumer",
        )


def check_boot(facts: ResumerFacts, resumer: KernelView, resumee: Resumee) -> None:
    """Refuse facts of the boot that hibernated: where that kernel lies says nothing of the boot that resumes.

    Raises:
        Mismatch: The boot has the image's id, or its kernel lies at the same random address, virtual and physical.
    """
    space = resumee.space
    same_boot = facts.boot_id is not None and facts.boot_id.strip() == boot_id_of(space)
    place = (kaslr_offset(facts, resumer), phys_base(facts, resumer))
    same_place = bool(space.kaslr_offset) and place == (space.kaslr_offset, space.phys_base)
    if same_boot or same_place:
        sign = f"boot id {boot_id_of(space)}" if same_boot else f"at the random address {space.kaslr_offset:#x}"
        raise Mismatch(
            f"was collected on the boot that hibernated ({sign}), not on one that resumes",
            path=facts.path,
            advice="collect it on the resumer, before it resumes",
        )


def check_dump(dumped: InDump, image: Image, resumee: Resumee) -> None:
    """Refuse a dump of another resume than that of this image.

    What a resumer is going to jump to, and with which CR3, it has out of the header of the image that it has loaded.

    Raises:
        Mismatch: It shows another image loaded, or is of the boot that hibernated.
    """
    other = other_image(dumped, image)
    if other is not None:
        raise Mismatch(f"shows another image loaded: {other}", path=dumped.path, advice=f"{_OF_THIS} of another run")
    theirs = boot_id_of(dumped.space) if dumped.facts.restores is None else None
    if theirs is not None and theirs == boot_id_of(resumee.space):
        raise Mismatch(f"is of the boot that hibernated ({theirs}), not of one that resumes", path=dumped.path)


def other_image(dumped: InDump, image: Image) -> str | None:
    """Say what shows that a resumer in a dump has another image loaded; None where it has this one, or none."""
    record, restores, loads = image.record, dumped.facts.restores, dumped.facts.loads
    if restores is None:
        return None
    if restores != (record.jump_address, record.cr3):
        return (
            f"it is to be entered at {restores[0]:#x} with CR3 {restores[1]:#x}, and this one at "
            f"{record.jump_address:#x} with CR3 {record.cr3:#x}"
        )
    if loads is not None and loads != image.info.image_pages:
        return f"it has {loads} pages of data, and this one {image.info.image_pages}"
    strange = _strange(dumped.copies.frames or (), image)
    return None if strange is None else f"it is to copy frame {strange:#x}, which this one does not hold"


_OF_THIS = "give a dump of this resume, or add --what-if to take hardware and placement"


def _strange(frames: tuple[int, ...], image: Image) -> int | None:
    """Return the first frame of an ascending list that an image does not hold, or None."""
    runs = iter(image.pfns.runs())
    first = end = 0
    for pfn in frames:
        while pfn >= end:
            run = next(runs, None)
            if run is None:
                return pfn
            first, end = run[0], run[0] + run[1]
        if pfn < first:
            return pfn
    return None


def remark_dump(asking: Asking) -> None:
    """Say that a dump is older than the image, by the clocks of both."""
    dumped = asking.inputs.dumped
    if dumped is None or asking.supposed or dumped.facts.restores is not None:
        return
    taken, written = (written_by(space) for space in (dumped.space, asking.inputs.resumee.space))
    if taken is not None and written is not None and taken < written:
        asking.remark(
            f"the dump was taken at {shown_time(taken)} by its clock, and the image written at {shown_time(written)}: "
            "it may be of another boot than the one that resumes"
        )


def kaslr_offset(facts: ResumerFacts, resumer: KernelView) -> int | None:
    """Return the virtual KASLR offset, or None where the facts do not give it."""
    if facts.text_address is None:
        return facts.kernel_offset
    return facts.text_address - resumer.require("_text").address


def phys_base(facts: ResumerFacts, resumer: KernelView) -> int | None:
    """Return the physical displacement, or None where the facts do not give it."""
    if facts.load_address is None:
        return facts.phys_base
    return facts.load_address - (resumer.require("_text").address - START_KERNEL_MAP)
