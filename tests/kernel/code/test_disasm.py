"""The instructions that the analysis depends on, and rubbish."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibercheck.kernel.code.disasm import Flow, decode

HERE = 0xFFFFFFFF81000000


def one(code, address=HERE):
    decoded = decode(bytes.fromhex(code), address)
    assert decoded is not None
    return decoded


@pytest.mark.parametrize(
    ("code", "mnemonic", "flow"),
    [
        ("0f01c8", "monitor", Flow.NEXT),
        ("0f01c9", "mwait", Flow.NEXT),
        ("0f01fa", "monitorx", Flow.NEXT),
        ("0f01fb", "mwaitx", Flow.NEXT),
        ("f4", "hlt", Flow.NEXT),
        ("ec", "in", Flow.NEXT),
        ("f30f1efa", "endbr64", Flow.NEXT),
        ("c3", "ret", Flow.RETURN),
        ("f3c3", "ret", Flow.RETURN),
        ("ebfe", "jmp", Flow.JUMP),
        ("75fe", "jne", Flow.BRANCH),
        ("e800000000", "call", Flow.CALL),
        ("ff1500000000", "call", Flow.INDIRECT_CALL),
        ("ffe0", "jmp", Flow.INDIRECT_JUMP),
        ("0f0b", "ud2", Flow.STOP),
        ("cc", "int3", Flow.STOP),
        ("f20f01ca", "erets", Flow.RETURN),
    ],
)
def test_flow(code, mnemonic, flow):
    decoded = one(code)
    assert (decoded.mnemonic, decoded.flow, decoded.end) == (mnemonic, flow, HERE + len(code) // 2)


def test_a_target_is_unsigned():
    assert one("ebfe").target == HERE


def test_rip_relative_per_cpu_data_wraps_to_a_small_offset():
    (operand,) = one("658b0507f0007f", 0xFFFFFFFF81000000).operands  # mov %gs:0x7f00f007(%rip), %eax
    assert operand.gs
    assert operand.address == (0xFFFFFFFF81000000 + 7 + 0x7F00F007) & (1 << 64) - 1
    assert operand.address < 1 << 20


def test_operands_of_what_touches_the_line():
    (flush,) = one("0fae3e").operands  # clflush (%rsi)
    assert (flush.base, flush.access, flush.address) == ("rsi", "read", None)
    (verw,) = one("0f002d00000000").operands
    assert (verw.address, verw.access, verw.gs) == (HERE + 7, "read", False)


def test_a_store_of_a_sign_extended_constant():
    decoded = one("48c7050000000000001081")  # movq $0xffffffff81100000, 0(%rip)
    assert decoded.immediate == 0xFFFFFFFF81100000
    (operand,) = decoded.operands
    assert (operand.access, operand.address) == ("write", HERE + 11)


def test_calls_and_pushes_write_to_the_stack():
    for code in ("e800000000", "55"):
        (operand,) = one(code).operands
        assert (operand.base, operand.access) == ("rsp", "write")


def test_lea_computes_and_does_not_touch():
    decoded = one("488d0500000000")
    assert decoded.operands == ()
    assert decoded.effective is not None
    assert decoded.effective.address == HERE + 7
    assert one("488db00058cf83").effective.displacement == -0x7C30A800


def test_registers_are_named_by_their_widest():
    decoded = one("89d8")  # mov %ebx, %eax
    assert (decoded.destination, decoded.source) == ("rax", "rbx")
    assert "rax" in decoded.written


@pytest.mark.parametrize("code", ["", "06", "0f", "48", "ff", "c5f8"])
def test_no_instruction(code):
    assert decode(bytes.fromhex(code), HERE) is None


@given(st.binary(max_size=20), st.integers(0, (1 << 64) - 1))
def test_any_bytes(code, address):
    decoded = decode(code, address)
    if decoded is not None:
        assert 1 <= decoded.size <= 15
        assert code.startswith(decoded.code)
        assert decoded.render().text
