"""Tests of what is in the image: the version of its header, its compressor, the marks in its list of frames."""

from __future__ import annotations

from hibercheck.handoff.acceptance.refusal import EFAULT, EOPNOTSUPP, EPERM, Question, Refusal, failed
from hibercheck.handoff.scenario.known_loading import COMPRESSOR
from hibercheck.kernel.code.model import built_in

_SUPPLY = "a resumer vmlinux with symbols"
MISMATCH = "PM: hibernation: Image mismatch: "
"""What check_header() says of every mismatch, before -EPERM (kernel/power/snapshot.c)."""


def asks_first(question: Question) -> bool:
    """Tell whether it looks for the compressor before it reads on: crypto_has_acomp() in software_resume().

    Since a06c6f5d3cc9 ("PM: hibernate: Move to crypto APIs for LZO compression", in v6.9), which brought hib_comp_algo.
    """
    return question.plan.resumer.symbol("hib_comp_algo") is not None


def compressor_first(question: Question) -> Refusal | None:
    """Refuse as a kernel that asks for the compressor before it reads on, and for a module of it if need be."""
    return _compressor(question) if asks_first(question) else None


def compressor_last(question: Question) -> Refusal | None:
    """Refuse as a kernel that finds out when it decompresses: one that knows no LZ4 takes it for LZO."""
    return None if asks_first(question) else _compressor(question)


def _compressor(question: Question) -> Refusal | None:
    name = question.image.compressor
    if name == "none":
        return None
    has = question.value(COMPRESSOR)
    if has is None:
        question.unknown.append((f"whether the resumer can decompress {name.upper()}", _SUPPLY))
        return None
    if has:
        return None
    known = question.traits.compressors.value or ()
    own = built_in(known)
    module = f"{name}:module?" in known
    reason = f"cannot decompress {name.upper()} (it has {', '.join(own).upper() or 'no compressor'})"
    if module:
        reason = f"has {name.upper()} as a module only, and that is not loaded when it resumes"
    advice = f"hibernate with hibernate.compressor={next(iter(own), 'lzo')}"
    if module:
        advice += f", or put the module {name} into its initramfs"
    if asks_first(question):
        log = f"PM: hibernation: {name} compression is not available"
        return Refusal("compressor", reason, EOPNOTSUPP, (log,), advice)
    return Refusal("compressor", reason, None, ("PM: LZO decompression failed",), advice)


def magic(question: Question) -> Refusal | None:
    """arch_hibernation_header_restore() compares restore_data_record.magic (arch/x86/power/hibernate.c)."""
    wanted, found = question.traits.arch_record_magic.value, question.image.record.magic
    if wanted is None:
        question.unknown.append(("which arch record the resumer accepts", _SUPPLY))
        return None
    if wanted == found:
        return None
    return Refusal(
        "record-magic",
        f"accepts only images whose arch record has the magic number {wanted:#x}, and this one has {found:#x}",
        EPERM,
        failed(EPERM, f"{MISMATCH}architecture specific data"),
        "resume with a kernel that is about as old",
    )


def zero_pages(question: Question) -> Refusal | None:
    """Refuse as an older kernel does, which takes bit 63 for part of the frame number (unpack_orig_pfns(), -EFAULT)."""
    if not question.image.pfns.has_zero_flag:
        return None
    knows = question.traits.zero_pages.value
    if knows is None:
        question.unknown.append(("whether the resumer knows the zero-page flag", _SUPPLY))
        return None
    if knows:
        return None
    return Refusal(
        "zero-pages",
        "does not know the zero-page flag, and takes it for part of a frame number "
        '(005e8dddd497, "PM: hibernate: don\'t store zero pages in the image file", in v6.6)',
        EFAULT,
        failed(EFAULT),
        "resume with a kernel that has zero-page support",
    )
