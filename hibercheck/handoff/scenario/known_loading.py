"""What is known of the things on which it depends whether the resumer loads an image, each with its sources."""

from __future__ import annotations

from hibercheck.handoff.facts.e820 import edited, ram_pages
from hibercheck.handoff.facts.firmware_map import FirmwareMap
from hibercheck.handoff.facts.resumee import Resumee
from hibercheck.handoff.facts.standing import Known, Standing
from hibercheck.handoff.scenario.known_machine import BY_COMMAND_LINE, COMMAND_LINE
from hibercheck.handoff.scenario.sources import (
    COLLECTED,
    LOGGED,
    Asking,
    RunFact,
    Source,
    collected,
    derived,
    given,
    in_dump,
    logged,
)

BY_CODE = "its code"
BY_SECURE_BOOT = "it locks itself down under Secure Boot"
OF_IMAGE = "the resumee's, out of the image"


def _locked_by_line(asking: Asking) -> Known[str] | None:
    """``lockdown=`` counts where the kernel has that parameter (security/lockdown/lockdown.c)."""
    line, by = asking.need(COMMAND_LINE), asking.inputs.traits.locked_down_by.value
    if line.value.lockdown is None or by is None or "lockdown=" not in by:
        return None
    return Known(line.value.lockdown, derived(line), BY_COMMAND_LINE)


def _locked_by_code(asking: Asking) -> Known[str] | None:
    """Say what the kernel does by itself: CONFIG_LOCK_DOWN_KERNEL_FORCE_*, or what distributions add for Secure Boot.

    Whether that is on the firmware told the resumee (boot_params.secure_boot, arch/x86/include/uapi/asm/bootparam.h).
    """
    by = asking.inputs.traits.locked_down_by.value
    if by is None:
        return None
    if "always" in by:
        return Known("integrity", Standing.READ, BY_CODE)
    log = asking.inputs.logged
    if "Secure Boot" in by and log is not None and log.secure_boot:
        return Known("integrity", Standing.MEASURED, f"{LOGGED}: {BY_SECURE_BOOT}")
    if "Secure Boot" in by and asking.inputs.resumee.secure_boot:
        return Known("integrity", Standing.INFERRED, BY_SECURE_BOOT)
    return Known("none", Standing.INFERRED if "Secure Boot" in by else Standing.READ, BY_CODE)


LOCKDOWN = RunFact[str](
    "lockdown",
    "the resumer's kernel lockdown",
    (
        in_dump(lambda facts: facts.lockdown, of_run=True),
        collected(lambda facts: facts.lockdown, of_run=True),
        logged(lambda log: log.lockdown, of_run=True),
        given("--fact lockdown=", lambda asking: asking.given.get("lockdown")),
        Source(_locked_by_line),
        Source(_locked_by_code),
        Source(lambda _: Known("none", Standing.USUAL, "default")),
    ),
    show=lambda mode: None if mode == "none" else mode,
    option="--fact lockdown=",
    detail=True,
)

HIBERNATES = RunFact[bool](
    "hibernates",
    "whether the resumer itself says that it can hibernate and resume",
    (collected(lambda facts: facts.hibernation, of_run=True),),
    show=lambda does: "yes" if does else "no",
    option="--resumer-facts",
    detail=True,
)


def _signature_in_facts(asking: Asking) -> Known[bool] | None:
    facts, theirs = asking.inputs.collected, asking.inputs.image.header.hw_sig
    if facts is None or facts.hw_signature is None or theirs is None:
        return None
    return Known(facts.hw_signature == theirs, Standing.MEASURED, COLLECTED)


def _as_it_was(asking: Asking) -> Known[bool] | None:
    if asking.inputs.image.header.hw_sig is None:
        return None
    return Known(True, Standing.INFERRED, "the machine of the image")


SIGNATURE = RunFact[bool](
    "hw-sig",
    "whether the firmware still has the image's hardware signature",
    (
        Source(_signature_in_facts),
        given("--fact hw-sig=", lambda asking: {"same": True, "other": False}.get(asking.given.get("hw-sig", ""))),
        Source(_as_it_was),
    ),
    show=lambda same: "yes" if same else "no",
    option="--fact hw-sig=",
    detail=True,
)


def _compressor_in_facts(asking: Asking) -> Known[bool] | None:
    """Say whether a module was there; what is built in need not be a crypto API's, and is read in the code."""
    facts, name = asking.inputs.collected, asking.inputs.image.compressor
    if facts is None or not facts.compressors or asking.supposed:
        return None
    if f"{name}:module?" not in (asking.inputs.traits.compressors.value or ()):
        return None
    if f"{name}:builtin" in (asking.inputs.traits.compressors.value or ()):
        return None  # kernels before v6.9 call lib/lzo themselves: /proc/crypto need not list what is built in
    return Known(name in facts.compressors, Standing.MEASURED, COLLECTED)


