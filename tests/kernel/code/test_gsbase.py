"""What paranoid_entry() does with the GS base, in the forms that kernels have it."""

from __future__ import annotations

import pytest

from hibercheck.kernel.code.gsbase import may_set_gs_base, sets_gs_base

# Debian 6.1.176's from the page tables on: an alternative (is there PTI?), the switch, an alternative (FSGSBASE?), and
# both ways to the GS base.
LINKED = bytes.fromhex(
    "56 488b742408 31f6 eb1b 0f20d8 4989c6 480fbae00c 730e 9090909090 4825ffe7ffff 0f22d8"
    "eb25 f3480faecb 48c7c07b000000 480f03c0 4825ff0f0000 488b04c560cb3982 f3480faed8 eb18"
    "bb01000000 b9010100c0 0f32 85d2 7805 31db 0f01f8 90 c3"
)
FSGSBASE = LINKED.replace(bytes.fromhex("eb25f348"), bytes.fromhex("6690f348"))
PTI = LINKED.replace(bytes.fromhex("eb1b"), bytes.fromhex("6690"))
BOTH = FSGSBASE.replace(bytes.fromhex("eb1b"), bytes.fromhex("6690"))
OLD = bytes.fromhex("56 bb01000000 b9010100c0 0f32 85d2 7805 31db 0f01f8 c3")


@pytest.mark.parametrize(("code", "may", "does"), [
    (LINKED, True, False), (FSGSBASE, True, True), (PTI, True, False), (BOTH, True, True), (OLD, False, False),
])  # fmt: skip
def test_an_alternative_decides_whether_the_gs_base_is_set(code, may, does):
    assert (may_set_gs_base(code), sets_gs_base(code)) == (may, does)


@pytest.mark.parametrize(
    "code", [b"", b"\x90" * 200, b"\x90" * 20, b"\xeb\xfe", b"\xeb\x7f" + bytes(8), b"\xc3", b"\x06"]
)
def test_code_that_comes_to_neither_is_not_known(code):
    assert sets_gs_base(code) is None
    assert not may_set_gs_base(code)
