"""The check as the command and `hibercheck.check` call it: values are validated, and paths may be of any kind."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hibercheck.handoff.scenario.options import CheckOptions

if TYPE_CHECKING:
    from typing import TypedDict, Unpack

    from hibercheck.handoff.scenario.options import Event, Idle, Tlb
    from hibercheck.handoff.verdict.findings import Report
    from hibercheck.kernel.cache import KernelCache
    from hibercheck.kernel.kernel import Kernel

    class CheckFields(TypedDict, total=False):
        """The fields of `CheckOptions` as keywords; a test compares them."""

        resumer_cmdline: str | None
        resumer_cmdline_add: str | None
        resumer_offline: frozenset[int]
        resumer_idle: Idle | None
        resumer_phys_base: int | None
        spurious_mwait: bool
        mwait_spins: bool
        suppose: frozenset[Event]
        wake_latency: int | None
        tlb: Tlb | None
        resume_offset: int | None
        resume: str | None
        verify: bool
        resumer_memory: str | None
        resumer_registers: str | None
        resumer_facts: str | None
        resumer_log: str | None
        resumer_initramfs: str | None
        resumer_symbols: str | None
        resumee_symbols: str | None
        timeline: bool
        execute: bool
        park: str | None
        facts: tuple[tuple[str, str], ...]
        what_if: bool
        resumee_online: frozenset[int]
        resumee_offline: frozenset[int]


def check(
    image: str | os.PathLike[str],
    resumer: str | os.PathLike[str] | Kernel,
    resumee: str | os.PathLike[str] | Kernel | None = None,
    options: CheckOptions | None = None,
    cache: KernelCache | None = None,
    **fields: Unpack[CheckFields],
) -> Report:
    """Predict what becomes of the machine: what `hibercheck.check` does, which documents it.

    Answers of kernels are kept in ``cache``.
    """
    from hibercheck.handoff.verdict.check import check as run  # noqa: PLC0415 - the engine is imported when it is used

    if options is not None and fields:
        raise TypeError("give either options or the fields of CheckOptions as keywords, not both")
    options = CheckOptions(**fields) if options is None else options
    if not isinstance(options, CheckOptions):
        raise TypeError(f"options are CheckOptions, not {type(options).__name__}")
    theirs = None if resumee is None else _named(resumee)
    return run(os.fsdecode(image), _named(resumer), theirs, options, cache)


def _named(kernel: str | os.PathLike[str] | Kernel) -> str | Kernel:
    from hibercheck.kernel.kernel import Kernel  # noqa: PLC0415 - the engine is imported when it is used

    return kernel if isinstance(kernel, Kernel) else os.fsdecode(kernel)
