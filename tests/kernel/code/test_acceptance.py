"""Which images a kernel accepts."""

from __future__ import annotations

import pytest

from hibercheck.addresses import START_KERNEL_MAP as START
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
        "has no .BTF section, so that structure layouts are not known, and get_cpu_entry_area() does not multiply by "
        "one size"
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


def stands(name, text):
    return f"fn {name}\n{text}\n ret\nend {name}\n"


def header(text, *more):
    return {"header": stands("arch_hibernation_header_restore", text) + functions(*more)}


def gated(*rows, table="def_idts", more=""):
    """A kernel with these rows (vector, segment, the word with the stack, handler) in a table of gates."""
    data = "".join(f" .long {vector}, {segment}, {word}, 0\n .quad {handler}\n"
                   for vector, segment, word, handler in rows)  # fmt: skip
    return {"extra": f".section .rodata\n.balign 32\n.globl {table}\n.type {table}, @object\n"
            f".size {table}, {24 * len(rows)}\n{table}:\n{data}.text\n{more}"}  # fmt: skip


def noted(*words, kind=19, name="Xen"):
    size = 4 * len(words)
    data = f" .long {', '.join(map(hex, words))}\n" if words else ""
    return {"extra": f'.section .notes, "a"\n .long {len(name) + 1}, {size}, {kind}\n .asciz "{name}"\n'
            f" .balign 4\n{data}.text\n"}  # fmt: skip


def area(text, name="get_cpu_entry_area"):
    return {"extra": stands(name, text)}


