"""Predict whether a hibernation image can be resumed without killing a parked CPU.

The documented interface is one function::

    import hibercheck

    report = hibercheck.check("image.bin", "vmlinux", resumer_cmdline="nosmt")
    print(report.outcome, report.headline)

`open_kernel` opens a kernel once for many checks; `Report.to_dict` gives what ``--format json`` writes.  What a report
holds is declared in `hibercheck.handoff.verdict.findings`; everything that is raised is a `HibercheckError`, of the
classes in `hibercheck.errors`.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as type checkers read it: the import of typing alone would cost a fifth of --version
if TYPE_CHECKING:
    from hibercheck.api import CheckOptions, HibercheckError, Kernel, Report, check, open_kernel

__version__ = "0.1.0"
__all__ = ["CheckOptions", "HibercheckError", "Kernel", "Report", "__version__", "check", "open_kernel"]


def __getattr__(name: str) -> object:
    """Import the interface when it is first used: the version alone must cost nothing."""
    if name in __all__:
        from hibercheck import api  # noqa: PLC0415 - lazy on purpose

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return what there is, for pydoc and interpreters."""
    return [*globals(), *__all__]
