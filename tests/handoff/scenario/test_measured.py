"""What was measured has to be of this kernel, and of this resume."""

from __future__ import annotations

import struct
from dataclasses import replace
from types import SimpleNamespace

import pytest

from hibercheck.addresses import START_KERNEL_MAP
from hibercheck.errors import Mismatch
from hibercheck.handoff.facts.logged import LogFacts
from hibercheck.handoff.scenario.measured import (
    check_boot,
    check_dump,
    check_facts,
    kaslr_offset,
    other_image,
    phys_base,
    remark_dump,
)
from tests.support.made_inputs import (
    LINKED,
    Kernel,
    asking,
    made_collected,
    made_dumped,
    made_image,
    made_resumee,
    made_space,
)

EARLY, LATE = 1_700_000_000, 1_700_000_100
BOOT = bytes(range(16))


def spoken(*, seconds=None, boot=None):
    """Return an address space with a clock and a boot id."""
    symbols = {"tk_core": 0x1000} if seconds else {}
    symbols |= {"sysctl_bootid": 0x2000} if boot else {}
    space = made_space(Kernel(**symbols))
    content = {0x1000: struct.pack("<32Q", seconds * 10**9, seconds, *[0] * 30) if seconds else b"", 0x2000: boot}
    return SimpleNamespace(**vars(space), address=symbols.__getitem__, read=lambda at, size: content[at][:size])


IMAGE = made_image(jump_address=0xFFFF_FFFF_8100_0000, cr3=0x1A0A000)


@pytest.mark.parametrize(("restores", "boots", "problem"), [
    ((IMAGE.record.jump_address, IMAGE.record.cr3), (BOOT, BOOT), None),
    ((IMAGE.record.jump_address, 0x1A0B000), (None, None), "shows another image loaded"),
    ((0xFFFF_FFFF_8200_0000, IMAGE.record.cr3), (None, None), "shows another image loaded"),
    (None, (BOOT, BOOT), "is of the boot that hibernated"),
    (None, (BOOT, BOOT[::-1]), None), (None, (None, None), None), (None, (BOOT, None), None),
])  # fmt: skip
def test_a_dump_of_another_resume_is_refused(restores, boots, problem):
    dumped = made_dumped(spoken(boot=boots[0]), restores=restores)
    resumee = made_resumee(spoken(boot=boots[1]))
    if problem is None:
        check_dump(dumped, IMAGE, resumee)
        return
    with pytest.raises(Mismatch, match=problem):
        check_dump(dumped, IMAGE, resumee)


ID = "00010203-0405-0607-0809-0a0b0c0d0e0f"
PLACE = {"text_address": START_KERNEL_MAP + LINKED + 0x5000000, "load_address": LINKED + 0x3000000}


@pytest.mark.parametrize(("facts", "boot", "offset", "problem"), [
    ({"boot_id": f"{ID}\n"}, BOOT, 0, f"boot id {ID}"), ({"boot_id": ID}, BOOT[::-1], 0, None),
    ({"boot_id": ID}, None, 0, None), ({}, BOOT, 0, None),
    (PLACE, None, 0x5000000, "at the random address 0x5000000"), (PLACE, None, 0x6000000, None),
    (PLACE | {"load_address": LINKED}, None, 0x5000000, None), (PLACE | {"load_address": None}, None, 0x5000000, None),
    # without KASLR every boot lies there
    ({"text_address": START_KERNEL_MAP + LINKED, "load_address": LINKED + 0x3000000}, None, 0, None),
])  # fmt: skip
def test_facts_of_the_boot_that_hibernated_are_refused(facts, boot, offset, problem):
    resumee = made_resumee(
        SimpleNamespace(**{**vars(spoken(boot=boot)), "kaslr_offset": offset, "phys_base": 0x3000000})
    )
    collected = made_collected(**facts)
    if problem is None:
        check_boot(collected, Kernel(), resumee)
        return
    with pytest.raises(Mismatch, match=problem):
        check_boot(collected, Kernel(), resumee)