WORD, OTHER = " movabs $0x23456789abcdef02, %rax\n", " movabs $0x5555555500000000, %rax\n"
CUT = " call play_dead_common\n .byte 6"
ROWS = ((2, 16, 0x8E02, "hlt_play_dead"), (8, 16, 0x8E01, "native_play_dead"), (14, 16, 0x8E00, "crc32_le"))
CODE_ONLY = {"strip": ("init_task", "smp_ops")}
AREA = " movslq %edi, %rdi\n movabs $0xfffffe0000001000, %rdx\n"
SPELLED = [
    *(("zero_pages", found, {"snapshot": snapshot(text)}) for text, found in (
        (" bts $63, %rax", False), (" bt $62, %rax", False), (" btr $62, %rax", False), (" btr %rcx, %rax", False),
        (" movabs $0x7ffffffffffffffe, %rcx", False), (CUT, None), (f" btr $63, %rax\n{CUT}", True),
    )),
    ("zero_pages", True, {"extra": ".data\nobj zero_bm, 8\n.text\n"}),
    ("zero_pages", None, {"snapshot": "", "extra": ".data\nobj zero_bm, 8\n.text\n"}),
    ("hibernation", False, {"hibernation": "", "native": "", "data": PARTS["data"].replace("native_play_dead", "0"),
                            "extra": functions("start_kernel")}),
    *(("hibernation", True, {"hibernation": functions(name)})
      for name in ("hibernation_restore", "swsusp_arch_resume", "swsusp_read")),
    *(("refuses_while", found, {"extra": functions("security_locked_down", "secretmem_active", "cxl_mem_active")
        + stands("hibernation_available", text)}) for text, found in (
        (" call security_locked_down", ("locked down",)), (" call secretmem_active", ("secretmem",)),
        (" call cxl_mem_active", ("CXL memory",)),
        (" call cxl_mem_active\n call secretmem_active", ("secretmem", "CXL memory")),
        (f" call security_locked_down\n{CUT}", None), (CUT, None),
        (f" call security_locked_down\n call secretmem_active\n call cxl_mem_active\n{CUT}",
         ("locked down", "secretmem", "CXL memory")),
    )),
    *(("locked_down_by", found, {"extra": ASKED + extra}) for extra, found in (
        (SECURE_BOOT, ("Secure Boot",)), (ALWAYS, ("always",)), (functions("lockdown_param"), ("lockdown=",)),
        (SECURE_BOOT.replace("lock_kernel_down", "security_locked_down"), ()),
        (SECURE_BOOT.replace("lock_kernel_down", "security_lock_kernel_down")
         + functions("security_lock_kernel_down"), ("Secure Boot",)),
        (functions("efi_set_secure_boot", "lockdown_lsm_init"), ()),
    )),
    ("locked_down_by", ("lockdown=",), {"extra": AVAILABLE + functions("security_locked_down", "secretmem_active",
                                                                       "lockdown_param")}),
    *(("hw_sig", found, {"extra": stands("swsusp_check", text)}) for text, found in (
        (" mov 0xfd8(%rax), %esi", True), (" mov %esi, 0xfd8(%rax)", False), (" mov 0xfd4(%rax), %esi", False),
        (" mov 0xfdc(%rax), %esi", False), (" lea 0xfd8(%rax), %rsi", False), (CUT, False),
        (" lea 0xfd8(%r14), %r15\n mov %r15, %rax\n mov (%r15), %esi", True),
        (" lea 0xfd8(%r14), %r15\n mov (%r14), %esi\n mov %esi, (%r15)", False),
        (" lea 0xfd4(%r14), %r15\n mov (%r15), %esi", False),
        (" mov (%r15), %esi\n lea 0xfd8(%r14), %r15\n mov 8(%r15), %esi", False),
        (f" mov 0xfd8(%rax), %esi\n{CUT}", True),
    )),
    ("hw_sig", True, {"extra": ".data\nobj swsusp_hardware_signature, 4\n.text\n" + stands("swsusp_check", "")}),
    ("hw_sig", None, {**CODE_ONLY, "extra": stands("swsusp_check", CUT)}),
    # which compressors
    *(("compressors", ("lzo:builtin", "lz4:absent"), {"extra": LZO + stands(name, " call lzo1x_decompress_safe")})
      for name in ("lzo_decompress_threadfn", "load_image_lzo", "decompress_threadfn")),
    *(("compressors", found, {"extra": extra}) for extra, found in (
        (LZO + functions("lzo_decompress_threadfn"), None),
        (LZO + stands("other", " call lzo1x_decompress_safe"), None),
        (LZO + functions("decompress_threadfn", "load_compressed_image", "lzo_mod_init", "lz4_mod_init"),
         ("lzo:builtin", "lz4:builtin")),
        (".data\nobj hib_comp_algo, 8\n.text\n" + functions("lz4_mod_init", "start_kernel"),
         ("lzo:absent", "lz4:builtin")),
        (".data\nobj hib_comp_algo, 8\n.text\n", None), (functions("start_kernel", "lz4_mod_init"), None),
    )),
    # the record of the architecture
    *(("arch_record_magic", found, header(text)) for text, found in (
        (OTHER + WORD, 0x23456789ABCDEF02), (OTHER, 0x5555555500000000), (OTHER + OTHER.replace("5555", "6666"), None),
        (" mov $0x55555555, %eax", None), (" movabs $0x100000000, %rax", 1 << 32),
        (" movabs $0xffffffff7fffffff, %rax", 0xFFFFFFFF7FFFFFFF), (" mov $-0x80000000, %rax", None),
        (" mov $0xffffffff, %eax", None), ("", None),
    )),
    ("arch_record_magic", None, {"header": ""}),
    *(("e820_check", "crc32", header(OTHER + f" call {name}", name))
      for name in ("crc32_le", "crc32_le_base", "crc32_le_arch", "compute_e820_crc32")),
    *(("e820_check", "md5", header(WORD + f" call {name}", name))
      for name in ("get_e820_md5", "crypto_alloc_shash", "crypto_shash_digest")),
    ("e820_check", "crc32", header(WORD, "crc32_le")), ("e820_check", None, header(OTHER, "crc32_le")),
    ("e820_check", "crc32", header(" call get_e820_md5\n call crc32_le", "crc32_le", "get_e820_md5")),
    ("e820_check", None, {"header": ""}),
    # where it lies
    *(("la57", found, {**CODE_ONLY, "extra": functions(*names)}) for names, found in (
        (("__p4d_alloc",), True), (("__p4d_alloc", "__pud_alloc"), True), (("__pud_alloc",), False), ((), None),
    )),
    ("la57", True, {"extra": ".data\nobj level4_kernel_pgt, 8\n.text\n"}),
    ("la57", None, {"extra": ".data\nobj pgdir_shift, 8\n.text\n"}),
    ("la57", True, {"extra": ".data\nobj pgdir_shift, 8\nobj level4_kernel_pgt, 8\n.text\n"}),
    ("la57", False, {"extra": functions("__p4d_alloc")}),
    *((name, True, {"extra": functions(symbol)}) for name, symbol in (
        ("pti", "pti_init"), ("randomize_base", "kaslr_get_random_long"),
        ("randomize_memory", "kernel_randomize_memory"), ("fred", "asm_fred_entrypoint_kernel"))),
    *((name, False, {}) for name in ("pti", "randomize_base", "randomize_memory", "fred")),
    *((name, None, {"native": "", "data": PARTS["data"].replace("native_play_dead", "0")})
      for name in ("pti", "randomize_base", "randomize_memory", "fred")),
    ("pti", False, {"native": "", "data": PARTS["data"].replace("native_play_dead", "0"),
                    "extra": functions("startup_64")}),
    ("randomize_base", None, {"extra": functions("kernel_randomize_memory")}),
    ("randomize_base", True, {"extra": functions("kernel_randomize_memory", "kaslr_get_random_long")}),
    ("cea_random", True, {"extra": '.section percpu, "aw"\nobj _cea_offset, 4\n.text\n'}),
    ("cea_random", False, area(" mov %gs:cpu_number(%rip), %eax")),
    *(("cea_random", found, {**CODE_ONLY, **area(text)}) for text, found in (
        (" mov (%rdi), %eax", True), (" mov %gs:cpu_number(%rip), %eax", True), (" mov nr_cpu_ids(%rip), %eax", True),
        (" mov 8(%rsp), %eax", False), (" mov 8(%rbp), %eax", False), (" push %rbp\n pop %rbp", False),
        (" mov %gs:(%rsp), %eax", True), ("", False), (CUT, None), (" mov (%rdi), %eax", True),
    )),
    ("cea_random", None, CODE_ONLY),
    *(("physical_start", found, {"extra": "".join(f".globl {name}\n.set {name}, {START + at:#x}\n"
                                                  for name, at in places)}) for places, found in (
        ((("_text", 0x200000), ("startup_64", 0x300000), ("_stext", 0x400000)), 0x200000),
        ((("startup_64", 0x300000), ("_stext", 0x400000)), 0x300000), ((("_stext", 0x400000),), 0x400000), ((), None),
    )),
    *(("physical_align", found, noted(*words, **how)) for found, words, how in (
        (0x200000, (0x200000, 0, 0), {}), (0x200000, (0x200000,), {}), (1, (1,), {}), (None, (0,), {}),
        (None, (0x300000,), {}), (None, (0x200000,), {"kind": 18}), (None, (0x200000,), {"kind": 20}),
        (None, (0x200000,), {"name": "Xeo"}), (None, (), {}), (1 << 31, (1 << 31, 7), {}),
    )),
    # the size of a CPU's entry area
    *(("cea_size", found, area(AREA + text)) for text, found in (
        (" imul $0x3b000, %rdi, %rax", 0x3B000), (" imul $0x3b001, %rdi, %rax", None),
        (" imul $0x3b000, %rdi, %rax\n imul $0x3c000, %rcx, %rcx", None),
        (" imul $0x3b000, %rdi, %rax\n imul $0x18, %rcx, %rcx", 0x3B000), (" imul %rdi, %rax", None),
        (" mov $0x3b000, %eax", None), (" mov %rdi, %rax\n shl $12, %rax", 0x1000),
        (" mov %rdi, %rax\n shl $11, %rax", None), (" xor %eax, %eax", None),
    )),
    ("cea_size", None, area(" imul $0x3b000, %rdi, %rax", "another")),
]  # fmt: skip
"""A trait, its value, and the code that it is read from."""


