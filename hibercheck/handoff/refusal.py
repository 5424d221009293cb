"""Whether the resumer loads the image at all: the tests of swsusp_check(), load_header() and their callees."""

from __future__ import annotations

from hibercheck.data import dataclass
from hibercheck.handoff.cmdline import CommandLine
from hibercheck.handoff.resumee import E820_RAM, Resumee, e820_checksum
from hibercheck.kernel.code.traits import Traits
from hibercheck.swsusp.image import Image

EFAULT, EPERM = 14, 1
"""What resume fails with; check_header() turns every mismatch of arch record, memory map and size into -EPERM."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the resumer refuses.

    Attributes:
        reason: One clause, with the resumer as its subject.
        errno: The error that its log shows (``PM: hibernation: resume failed (-14)``), or None.
        advice: What to do.
    """

    reason: str
    errno: int | None
    advice: str


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The answer, and which traits it would take to be sure.

    Attributes:
        refusal: The first test that fails, or None.
        unknown: Tests whose outcome is not known: (fact, how to supply it).
    """

    refusal: Refusal | None
    unknown: tuple[tuple[str, str], ...]


def judge_acceptance(image: Image, traits: Traits, resumee: Resumee, cmdline: CommandLine) -> Acceptance:
    """Apply the resumer's tests to the image, in the order in which it makes them."""
    unknown: list[tuple[str, str]] = []
    tests = (
        _command_line(cmdline),
        _magic(image, traits, unknown),
        _memory_map(image, traits, resumee),
        _memory_size(resumee, cmdline),
        _compressor(image, traits, unknown),
        _zero_pages(image, traits, unknown),
    )
    return Acceptance(next((test for test in tests if test is not None), None), tuple(unknown))


def _command_line(cmdline: CommandLine) -> Refusal | None:
    if cmdline.no_hibernation is None:
        return None
    return Refusal(
        f"was booted with {cmdline.no_hibernation}", EPERM, f"boot the resumer without {cmdline.no_hibernation}"
    )


def _magic(image: Image, traits: Traits, unknown: list[tuple[str, str]]) -> Refusal | None:
    """arch_hibernation_header_restore() compares restore_data_record.magic (arch/x86/power/hibernate.c)."""
    wanted = traits.arch_record_magic.value
    if wanted is None:
        unknown.append(("which arch record the resumer accepts", "a resumer vmlinux with symbols"))
        return None
    if wanted == image.record.magic:
        return None
    return Refusal(
        f"accepts only images whose arch record has magic {wanted:#x}, and this one has {image.record.magic:#x}",
        EPERM,
        "resume with a kernel of the same era",
    )


def _memory_map(image: Image, traits: Traits, resumee: Resumee) -> Refusal | None:
    """The checksum is over the firmware's map, which is the same machine's: it must agree with the image's own."""
    record = image.record.e820_checksum
    if traits.e820_check.value != "crc32" or record is None or resumee.e820 is None:
        return None
    if e820_checksum(resumee.e820) == record:
        return None
    return Refusal(
        "compares a checksum of the firmware memory map that the image's own map does not have",
        EPERM,
        "the image is damaged; hibernate again",
    )


def _memory_size(resumee: Resumee, cmdline: CommandLine) -> Refusal | None:
    """check_image_kernel() and num_physpages: ``mem=`` on one side only changes the number of pages.

    The firmware's map, e820_table_firmware, is that of the machine: ``mem=`` does not shorten it.
    """
    limits = (cmdline.mem_limit, resumee.parameters.mem_limit)
    if limits == (None, None) or resumee.e820 is None:
        return None
    ram = [(entry.address, entry.address + entry.size) for entry in resumee.e820 if entry.kind == E820_RAM]
    seen = [sum(min(end, limit or end) - start for start, end in ram if start < (limit or end)) for limit in limits]
    if seen[0] == seen[1]:
        return None
    if limits[1] is None:
        return Refusal("has another number of pages, by mem= on its command line", EPERM, "boot it without mem=")
    same = f"boot it with the resumee's mem={limits[1]}"
    return Refusal("has another number of pages than the resumee, which was booted with mem=", EPERM, same)


def _compressor(image: Image, traits: Traits, unknown: list[tuple[str, str]]) -> Refusal | None:
    """A kernel that does not know SF_COMPRESSION_ALG_LZ4 takes LZ4 data for LZO and fails to decompress it."""
    if image.compressor == "none":
        return None
    known = traits.compressors.value
    if known is None:
        unknown.append(
            (f"whether the resumer can decompress {image.compressor.upper()}", "a resumer vmlinux with symbols")
        )
        return None
    if image.compressor in known:
        return None
    return Refusal(
        f"cannot decompress {image.compressor.upper()} (it has {', '.join(known).upper() or 'no compressor'})",
        None,
        f"hibernate with hibernate.compressor={next(iter(known), 'lzo')}",
    )


def _zero_pages(image: Image, traits: Traits, unknown: list[tuple[str, str]]) -> Refusal | None:
    """An older kernel takes bit 63 for part of the frame number: memory_bm_set_bit() fails with -EFAULT."""
    if not image.pfns.has_zero_flag:
        return None
    if traits.zero_pages.value is None:
        unknown.append(("whether the resumer knows the zero-page flag", "a resumer vmlinux with symbols"))
        return None
    if traits.zero_pages.value:
        return None
    return Refusal(
        "does not know the zero-page flag, and takes it for part of a frame number "
        '(005e8dddd497, "PM: hibernate: don\'t store zero pages in the image file", in v6.6)',
        EFAULT,
        "resume with a kernel that has zero-page support",
    )
