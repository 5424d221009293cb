"""Which bytes of a park loop the kernel may patch: by its tables, and by the instructions that these always list."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from hibercheck.kernel.code.disasm import decode
from hibercheck.kernel.code.tables import PatchSites

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
    ("0f84fa0f0000", (), ("__x86_return_thunk",), []),  # a branch is no call of one
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
