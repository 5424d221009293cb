"""Values on the command line: CPU lists, addresses and outputs, parsed as their users write them."""

from __future__ import annotations

import re

import click

from hibercheck.cli import memory
from hibercheck.cli.job import Output
from hibercheck.cpulist import parse_cpu_list
from hibercheck.numbers import decimal, either

_SUFFIXES = {"k": 10, "m": 20, "g": 30, "t": 40}


class PathType(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """A file, a device or a directory, looked at when it is opened: to click one without permission is bad usage."""

    name = "path"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[click.shell_completion.CompletionItem]:
        """Complete the names of files."""
        from click.shell_completion import CompletionItem

        del ctx, param
        return [CompletionItem(incomplete, type="file")]


class SizeType(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """An amount of memory: ``512M``, ``2G``, or bytes; 0 for no limit."""

    name = "SIZE"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Turn text into bytes."""
        try:
            return memory.amount(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class CpuListType(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """A list of CPUs, as in the kernel's ``cpulist`` files."""

    name = "LIST"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> frozenset[int]:
        """Turn text (or a number, out of a configuration file) into a set of CPUs."""
        if isinstance(value, frozenset):
            return value
        try:
            return parse_cpu_list(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class WholeType(click.IntRange):
    """A whole number in ASCII digits, within bounds: ``int`` takes other scripts' digits and ``1_000`` as well."""

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Turn text into a number."""
        try:
            number = value if type(value) is int else decimal(str(value).strip())
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return int(super().convert(number, param, ctx))


class PartType(click.FloatRange):
    """A part of a whole, 0 to 1, as a decimal fraction."""

    def __init__(self) -> None:
        super().__init__(0, 1)

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Turn text into a number."""
        if not re.fullmatch(r"[0-9]{0,3}(\.[0-9]{0,20})?", text := str(value).strip()) or text in {"", "."}:
            self.fail(f"{value!r} is not a part such as 0.4", param, ctx)
        return float(super().convert(float(text), param, ctx))


class AddressType(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """A physical address: ``0x1000000``, ``16777216`` or ``16M``."""

    name = "ADDR"

    def __init__(self, alignment: int = 1) -> None:
        self.alignment = alignment

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Turn text into bytes; suffixes as the kernel's ``memparse()`` has them."""
        text = str(value).strip().lower()
        shift = _SUFFIXES.get(text[-1:], 0)
        try:
            address = either(text[:-1] if shift else text) << shift
        except ValueError:
            self.fail(f"{value!r} is not an address such as 0x1000000 or 16M", param, ctx)
        if not 0 <= address < 1 << 52:
            self.fail(f"{value!r} is not a physical address (0 to 2^52-1)", param, ctx)
        if address % self.alignment:
            self.fail(f"{address:#x} is not a multiple of {self.alignment:#x}, as kernels are loaded", param, ctx)
        return address


class FactType(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """``NAME=VALUE``: a fact of the resumer's run."""

    name = "NAME=VALUE"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str] | object:
        """Check name and value, and split them; the value stays text."""
        from hibercheck.errors import UsageProblem
        from hibercheck.handoff.facts.given import parse_fact

        if isinstance(value, tuple):
            return value
        try:
            parse_fact(str(value))
        except UsageProblem as error:
            self.fail(f"{error.message}; {error.advice}", param, ctx)
        name, _, text = str(value).partition("=")
        return name, text

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[click.shell_completion.CompletionItem]:
        """Complete the names of facts."""
        from click.shell_completion import CompletionItem

        from hibercheck.handoff.facts.given import FACTS

        del ctx, param
        return [
            CompletionItem(f"{name}=", help=fact.what) for name, fact in FACTS.items() if name.startswith(incomplete)
        ]


def one_value_each(
    ctx: click.Context, param: click.Parameter, facts: tuple[tuple[str, str], ...]
) -> tuple[tuple[str, str], ...]:
    """See that no fact is given twice with different values: which of them holds nobody can know.

    Raises:
        click.BadParameter: One is.
    """
    known: dict[str, str] = {}
    for name, value in facts:
        if known.setdefault(name, value) != value:
            raise click.BadParameter(f"{name} is both {known[name]} and {value}; give it once", ctx, param)
    return facts


class OutputType(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """``FORMAT`` or ``FORMAT=FILE``."""

    name = "FORMAT[=FILE]"

    def __init__(self, formats: tuple[str, ...]) -> None:
        self.formats = formats

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Output:
        """Split the format from the file and check its name."""
        if isinstance(value, Output):
            return value
        name, _, path = str(value).partition("=")
        if name not in self.formats:
            self.fail(f"{name!r} is not a format; there are {', '.join(self.formats)}", param, ctx)
        if "=" in str(value) and not path:
            self.fail(f"{value!r} names no file", param, ctx)
        return Output(name, path or None)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[click.shell_completion.CompletionItem]:
        """Complete the names of formats."""
        from click.shell_completion import CompletionItem

        del ctx, param
        return [CompletionItem(name) for name in self.formats if name.startswith(incomplete)]
