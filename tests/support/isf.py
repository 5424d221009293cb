"""Makes volatility3's symbol tables (ISF) of a kernel's BTF and symbols: its own maker needs DWARF.

They have what volatility3 needs to open a core and to list its tasks. It holds every member of every structure against
a schema, which takes it a minute for a whole kernel's.

python -m tests.support.isf vmlinux > symbols/linux/kernel.json
"""

from __future__ import annotations

import base64
import json
import struct
import sys
from collections.abc import Iterator
from typing import Any

from elftools.elf.elffile import ELFFile

INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT = range(1, 12)
FUNC, FUNC_PROTO, VAR, DATASEC, FLOAT, DECL_TAG, TYPE_TAG, ENUM64 = range(12, 20)
TRANSPARENT = {TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG}
TYPED = {"init_task": "task_struct", "modules": "list_head", "init_mm": "mm_struct", "init_pid_ns": "pid_namespace"}
"""Symbols that plugins use as objects, with their structures: BTF has the types of per-CPU variables only."""

SYMBOLS = {*TYPED, "linux_banner", "init_files", "init_top_pgt", "init_level4_pgt", "swapper_pg_dir"}
"""Those, and what volatility3 finds the kernel and its page table by."""

WANTED = (
    *("task_struct", "mm_struct", "cred", "list_head", "hlist_head", "file", "super_block", "vm_area_struct", "qstr"),
    *("dentry", "fs_struct", "files_struct", "kobject", "inode", "idr", "address_space", "page", "vfsmount", "module"),
    *("mount", "mnt_namespace", "pid_namespace", "maple_tree", "inet_sock", "net", "socket", "sock", "unix_sock"),
)
"""Structures without which volatility3 does not begin; a kernel without networks, or without modules, lacks some."""