def _compressor_by_code(asking: Asking) -> Known[bool] | None:
    """Say what the kernel can decompress: what it has built in, and what a module of its initramfs may add."""
    name, known = asking.inputs.image.compressor, asking.inputs.traits.compressors.value
    if name == "none":
        return None
    if known is None:
        return None
    if f"{name}:module?" in known:
        return Known(True, Standing.USUAL, "a module, which is taken to be in its initramfs")
    return Known(f"{name}:builtin" in known, Standing.READ, BY_CODE)


def _given_module(asking: Asking) -> bool | None:
    known = asking.inputs.traits.compressors.value
    if asking.inputs.image.compressor != "lz4" or "lz4" not in asking.given or "lz4:module?" not in (known or ()):
        return None
    return bool(asking.given["lz4"] == "loaded")


COMPRESSOR = RunFact[bool](
    "compressor",
    "whether the resumer can decompress the image when it resumes",
    (Source(_compressor_in_facts), given("--fact lz4=", _given_module), Source(_compressor_by_code)),
    show=lambda has: "yes" if has else "no",
    option="--fact lz4=",
    detail=True,
)


def _map_of_resumee(asking: Asking) -> Known[FirmwareMap] | None:
    found = asking.inputs.resumee.e820
    return None if found is None else Known(FirmwareMap(found, "kernel"), Standing.INFERRED, OF_IMAGE)


def _shown_map(found: FirmwareMap) -> str:
    return f"{len(found.entries)} ranges with {ram_pages(found.entries) >> 8} MiB of RAM"


MEMORY_MAP = RunFact[FirmwareMap](
    "memory-map",
    "the memory map that the firmware gives the resumer",
    (
        in_dump(lambda facts: None if facts.e820 is None else FirmwareMap(facts.e820, "kernel")),
        collected(lambda facts: facts.firmware),
        logged(lambda log: log.firmware),
        Source(_map_of_resumee),
    ),
    show=_shown_map,
    option="--resumer-facts",
    same=None,  # whether it is the image's is the first thing that the resumer itself tests
    detail=True,
)


def added_to(resumee: Resumee, pages: int) -> int:
    """Return how many pages the resumee got while it ran: plugged in, or by a balloon.

    Its e820_table, which its command line and its quirks have edited, says how many it had when it booted.

    Args:
        resumee: The resumee.
        pages: Its number of pages, as the image has it.
    """
    return 0 if resumee.boot_pages is None else pages - resumee.boot_pages


def _pages_by_map(asking: Asking) -> Known[int] | None:
    """Count what a kernel that boots with this map and this command line has.

    The firmware's map is that of the machine, ``mem=`` and ``memmap=`` do not change it.  What the kernels themselves
    take away (MTRRs, quirks) is taken to be the same on both sides.
    """
    resumee, image = asking.inputs.resumee, asking.inputs.image
    line = asking.need(COMMAND_LINE)
    number = image.info.num_physpages - added_to(resumee, image.info.num_physpages)
    ours, theirs = line.value.memory_edits, resumee.parameters.memory_edits
    if ours != theirs:
        if resumee.e820 is None:
            return None
        counts = [ram_pages(edited(resumee.e820, edits)) for edits in (ours, theirs)]
        number += counts[0] - counts[1]
    return Known(number, Standing.INFERRED, "the machine of the image, with the resumer's command line")


PAGES = RunFact[int](
    "pages",
    "the resumer's number of physical pages",
    (
        in_dump(lambda facts: facts.pages),
        collected(lambda facts: facts.pages),
        given("--fact pages=", lambda asking: asking.given.get("pages")),
        Source(_pages_by_map),
    ),
    show=str,
    option="--fact pages=",
    detail=True,
)

FREE = RunFact[int](
    "free-pages",
    "the resumer's free pages",
    (
        collected(lambda facts: facts.free_pages, of_run=True),
        given("--fact free-pages=", lambda asking: asking.given.get("free-pages")),
    ),
    show=str,
    option="--fact free-pages=",
    same=None,  # it changes while the kernel runs
    detail=True,
)

RESUMED_BY = RunFact[str](
    "resume",
    "who starts the resume",
    (
        given("--fact resume=", lambda asking: asking.given.get("resume")),
        Source(lambda _: Known("kernel", Standing.USUAL, "default")),
    ),
    show=lambda by: None if by == "kernel" else "a program, by /sys/power/resume",
    option="--fact resume=",
    detail=True,
)
