"""Tests before the image is looked at: may the kernel resume, is it asked to, does it look in the right place.

hibernation_available() and software_resume() of kernel/power/hibernate.c, then swsusp_check() of kernel/power/swap.c.
"""

from __future__ import annotations

from hibercheck.handoff.acceptance.announced import header_page, is_announced
from hibercheck.handoff.acceptance.refusal import EINVAL, Question, Refusal
from hibercheck.handoff.scenario.known_loading import HIBERNATES, LOCKDOWN, RESUMED_BY, SIGNATURE


def built_in(question: Question) -> Refusal | None:
    """CONFIG_HIBERNATION."""
    if question.traits.hibernation.value is not False:
        return None
    return Refusal(
        "no-hibernation",
        "was built without hibernation",
        None,
        (),
        "boot a kernel with CONFIG_HIBERNATION",
        keeps_image=True,
    )


def told_not_to(question: Question) -> Refusal | None:
    """``nohibernate`` and ``hibernate=no``: nothing else on the line takes them back (hibernate_setup())."""
    dumped = question.plan.inputs.dumped
    given = question.cmdline.no_hibernation
    if given is None and not (dumped is not None and dumped.facts.no_hibernation and not question.plan.supposed):
        return None
    given = given or "nohibernate"
    return Refusal(
        "hibernation-off", f"was booted with {given}", None, (), f"boot the resumer without {given}", keeps_image=True
    )


def locked_down(question: Question) -> Refusal | None:
    """security_locked_down(LOCKDOWN_HIBERNATION): both modes of lockdown forbid it (security/lockdown/lockdown.c)."""
    mode = question.value(LOCKDOWN)
    asks = question.traits.refuses_while.value
    if mode in {None, "none"} or (asks is not None and "locked down" not in asks):
        return None
    known = question.plan.known[LOCKDOWN.name]
    return Refusal(
        "lockdown",
        f"is locked down ({mode}: {known.source})",
        None,
        ("Lockdown: ...: hibernation is restricted; see man kernel_lockdown.7",),
        "boot it without lockdown: without lockdown= on its command line, or with Secure Boot off",
        keeps_image=True,
    )


def says_no(question: Question) -> Refusal | None:
    """Ask what hibernation_available() asks besides: secret memory (memfd_secret()), CXL memory."""
    if question.value(HIBERNATES) is not False:
        return None
    asks = " or ".join(what for what in question.traits.refuses_while.value or () if what != "locked down")
    return Refusal(
        "hibernation-disabled",
        f"says that it does not hibernate: /sys/power/disk is [disabled]{f' ({asks}?)' if asks else ''}",
        None,
        (),
        "find out what disables it: lockdown, a program with memfd_secret(), or CXL memory",
        keeps_image=True,
    )


def not_asked(question: Question) -> Refusal | None:
    """``noresume``: the kernel does not look for an image; a write to /sys/power/resume makes it (resume_store())."""
    given = question.cmdline.no_resume
    if given is None or question.value(RESUMED_BY) == "user":
        return None
    return Refusal(
        "not-resumed",
        f"does not resume by itself: it was booted with {given}, which most initramfs heed too",
        None,
        (),
        f"boot it without {given}, or write the device to /sys/power/resume",
        keeps_image=True,
    )


def looked_at(question: Question) -> int | None:
    """Return the page at which the kernel looks by itself: of ``resume_offset=``, or 0 if there is ``resume=`` only.

    Without either, what resumes is a program that knows where the image is: then it is that page.
    """
    line = question.cmdline
    if line.resume is None and line.resume_offset is None:
        return header_page(question.image)
    return line.resume_offset or 0


def names_another(question: Question) -> bool:
    """Tell whether ``resume=UUID=`` names another swap than the image's, or for a swap file another file system.

    A program in the initramfs looks it up (the kernel itself knows no such name): it finds another device, or none.
    """
    name = (question.cmdline.resume or "").removeprefix("UUID=").strip('"')
    if name == question.cmdline.resume or not name:
        return False
    return is_announced(question.image, name, looked_at(question) or 0) is False


