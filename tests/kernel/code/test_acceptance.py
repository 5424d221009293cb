"""Which images a kernel accepts."""

from __future__ import annotations

import pytest

from tests.kernel.code.conftest import PARTS


def snapshot(body):
    return f"fn snapshot_write_next\n{body}\n ret\nend snapshot_write_next\n"


@pytest.mark.parametrize(
    "body",
    [" movabs $0x7fffffffffffffff, %rcx\n and %rcx, %rax", " btr $63, %rax", " bt $63, %rax"],
    ids=["mask", "btr", "bt"],
)
def test_zero_pages(made, body):
    assert made.traits(snapshot=snapshot(body)).zero_pages.value is True


def test_zero_pages_in_the_cold_part(made):
    parts = snapshot(" test %rax, %rax\n jne snapshot_write_next.cold\n1:")
    cold = "fn snapshot_write_next.cold\n btr $63, %rax\n jmp snapshot_write_next+8\nend snapshot_write_next.cold\n"
    assert made.traits(snapshot=parts, extra=cold).zero_pages.value is True


def test_zero_pages_in_a_function_of_its_own(made):
    unpack = "fn unpack_orig_pfns.constprop.0\n btr $63, %rax\n ret\nend unpack_orig_pfns.constprop.0\n"
    parts = snapshot(" call unpack_orig_pfns.constprop.0")
    assert made.traits(snapshot=parts, extra=unpack).zero_pages.value is True


def test_no_zero_pages(made):
    assert made.traits(snapshot=snapshot(" and $0x3f, %eax\n bt $3, %eax")).zero_pages.value is False


def test_without_the_code_it_is_unknown(made):
    assert made.traits(snapshot="").zero_pages.value is None


@pytest.mark.parametrize(
    ("magic", "check"),
    [
        (0x0123456789ABCDEF, "none"),
        (0x123456789ABCDEF0, "none"),
        (0x23456789ABCDEF01, "md5"),
        (0x23456789ABCDEF02, "crc32"),
    ],
)
def test_the_record(made, magic, check):
    header = PARTS["header"].replace("0x23456789abcdef02", hex(magic)).replace(" call crc32_le\n", "")
    traits = made.traits(header=header)
    assert traits.arch_record_magic.value == magic
    assert traits.e820_check.value == check


def test_an_unknown_magic_is_told_and_its_check_unknown(made):
    header = PARTS["header"].replace("0x23456789abcdef02", "0x23456789abcdef03").replace(" call crc32_le\n", "")
    traits = made.traits(header=header)
    assert traits.arch_record_magic.value == 0x23456789ABCDEF03
    assert traits.e820_check.value is None


def test_the_code_wins_over_the_magic(made):
    header = PARTS["header"].replace("0x23456789abcdef02", "0x123456789abcdef0")
    assert made.traits(header=header).e820_check.value == "crc32"


LZO = "fn lzo1x_decompress_safe\n ret\nend lzo1x_decompress_safe\n"


def test_compressors(made):
    direct = LZO + "fn lzo_decompress_threadfn\n call lzo1x_decompress_safe\n ret\nend lzo_decompress_threadfn\n"
    assert made.traits(extra=direct).compressors.value == ("lzo",)
    crypto = LZO + "fn load_compressed_image.isra.0\n ret\nend load_compressed_image.isra.0\n"
    modules = "fn lzo_mod_init\n ret\nend lzo_mod_init\n"
    trait = made.traits(extra=crypto + modules).compressors
    assert trait.value == ("lzo",)
    assert "lz4" in trait.reason
    both = modules + "fn lz4_mod_init\n ret\nend lz4_mod_init\n"
    assert made.traits(extra=crypto + both).compressors.value == ("lzo", "lz4")
    assert made.traits().compressors.value is None


def test_absence_of_data_means_nothing_without_data_symbols(made):
    objects = ["init_task", "smp_ops"]
    assert made.traits().hw_sig.value is False
    assert made.traits().la57.value is False
    traits = made.traits(strip=objects)
    assert traits.hw_sig.value is None
    assert traits.la57.value is None
    assert traits.replaces_play_dead.value is None


def test_idt_gates_and_padding(made):
    table = """
.section .rodata
.balign 32
.globl def_idts
.type def_idts, @object
def_idts:
 .long 2, 0x10, 0x8e02, 0
 .quad hlt_play_dead
 .long 8, 0x10, 0x8e01, 0
 .quad native_play_dead
 .long 14, 0x10, 0x8e00, 0
 .quad crc32_le
 .long 3, 0, 0, 0
 .quad crc32_le
.text
"""
    gates = made.traits(extra=table).idt_gates.value
    assert [(gate.vector, gate.ist, gate.symbol) for gate in gates] == [
        (2, 2, "hlt_play_dead"),
        (8, 1, "native_play_dead"),
        (14, 0, "crc32_le"),
    ]
    assert made.traits().idt_gates.value is None


def test_load_address(made):
    traits = made.traits(extra=".globl _text\n.set _text, 0xffffffff81000000\n")
    assert traits.physical_start.value == 0x1000000
    assert traits.physical_align.value is None
    assert "setup header" in traits.physical_align.reason
    assert traits.randomize_base.value is False


@pytest.mark.parametrize(("stated", "value"), [(0x1000000, 0x1000000), (0x300000, None)])
def test_alignment_from_the_note_for_pvh_loaders(made, stated, value):
    note = f"""
.section .notes, "a"
 .long 4, 4, 18
 .asciz "Xen"
 .long 0x1000020
 .long 4, 12, 19
 .asciz "Xen"
 .long {stated:#x}, 0x1000000, 0x3fffffff
.text
"""
    assert made.traits(extra=note).physical_align.value == value


@pytest.mark.parametrize(
    ("product", "size"),
    [
        (" imul $0x3b000, %rdi, %rax\n", 0x3B000),
        (" lea (%rdi,%rdi,4), %rax\n lea (%rdi,%rax,2), %rax\n shl $14, %rax\n", 0x2C000),
        (" mov %rdi, %rax\n shl $13, %rax\n sub %rdi, %rax\n", None),
        (" mov (%rdi), %rax\n", None),
    ],
)
def test_size_of_a_cpu_entry_area_from_code(made, product, size):
    code = f"""
fn get_cpu_entry_area
 movslq %edi, %rdi
 movabs $0xfffffe0000001000, %rdx
{product} add %rdx, %rax
 ret
end get_cpu_entry_area
"""
    trait = made.traits(extra=code).cea_size
    assert trait.value == size
    assert size or trait.reason == (
        "has no .BTF section, so no structure layouts, and get_cpu_entry_area() does not multiply by one size"
    )
