"""Is the machine's memory still the one that was saved, and is there room to load it: each test of the resumer's."""

from __future__ import annotations

import hashlib

import pytest

from hibercheck.handoff.acceptance import machine
from hibercheck.handoff.acceptance.held import unloadable
from hibercheck.handoff.acceptance.refusal import EFAULT, ENOMEM, EPERM, Question
from hibercheck.handoff.facts.e820 import E820Entry, e820_checksum, pack_e820
from hibercheck.handoff.facts.firmware_map import FirmwareMap
from tests.support.made_inputs import Kernel, made_dumped, made_image, made_plan, made_resumee, made_space

MIB = 1 << 20
LOW, HOLE, HIGH = E820Entry(0, MIB, 1), E820Entry(MIB, MIB, 2), E820Entry(2 * MIB, 126 * MIB, 1)
MAP = (LOW, HOLE, HIGH)
GROWN = (*MAP, E820Entry(256 * MIB, MIB, 1))
CRC = {"e820_check": "crc32"}
MISMATCH = "PM: hibernation: Image mismatch: architecture specific data"


def asked(test, **given):
    """Return the refusal of one test, or None, and what it remarks."""
    question = Question(made_plan(**given))
    return getattr(machine, test)(question), question.remarks


def kernel_map(entries):
    return {"firmware": FirmwareMap(entries, "kernel")}


def with_map(entries=MAP, *, theirs=MAP, **given):
    """Return what is given where the resumer's map was collected, and the image has a checksum of ``theirs``."""
    return {
        "image": made_image(e820_checksum=e820_checksum(theirs)), "resumee": made_resumee(e820=theirs), "traits": CRC,
        "collected": None if entries is None else kernel_map(entries), **given,
    }  # fmt: skip


@pytest.mark.parametrize(("given", "refuses"), [
    (with_map(), False), (with_map(GROWN), True), (with_map(MAP[::-1]), True),
    (with_map(GROWN, traits={"e820_check": "none"}), False), (with_map(GROWN, traits={}), False),
    (with_map(GROWN, image=made_image()), False),  # an image without a checksum
    (with_map(None), False), (with_map(None, resumee=made_resumee(e820=None)), False),
    (with_map(None, dumped=made_dumped(e820=GROWN)), True),
])  # fmt: skip
def test_the_checksum_of_the_firmwares_map(given, refuses):
    found, remarks = asked("memory_map", **given)
    assert (found is not None) is refuses
    assert remarks == []
    if found:
        assert (found.test, found.errno, found.keeps_image) == ("memory-map", EPERM, False)
        assert found.log == (
            "Hibernate inconsistent memory map detected!", MISMATCH, "PM: hibernation: resume failed (-1)",
        )  # fmt: skip
        assert "same firmware" in found.advice


def test_ranges_that_differ_are_named():
    assert asked("memory_map", **with_map(GROWN))[0].reason.endswith(
        "has another firmware memory map than that with which the image was made: 0x10000000-0x100fffff is RAM and "
        "was nothing"
    )
    assert asked("memory_map", **with_map(MAP[:2], theirs=MAP))[0].reason.endswith("is nothing and was RAM")
    cut = (LOW, HOLE, E820Entry(2 * MIB, MIB, 1), E820Entry(3 * MIB, 125 * MIB, 1))
    assert asked("memory_map", **with_map(cut))[0].reason.endswith(": the same ranges, cut or ordered otherwise")
    odd = (LOW, HOLE, HIGH, E820Entry(256 * MIB, MIB, 77))
    assert asked("memory_map", **with_map(odd))[0].reason.endswith("is type 77 and was nothing")


@pytest.mark.parametrize(("more", "said"), [(4, None), (5, ", and 1 more"), (6, ", and 2 more")])
def test_of_many_ranges_the_first_are_named(more, said):
    many = (*MAP, *(E820Entry((256 + 2 * number) * MIB, MIB, 1) for number in range(more)))
    reason = asked("memory_map", **with_map(many))[0].reason
    assert reason.count("is RAM and was nothing") == 4
    assert reason.endswith(said) if said else "more" not in reason


