"""Predict whether a hibernation image can be resumed without killing a parked CPU.

The documented interface is one function::

    import hibercheck

    report = hibercheck.check("image.bin", "vmlinux-r", "vmlinux-e", resumer_cmdline="nosmt")
    print(report.outcome, report.headline)

Everything it returns is declared in `hibercheck.handoff.findings`; everything it raises in `hibercheck.errors`.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as type checkers read it: the import of typing alone would cost a fifth of --version
if TYPE_CHECKING:
    from hibercheck.handoff.api import check

__version__ = "0.1.0"
__all__ = ["__version__", "check"]


def __getattr__(name: str) -> object:
    """Import the interface when it is first used: the version alone must cost nothing."""
    if name == "check":
        from hibercheck.handoff.api import check  # noqa: PLC0415 - lazy on purpose

        return check
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
