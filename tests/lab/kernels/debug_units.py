"""Takes a few units out of a kernel's DWARF, so that clients can be tested without a hundred megabytes of it.

    python -m tests.lab.kernels.debug_units VMLINUX OUTPUT [UNIT...]

A UNIT is the end of a source file's name.  OUTPUT is an ELF file with the .debug_* sections of these units, the .BTF
that pahole makes of them, and nothing else.  Code, data and types do not depend on whether a kernel is built with
debugging information, and so what is taken out of such a build fits the one that was committed without (but for
.rodata, which holds the configuration).
"""

from __future__ import annotations

import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from elftools.dwarf.dwarfinfo import DWARFInfo
from elftools.elf.elffile import ELFFile

UNITS = (
    *("init/main.c", "init/init_task.c", "init/version.c", "kernel/fork.c", "kernel/pid.c", "kernel/sched/core.c"),
    *("kernel/printk/printk.c", "mm/page_alloc.c", "arch/x86/kernel/cpu/common.c"),
)
"""What drgn needs for tasks and log, and crash 8.0.2 to reach its prompt."""
ABBREV_OFFSET = 8  # in a DWARF 5 unit header: unit_length 4, version 2, unit_type 1, address_size 1


def reduce(vmlinux: str, units: tuple[str, ...]) -> dict[str, bytes]:
    """Return the .debug_* sections of some units of ``vmlinux``."""
    with open(vmlinux, "rb") as stream:  # noqa: PTH123
        elf = ELFFile(stream)
        dwarf = elf.get_dwarf_info(relocate_dwarf_sections=False)
        names = ("info", "abbrev", "str", "line_str", "rnglists")
        chosen = _chosen(dwarf, {name: elf.get_section_by_name(f".debug_{name}").data() for name in names}, units)
        return {f".debug_{name}": data for name, data in chosen.items()}


def _chosen(dwarf: DWARFInfo, sections: dict[str, bytes], units: tuple[str, ...]) -> dict[str, bytes]:
    info, abbrev = bytearray(), bytearray()
    used: dict[str, set[int]] = {"str": set(), "line_str": set(), "rnglists": set()}
    for unit in dwarf.iter_CUs():
        top = unit.get_top_DIE()
        if not top.get_full_path().endswith(units):
            continue
        start, size = unit.cu_offset, unit["unit_length"] + 4
        header = bytearray(sections["info"][start : start + size])
        struct.pack_into("<I", header, ABBREV_OFFSET, len(abbrev))
        info += header
        abbrev += _abbreviations(sections["abbrev"], unit["debug_abbrev_offset"])
        for die in unit.iter_DIEs():
            _note(die, used)
    kept = {name: _only(sections[name], used[name]) for name in ("str", "line_str")}
    return {"info": bytes(info), "abbrev": bytes(abbrev), "rnglists": _tables(sections["rnglists"], used), **kept}


def _note(die: Any, used: dict[str, set[int]]) -> None:
    for attribute in die.attributes.values():
        if attribute.form == "DW_FORM_strp":
            used["str"].add(attribute.raw_value)
        elif attribute.form == "DW_FORM_line_strp":
            used["line_str"].add(attribute.raw_value)
        elif attribute.name == "DW_AT_ranges":
            used["rnglists"].add(attribute.raw_value)


def _abbreviations(data: bytes, start: int) -> bytes:
    """Return one unit's table: declarations up to the code 0 (DWARF 5, 7.5.3)."""
    position = start

    def number() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = data[position]
            position += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while number():
        number()
        position += 1
        while True:
            name, form = number(), number()
            if form == 0x21:  # DW_FORM_implicit_const
                number()
            if (name, form) == (0, 0):
                break
    return data[start:position]


def _only(data: bytes, offsets: set[int]) -> bytes:
    """Blank every string that nothing refers to, and end behind the last: offsets stay what they are."""
    kept = bytearray(len(data))
    for offset in offsets:
        end = data.index(b"\0", offset)
        kept[offset:end] = data[offset:end]
    return bytes(kept).rstrip(b"\0") + b"\0"


def _tables(data: bytes, used: dict[str, set[int]]) -> bytes:
    """Blank the range lists of other units."""
    kept, start = bytearray(len(data)), 0
    while start < len(data):
        end = start + 4 + struct.unpack_from("<I", data, start)[0]
        if any(start <= offset < end for offset in used["rnglists"]):
            kept[start:end] = data[start:end]
        start = end
    return bytes(kept).rstrip(b"\0") + bytes(16)


def write(sections: dict[str, bytes], output: Path, *, base: Path | None = None) -> None:
    """Write an ELF file with these sections: beside those of ``base``, or no others."""
    with tempfile.TemporaryDirectory() as directory:
        room = Path(directory)
        if base is None:
            base = room / "empty.o"
            subprocess.run(["as", "--64", "-o", str(base), "/dev/null"], check=True)
        added = []
        for name, data in sections.items():
            (room / name).write_bytes(data)
            added += ["--add-section", f"{name}={room / name}"]
        subprocess.run(["objcopy", *added, str(base), str(output)], check=True)


def read(path: Path) -> dict[str, bytes]:
    """Return the sections of a file that this wrote."""
    with path.open("rb") as stream:
        found = ((section.name, section.data()) for section in ELFFile(stream).iter_sections())
        return {name: data for name, data in found if name.startswith((".debug_", ".BTF"))}


if __name__ == "__main__":
    write(reduce(sys.argv[1], tuple(sys.argv[3:]) or UNITS), Path(sys.argv[2]))
    subprocess.run(["pahole", "-J", sys.argv[2]], check=True)
