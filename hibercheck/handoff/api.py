"""The documented Python interface: one function that takes three files and gives a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hibercheck.handoff.options import CheckOptions

if TYPE_CHECKING:
    import os
    from typing import TypedDict, Unpack

    from hibercheck.handoff.findings import Report
    from hibercheck.handoff.options import Event, Idle

    class CheckFields(TypedDict, total=False):
        """The fields of `CheckOptions` as keywords; a test compares them."""

        resumer_cmdline: str | None
        resumer_offline: frozenset[int]
        resumer_idle: Idle | None
        resumer_phys_base: int | None
        spurious_mwait: bool
        suppose: frozenset[Event]
        resume_offset: int | None
        verify: bool
        resumer_memory: str | None
        resumer_registers: str | None
        resumer_facts: str | None
        resumer_symbols: str | None
        resumee_symbols: str | None
        timeline: bool
        execute: bool
        park: str | None


def check(
    image: str | os.PathLike[str],
    resumer: str | os.PathLike[str],
    resumee: str | os.PathLike[str],
    options: CheckOptions | None = None,
    **fields: Unpack[CheckFields],
) -> Report:
    """Predict what becomes of the machine when kernel ``resumer`` resumes ``image``, which ``resumee`` wrote.

    Args:
        image: A hibernation image: a swap partition, a disk image, a copy of one; compressed or not.
        resumer: The kernel that loads the image (vmlinux, vmlinuz, package, or release).
        resumee: The kernel whose memory is in the image.
        options: The scenario and further inputs.
        **fields: The fields of `hibercheck.handoff.options.CheckOptions` one by one, instead of ``options``.

    Returns:
        The report; ``report.outcome`` and ``report.verdict`` are its summary.

    Raises:
        hibercheck.errors.HibercheckError: An input cannot be read or does not belong to the others.
        TypeError: A keyword is no field of `CheckOptions`, or both ``options`` and fields were given.
    """
    from hibercheck.handoff.check import check as run  # noqa: PLC0415 - the engine is imported when it is used

    if options is not None and fields:
        raise TypeError("give either options or the fields of CheckOptions as keywords, not both")
    return run(str(image), str(resumer), str(resumee), options or CheckOptions(**fields))
