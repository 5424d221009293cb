"""Data symbols found by the code that uses them, in made kernels: by which instructions, and by no other.

A line that begins with ``!`` is one of those without which the symbol is not found where it is.
"""

from __future__ import annotations

import pytest

from hibercheck.kernel.code.dataless import supplement
from hibercheck.kernel.kernel import open_kernel
from tests.kernel.code.conftest import PARTS
from tests.kernel.code.test_each_instruction import fn, lines_of, quiet, without

START = 0xFFFFFFFF80000000
BARE = ("init_task", "smp_ops")
TABLES = """
.data
.balign 4096
.globl init_top_pgt, level4_kernel_pgt, level3_kernel_pgt, level2_kernel_pgt, level2_fixmap_pgt
init_top_pgt: .zero 4096
level4_kernel_pgt: .zero 8 * 511
 .quad level3_kernel_pgt - START + 0x67
level3_kernel_pgt: .zero 8 * 510
 .quad level2_kernel_pgt - START + 0x63, level2_fixmap_pgt - START + 0x67
level2_kernel_pgt: .quad 0x1e3
 .zero 4088
level2_fixmap_pgt: .zero 4096
.text
""".replace("START", hex(START))
IDT = """
.data
.globl def_idts
def_idts: .long 2, 0x10, 0x8e02, 0
 .quad hlt_play_dead
 .long 8, 0x10, 0x8e01, 0
 .quad native_play_dead
 .zero 48
.text
"""
IDLE = ".data\n.globl intel_idle_ids, intel_mwait_ids\nintel_idle_ids: .zero 64\nintel_mwait_ids: .zero 64\n.text\n"
FAR = PARTS["data"].replace("obj mwait_cpu_dead, 64", ".zero 0x2000\nobj mwait_cpu_dead, 64")
GDT = '.section percpu, "aw"\n.balign 4096\nobj gdt_page, 4096\n.text\n'
PAGES = fn("secondary_startup_64", f"""
 add $0x1234, %rax
! add $(init_top_pgt - {START:#x}), %rax
 mov %rax, %cr3
 ret""")  # fmt: skip
FOUND = [
    ("smp_ops", 16, "extra", fn("arch_cpu_idle_dead", " nop\n! call *smp_ops+0x10(%rip)\n ret"), {}),
    *(("__cpu_online_mask", 0, "extra", fn("set_cpu_online", f"""
 mov smp_ops(%rip), %eax
! {change} %rax, __cpu_online_mask(%rip)
 ret"""), {}) for change in ("bts", "btr")),
    *(("__cpu_present_mask", 0, "smt", fn("cpuhp_smt_enable", f"""
 mov $64, %esi
 mov $8, %edi
! mov $__cpu_present_mask, %{register}
 xor %edx, %edx
! call {name}
 call _cpu_up
 ret"""), {"extra": quiet(name)}) for name, register in (
     ("_find_next_bit", "rdi"), ("find_next_bit", "rdi"), ("cpumask_next", "rsi"))),
    ("__cpu_present_mask", 0, "smt", fn("cpuhp_smt_enable", """
 mov $-1, %rbx
! and __cpu_present_mask(%rip), %rbx
 call _cpu_up
 ret"""), {}),
    ("cpu_number", 0, "extra", fn("cond_wakeup_cpu0", """
 mov nr_cpu_ids(%rip), %ecx
! mov %gs:cpu_number(%rip), %eax
 ret"""), {}),
    ("apic", 0, "extra", fn("native_send_call_func_single_ipi", """
 mov $0xfb, %esi
! mov apic(%rip), %rax
 jmp *0x38(%rax)"""), {}),
    *(("boot_cpu_data", 0, "extra", fn(name, """
 push %rbx
! mov $boot_cpu_data, %rdi
! call identify_cpu
 ret""") + quiet("identify_cpu"), {}) for name in ("identify_boot_cpu", "arch_cpu_finalize_init", "check_bugs")),
    ("mwait_cpu_dead", 0, "native", PARTS["native"].replace(" mov $mwait_cpu_dead", "! mov $mwait_cpu_dead")
     .replace(" add %gs:this_cpu_off", "! add %gs:this_cpu_off").replace(" clflush", "! clflush"), {"data": FAR}),
    ("intel_idle_ids", 0, "extra", IDLE + fn("intel_idle_init", """
! mov $intel_idle_ids, %rdi
! call x86_match_cpu
 test %rax, %rax
 mov $intel_mwait_ids, %rdi
 call x86_match_cpu
 ret""") + quiet("x86_match_cpu"), {}),
    ("intel_mwait_ids", 0, "extra", IDLE + fn("intel_idle_init", """
! mov $intel_idle_ids, %rdi
! call x86_match_cpu
 test %rax, %rax
! mov $intel_mwait_ids, %rdi
! call x86_match_cpu
 ret""") + quiet("x86_match_cpu"), {}),
    ("def_idts", 0, "extra", IDT + fn("idt_setup_traps", """
! mov $def_idts, %rdi
! mov $2, %esi
 mov $1, %edx
! call idt_setup_from_table
 ret""") + quiet("idt_setup_from_table"), {}),
    ("def_idts", 0, "extra", IDT + fn("idt_setup_traps", """
 mov $idt_table, %rdi
! mov $def_idts, %rsi
! mov $2, %edx
! call idt_setup_from_table
 ret""") + quiet("idt_setup_from_table") + ".data\nobj idt_table, 64\n.text\n", {}),
    ("def_idts", 0, "extra", IDT + fn("idt_setup_traps", """
! mov $def_idts, %rbx
1: mov %rbx, %rdi
 add $24, %rbx
! cmp $def_idts + 48, %rbx
 jne 1b
 ret"""), {}),
    ("init_top_pgt", 0, "extra", TABLES + PAGES, {}),
    *((name, 0, "extra", TABLES + PAGES, {}) for name in (
        "level4_kernel_pgt", "level3_kernel_pgt", "level2_kernel_pgt", "level2_fixmap_pgt")),
    ("gdt_page", 0, "extra", GDT + fn("load_direct_gdt", """
 mov $0x7f, %ecx
! mov $gdt_page, %rax
 ret"""), {}),
]  # fmt: skip


def place_of(made, name, **parts):
    """Say where a symbol is found that the kernel does not list, and where it is."""
    strip = (*BARE, name)
    with open_kernel(made.path(**parts)) as whole, open_kernel(made.path(strip=strip, **parts)) as bare:
        supplement(bare)
        found = bare.symbol(name)
        return None if found is None else found.address, whole.require(name).address


@pytest.mark.parametrize("scenario", FOUND, ids=lambda one: one[0])
def test_what_is_found_by_each_of_some_instructions(made, scenario):
    name, offset, part, text, others = scenario
    lines, kinds = lines_of(text)
    found, there = place_of(made, name, **{**others, part: "\n".join(lines)})
    assert found == there + offset
    for number, matters in kinds.items():
        found, there = place_of(made, name, **{**others, part: without(lines, number)})
        assert (found != there + offset) is matters, f"without {lines[number].strip()}: {found}"