def test_where_the_resumees_map_is_not_the_one_of_the_checksum_ranges_are_counted():
    reason = asked("memory_map", **with_map(GROWN, resumee=made_resumee(e820=MAP[:1])))[0].reason
    assert reason.endswith("4 ranges, of which the checksum is not the one that the image has")
    assert asked("memory_map", **with_map(GROWN, resumee=made_resumee()))[0].reason.endswith("that the image has")


def test_an_image_whose_own_map_has_another_checksum_is_damaged():
    found, _ = asked("memory_map", **with_map(None, resumee=made_resumee(e820=GROWN)))
    assert (found.test, found.advice) == ("memory-map", "the image is damaged; hibernate again")


RESERVED = (LOW, HOLE, E820Entry(2 * MIB, 125 * MIB, 1), E820Entry(127 * MIB, MIB, 2))


@pytest.mark.parametrize(("shown", "theirs", "refuses"), [
    (RESERVED, MAP, False),  # the kernel has reserved some of it since
    (GROWN, MAP, True),
    (RESERVED, None, False),  # nothing to hold it against
])  # fmt: skip
def test_a_map_out_of_sysfs_is_perhaps_not_the_one_that_is_compared(shown, theirs, refuses):
    given = with_map(None, resumee=made_resumee(e820=theirs), collected={"firmware": FirmwareMap(shown, "sysfs")})
    found, remarks = asked("memory_map", **given)
    assert (found is not None) is refuses
    assert len(remarks) == (not refuses)
    if remarks:
        assert "/sys/firmware/memmap" in remarks[0]
        said = "0x7f00000-0x7ffffff is reserved and was RAM" if theirs else "its checksum is another"
        assert f"({said})" in remarks[0]


def test_older_kernels_compare_a_digest():
    digest = hashlib.md5(pack_e820(MAP)).digest()  # noqa: S324 - the kernel's choice
    given = {"traits": {"e820_check": "md5"}, "resumee": made_resumee(e820=MAP)}
    for record, entries, refuses in ((digest, MAP, False), (digest, GROWN, True), (bytes(16), GROWN, False),
                                     (None, GROWN, False), (b"x" * 16, MAP, True)):  # fmt: skip
        found, _ = asked("memory_map", **given, image=made_image(e820_digest=record), collected=kernel_map(entries))
        assert (found is not None) is refuses
    mixed = made_image(e820_digest=digest)  # a checksum of the other kind is none
    assert asked("memory_map", **{**given, "traits": CRC}, image=mixed, collected=kernel_map(GROWN))[0] is None


@pytest.mark.parametrize(("end", "ours", "theirs", "more", "refuses"), [
    (128 * MIB, "", "", {}, False), (129 * MIB, "", "", {}, True), (127 * MIB, "", "", {}, True),
    (None, "", "", {}, False), (129 * MIB, "mem=1G", "", {}, False), (129 * MIB, "", "mem=1G", {}, False),
    (129 * MIB, "", "", {"traits": {"e820_check": "none"}}, False),
])  # fmt: skip
def test_for_want_of_the_map_the_end_of_ram_is_compared(end, ours, theirs, more, refuses):
    given = with_map(None, resumee=made_resumee(e820=MAP, command_line=theirs), **more)
    found, _ = asked("memory_map", **{**given, "collected": {"ram_end": end}, "resumer_cmdline": ours})
    assert (found is not None) is refuses
    if found:
        assert found.reason == f"has RAM up to {end:#x}, and the machine of the image up to {128 * MIB:#x}"
        assert found.test == "memory-map"


