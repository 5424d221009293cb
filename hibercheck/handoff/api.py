"""The documented Python interface: one function that takes three files and gives a report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hibercheck.handoff.options import CheckOptions

if TYPE_CHECKING:
    import os

    from hibercheck.handoff.findings import Report


def check(
    image: str | os.PathLike[str],
    resumer: str | os.PathLike[str],
    resumee: str | os.PathLike[str],
    options: CheckOptions | None = None,
    **fields: Any,
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