class Types:
    """The types of one .BTF section (include/uapi/linux/btf.h)."""

    def __init__(self, data: bytes) -> None:
        magic, _, _, head, types, type_size, strings, string_size = struct.unpack_from("<HBBIIIII", data)
        assert magic == 0xEB9F
        self._strings = data[head + strings : head + strings + string_size]
        self._data = data[head + types : head + types + type_size]
        self.types: list[tuple[int, str, int, int, int, bool]] = [(0, "void", 0, 0, 0, False)]
        self.needed: list[int] = []
        """Structures and enumerations that :meth:`reference` has named."""
        position = 0
        while position < len(self._data):
            name, info, size = struct.unpack_from("<III", self._data, position)
            kind, count = info >> 24 & 31, info & 0xFFFF
            self.types.append((kind, self._name(name), size, count, position + 12, bool(info >> 31)))
            position += 12 + self._extra(kind, count)

    def _name(self, offset: int) -> str:
        return self._strings[offset : self._strings.index(b"\0", offset)].decode()

    @staticmethod
    def _extra(kind: int, count: int) -> int:
        each = {STRUCT: 12, UNION: 12, ENUM: 8, FUNC_PROTO: 8, DATASEC: 12, ENUM64: 12}
        fixed = {INT: 4, ARRAY: 12, VAR: 4, DECL_TAG: 4}
        return each.get(kind, 0) * count + fixed.get(kind, 0)

    def reference(self, number: int) -> dict[str, Any]:
        """Return how ISF refers to a type."""
        kind, name, size, _, position, _ = self.types[number]
        if kind in TRANSPARENT:
            return self.reference(size)
        if kind == PTR:
            return {"kind": "pointer", "subtype": self.target(size)}
        if kind == ARRAY:
            element, _, count = struct.unpack_from("<III", self._data, position)
            return {"kind": "array", "count": count, "subtype": self.reference(element)}
        if kind in {STRUCT, UNION, ENUM, ENUM64}:
            self.needed.append(number)
            return {"kind": {STRUCT: "struct", UNION: "union"}.get(kind, "enum"), "name": self.label(number)}
        if kind == FUNC_PROTO:
            return {"kind": "function"}
        if kind == FWD:
            return {"kind": "struct", "name": name}
        return {"kind": "base", "name": name if kind in {INT, FLOAT} else "void"}

    def target(self, number: int) -> dict[str, Any]:
        """Return what a pointer points to: nothing in particular if we do not want it, or pointers lead everywhere."""
        kind, name, size, *_ = self.types[number]
        if kind in TRANSPARENT:
            return self.target(size)
        unwanted = kind in {ARRAY, ENUM, ENUM64} or (kind in {STRUCT, UNION, FWD} and name not in WANTED)
        return {"kind": "base", "name": "void"} if unwanted else self.reference(number)

    def label(self, number: int) -> str:
        """Return a type's name, or one made of its number."""
        return self.types[number][1] or f"unnamed_{number}"

    def fields(self, number: int) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the members of a structure."""
        _, _, _, count, position, flag = self.types[number]
        for index in range(count):
            name, kind, offset = struct.unpack_from("<III", self._data, position + 12 * index)
            bits, width = (offset & 0xFFFFFF, offset >> 24) if flag else (offset, 0)
            reference, place = self.reference(kind), bits // 8
            if width:
                size = self._size(kind)
                place = bits // 8 // size * size
                reference = {
                    "kind": "bitfield",
                    "bit_length": width,
                    "bit_position": bits - place * 8,
                    "type": reference,
                }
            text = self._name(name)
            yield (
                text or f"unnamed_field_{place:x}_{index}",
                {"type": reference, "offset": place, "anonymous": not text},
            )

    def _size(self, number: int) -> int:
        kind, _, size, _, _, _ = self.types[number]
        return self._size(size) if kind in TRANSPARENT else size

    def constants(self, number: int) -> dict[str, int]:
        """Return the names and values of an enumeration."""
        kind, _, _, count, position, _ = self.types[number]
        result = {}
        for index in range(count):
            if kind == ENUM:
                name, value = struct.unpack_from("<Ii", self._data, position + 8 * index)
            else:
                name, low, high = struct.unpack_from("<III", self._data, position + 12 * index)
                value = high << 32 | low
            result[self._name(name)] = value
        return result

    def integer(self, number: int) -> dict[str, Any]:
        """Describe an integer or floating type."""
        kind, name, size, _, position, _ = self.types[number]
        if kind == FLOAT:
            return {"size": size, "signed": True, "kind": "float", "endian": "little"}
        encoding = self._data[position + 3]
        what = "bool" if encoding & 4 else "char" if name in {"char", "unsigned char", "signed char"} else "int"
        return {"size": size, "signed": bool(encoding & 1), "kind": what, "endian": "little"}


def make(path: str) -> dict[str, Any]:
    """Return the symbol table of the vmlinux at ``path``."""
    with open(path, "rb") as stream:  # noqa: PTH123
        elf = ELFFile(stream)
        types = Types(elf.get_section_by_name(".BTF").data())
        symbols = dict(_symbols(elf))
        banner = _bytes_at(elf, symbols["linux_banner"]["address"])
    symbols["linux_banner"]["constant_data"] = base64.b64encode(banner).decode()
    for name, structure in TYPED.items():
        if name in symbols:
            symbols[name]["type"] = {"kind": "struct", "name": structure}
    base = {
        "void": {"size": 0, "signed": False, "kind": "void", "endian": "little"},
        "pointer": {"size": 8, "signed": False, "kind": "int", "endian": "little"},
    }
    user: dict[str, Any] = {}
    enums: dict[str, Any] = {}
    for number, (kind, name, *_) in enumerate(types.types):
        if kind in {INT, FLOAT}:
            base.setdefault(name, types.integer(number))
        elif kind in {STRUCT, UNION} and name in WANTED:
            types.needed.append(number)
    # Members that are structures themselves are named on the way, and come last in the list.
    for number in types.needed:
        kind, _, size, *_ = types.types[number]
        label = types.label(number)
        if kind in {ENUM, ENUM64}:
            enums[label] = {"size": size, "base": "unsigned int", "constants": types.constants(number)}
        elif label not in user:
            what = "struct" if kind == STRUCT else "union"
            user[label] = {"size": size, "fields": dict(types.fields(number)), "kind": what}
    for name in WANTED:
        user.setdefault(name, {"size": 0, "fields": {}, "kind": "struct"})
    producer = {"name": "hibercheck tests", "version": "1.0.0"}
    metadata = {"format": "6.2.0", "producer": producer, "linux": {}}
    return {"metadata": metadata, "base_types": base, "user_types": user, "enums": enums, "symbols": symbols}


def _symbols(elf: ELFFile) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield those of SYMBOLS that the kernel has. To parse all 100,000, as pyelftools does, takes seconds."""
    table = elf.get_section_by_name(".symtab")
    names = elf.get_section(table["sh_link"]).data()
    for name, _, _, section, value, _ in struct.iter_unpack("<IBBHQQ", table.data()):
        text = names[name : names.index(b"\0", name)].decode()
        if text in SYMBOLS and section:
            yield text, {"address": value}


def _bytes_at(elf: ELFFile, address: int) -> bytes:
    for section in elf.iter_sections():
        if section["sh_addr"] and section["sh_addr"] <= address < section["sh_addr"] + section["sh_size"]:
            data = section.data()[address - section["sh_addr"] :][:1024]
            return data[: data.index(b"\0") + 1]
    raise LookupError(hex(address))


if __name__ == "__main__":
    json.dump(make(sys.argv[1]), sys.stdout)
