"""The documented Python interface: what `hibercheck` exports stands here."""

from __future__ import annotations

import os
from dataclasses import fields as fields_of
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hibercheck.errors import HibercheckError
from hibercheck.handoff import api
from hibercheck.handoff.scenario.options import CheckOptions
from hibercheck.handoff.verdict import findings
from hibercheck.kernel.kernel import Kernel

if TYPE_CHECKING:
    from typing import Unpack

    from hibercheck.kernel.cache import KernelCache

__all__ = ["CheckOptions", "HibercheckError", "Kernel", "Report", "check", "open_kernel"]


class Report(findings.Report):
    """What a check found, with what turns it into something else.

    Its fields are those of `hibercheck.handoff.verdict.findings.Report`.
    """

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return what ``--format json`` writes, with the usual threshold; `hibercheck schema` prints its schema."""
        from hibercheck.report import gate, json  # noqa: PLC0415 - the renderers are imported when they are used

        return json.to_dict(gate.judge(self))

    def _repr_html_(self) -> str:
        """Return the verdict and the drawing of memory, as a notebook shows them."""
        from hibercheck.report import drawing, words  # noqa: PLC0415 - as above

        told = f"{words.outcome(self.outcome, self.verdict)}: {words.sentence(self.headline)}"
        return f"<p><strong>{drawing.escape(told)}</strong></p>\n{drawing.svg(self)}"


def check(
    image: str | os.PathLike[str],
    resumer: str | os.PathLike[str] | Kernel,
    resumee: str | os.PathLike[str] | Kernel | None = None,
    options: CheckOptions | None = None,
    cache: str | os.PathLike[str] | None = None,
    **fields: Unpack[api.CheckFields],
) -> Report:
    """Predict what becomes of the machine when kernel ``resumer`` resumes ``image``, which ``resumee`` wrote.

    Args:
        image: A hibernation image: a swap partition, a disk image, a copy of one; compressed or not.
        resumer: The kernel that loads the image: a vmlinux, vmlinuz, package or release, or one from `open_kernel`.
        resumee: The kernel whose memory is in the image, given like ``resumer``.  By default it is read out of the
            image; if it is given, it is compared with the image.
        options: The scenario and further inputs.
        cache: A directory that keeps what was read of kernels that are given by path, as the command does: a kernel
            that was read before is not opened again.  By default nothing is kept.
        **fields: The fields of `CheckOptions` one by one, instead of ``options``.

    Returns:
        The report; ``report.outcome`` and ``report.verdict`` are its summary.

    Raises:
        hibercheck.errors.UsageProblem: An option cannot have this value, or has no effect without another one.
        hibercheck.errors.HibercheckError: An input cannot be read or does not belong to the others.
        TypeError: A keyword is not a field of `CheckOptions`, ``options`` is none, both are given, or an
            input is not a path.
    """
    found = api.check(image, resumer, resumee, options, _cache_in(cache), **fields)
    return Report(**{field.name: getattr(found, field.name) for field in fields_of(found)})


def open_kernel(
    kernel: str | os.PathLike[str],
    symbols: str | os.PathLike[str] | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> Kernel:
    """Open a kernel once for many checks: it is decompressed and its symbols are read only then.

    Args:
        kernel: A vmlinux, vmlinuz, package, release or facts file.
        symbols: A System.map, a copy of /proc/kallsyms or an ELF file to take symbols from.
        cache: As for `check`.

    Returns:
        The kernel, to be closed (``with``) after the last check.

    Raises:
        hibercheck.errors.HibercheckError: It cannot be read as a kernel.
    """
    from hibercheck.handoff.facts.kernels import open_resumer  # noqa: PLC0415 - as above

    return open_resumer(os.fsdecode(kernel), None if symbols is None else os.fsdecode(symbols), _cache_in(cache))


def _cache_in(directory: str | os.PathLike[str] | None) -> KernelCache | None:
    if directory is None:
        return None
    from hibercheck.kernel.cache import KernelCache  # noqa: PLC0415 - as above

    return KernelCache(Path(directory))
