"""Which images a kernel accepts."""

from __future__ import annotations

import pytest

from hibercheck.kernel.code.model import built_in
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
CRYPTO = LZO + "fn load_compressed_image.isra.0\n ret\nend load_compressed_image.isra.0\n"


def functions(*names):
    return "".join(f"fn {name}\n ret\nend {name}\n" for name in names)


@pytest.mark.parametrize(
    ("extra", "value"),
    [
        (LZO + "fn lzo_decompress_threadfn\n call lzo1x_decompress_safe\n ret\nend lzo_decompress_threadfn\n",
         ("lzo:builtin", "lz4:absent")),
        (CRYPTO + functions("lzo_mod_init", "lz4_mod_init"), ("lzo:builtin", "lz4:builtin")),
        (CRYPTO + functions("lzo_mod_init", "start_kernel"), ("lzo:builtin", "lz4:absent")),
        (CRYPTO + functions("lzo_mod_init", "start_kernel", "__request_module"), ("lzo:builtin", "lz4:module?")),
        (CRYPTO + functions("start_kernel", "__request_module"), ("lzo:module?", "lz4:module?")),
        (CRYPTO + functions("lzo_mod_init"), None),
        ("", None),
    ],
    ids=["before the crypto API", "both", "no modules", "a module", "two modules", "starts unknown", "nothing"],
)  # fmt: skip
def test_compressors(made, extra, value):
    trait = made.traits(extra=extra).compressors
    assert trait.value == value
    assert (trait.reason is None) is (value is not None)


def test_which_of_them_are_built_in():
    assert built_in(("lzo:builtin", "lz4:module?", "zstd:absent")) == ("lzo",)


@pytest.mark.parametrize(
    ("body", "value"),
    [
        ("testb $8, 0xfe8(%rax)\n mov 0xfd8(%rax), %esi", True),
        ("testb $2, 0xfe8(%rax)\n mov 0xfe0(%rax), %esi", False),
    ],
)
@pytest.mark.parametrize("strip", [(), ("init_task", "smp_ops")], ids=["data symbols", "code symbols only"])
def test_the_hardware_signature_is_read_from_the_code(made, body, value, strip):
    check = f"fn swsusp_check\n {body}\n ret\nend swsusp_check\n"
    trait = made.traits(extra=check, strip=strip).hw_sig
    assert trait.value is value
    assert trait.evidence[0].symbol == "swsusp_check"


def test_a_kernel_without_hibernation_says_so(made):
    assert made.traits().hibernation.value is True
    assert made.traits(hibernation="").hibernation.value is False
    assert (
        made.traits(hibernation="", native="", data=PARTS["data"].replace("native_play_dead", "0")).hibernation.value
        is None
    )


AVAILABLE = """
fn hibernation_available
 mov $5, %edi
 call security_locked_down
 test %eax, %eax
 jne 1f
 call secretmem_active
1: ret
end hibernation_available
"""
SECURE_BOOT = "fn efi_set_secure_boot\n call lock_kernel_down\n ret\nend efi_set_secure_boot\n"
ALWAYS = "fn lockdown_lsm_init\n call lock_kernel_down\n ret\nend lockdown_lsm_init\n"
ASKED = AVAILABLE + functions("security_locked_down", "secretmem_active", "lock_kernel_down", "start_kernel")


@pytest.mark.parametrize(
    ("extra", "refuses", "by"),
    [
        (ASKED + functions("lockdown_param") + SECURE_BOOT, ("locked down", "secretmem"), ("lockdown=", "Secure Boot")),
        (ASKED + functions("lockdown_param") + ALWAYS, ("locked down", "secretmem"), ("lockdown=", "always")),
        (ASKED, ("locked down", "secretmem"), ()),
        (ASKED.replace(" call security_locked_down\n", "") + functions("lockdown_param"), ("secretmem",), ()),
        (functions("hibernation_available", "lockdown_param"), (), ()),
        ("", None, None),
        (AVAILABLE + functions("security_locked_down", "secretmem_active"), ("locked down", "secretmem"), None),
    ],
)
def test_what_keeps_it_from_resuming(made, extra, refuses, by):
    traits = made.traits(extra=extra)
    assert traits.refuses_while.value == refuses
    assert traits.locked_down_by.value == by


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


@pytest.mark.parametrize("lacking", [None, 2, 8, 14])
def test_tables_without_a_gate_that_a_handoff_needs_are_not_understood(made, lacking):
    gates = "".join(
        f" .long {vector}, 0x10, 0x8e00, 0\n .quad crc32_le\n" for vector in (2, 8, 14) if vector != lacking
    )
    table = (
        f".section .rodata\n.balign 32\n.globl def_idts\n.type def_idts, @object\ndef_idts:\n{gates} .zero 24\n.text\n"
    )
    found = made.traits(extra=table).idt_gates
    assert (found.value is None) is (lacking is not None)


@pytest.mark.parametrize(("data", "found", "known"), [
    (("init_task", "smp_ops"), False, True), (("smp_ops",), False, True), (("init_task",), False, True),
    ((), True, False),
])  # fmt: skip
def test_absence_means_something_where_data_are_listed(made, data, found, known):
    """smp_ops may have been found by the code that uses it, which says nothing of other symbols."""
    strip = tuple(name for name in ("init_task", "smp_ops") if name not in data)
    idle = "fn arch_cpu_idle_dead\n call *smp_ops+0x10(%rip)\n ret\nend arch_cpu_idle_dead\n"
    traits = made.traits(strip=strip, extra=idle if found else "")
    assert (traits.la57.value is False) is known
