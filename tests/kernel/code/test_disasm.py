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


MINUS_1 = (1 << 64) - 1
EACH = {
    # code: text, immediate, destination, source, written, accesses
    "48b8efcdab8967452301": ("movabs $0x123456789abcdef,%rax", 0x123456789ABCDEF, "rax", None, {"rax"}, []),
    "66050100": ("add $1,%ax", 1, "rax", None, {"rax"}, []),
    "6683c0ff": ("add $0xffff,%ax", MINUS_1, "rax", None, {"rax"}, []),
    "83c0ff": ("add $0xffffffff,%eax", MINUS_1, "rax", None, {"rax"}, []),
    "4883c0ff": ("add $0xffffffffffffffff,%rax", MINUS_1, "rax", None, {"rax"}, []),
    "480500000080": ("add $0xffffffff80000000,%rax", 0xFFFFFFFF80000000, "rax", None, {"rax"}, []),
    "0500000080": ("add $0x80000000,%eax", 0x80000000, "rax", None, {"rax"}, []),
    "b105": ("mov $5,%cl", 5, "rcx", None, {"rcx"}, []),
    "b405": ("mov $5,%ah", 5, "rax", None, {"rax"}, []),
    "6aff": ("push $0xffffffffffffffff", MINUS_1, None, None, {"rsp"}, [("write", "rsp", -8, 8)]),
    "c20800": ("ret $8", 8, None, None, {"rsp"}, [("read", "rsp", 0, 8)]),
    "c1e005": ("shl $5,%eax", 5, "rax", None, {"rax"}, []),
    "cd80": ("int $0x80", 0x80, None, None, set(), []),
    # how memory is accessed (SDM 2A: CMPXCHG always writes; CMOVcc may not read, and REP may do nothing)
    "8b45f0": ("mov -0x10(%rbp),%eax", None, "rax", None, {"rax"}, [("read", "rbp", -16, 4)]),
    "668945f0": ("mov %ax,-0x10(%rbp)", None, None, "rax", set(), [("write", "rbp", -16, 2)]),
    "ff4008": ("incl 8(%rax)", None, None, None, set(), [("read+write", "rax", 8, 4)]),
    "480fb10f": ("cmpxchg %rcx,(%rdi)", None, None, "rcx", {"rax"}, [("read+write", "rdi", 0, 8)]),
    "0fc70f": ("cmpxchg8b (%rdi)", None, None, None, {"rax", "rdx"}, [("read+write", "rdi", 0, 8)]),
    "480f440f": ("cmove (%rdi),%rcx", None, "rcx", None, {"rcx"}, [("read", "rdi", 0, 8)]),
    "f348ab": ("rep stos %rax,(%rdi)", None, None, "rax", {"rcx", "rdi"}, [("write", "rdi", 0, 0)]),
    "48ab": ("stos %rax,(%rdi)", None, None, "rax", {"rdi"}, [("write", "rdi", 0, 8)]),
    "4887d8": ("xchg %rbx,%rax", None, "rax", "rbx", {"rax", "rbx"}, []),
    "0fa2": ("cpuid", None, None, None, {"rax", "rbx", "rcx", "rdx"}, []),
    "c3": ("ret", None, None, None, {"rsp"}, [("read", "rsp", 0, 8)]),
    "90": ("nop", None, None, None, set(), []),
}


@pytest.mark.parametrize("code", EACH)
def test_what_an_instruction_reads_and_writes(code):
    decoded = one(code)
    text, immediate, destination, source, written, accesses = EACH[code]
    assert (decoded.render().text, decoded.render().address, decoded.render().size) == (text, HERE, len(code) // 2)
    assert (decoded.immediate, decoded.destination, decoded.source) == (immediate, destination, source)
    assert decoded.written == written
    assert [(op.access, op.base, op.displacement, op.size) for op in decoded.operands] == accesses


@pytest.mark.parametrize(("code", "place"), [
    ("8b44cb10", ("rbx", "rcx", 8, 16, None)), ("8b04cd10000000", (None, "rcx", 8, 16, None)),
    ("8b0425000081ff", (None, None, 1, -0x7F0000, 0xFFFFFFFFFF810000)),
    ("8b0500010000", (None, None, 1, 0x106 - 0x7F000000, HERE + 0x106)), ("8b03", ("rbx", None, 1, 0, None)),
    ("8b83ffffff7f", ("rbx", None, 1, 0x7FFFFFFF, None)), ("8b8300000080", ("rbx", None, 1, -0x80000000, None)),
])  # fmt: skip
@pytest.mark.parametrize("gs", [False, True])
def test_where_an_operand_lies(code, place, gs):
    base, index, scale, displacement, address = place
    if gs and code.startswith("8b05"):
        displacement, address = displacement + 1, address + 1  # the prefix is a byte
    (operand,) = one(f"65{code}" if gs else code).operands
    found = (operand.gs, operand.base, operand.index, operand.scale, operand.displacement, operand.address)
    assert found == (gs, base, index, scale, displacement, address)


@pytest.mark.parametrize(("code", "place"), [
    ("488d44cb10", ("rbx", "rcx", 8, 16, None)), ("488d0425000081ff", (None, None, 1, -0x7F0000, 0xFFFFFFFFFF810000)),
    ("488d43f0", ("rbx", None, 1, -16, None)), ("8b43f0", None), ("0fb6c0", None), ("c3", None),
])  # fmt: skip
def test_what_lea_computes(code, place):
    found = one(code).effective
    if place is None:
        assert found is None
        return
    assert (found.base, found.index, found.scale, found.displacement, found.address) == place
    assert (found.access, found.gs, found.size) == ("read", False, 0)


@pytest.mark.parametrize(("code", "target"), [
    ("ebfe", HERE), ("75fe", HERE), ("e8fbffffff", HERE), ("e900010000", HERE + 0x105), ("0f8400010000", HERE + 0x106),
    ("ffe0", None), ("ff1500000000", None), ("c3", None), ("90", None),
])  # fmt: skip
def test_where_control_goes(code, target):
    assert one(code).target == target
    text = one(code).render().text
    assert target is None or text.endswith(f" {target:#x}")


def test_addresses_are_shown_without_zeros_before_them():
    assert decode(b"\xeb\xfe", 0x1000).render().text == "jmp 0x1000"


def test_in_32_bit_code_registers_are_named_alike_and_targets_have_32_bits():
    inc, jump = (decode(bytes.fromhex(code), 0xFFFFFFFF_00001000, bits=32) for code in ("40", "ebfe"))
    assert (inc.mnemonic, inc.written, inc.destination) == ("inc", {"rax"}, "rax")
    assert (jump.target, jump.end) == (0x1000, 0xFFFFFFFF_00001002)


def test_an_instruction_has_at_most_15_bytes():
    """SDM 2A 2.3.11: a longer one is a general protection fault."""
    assert decode(b"\x66" * 14 + b"\x90", HERE).size == 15
    assert decode(b"\x66" * 15 + b"\x90", HERE) is None