def looks_elsewhere(question: Question) -> Refusal | None:
    """swsusp_check() reads one page of the device of ``resume=``, and no other."""
    page, looked = header_page(question.image), looked_at(question)
    if page is not None and looked == page and names_another(question) and question.value(RESUMED_BY) != "user":
        own = question.image.swap_uuid if page == 0 else None
        here = f"in UUID={own}" if own else "on another one"
        return Refusal(
            "resume-device",
            f"looks for an image on another device (resume={question.cmdline.resume}), and this one is {here}",
            None,
            (),
            f"boot it with resume=UUID={own}" if own else "boot it with resume= of the file system of the swap file",
            keeps_image=True,
        )
    if page is None or looked == page or question.value(RESUMED_BY) == "user":
        return None
    line = question.cmdline
    what = f"resume_offset={looked}" if line.resume_offset is not None else "resume= without resume_offset="
    return Refusal(
        "resume-offset",
        f"looks for an image at page {looked} of the device ({what}), and this one's header is at page {page}",
        None,
        (),
        f"boot it with resume_offset={page}",
        keeps_image=True,
    )


def announced(question: Question) -> Refusal | None:
    """Tell where systemd would look, which obeys resume= first, then the EFI variable HibernateLocation.

    It never refuses: whether the initramfs has systemd's generator is not in the inputs.
    """
    facts, image, page = question.plan.facts, question.image, header_page(question.image)
    if facts is None or facts.location is None or page is None or question.cmdline.resume is not None:
        return None
    uuid, offset = facts.location
    if is_announced(image, uuid, offset) is False:
        here = f"UUID={image.swap_uuid}" if image.swap_uuid and page == 0 else "a swap"
        question.remarks.append(
            f"the EFI variable HibernateLocation names UUID={uuid}, page {offset}, and this image is in {here}, page "
            f"{page}: systemd in the initramfs does not look there without resume="
        )
    return None


def signature(question: Question) -> Refusal | None:
    """swsusp_hardware_signature against the header's, if that has one (SF_HW_SIG)."""
    theirs = question.image.header.hw_sig
    if theirs is None or not question.traits.hw_sig.value:
        return None
    ours, why = _own_signature(question, theirs)
    if ours == theirs:
        return None
    now = f"{ours:08x}" if ours is not None else "..."
    return Refusal(
        "hardware-signature",
        f"compares the firmware's hardware signature with the image's, {theirs:#010x}, and {why}",
        EINVAL,
        (f"PM: Suspend image hardware signature mismatch ({theirs:08x} now {now}); aborting resume.",),
        "boot both kernels with acpi_sleep=s4_hwsig or neither of them, and do not change hardware in between",
    )


def _own_signature(question: Question, theirs: int) -> tuple[int | None, str]:
    """Return what the resumer compares, None for another that is not known, and why it is not the image's."""
    dumped = question.plan.inputs.dumped
    measured = None if dumped is None or question.plan.supposed else dumped.facts.hardware_signature
    if measured is not None:
        return measured, f"it has {measured:#010x}"
    if question.cmdline.acpi_off:
        return 0, "has none with acpi=off"
    if not obeys_signature(question):
        return 0, "has none: it was booted without acpi_sleep=s4_hwsig"
    if question.value(SIGNATURE) is False:
        return None, "its own is another"
    return theirs, ""


def obeys_signature(question: Question) -> bool:
    """Tell whether the resumer takes the firmware's signature for its own (acpi_sleep_hibernate_setup()).

    It does with ``acpi_sleep=s4_hwsig``; and by itself in a guest of a hypervisor that it knows, since f6c46b1d62f8
    ("PM: hibernate: Honour ACPI hardware signature by default for virtual guests", in v5.18).
    """
    told = question.cmdline.hardware_signature
    return knows_guests(question) and question.resumee.hypervisor is True if told is None else told


def knows_guests(question: Question) -> bool:
    """Tell whether the resumer has init_s4_sigcheck() (arch/x86/kernel/acpi/sleep.c)."""
    return question.plan.resumer.symbol("init_s4_sigcheck") is not None
