"""What could be otherwise of the things on which it depends whether the resumer loads the image."""

from __future__ import annotations

from collections.abc import Iterator

from hibercheck.addresses import PAGE_SHIFT
from hibercheck.data import replace
from hibercheck.handoff.acceptance.announced import header_page
from hibercheck.handoff.acceptance.contents import asks_first
from hibercheck.handoff.acceptance.machine import least_used
from hibercheck.handoff.acceptance.refusal import Question
from hibercheck.handoff.acceptance.willing import knows_guests, looked_at, names_another, obeys_signature
from hibercheck.handoff.scenario.alternatives import Alternative
from hibercheck.handoff.scenario.known_loading import (
    BY_SECURE_BOOT,
    COMPRESSOR,
    FREE,
    LOCKDOWN,
    PAGES,
    RESUMED_BY,
    SIGNATURE,
    added_to,
)
from hibercheck.handoff.scenario.plan import Plan


def acceptance_alternatives(plan: Plan) -> tuple[Alternative, ...]:
    """Return what would make the resumer load the image, or refuse it, and has a sign in the inputs."""
    question = Question(plan)
    makers = (_lockdown, _resumed_by, _signature, _compressor, _pages, _room)
    return tuple(found for maker in makers for found in maker(question))


def _stated(question: Question, id_: str, fact: str, name: str, value: str, words: str, reason: str) -> Alternative:
    """Make an alternative of one ``--fact``."""
    options = question.plan.options
    kept = tuple(one for one in options.facts if one[0] != name)
    stated = replace(options, facts=(*kept, (name, value)))
    return Alternative(id_, fact, words, reason, stated, (("--fact", f"{name}={value}"),))


def _lockdown(question: Question) -> Iterator[Alternative]:
    """Secure Boot, under which many distributions' kernels lock themselves down, and with it hibernation."""
    by, known = question.traits.locked_down_by.value or (), question.plan.known.get(LOCKDOWN.name)
    if "Secure Boot" not in by or known is None or not known.standing.is_open:
        return
    fact, resumee = "the resumer's kernel lockdown", question.resumee
    if known.source == BY_SECURE_BOOT:
        reason = "Secure Boot was on when the resumee booted, and is a setting of the firmware"
        yield _stated(question, "lockdown", fact, "lockdown", "none", "none", reason)
    elif resumee.booted_by_efi and resumee.secure_boot is None:
        reason = (
            "it locks itself down under Secure Boot, and the resumee, which UEFI booted, does not show whether "
            "that is on"
        )
        yield _stated(question, "lockdown", fact, "lockdown", "integrity", "integrity", reason)


def _resumed_by(question: Question) -> Iterator[Alternative]:
    """Yield a program in the initramfs, which writes to /sys/power/resume whatever the kernel's parameters are."""
    if question.value(RESUMED_BY) == "user":
        return
    here = looked_at(question) == header_page(question.image) and not names_another(question)
    if question.cmdline.no_resume is None and here:
        return
    reason = "a write to /sys/power/resume loads the image in spite of that"
    yield _stated(question, "resume", "who starts the resume", "resume", "user", "user space", reason)


def _signature(question: Question) -> Iterator[Alternative]:
    if question.image.header.hw_sig is None or not question.traits.hw_sig.value or not question.open(SIGNATURE):
        return
    fact = "the firmware's hardware signature"
    if obeys_signature(question):
        reason = "the image has the firmware's signature, and the resumer compares it"
        yield _stated(question, "hw-sig", fact, "hw-sig", "other", "another than in the image", reason)
    elif question.cmdline.hardware_signature is None and knows_guests(question) and _may_be_guest(question):
        line = f"{question.cmdline.text} acpi_sleep=s4_hwsig".strip()
        reason = "the resumer compares it in a guest of a hypervisor that it knows, and the resumee ran under one"
        options = question.plan.options.with_line(line)
        yield Alternative("hw-sig-guest", fact, "compared", reason, options, (("--resumer-cmdline", line),))


def _may_be_guest(question: Question) -> bool:
    """Tell whether the machine is a guest of a hypervisor of which the resumee's kernel does not know which."""
    features = question.resumee.features
    return question.resumee.hypervisor is None and features is not None and "hypervisor" in features.flags


def _compressor(question: Question) -> Iterator[Alternative]:
    """Yield a module for the image's compressor, which the initramfs has or lacks."""
    name, known = question.image.compressor, question.traits.compressors.value or ()
    if not asks_first(question) or f"{name}:module?" not in known or name != "lz4" or not question.open(COMPRESSOR):
        return
    value = "absent" if question.value(COMPRESSOR) else "loaded"
    reason = "the resumer has LZ4 as a module, and its initramfs was not given"
    yield _stated(question, "lz4-module", "the resumer's LZ4 module", "lz4", value, value, reason)


def _pages(question: Question) -> Iterator[Alternative]:
    """Memory that the resumee was given while it ran, and that the resumer may be given before it resumes."""
    wanted = question.image.info.num_physpages
    added = added_to(question.resumee, wanted)
    if not added or not question.open(PAGES) or question.value(PAGES) == wanted:
        return
    reason = f"{abs(added)} pages came to or went from the resumee while it ran"
    fact = "the resumer's number of physical pages"
    yield _stated(question, "memory-added", fact, "pages", str(wanted), f"the image's {wanted}", reason)


def _room(question: Question) -> Iterator[Alternative]:
    """Free memory, where huge pages or the image itself take much of it."""
    held, total, huge = len(question.image.pfns), question.value(PAGES), question.cmdline.huge_pages >> PAGE_SHIFT
    if total is None or question.value(FREE) is not None:
        return
    left = total - huge - least_used(question)
    if not huge and 2 * held < left:
        return
    reason = f"{huge} pages are set aside for huge pages" if huge else f"the image has {held} of {total} pages"
    number, words = (held, "enough for the image") if left < held else (held - 1, "too little for the image")
    yield _stated(question, "room", "the resumer's free memory", "free-pages", str(number), words, reason)