def test_the_end_of_ram_is_that_of_its_highest_range_of_ram():
    beyond = (*MAP, E820Entry(512 * MIB, MIB, 2))
    given = {**with_map(None, theirs=beyond), "resumer_cmdline": ""}
    assert asked("memory_map", **{**given, "collected": {"ram_end": 128 * MIB}})[0] is None
    unordered = {**with_map(None, theirs=(HIGH, LOW)), "resumer_cmdline": ""}
    assert asked("memory_map", **{**unordered, "collected": {"ram_end": 128 * MIB}})[0] is None
    none = {**with_map(None, theirs=(HOLE,)), "resumer_cmdline": ""}
    assert asked("memory_map", **{**none, "collected": {"ram_end": 128 * MIB}})[0] is None


PAGES = 32768


@pytest.mark.parametrize(("given", "reason"), [
    ({}, None), ({"facts": (("pages", "32768"),)}, None),
    ({"facts": (("pages", "5"),)}, "has 5 pages of memory, and the image says 32768"),
    ({"resumee": made_resumee(boot_pages=32000)},
     "has 32000 pages of memory, and the image says 32768: 768 pages were added to the resumee while it ran"),
    ({"resumee": made_resumee(boot_pages=33000)},
     "has 33000 pages of memory, and the image says 32768: 232 pages were taken from the resumee while it ran"),
    ({"resumee": made_resumee(e820=MAP), "resumer_cmdline": "mem=64M"},
     "has 16384 pages of memory, and the image says 32768: mem=64M on its command line"),
    ({"resumee": made_resumee(e820=MAP, command_line="mem=64M"), "resumer_cmdline": ""},
     "has 49152 pages of memory, and the image says 32768: the resumee was booted with mem=64M"),
    ({"resumee": made_resumee(e820=MAP, boot_pages=32767), "resumer_cmdline": "mem=64M"},
     "has 16383 pages of memory, and the image says 32768: mem=64M on its command line and 1 pages were added to the "
     "resumee while it ran"),
])  # fmt: skip
def test_the_number_of_pages(given, reason):
    found, _ = asked("pages", **given)
    assert (None if found is None else found.reason) == reason
    if found:
        assert (found.test, found.errno, found.keeps_image) == ("pages", EPERM, False)
        assert found.log == ("PM: hibernation: Image mismatch: memory size", "PM: hibernation: resume failed (-1)")


@pytest.mark.parametrize(("ours", "theirs", "advice"), [
    ("mem=64M", "", "boot it without mem=64M"), ("", "mem=64M", "boot it with mem=64M"),
    ("mem=64M", "mem=32M", "boot it with mem=32M"),
])  # fmt: skip
def test_what_to_do_about_another_number_of_pages(ours, theirs, advice):
    resumee = made_resumee(e820=MAP, command_line=theirs)
    assert asked("pages", resumee=resumee, resumer_cmdline=ours)[0].advice == advice
    measured = {"resumee": resumee, "resumer_cmdline": ours, "facts": (("pages", "5"),)}
    assert "same firmware" in asked("pages", **measured)[0].advice
    grown = made_resumee(boot_pages=5, command_line=theirs)
    assert "same firmware" in asked("pages", resumee=grown, resumer_cmdline=theirs)[0].advice


@pytest.mark.parametrize(("runs", "resumee", "more", "refuses"), [
    (((0x100, 0x10), (0x300, 0x10)), made_resumee(e820=MAP), {}, False),
    (((0x7FFF, 2),), made_resumee(e820=MAP), {}, True),  # beyond the last frame of RAM
    (((0x7FFF, 2),), made_resumee(), {}, False),  # there is no map
    (((0x7FFF, 2),), made_resumee(e820=MAP, boot_pages=32000), {"facts": (("pages", "32768"),)}, False),
    (((0x7FFF, 2),), made_resumee(e820=MAP, boot_pages=33000), {"facts": (("pages", "32768"),)}, True),
    (((0x7FFF, 2),), made_resumee(e820=MAP), {"facts": (("pages", "5"),)}, False),  # it is refused before
    (((0x4000, 1),), made_resumee(e820=MAP, command_line="mem=64M"), {"resumer_cmdline": "mem=64M"}, True),
])  # fmt: skip
def test_frames_that_are_no_memory(runs, resumee, more, refuses):
    found, _ = asked("frames", image=made_image(runs=runs), resumee=resumee, **more)
    assert (found is not None) is refuses
    if found:
        assert (found.test, found.errno, found.keeps_image) == ("frames", EFAULT, False)
        lost = 0x4000 if "resumer_cmdline" in more else 0x8000
        assert found.reason == f"has no memory at frame {lost:#x}, which the image holds"


