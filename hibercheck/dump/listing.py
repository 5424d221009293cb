"""The text of QEMU's monitor command ``info registers -a``."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from hibercheck.dump.registers import GENERAL, CpuRegisters
from hibercheck.errors import MalformedDump
from hibercheck.files.text import read_whole
from hibercheck.patterns import pattern

MAX_SIZE = 64 << 20
"""A listing is about 3 KiB per CPU."""

# x86_cpu_dump_state() in QEMU's target/i386/cpu-dump.c.  A CPU in 16-bit or 32-bit mode is printed with EAX, EIP, EFL.
_CPU = pattern(r"^\s*CPU#(\d{1,9})\s*$", re.ASCII)
_NUMBER = pattern(r"\b(?P<name>[A-Z][A-Z0-9]*) ?=(?P<value>[0-9a-fA-F]{1,32})\b")
_SEGMENT = pattern(
    r"\b(?P<name>[CDEFGS]S|LDT|TR) ?=(?P<selector>[0-9a-f]{4}) "
    r"(?P<base>[0-9a-f]{1,16}) (?P<limit>[0-9a-f]{8}) [0-9a-f]{8}"
)
_TABLE = pattern(r"\b(?P<name>GDT|IDT)= +(?P<base>[0-9a-f]{1,16}) (?P<limit>[0-9a-f]+)")
_SHORT = {f"E{name}": f"R{name}" for name in ("AX", "BX", "CX", "DX", "SI", "DI", "SP", "BP", "IP", "FL")}


@dataclass(slots=True)
class _Section:
    """What the lines of one CPU say, by the names that QEMU prints."""

    cpu: int
    line: int
    numbers: dict[str, int] = field(default_factory=dict)
    segments: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    tables: dict[str, tuple[int, int]] = field(default_factory=dict)


def read_listing(path: str) -> tuple[CpuRegisters, ...]:
    """Read the registers of all CPUs, in order of their numbers.

    Raises:
        InputProblem: The file cannot be read.
        MalformedDump: It is not a listing, or a CPU's section lacks registers or occurs twice.
    """
    text = read_whole(path, MAX_SIZE, "a register listing").decode("latin-1")
    sections: dict[int, _Section] = {}
    current: _Section | None = None
    for number, line in enumerate(text.splitlines(), 1):
        start = _CPU.match(line)
        if start is not None:
            current = _Section(int(start[1]), number)
            if current.cpu in sections:
                raise MalformedDump(f"line {number}: CPU {current.cpu} is listed twice", path=path)
            sections[current.cpu] = current
        elif current is not None or _NUMBER.match(line):
            if current is None:  # `info registers` without -a has no heading
                current = sections[0] = _Section(0, number)
            _take(current, line)
    if not sections:
        raise MalformedDump("holds no registers", path=path, advice="give the text of `info registers -a`")
    return tuple(_registers(sections[cpu], path) for cpu in sorted(sections))


def _take(section: _Section, line: str) -> None:
    for match in _SEGMENT.finditer(line):
        section.segments[match["name"]] = _triple(match)
    for match in _TABLE.finditer(line):
        section.tables[match["name"]] = (int(match["base"], 16), int(match["limit"], 16))
    for match in _NUMBER.finditer(line):
        section.numbers[_SHORT.get(match["name"], match["name"])] = int(match["value"], 16) & (1 << 64) - 1


def _triple(match: re.Match[str]) -> tuple[int, int, int]:
    return int(match["selector"], 16), int(match["base"], 16), int(match["limit"], 16)


def _registers(section: _Section, path: str) -> CpuRegisters:
    numbers, segments = section.numbers, section.segments
    try:
        tr, tr_base, tr_limit = segments["TR"]
        cs, cs_base, _limit = segments["CS"]
        return CpuRegisters(
            cpu=section.cpu,
            source="register listing",
            # R8 to R15 are not printed for a CPU that is not in 64-bit mode
            **{name: numbers.get(name.upper(), 0) if name[1:].isdigit() else numbers[name.upper()] for name in GENERAL},
            rip=numbers["RIP"],
            rflags=numbers["RFL"],
            cs=cs,
            cs_base=cs_base,
            ss=segments["SS"][0],
            fs_base=segments["FS"][1],
            gs_base=segments["GS"][1],
            cr0=numbers["CR0"],
            cr2=numbers["CR2"],
            cr3=numbers["CR3"],
            cr4=numbers["CR4"],
            efer=numbers["EFER"],
            gdt_base=section.tables["GDT"][0],
            gdt_limit=section.tables["GDT"][1],
            idt_base=section.tables["IDT"][0],
            idt_limit=section.tables["IDT"][1],
            tr=tr,
            tr_base=tr_base,
            tr_limit=tr_limit,
            halted=bool(numbers["HLT"]),
        )
    except KeyError as error:
        raise MalformedDump(
            f"line {section.line}: the registers of CPU {section.cpu} lack {error.args[0]}",
            path=path,
            advice="give the whole text of `info registers -a`",
        ) from error
