"""Which bytes of a park loop the kernel may patch: by its tables, and by the instructions that these always list."""

from __future__ import annotations

import struct
from types import SimpleNamespace

import pytest

from hibercheck.errors import MissingFact
from hibercheck.kernel.code.disasm import decode
from hibercheck.kernel.code.tables import PatchSites, jump_labels

AT = 0xFFFFFFFF81000000
THUNK = AT + 0x1000


def patches(code, *, sections=(), known=(), labels=None):
    """Return the patches of one instruction at AT, as (start, size, why, other contents)."""
    node = decode(bytes.fromhex(code).ljust(15, b"\x90"), AT)
    kernel = SimpleNamespace(section=lambda name: SimpleNamespace() if name in sections else None)
    symbols = {name: SimpleNamespace(name=name, address=THUNK) for name in known}
    found = PatchSites(kernel, symbols, labels or {}).within([node], ())
    return [(one.start - AT, one.end - one.start, one.why, one.variants) for one in found]


CALL, JUMP = "e8fb0f0000", "e9fb0f0000"  # to the thunk
LOCKED = "f0830001"  # lock addl $1,(%rax)


@pytest.mark.parametrize(("code", "sections", "known", "expected"), [
    (LOCKED, {".smp_locks"}, (), [(0, 1, "lock prefix", (b"\xf0", b"\x3e"))]), (LOCKED, (), (), []),
    ("830001", {".smp_locks"}, (), []),
    (JUMP, (), ("__x86_return_thunk",), [(0, 5, "return thunk", ())]),
    (CALL, (), ("__x86_indirect_thunk_rax",), [(0, 5, "retpoline", ())]),
    (CALL, (), ("__fentry__",), [(0, 5, "ftrace", ())]),
    (CALL, (), (), []), (CALL, {".call_sites"}, (), [(0, 5, "call thunk", ())]),
    (CALL, {".call_sites"}, ("__fentry__",), [(0, 5, "ftrace", ())]),
    (JUMP, {".call_sites"}, (), []),
    ("0f84fa0f0000", (), ("__x86_return_thunk",), []),  # a branch is not a call of one
])  # fmt: skip
def test_instructions_that_the_tables_always_list(code, sections, known, expected):
    assert patches(code, sections=sections, known=known) == expected


NOP2, NOP5 = bytes.fromhex("6690"), bytes.fromhex("0f1f440000")


@pytest.mark.parametrize(("code", "target", "variants"), [
    ("6690", AT + 2 + 0x7F, (NOP2, b"\xeb\x7f")), ("6690", AT + 2 - 0x80, (NOP2, b"\xeb\x80")),
    ("eb7f", AT + 2 + 0x7F, (b"\xeb\x7f", NOP2)),
    ("6690", AT + 2 + 0x80, ()), ("6690", AT + 2 - 0x81, ()),  # too far for two bytes: the table is damaged
    ("0f1f440000", AT + 5 + 0x1000, (NOP5, bytes.fromhex("e900100000"))),
    ("e900100000", AT + 5 + 0x1000, (bytes.fromhex("e900100000"), NOP5)),
    ("0f1f440000", AT + 5 - (1 << 31), (NOP5, bytes.fromhex("e900000080"))),
    ("0f1f440000", AT + 5 + (1 << 31), ()), ("0f1f440000", AT + 5 - (1 << 31) - 1, ()),
    ("0f1f00", AT + 0x10, ()),  # three bytes hold neither
])  # fmt: skip
def test_a_static_branch_is_a_jump_or_nothing(code, target, variants):
    size = len(bytes.fromhex(code))
    assert patches(code, labels={AT: target}) == [(0, size, "jump label", variants)]
    assert patches(code, labels={AT + 1: target}) == []


TABLE, CODE = 0xFFFFFFFF82000000, 0xFFFFFFFF81000000


def kernel_with(sections=None, **tables):
    """A kernel with these bytes at TABLE and on, each with the symbols of its bounds."""
    memory, known, at = {}, {}, TABLE
    for name, data in tables.items():
        first, last = BOUNDS[name]
        known |= {first: SimpleNamespace(address=at), last: SimpleNamespace(address=at + len(data))}
        memory |= {at + place: byte for place, byte in enumerate(data)}
        at += 0x10000

    def read(address, size):
        if address not in memory:
            raise MissingFact("not in the file")
        return bytes(memory[place] for place in range(address, address + size))

    kernel = SimpleNamespace(read=read, section=(sections or {}).get)
    return kernel, known


BOUNDS = {
    "jumps": ("__start___jump_table", "__stop___jump_table"),
    "alternatives": ("__alt_instructions", "__alt_instructions_end"),
    "paravirt": ("__parainstructions", "__parainstructions_end"),
}
JUMPS = {CODE + 0x10: CODE + 0x40, CODE + 0x80: CODE + 0x20, CODE + 0x1000: CODE}


