"""The kernel's tables of code that it rewrites while it runs.

Bytes in memory differ from the file where one of these tables says so; a comparison of a park loop with what an image
holds must know which bytes those are.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from hibercheck.errors import MissingFact
from hibercheck.kernel.code import names
from hibercheck.kernel.code.disasm import Decoded, Flow
from hibercheck.kernel.code.model import Patch

if TYPE_CHECKING:
    from hibercheck.kernel.view import CodeView, SymbolView

MAX_TABLE = 1 << 24
"""Bytes; Debian's largest (.call_sites) has 1.1 MiB."""

# struct jump_entry { s32 code; s32 target; long key; };   include/linux/jump_label.h, relative since
# 50ff18ab497a ("jump_label: Implement generic support for relative references", in v4.20); three u64 before.
_RELATIVE_JUMP = struct.Struct("<iiq")
_ABSOLUTE_JUMP = struct.Struct("<QQQ")

_MAX_ALTERNATIVE = 255
"""Bytes that an alternative replaces at most: its length is a u8."""

_NOPS = {2: bytes.fromhex("6690"), 5: bytes.fromhex("0f1f440000")}


def _table(kernel: CodeView, known: Mapping[str, SymbolView], first: str, last: str, section: str) -> tuple[int, bytes]:
    """Return where a table is and its bytes: between two symbols, or a section of its own; none if there is neither."""
    found = kernel.section(section)
    start, size = (found.address, min(found.size, MAX_TABLE)) if found else (0, 0)
    if first in known and last in known:
        between = known[last].address - known[first].address
        if 0 < between <= MAX_TABLE:
            start, size = known[first].address, between
    try:
        return start, kernel.read(start, size)
    except MissingFact:
        return start, b""


def jump_labels(kernel: CodeView, known: Mapping[str, SymbolView]) -> dict[int, int]:
    """Return static branches: address of the instruction (a NOP or a JMP, by turns) to its destination.

    Returns:
        An empty mapping if the kernel has no such table or its symbols are not known; see `has_jump_labels`.
    """
    # The section's end symbol may precede its start symbol's address in small kernels that do not use jump labels.
    start, data = _table(kernel, known, "__start___jump_table", "__stop___jump_table", "__jump_table")
    if len(data) % _RELATIVE_JUMP.size == 0 and _plausible_jumps(data, start):
        places = range(start, start + len(data), _RELATIVE_JUMP.size)
        entries = zip(places, _RELATIVE_JUMP.iter_unpack(data), strict=True)
        return {at + code: at + 4 + target for at, (code, target, _) in entries}
    if len(data) % _ABSOLUTE_JUMP.size == 0:  # an entry that was taken out has 0
        return {code: target for _, (code, target, _) in enumerate_packed(_ABSOLUTE_JUMP, data) if _in_kernel(code)}
    return {}


def _in_kernel(address: int) -> bool:
    """Whether code of the kernel or of a module can be there: in the topmost 2 GiB."""
    return address >> 31 == (1 << 33) - 1


def _plausible_jumps(data: bytes, start: int) -> bool:
    """Whether the first entries, taken as relative, have a target near their code, as a 5-byte jump must."""
    for offset, (code, target, _) in enumerate_packed(_RELATIVE_JUMP, data[: 16 * _RELATIVE_JUMP.size]):
        if not _in_kernel(start + offset + code) or abs(4 + target - code) > 1 << 24:
            return False
    return bool(data)


