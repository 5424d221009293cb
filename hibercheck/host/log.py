"""What a kernel's log says of hibernating and resuming: which lines matter, who prints them, what they mean.

The messages are those of kernel/power and arch/x86/power in 5.10 to 7.3; a test looks for them in real kernels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from hibercheck.data import dataclass


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the kernel.

    Attributes:
        name: Stable name of the kind.
        pattern: A regular expression that is searched in each line.
        part: A piece of the text as it stands in the kernel, for those who look for it there.
        code: The function that prints it, and its file.
        means: What it says, in one sentence.
        advice: What to do; empty where all is well.
    """

    name: str
    pattern: str
    part: str
    code: str
    means: str
    advice: str = ""


_SWAP = "kernel/power/swap.c"
_HIBERNATE = "kernel/power/hibernate.c"
_KEEP = "Nothing was overwritten: the machine boots afresh. "

MESSAGES = (
    Message(
        "found", r"Image signature found, resuming", "Image signature found, resuming", f"swsusp_check(), {_SWAP}",
        "The kernel found an image where it looked, and put the swap signature back: from now on the image counts as "
        "used.",
    ),
    Message(
        "not-found", r"PM: (?:hibernation: )?Image not found \(code (?P<errno>-?\d+)\)", "Image not found (code %d)",
        f"swsusp_check(), {_SWAP}",
        "There is no image where the kernel looked: -22 is a device without an image's signature, -16 a device in use.",
        "Compare resume= and resume_offset= with the swap to which the machine hibernated (hibercheck image finds "
        "its numbers). A swap file that was made again lies in another place. This line is usual if the machine had "
        "not hibernated before.",
    ),
    Message(
        "mismatch", r"Image mismatch: (?P<what>[\w ]+)", "Image mismatch: %s", f"check_image_kernel(), {_HIBERNATE}",
        "The kernel refused the image: it was written by another kind of kernel, or on a machine with another amount "
        "of memory.",
        f"{_KEEP}'architecture specific data' means a kernel of another age or another memory map, "
        "and 'memory size' another number of pages; hibercheck IMAGE --resumer KERNEL says which.",
    ),
    Message(
        "memory-map", r"Hibernate inconsistent memory map detected", "Hibernate inconsistent memory map detected!",
        "arch_hibernation_header_restore(), arch/x86/power/hibernate.c",
        "The firmware's memory map (e820) has another checksum than at hibernation.",
        f"{_KEEP}It changes with firmware settings, docks, added memory and firmware updates; hibercheck image "
        "shows the checksum in the image.",
    ),
    Message(
        "hardware-signature", r"hardware signature mismatch \((?P<image>\w+) now (?P<now>\w+)\)",
        "Suspend image hardware signature mismatch (%08x now %08x); aborting resume.", f"swsusp_check(), {_SWAP}",
        "The firmware's FACS signature differs from the one in the image: the hardware configuration has changed.",
        f"{_KEEP}Change the hardware back, or boot both kernels with acpi_sleep=s4_nohwsig.",
    ),
    Message(
        "checksum", r"Invalid image CRC32", "Invalid image CRC32!", f"load_compressed_image(), {_SWAP}",
        "The image's data are not those that were written.",
        "hibercheck image IMAGE --verify says where; then test the disk and the memory.",
    ),
    Message(
        "decompression", r"Invalid \w+ (?:un)?compressed length|\w+ decompression failed", "decompression failed",
        f"load_compressed_image(), {_SWAP}",
        "The image does not decompress: it is damaged, or this kernel takes its compressor for another one.",
        "hibercheck image IMAGE --verify tells the two apart.",
    ),
    Message(
        "read-error", r"Read-error on swap-device", "Read-error on swap-device", f"hib_end_io(), {_SWAP}",
        "The device could not be read.", "Look at the disk's own errors in the log before this line.",
    ),
    Message(
        "loading", r"PM: (?:hibernation: )?Loading (?:and decompressing )?image data",
        "Loading image data pages (%u pages)...",
        f"load_image(), {_SWAP}", "The kernel began to read the image.",
    ),
    Message(
        "loaded", r"PM: (?:hibernation: )?Image loading done", "Image loading done", f"load_image(), {_SWAP}",
        "The whole image was read. What comes next, stopping devices, parking CPUs and the copy, prints nothing.",
    ),
    Message(
        "device", r"PM: failed to (?P<step>freeze|quiesce|suspend|restore)[^:]*: error (?P<errno>-?\d+)",
        "failed to %s%s: error %d", "pm_dev_err(), drivers/base/power/main.c",
        "A driver refused to stop or start its device; the line's beginning names it.",
        "Unload that driver before hibernating, or report it with this line.",
    ),
    Message(
        "failed", r"hibernation: resume failed \((?P<errno>-?\d+)\)", "resume failed (%d)",
        f"software_resume(), {_HIBERNATE}", "The kernel gave up the resume and went on booting.",
        "The reason is in the lines before it: -22 or -1 is a mismatch, -14 a frame number that it could not use, "
        "-12 too little memory, -5 a read error or a device.",
    ),
    Message(
        "given-up", r"Failed to load image, recovering", "Failed to load image, recovering.",
        f"load_image_and_restore(), {_HIBERNATE}", "The image could not be loaded; tasks are started again.",
        "The reason is in the lines before it.",
    ),
    Message(
        "lockdown", r"Lockdown: .*hibernation is restricted", "is restricted; see man kernel_lockdown.7",
        "lockdown_is_locked_down(), security/lockdown/lockdown.c",
        "The kernel is locked down, usually because Secure Boot is on: it neither hibernates nor resumes.",
        "Turn Secure Boot off, or use a distribution whose kernel allows hibernation that is signed or encrypted.",
    ),
    Message(
        "no-room", r"PM: (?:hibernation: )?Not enough free swap", "Not enough free swap", f"enough_swap(), {_SWAP}",
        "The image did not fit into the free swap, and was not written.",
        "Make the swap larger, or /sys/power/image_size smaller.",
    ),
    Message(
        "not-made", r"hibernation: Error (?P<errno>-?\d+) creating image", "Error %d creating image",
        f"create_image(), {_HIBERNATE}", "The hibernation was given up before an image of memory was made.",
        "-12 is too little memory; -16 is a device or a wakeup that stopped it. The reason is in the lines before it.",
    ),
    Message(
        "not-powered-down", r"ome (?:system )?devices failed to power down, aborting",
        "devices failed to power down, aborting",
        f"create_image(), resume_target_kernel(), {_HIBERNATE}",
        "A driver refused to stop its device; the line before it names it.",
        "Unload that driver before hibernating, or report it with both lines.",
    ),
    Message(
        "saved", r"PM: (?:hibernation: )?Image saving done", "Image saving done", f"save_image(), {_SWAP}",
        "The whole image was written. If the session goes on after this line, the hibernation was given up and the "
        "image's mark was removed.",
    ),
    Message(
        "no-device", r"Cannot find swap device, try swapon -a", "Cannot find swap device, try swapon -a",
        f"swsusp_write(), {_SWAP}", "resume= names no active swap, so that no image was written.",
        "Compare resume= and resume_offset= with /proc/swaps.",
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Found:
    """A line of a log that is one of the messages.

    Attributes:
        line: Its number, from 1.
        text: The line.
        message: Which message it is.
        errno: The error that it names, or None.
    """

    line: int
    text: str
    message: Message
    errno: int | None = None


_COMPILED = tuple((re.compile(message.pattern), message) for message in MESSAGES)
_LONGEST = 1024


def read_log(text: str) -> tuple[Found, ...]:
    """Return the lines that say something of hibernating or resuming, in order.

    Args:
        text: What dmesg or journalctl prints.
    """
    return tuple(_found(text))


def _found(text: str) -> Iterator[Found]:
    for number, line in enumerate(text.splitlines(), 1):
        for pattern, message in _COMPILED:
            found = pattern.search(line[:_LONGEST])
            if found is not None:
                errno = found.groupdict().get("errno")
                yield Found(number, line[:_LONGEST], message, int(errno) if errno else None)
                break


def conclusion(found: tuple[Found, ...]) -> str:
    """Say in one sentence what became of the resume, as far as the log goes."""
    names = [one.message.name for one in found]
    if not names:
        return (
            "no line is about an image: if the screen showed one being loaded and then the firmware's logo, the "
            "machine was reset in the handoff, which no log can show (hibercheck IMAGE says whether that happens, "
            "and why)"
        )
    if "failed" in names or "given-up" in names:
        return "the resume was given up and the machine booted afresh; the lines say why"
    if names[-1] in {"not-made", "not-powered-down", "no-room", "no-device"} and "found" not in names:
        return "no image was written: the hibernation was given up, and the lines say why"
    if names[-1] in {"loaded", "loading", "found"}:
        return (
            "the log ends while the image is loaded or right after: either the machine was reset in the handoff, or "
            "this is the log of the session that hibernated"
        )
    return "the lines say what happened"