def relative(jumps, start=TABLE):
    return b"".join(
        struct.pack("<iiQ", code - start - 16 * number, target - start - 16 * number - 4, 7)
        for number, (code, target) in enumerate(jumps.items())
    )


def absolute(jumps):
    return b"".join(struct.pack("<QQQ", code, target, 7) for code, target in jumps.items())


TWO = dict(list(JUMPS.items())[:2])
FAR = {CODE: CODE + 0x1000001}
LOW = 0xFFFFFFFF80000000
LOWEST, HIGHEST = {CODE: CODE + 0x40, LOW: LOW + 0x40}, {0xFFFFFFFFFF000000: 0xFFFFFFFFFF000040}
"""The kernel's and its modules' code is in the topmost 2 GiB."""
SIX = {CODE + 16 * number: CODE for number in range(6)}


@pytest.mark.parametrize(("data", "expected"), [
    (relative(JUMPS), JUMPS), (absolute(JUMPS), JUMPS), (absolute(TWO), TWO),
    (absolute(SIX), SIX), (relative(SIX), SIX),  # of 144 bytes and of 96, which both lengths divide
    (absolute({CODE: CODE + 5, 0: 0, CODE + 5: CODE}), {CODE: CODE + 5, CODE + 5: CODE}),  # one that was taken out
    (absolute({CODE: CODE + 5, 5: 0, CODE & (1 << 63) - 1: CODE}), {CODE: CODE + 5}),
    (relative(LOWEST), LOWEST), (relative(HIGHEST), HIGHEST), (relative({LOW - 1: LOW}), {}),
    (relative(FAR), {}), (relative({CODE: CODE + 0x1000000}), {CODE: CODE + 0x1000000}),
    (relative(JUMPS)[:-1], {}), (b"", {}),
])  # fmt: skip
def test_static_branches_in_either_form(data, expected):
    kernel, known = kernel_with(jumps=data)
    assert jump_labels(kernel, known) == expected
    section = SimpleNamespace(address=TABLE, size=len(data))
    assert jump_labels(kernel_with({"__jump_table": section}, jumps=data)[0], {}) == expected
    assert jump_labels(kernel, {}) == {}


def test_a_table_that_is_not_in_the_file_or_ends_before_it_begins_is_none():
    kernel, known = kernel_with(jumps=relative(JUMPS))
    known["__stop___jump_table"] = SimpleNamespace(address=TABLE - 16)
    assert jump_labels(kernel, known) == {}
    assert (
        jump_labels(kernel, {name: SimpleNamespace(address=one.address + 0x100000) for name, one in known.items()})
        == {}
    )


@pytest.mark.parametrize("size", [16, 1 << 24, (1 << 24) + 16])
@pytest.mark.parametrize("known", [(), ("__start___jump_table",), ("__stop___jump_table",), BOUNDS["jumps"]])
def test_where_a_table_is(size, known):
    """Between its symbols, if both are there and are not too far apart; else in its section, as far as that may go."""
    asked = []

    def read(address, count):
        asked.append((address, count))
        raise MissingFact("not in the file")

    other = TABLE + 0x4000000
    symbols = {"__start___jump_table": TABLE, "__stop___jump_table": TABLE + size}
    known = {name: SimpleNamespace(address=symbols[name]) for name in known}
    section = SimpleNamespace(address=other, size=size)
    assert jump_labels(SimpleNamespace(read=read, section={"__jump_table": section}.get), known) == {}
    between = len(known) == 2 and size <= 1 << 24
    assert asked == [(TABLE, size) if between else (other, min(size, 1 << 24))]
    empty = {name: SimpleNamespace(address=TABLE) for name in BOUNDS["jumps"]}
    assert jump_labels(SimpleNamespace(read=read, section={"__jump_table": section}.get), empty) == {}
    assert asked[1:] == [(other, min(size, 1 << 24))]


def sites(start, end, **tables):
    kernel, known = kernel_with(**tables)
    found = PatchSites(kernel, known, {}).within([], ((start, end),))
    return [(one.start - CODE, one.end - CODE, one.why) for one in found]


FORMS = {12: "<iiHBB", 13: "<iiHBBB", 14: "<iiIBB"}


def alternatives(form, places):
    """Entries for (offset in the code, length), each with a replacement of its length, one behind the other."""
    layout, entries, at = struct.Struct(FORMS[form]), [], 0x500000
    for number, (place, length) in enumerate(places):
        here = TABLE + layout.size * number
        more = (0,) if form == 13 else ()
        entries.append(layout.pack(CODE + place - here, CODE + at - here - 4, 3, length, length, *more))
        at += length
    return b"".join(entries)