def enumerate_packed(layout: struct.Struct, data: bytes) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield (byte offset, fields) for each packed entry; a partial last one is ignored."""
    whole = len(data) // layout.size * layout.size
    for index, fields in enumerate(layout.iter_unpack(data[:whole])):
        yield index * layout.size, fields


class PatchSites:
    """Which bytes of some instructions the kernel may rewrite.

    Args:
        kernel: The kernel.
        known: Its symbols, those of `hibercheck.kernel.code.names` among them.
        labels: What `jump_labels` gave.
    """

    def __init__(self, kernel: CodeView, known: Mapping[str, SymbolView], labels: Mapping[int, int]) -> None:
        self._kernel = kernel
        self._known = known
        self._labels = labels
        self._thunks = {
            known[name].address: why
            for group, why in (
                (names.RETURN_THUNKS, "return thunk"),
                (names.INDIRECT_THUNKS, "retpoline"),
                ({"__fentry__"}, "ftrace"),
            )
            for name in group
            if name in known
        }

    def within(self, nodes: Sequence[Decoded], ranges: tuple[tuple[int, int], ...]) -> tuple[Patch, ...]:
        """Every patch that touches the instructions ``nodes``, which fill ``ranges``; in address order."""
        found = [patch for node in nodes for patch in self._of(node)]
        found += [
            patch for start, end in ranges for patch in (*self._alternatives(start, end), *self._paravirt(start, end))
        ]
        return tuple(sorted(set(found), key=lambda patch: (patch.start, patch.why)))

    def _of(self, node: Decoded) -> Iterator[Patch]:
        """Patches that follow from the instruction itself; the tables list every such instruction (objtool)."""
        if node.address in self._labels:
            yield self._label(node, self._labels[node.address])
        if node.target in self._thunks and node.flow in (Flow.JUMP, Flow.CALL):
            yield Patch(node.address, node.end, self._thunks[node.target])
        elif node.flow is Flow.CALL and self._kernel.section(".call_sites") is not None:
            yield Patch(node.address, node.end, "call thunk")
        if node.code[0] == 0xF0 and self._kernel.section(".smp_locks") is not None:
            yield Patch(node.address, node.address + 1, "lock prefix", (b"\xf0", b"\x3e"))

    @staticmethod
    def _label(node: Decoded, target: int) -> Patch:
        """Return a static branch: a NOP when not taken, a JMP to its destination when taken."""
        width = node.size - 1
        distance = target - node.end
        if node.size not in _NOPS or not -(1 << 8 * width - 1) <= distance < 1 << 8 * width - 1:
            return Patch(node.address, node.end, "jump label")  # the table is damaged, or the encoding is new
        jump = (b"\xeb" if width == 1 else b"\xe9") + distance.to_bytes(width, "little", signed=True)
        other = tuple(one for one in (jump, _NOPS[node.size]) if one != node.code)
        return Patch(node.address, node.end, "jump label", (node.code, *other))

    def _alternatives(self, start: int, end: int) -> Iterator[Patch]:
        sites = self._alternative_sites
        for index in range(bisect_left(sites, (start - _MAX_ALTERNATIVE,)), bisect_left(sites, (end,))):
            at, length = sites[index]
            if at + length > start:
                yield Patch(at, at + length, "alternative")

    @cached_property
    def _alternative_sites(self) -> list[tuple[int, int]]:
        """Address and length of every place that has an alternative, in address order.

        From ``.altinstructions`` (arch/x86/include/asm/alternative.h), whose entry has shrunk and grown.

        s32 instr, s32 replacement, u16 feature, u8 length, u8 replacement length, then a u8 of padding in older
        kernels (13 bytes), nothing (12), or with the feature widened to 32 bits for flags (14).
        """
        start, data = _table(
            self._kernel, self._known, "__alt_instructions", "__alt_instructions_end", ".altinstructions"
        )
        for layout in (struct.Struct("<iiIBB"), struct.Struct("<iiHBB"), struct.Struct("<iiHBBB")):
            if len(data) % layout.size == 0 and self._plausible(layout, data):
                places = range(start, start + len(data), layout.size)
                entries = zip(places, layout.iter_unpack(data), strict=True)
                return sorted([(at + entry[0], entry[3]) for at, entry in entries])
        return []

    @staticmethod
    def _plausible(layout: struct.Struct, data: bytes) -> bool:
        """Whether the first entries make sense: a length, a replacement no longer than it, replacements ascending."""
        entries = list(enumerate_packed(layout, data[: 256 * layout.size]))
        replacements = [offset + fields[1] for offset, fields in entries if fields[4]]
        return all(max(fields[4], 1) <= fields[3] for _, fields in entries) and replacements == sorted(replacements)

    def _paravirt(self, start: int, end: int) -> Iterator[Patch]:
        """``.parainstructions``: { u8 *instr; u8 type; u8 len; } padded to 16 bytes; alternatives since v6.8."""
        _, data = _table(self._kernel, self._known, "__parainstructions", "__parainstructions_end", ".parainstructions")
        for _, (address, _, length) in enumerate_packed(struct.Struct("<QBB6x"), data):
            if start <= address < end:
                yield Patch(address, address + length, "paravirt")