@pytest.mark.parametrize(("frames", "strange"), [
    ((0x10, 0x11, 0x20, 0x21), None), ((0x11, 0x21), None), ((), None), (None, None),
    ((0x0F, 0x10), 0xF), ((0,), 0), ((0x10, 0x12, 0x20), 0x12), ((0x20, 0x22), 0x22), ((0x1F,), 0x1F),
])  # fmt: skip
def test_a_dump_that_copies_frames_which_the_image_does_not_hold_is_of_another(frames, strange):
    """Images of one kernel are entered alike; what they hold tells them apart."""
    image = made_image(runs=((0x10, 2), (0x20, 2)), jump_address=0xFFFF_FFFF_8100_0000, cr3=0x1A0A000)
    given = {"restores": (image.record.jump_address, image.record.cr3)}
    dumped = replace(made_dumped(spoken(), **given), copies=SimpleNamespace(frames=frames))
    if strange is None:
        check_dump(dumped, image, made_resumee(spoken()))
        return
    with pytest.raises(Mismatch, match=f"frame {strange:#x}, which this one does not hold"):
        check_dump(dumped, image, made_resumee(spoken()))


def test_an_image_may_hold_the_first_frame():
    image = made_image(runs=((0, 1), (0x20, 2)), jump_address=0xFFFF_FFFF_8100_0000, cr3=0x1A0A000)
    for frames, known in (((0, 0x21), True), ((0, 1), False), ((0x20,), True)):
        dumped = made_dumped(spoken(), restores=(image.record.jump_address, image.record.cr3))
        dumped = replace(dumped, copies=SimpleNamespace(frames=frames))
        assert (other_image(dumped, image) is None) is known


@pytest.mark.parametrize(("loads", "another"), [
    (IMAGE.info.image_pages, False), (IMAGE.info.image_pages - 1, True), (None, False),
])  # fmt: skip
def test_an_image_of_the_same_kernel_has_another_number_of_pages(loads, another):
    """One kernel at one address enters every image of it in the same way."""
    dumped = made_dumped(restores=(IMAGE.record.jump_address, IMAGE.record.cr3), loads=loads)
    assert (other_image(dumped, IMAGE) is not None) is another
    if another:
        with pytest.raises(Mismatch, match="shows another image loaded: it has 4095 pages of data, and this one 4096"):
            check_dump(dumped, IMAGE, made_resumee(spoken()))


@pytest.mark.parametrize(("taken", "written", "restores", "what_if", "told"), [
    (EARLY, LATE, None, False, True), (LATE, EARLY, None, False, False), (LATE, LATE, None, False, False),
    (EARLY, LATE, (1, 2), False, False), (EARLY, LATE, None, True, False), (None, LATE, None, False, False),
    (EARLY, None, None, False, False),
])  # fmt: skip
def test_a_dump_that_is_older_than_the_image_is_told(taken, written, restores, what_if, told):
    dumped = made_dumped(spoken(seconds=taken), restores=restores)
    found = asking(dumped=dumped, resumee=made_resumee(spoken(seconds=written)), what_if=what_if)
    remark_dump(found)
    assert bool(found.remarks) is told
    assert not told or "may be of another boot" in next(iter(found.remarks))


OWN = "Linux version 6.1.0 (a@b) #1"


@pytest.mark.parametrize(("banner", "same"), [
    (OWN, True), (f" {OWN}\n", True), (None, True), ("Linux version 6.1.1 (a@b) #1", False), ("", False),
])  # fmt: skip
@pytest.mark.parametrize("log", [False, True])
def test_facts_and_a_log_are_of_the_resumer_s_kernel(banner, same, log):
    """What they do not say contradicts nothing."""
    facts = LogFacts("dmesg", banner=banner) if log else made_collected(banner=banner)
    if same:
        check_facts(facts, Kernel(banner=f"{OWN}\n"))
        return
    said = f"dmesg: is of '{banner}', not of '{OWN}'" if log else f"was collected on '{banner}', not on '{OWN}'"
    with pytest.raises(Mismatch) as caught:
        check_facts(facts, Kernel(banner=f"{OWN}\n"))
    assert said in str(caught.value)


@pytest.mark.parametrize(("facts", "offset", "base"), [
    ({}, None, None), ({"kernel_offset": 0x5000000, "phys_base": 0x3000000}, 0x5000000, 0x3000000),
    (PLACE, 0x5000000, 0x3000000), (PLACE | {"kernel_offset": 1, "phys_base": 2}, 0x5000000, 0x3000000),
])  # fmt: skip
def test_where_facts_have_the_kernel(facts, offset, base):
    """By the addresses of its text, or by what its notes say of its displacements."""
    collected = made_collected(**{"kernel_offset": None, "phys_base": None, **facts})
    assert (kaslr_offset(collected, Kernel()), phys_base(collected, Kernel())) == (offset, base)


def test_without_a_dump_none_is_older_than_the_image():
    found = asking(resumee=made_resumee(spoken(seconds=LATE)))
    remark_dump(found)
    assert not found.remarks