PLACES = [(0x100, 5), (0x20, 3), (0x40, 200), (0x3F0, 2)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("start", "end", "expected"), [
    (0, 0x20, []), (0, 0x21, [(0x20, 0x23)]), (0x22, 0x30, [(0x20, 0x23)]), (0x23, 0x40, []),
    (0x100, 0x101, [(0x40, 0x108), (0x100, 0x105)]), (0x107, 0x200, [(0x40, 0x108)]), (0x108, 0x200, []),
    (0, 0x1000, [(0x20, 0x23), (0x40, 0x108), (0x100, 0x105), (0x3F0, 0x3F2)]),
])  # fmt: skip
def test_alternatives_that_touch_a_range(form, start, end, expected):
    found = sites(CODE + start, CODE + end, alternatives=alternatives(form, PLACES))
    assert found == [(*one, "alternative") for one in expected]


def entries(*fields, form=12):
    """Entries of (offset in the code, length, where the replacement is, its length)."""
    layout = struct.Struct(FORMS[form])
    return b"".join(
        layout.pack(CODE + place - TABLE - layout.size * number, CODE + at - TABLE - layout.size * number - 4, 3,
                    length, replacement, *((0,) if form == 13 else ()))
        for number, (place, length, at, replacement) in enumerate(fields)
    )  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("fields", "expected"), [
    ([(0x10, 5, 0x500000, 3)], [(0x10, 0x15)]), ([(0x10, 5, 0x500000, 5)], [(0x10, 0x15)]),
    ([(0x10, 5, 0x500000, 6)], []),  # longer than what it replaces
    ([(0x10, 5, 0x500000, 0)], [(0x10, 0x15)]), ([(0x10, 1, 0x500000, 1)], [(0x10, 0x11)]),  # by NOPs; and one byte
    ([(0x10, 0, 0x500000, 0)], []),
    ([(0x10, 5, 0x500000, 3), (0x20, 3, 0x500003, 3)], [(0x10, 0x15), (0x20, 0x23)]),
    ([(0x10, 5, 0x500000, 3), (0x20, 3, 0x500000, 3)], [(0x10, 0x15), (0x20, 0x23)]),  # of both one replacement
    ([(0x10, 5, 0x500001, 3), (0x20, 3, 0x500000, 3)], []),
    ([(0x10, 5, 0x500001, 3), (0x20, 3, 0x500000, 0)], [(0x10, 0x15), (0x20, 0x23)]),  # where there is none
    ([(0x10, 5, 0x500001, 0), (0x20, 3, 0x500000, 3)], [(0x10, 0x15), (0x20, 0x23)]),
    ([(0x10, 5, 0x500002, 3), (0x20, 3, 0x400000, 0), (0x30, 3, 0x500001, 3)], []),
])  # fmt: skip
def test_what_alternatives_are_known_by(form, fields, expected):
    """apply_alternatives(), arch/x86/kernel/alternative.c; the linker lays replacements out in the order of entries."""
    data = entries(*fields, form=form)
    assert sites(CODE, CODE + 0x100, alternatives=data) == [(*one, "alternative") for one in expected]
    section = {".altinstructions": SimpleNamespace(address=TABLE, size=len(data))}
    found = PatchSites(kernel_with(section, alternatives=data)[0], {}, {}).within([], ((CODE, CODE + 0x100),))
    assert [(one.start - CODE, one.end - CODE) for one in found] == expected


@pytest.mark.parametrize("data", [
    b"\0" * 24, alternatives(12, PLACES)[:-1], alternatives(12, [(0x20, 0)]),
    struct.pack("<iiHBB", 0, 0, 0, 2, 3) * 7,  # a replacement that is longer than what it replaces
    struct.pack("<iiHBB", CODE - TABLE, 0x500, 0, 2, 2) + struct.pack("<iiHBB", CODE - TABLE, 0x400, 0, 2, 2),
])  # fmt: skip
def test_what_is_no_table_of_alternatives(data):
    assert sites(CODE, CODE + 0x1000, alternatives=data) == []


@pytest.mark.parametrize(("start", "end", "expected"), [
    (0, 0x100, [(0x10, 0x17), (0x30, 0x32)]), (0x10, 0x30, [(0x10, 0x17)]), (0x11, 0x30, []),
    (0x30, 0x31, [(0x30, 0x32)]),
])  # fmt: skip
def test_paravirt_calls_in_a_range(start, end, expected):
    data = struct.pack("<QBB6x", CODE + 0x10, 4, 7) + struct.pack("<QBB6x", CODE + 0x30, 5, 2)
    assert sites(CODE + start, CODE + end, paravirt=data) == [(*one, "paravirt") for one in expected]
    section = {".parainstructions": SimpleNamespace(address=TABLE, size=len(data))}
    found = PatchSites(kernel_with(section, paravirt=data)[0], {}, {}).within([], ((CODE + start, CODE + end),))
    assert [(one.start - CODE, one.end - CODE) for one in found] == expected
    assert sites(CODE + start, CODE + end, paravirt=data + b"\1") == [(*one, "paravirt") for one in expected]