SECTION = 0x8000


@pytest.mark.parametrize(("held", "lost"), [
    # pfn_valid() is true of all of a section of 128 MiB that has any memory; zones go from its first frame to its last
    ([(1, 1)], None), ([(0, 1)], 0), ([(SECTION - 1, 1)], None),
    ([(SECTION - 1, 2)], SECTION), ([(SECTION, 1)], SECTION),
    ([(2 * SECTION - 1, 1)], 2 * SECTION - 1), ([(2 * SECTION, 1)], None), ([(3 * SECTION - 1, 1)], None),
    ([(3 * SECTION, 5)], None), ([(3 * SECTION, 6)], 3 * SECTION + 5), ([(3 * SECTION + 7, 1)], 3 * SECTION + 7),
    ([(1, 1), (2 * SECTION, 1), (SECTION + 3, 2)], SECTION + 3), ([], None), ([(1, 3 * SECTION)], SECTION),
])  # fmt: skip
def test_sections_without_memory(held, lost):
    ram = [(1, SECTION), (2 * SECTION, 2 * SECTION + 1), (3 * SECTION - 1, 3 * SECTION + 5)]
    assert unloadable(held, ram) == lost


KERNEL = Kernel(_end=0xFFFFFFFF81000000 + 16 * MIB)


def roomy(held=0x1000, **given):
    resumee = made_resumee(made_space(KERNEL))
    return asked("room", image=made_image(runs=((0x100, held),)), resumee=resumee, **given)[0]


def test_what_a_kernel_has_for_itself_is_its_image_and_a_struct_page_of_64_bytes_for_each_frame():
    assert machine.least_used(Question(made_plan(resumee=made_resumee(made_space(KERNEL))))) == 4096 + 32768 // 64
    assert machine.least_used(Question(made_plan())) == 512
    odd = Kernel(_text=0xFFFFFFFF7F000000, _end=0xFFFFFFFF80000000 + MIB)  # its image begins where kernels do
    assert machine.least_used(Question(made_plan(resumee=made_resumee(made_space(odd))))) == 256 + 512


@pytest.mark.parametrize(("held", "given", "refuses"), [
    (32768 - 4096 - 512, {}, False), (32768 - 4096 - 511, {}, True),
    (32768 - 4096 - 512 - 256, {"resumer_cmdline": "hugepagesz=1M hugepages=0"}, False),
    (20000, {"resumer_cmdline": "hugepages=20"}, True), (17000, {"resumer_cmdline": "hugepages=20"}, False),
    (4096, {"facts": (("free-pages", "4096"),)}, False), (4097, {"facts": (("free-pages", "4096"),)}, True),
    (30000, {"facts": (("free-pages", "30000"),)}, False),  # it is said, however little that may leave
])  # fmt: skip
def test_room_for_each_frame_of_the_image(held, given, refuses):
    found = roomy(held, **given)
    assert (found is not None) is refuses
    if found:
        assert (found.test, found.errno, found.keeps_image) == ("room", ENOMEM, False)
        assert found.log == ("PM: hibernation: resume failed (-12)",)
        assert found.reason.startswith("has no room for the image: it has ")
        assert found.reason.endswith(f", and the image has {held}")
        assert ("set aside for huge pages" in found.reason) is ("hugepages" in given.get("resumer_cmdline", ""))