@pytest.mark.parametrize("scenario", SPELLED, ids=lambda one: f"{one[0]}-{one[1]}")
def test_what_is_read_of_code_that_is_nearly_the_same(made, scenario):
    name, expected, parts = scenario
    assert made.value(name, **parts) == expected


def told_gates(made, **parts):
    value = made.value("idt_gates", **parts)
    return None if value is None else [(gate.vector, gate.ist, gate.symbol) for gate in value]


PLAIN = [(2, 2, "hlt_play_dead"), (8, 1, "native_play_dead"), (14, 0, "crc32_le")]


@pytest.mark.parametrize(("rows", "more"), [
    ((), []), (((255, 16, 7, "crc32_le"),), [(255, 7, "crc32_le")]), (((256, 16, 7, "crc32_le"),), []),
    (((9, 24, 7, "crc32_le"),), []), (((9, 16, 0xFFF8, "crc32_le"),), [(9, 0, "crc32_le")]),
    (((9, 16, 0, "0xffffffff7fffffff"),), []), (((9, 24, 0, "crc32_le"), (10, 16, 0, "crc32_le")), []),
    (((9, 16, 0, "0xffffffff80000000"),), [(9, 0, "0xffffffff80000000")]),
])  # fmt: skip
def test_which_rows_of_a_table_are_gates(made, rows, more):
    found = told_gates(made, **gated(*ROWS, *rows))
    assert [one for one in found if one[0] not in {2, 8, 14}] == more
    assert [one for one in found if one[0] in {2, 8, 14}] == PLAIN


def test_a_later_table_replaces_gates_of_an_earlier_one(made):
    tables = ("early_idts", "early_pf_idts", "def_idts", "ist_idts")
    for number, table in enumerate(tables):
        first = gated(*ROWS, table=table)["extra"]
        for later in tables[number + 1 :]:
            more = gated((2, 16, 5, "crc32_le"), table=later)["extra"]
            assert told_gates(made, extra=first + more) == [(2, 5, "crc32_le"), *PLAIN[1:]]
            assert told_gates(made, extra=more + first) == [(2, 5, "crc32_le"), *PLAIN[1:]]


def test_how_many_gates_are_read(made):
    rows = [(vector, 16, 0, "crc32_le") for vector in range(70)]
    assert [one[0] for one in told_gates(made, **gated(*rows))] == list(range(64))
