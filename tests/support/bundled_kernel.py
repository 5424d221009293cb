"""Take the kernel out of libkrunfw, the library that virtual machines of libkrun get theirs from.

    python tests/support/bundled_kernel.py KERNELS libkrunfw.so.5.5.0 libkrunfw5 5.5.0+ds-1

The library is in Debian's libkrunfw5 and in the wheel of microsandbox.  Its KERNEL_BUNDLE is the kernel's segments as
they lie in memory, krunfw_get_kernel() says where they begin; of that a vmlinux of one segment is made, in a directory
of its own below KERNELS.  Section headers, symbol table and build id are not in the library.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
from pathlib import Path

from elftools.elf.elffile import ELFFile
from iced_x86 import Decoder, Mnemonic, OpKind

from hibercheck.addresses import START_KERNEL_MAP

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_PAGE = 4096


def bundled(library: Path) -> tuple[int, int, bytes]:
    """Where the kernel of a library begins and starts in physical memory, and its contents."""
    with library.open("rb") as file:
        elf = ELFFile(file)
        symbols = {one.name: one for one in elf.get_section_by_name(".dynsym").iter_symbols()}

        def contents(name: str) -> bytes:
            start, size = symbols[name]["st_value"], symbols[name]["st_size"]
            (offset,) = elf.address_offsets(start, size)
            file.seek(offset)
            return file.read(size)

        code, bundle = contents("krunfw_get_kernel"), contents("KERNEL_BUNDLE")
    # It stores three constants through its arguments: load address, entry point, bytes.
    load, entry, size = (
        one.immediate(1)
        for one in Decoder(64, code)
        if one.mnemonic == Mnemonic.MOV and one.op0_kind == OpKind.MEMORY and one.op1_kind == OpKind.IMMEDIATE32TO64
    )
    return load, entry, bundle[:size]


def as_vmlinux(load: int, entry: int, contents: bytes) -> bytes:
    """An ELF file with one segment, where the kernel was linked to."""
    ident = b"\x7fELF\2\1\1".ljust(16, b"\0")
    header = _HEADER.pack(ident, 2, 62, 1, entry, _HEADER.size, 0, 0, _HEADER.size, _SEGMENT.size, 1, 0, 0, 0)
    size = len(contents)
    segment = _SEGMENT.pack(1, 7, _PAGE, START_KERNEL_MAP + load, load, size, size, _PAGE)
    return (header + segment).ljust(_PAGE, b"\0") + contents


def main() -> int:
    """Write what the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="where kernels are kept")
    parser.add_argument("library", type=Path, help="libkrunfw.so")
    parser.add_argument("package", help="the package that it is from, such as libkrunfw5 or microsandbox")
    parser.add_argument("version", help="its version")
    arguments = parser.parse_args()
    target = arguments.directory / f"linux-of-{arguments.package}"
    target.mkdir(parents=True, exist_ok=True)
    (target / "vmlinux").write_bytes(as_vmlinux(*bundled(arguments.library)))
    told = {"package": arguments.package, "version": arguments.version, "made": "tests/support/bundled_kernel.py"}
    (target / "provenance.json").write_text(json.dumps(told) + "\n")
    print(target / "vmlinux")
    return 0


if __name__ == "__main__":
    sys.exit(main())
