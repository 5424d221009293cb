"""The one family of exceptions that hibercheck raises for what a user gave it.

Every message is one line that says what is wrong, where, and what to do about it.  The command line prints
``str(error)`` and exits with ``error.exit_status``; nothing else is ever shown to a user without ``--debug``.
"""

from __future__ import annotations

from typing import ClassVar


class HibercheckError(Exception):
    """Root of the family.

    Args:
        message: What is wrong, in one line, without a full stop.
        path: The file concerned, as the user named it.
        offset: Byte offset in that file where the trouble lies.
        pfn: Page frame number concerned.
        advice: What the user can do, in one clause.
    """

    exit_status: ClassVar[int] = 3

    def __init__(
        self,
        message: str,
        *,
        path: str | None = None,
        offset: int | None = None,
        pfn: int | None = None,
        advice: str | None = None,
    ) -> None:
        message = " ".join(message.splitlines())  # what an input says of itself, such as its banner, may have more
        super().__init__(message)
        self.message = message
        self.path = path
        self.offset = offset
        self.pfn = pfn
        self.advice = advice

    def __str__(self) -> str:
        where = [f"at byte {self.offset:#x}"] if self.offset is not None else []
        where += [f"PFN {self.pfn:#x}"] if self.pfn is not None else []
        line = f"{self.path}: {self.message}" if self.path else self.message
        line += f" ({', '.join(where)})" if where else ""
        return f"{line}; {self.advice}" if self.advice else line


class UsageProblem(HibercheckError):
    """The command line, configuration or scenario asks for something that makes no sense."""

    exit_status = 2


class InputProblem(HibercheckError):
    """A file cannot be read at all (missing, a directory, no permission, changed while read)."""


class MalformedImage(InputProblem):
    """A hibernation image whose contents contradict its own format."""


class MalformedKernel(InputProblem):
    """A kernel file (ELF, bzImage, kallsyms, BTF, package) whose contents contradict its own format."""


class MalformedDump(InputProblem):
    """A memory dump, register listing or facts file whose contents contradict its own format."""


class Unsupported(InputProblem):
    """A format that was recognised by name and that hibercheck does not read."""


class Mismatch(InputProblem):
    """Two inputs that do not belong together, such as a resumee that did not write the image."""


class MissingFact(HibercheckError):
    """A fact the answer depends on is in none of the inputs (a symbol, a type, the content of a page).

    The command turns it into the outcome ``undetermined``: never into a default.
    """

    exit_status = 4
