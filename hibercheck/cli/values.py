"""Values on the command line: CPU lists, addresses and outputs, parsed as their users write them."""

from __future__ import annotations

import re
from dataclasses import dataclass

import click

MAX_CPUS = 8192
"""The largest CONFIG_NR_CPUS that x86-64 offers (arch/x86/Kconfig, NR_CPUS_RANGE_END)."""

_RANGE = re.compile(r"(?P<first>\d+)(?:-(?P<last>\d+)(?::(?P<used>\d+)/(?P<group>\d+))?)?\Z", re.ASCII)
_SUFFIXES = {"k": 10, "m": 20, "g": 30, "t": 40}


def parse_cpu_list(text: str) -> frozenset[int]:
    """Parse a list of CPUs as the kernel does: ``2,3``, ``1-3``, ``0-15:2/4``.

    The grammar is ``bitmap_parselist()``'s (lib/bitmap-str.c): ``first[-last[:used/group]]``, separated by commas.

    Raises:
        ValueError: The text is not such a list, or names a CPU beyond `MAX_CPUS`; the message says which part.
    """
    cpus: set[int] = set()
    for part in text.replace("\n", ",").split(","):
        if not part.strip():
            continue
        match = _RANGE.match(part.strip())
        if not match:
            raise ValueError(f"{part.strip()!r} is not a CPU or a range of CPUs such as 1-3")
        first = int(match["first"])
        last = int(match["last"] or first)
        if last < first:
            raise ValueError(f"the range {part.strip()!r} ends before it begins")
        if last >= MAX_CPUS:
            raise ValueError(f"CPU {last} is beyond the {MAX_CPUS} that the kernel supports")
        used, group = int(match["used"] or 1), int(match["group"] or 1)
        if group == 0 or used > group:
            raise ValueError(f"{part.strip()!r} uses {used} of each group of {group}")
        cpus.update(cpu for cpu in range(first, last + 1) if (cpu - first) % group < used)
    return frozenset(cpus)


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
            address = int(text[:-1] if shift else text, 0) << shift
        except ValueError:
            self.fail(f"{value!r} is not an address such as 0x1000000 or 16M", param, ctx)
        if not 0 <= address < 1 << 52:
            self.fail(f"{value!r} is not a physical address (0 to 2^52-1)", param, ctx)
        if address % self.alignment:
            self.fail(f"{address:#x} is not a multiple of {self.alignment:#x}, as kernels are loaded", param, ctx)
        return address


@dataclass(frozen=True, slots=True)
class Output:
    """One wanted output: a format, and the file it goes to (None: standard output)."""

    format: str
    path: str | None = None


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
            self.fail(f"{name!r} is no format; there are {', '.join(self.formats)}", param, ctx)
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
