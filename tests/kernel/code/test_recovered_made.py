"""Data symbols found by the code that uses them, in made kernels: by which instructions, and by no other.

A line that begins with ``!`` is one of those without which the symbol is not found where it is.
"""

from __future__ import annotations

import pytest

from hibercheck.kernel.code.dataless import supplement
from hibercheck.kernel.code.recovered import recovered
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
LISTED = ".data\n" + "".join(f"obj {name}, 64\n" for name in (
    "smp_num_siblings", "saved_command_line", "e820_table", "boot_params", "frozen_cpus", "cpuidle_curr_driver",
    "__per_cpu_offset", "x86_topo_system", "phys_cpu_present_map", "hib_comp_algo")) + """
.globl topo_info
topo_info: .long 1, 0, 0, 0xffff, 0xffff
.globl embedded_bootconfig_data, embedded_bootconfig_data_end
embedded_bootconfig_data: .asciz "kernel { nosmt }"
embedded_bootconfig_data_end:
.text
"""  # fmt: skip
SENDS = fn("default_send_IPI_single_phys", """
 movslq %edi, %rdi
! mov $0x2140, %rax
! mov __per_cpu_offset(,%rdi,8), %rdx
! movzwl (%rdx,%rax,1), %edi
 call __default_send_IPI_dest_field
 ret""") + quiet("__default_send_IPI_dest_field")  # fmt: skip
OTHER = PARTS["other"].replace(fn("freeze_secondary_cpus", " xor %eax, %eax\n ret"), "")
REGISTERS = """
 cmpl $0xffff, topo_info+0x10(%rip)
 mov topo_info(%rip), %eax
 incl topo_info+4(%rip)
! incl topo_info+8(%rip)
 ret"""
AREA = ".globl x86_cpu_to_apicid\n.set x86_cpu_to_apicid, 0x2140\n"
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
    ("cpu_number", 0, "extra", fn("__x64_sys_getcpu", """
 mov %gs:this_cpu_off(%rip), %rcx
! mov %gs:cpu_number(%rip), %eax
 ret"""), {}),
    ("nr_cpu_ids", 0, "extra", fn("default_cpu_present_to_apicid", """
 mov enable_start_cpu0(%rip), %eax
! cmp nr_cpu_ids(%rip), %edi
 bt %rax, __cpu_present_mask(%rip)
 ret"""), {}),
    ("x86_cpu_to_apicid", 0, "extra", LISTED + AREA + SENDS.replace("! mov __per", " mov __per"), {}),
    ("__per_cpu_offset", 0, "extra", LISTED + AREA + SENDS.replace("! mov $", " mov $").replace("! movz", " movz"), {}),
    *((symbol, 0, "extra", LISTED + fn(function, f"""
 mov %gs:this_cpu_off(%rip), %rcx
 mov smp_ops(%rip), {narrow}
! mov {symbol}(%rip), {register}
 ret"""), {}) for symbol, function, register, narrow in (
     ("cpu_smt_control", "cpu_smt_possible", "%eax", "%rdx"),
     ("smp_num_siblings", "topology_smt_supported", "%eax", "%rdx"),
     ("saved_command_line", "cmdline_proc_show", "%rsi", "%edx"),
     ("e820_table", "e820__get_entry_type", "%r9", "%edx"),
     ("cpuidle_curr_driver", "cpuidle_get_driver", "%rax", "%edx"))),
    ("boot_params", 0, "extra", LISTED + fn("boot_params_data_read", """
 lea 8(%rsp), %rdi
! lea boot_params(%r8), %rsi
 ret"""), {}),
    *(("x86_topo_system", 0, "extra", LISTED + fn(function, """
 mov x86_topo_system-4(,%rcx,4), %eax
! mov x86_topo_system(,%rcx,4), %ecx
 ret"""), {}) for function in ("topology_unit_count", "topology_get_logical_id")),
    *(("topo_info", 0, "extra", LISTED + fn(function, REGISTERS.replace("incl", how)), {})
      for function in ("topo_register_apic", "topology_register_apic") for how in ("incl", "addl $1,")),
    *(("phys_cpu_present_map", 0, "extra", LISTED + fn(function, """
 btl $3, boot_cpu_data(%rip)
! bt %rdi, phys_cpu_present_map(%rip)
 ret"""), {}) for function in ("default_check_phys_apicid_present", "native_kick_ap")),
    ("frozen_cpus", 0, "other", OTHER + fn("freeze_secondary_cpus", """
 bt %rax, __cpu_online_mask(%rip)
! lock bts %rax, frozen_cpus(%rip)
 ret"""), {"extra": LISTED}),
    ("frozen_cpus", 0, "other", OTHER + fn("freeze_secondary_cpus", """
 mov smp_ops(%rip), %rcx
! mov frozen_cpus(%rip), %rdx
 xor %ecx, %ecx
! lock bts %rax, (%rdx)
 ret"""), {"extra": LISTED}),
    *(("hib_comp_algo", 0, "extra", LISTED + fn("software_resume", f"""
! mov $hib_comp_algo, %rdi
 xor %edx, %edx
! call {called}
 ret""") + quiet(called), {}) for called in ("crypto_has_acomp", "crypto_has_alg")),
    *((f"embedded_bootconfig_data{end}", 0, "extra", LISTED + fn("xbc_get_embedded_bootconfig", f"""
! {one}
 xor %ecx, %ecx
! sub $embedded_bootconfig_data, %rax
 ret"""), {}) for end in ("", "_end") for one in (
     "mov $embedded_bootconfig_data_end, %rax", "lea embedded_bootconfig_data_end(%rip), %rax")),
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


FIND = ("_find_next_bit", "find_next_bit", "cpumask_next")
JUMPS = """
.section jumps, "aw"
.globl __start___jump_table, __stop___jump_table
__start___jump_table:
 .long hlt_play_dead - ., native_play_dead - .
 .quad 0
 .long native_play_dead - ., hlt_play_dead - .
 .quad 0
__stop___jump_table:
 .zero 64
.text
"""
INIT = """
 mov $__start___jump_table, %rsi
 mov $__stop___jump_table, %rax
 sub $__start___jump_table, %rax
 cmp $__stop___jump_table, %rbx
 ret"""
ONE_GATE = IDT.replace(" .long 8, 0x10, 0x8e01, 0\n .quad native_play_dead\n", "")


def monitors(place, how=" mov $mwait_cpu_dead, %rbp\n add %gs:this_cpu_off(%rip), %rbp"):
    """A kernel whose monitored line is at a place that it does not list, and how that is worked out."""
    own = " mov $mwait_cpu_dead, %rbp\n add %gs:this_cpu_off(%rip), %rbp"
    assert own in PARTS["native"]
    line = f".globl mwait_cpu_dead\n.set mwait_cpu_dead, {place:#x}"
    return {"native": PARTS["native"].replace(own, how), "data": PARTS["data"].replace("obj mwait_cpu_dead, 64", line)}


def gates(text, table=IDT, caller="idt_setup_traps"):
    return {"extra": table + fn(caller, f"{text}\n ret") + quiet("idt_setup_from_table")}


def given(table, count):
    return f" mov ${table}, %rdi\n mov ${count}, %esi\n call idt_setup_from_table"


def tables(old="", new=""):
    assert old in TABLES
    return {"extra": TABLES.replace(old, new) + PAGES.replace("!", "")}


def code(name, text):
    return {"extra": fn(name, f"{text}\n ret")}


OTHERS = [
    ("smp_ops", 16, {"extra": fn("arch_cpu_idle_dead", " call 1f\n ret")
                     + fn("play_dead", "1: nop\n call *smp_ops+0x10(%rip)\n ret")}),
    ("smp_ops", False, {"extra": fn("arch_cpu_idle_dead", " call 1f\n ret") + fn("play_dead", "1: call 2f\n ret")
                        + fn("inner", "2: nop\n call *smp_ops+0x10(%rip)\n ret")}),
    ("smp_ops", False, code("arch_cpu_idle_dead", " call *smp_ops+8(%rip)")),
    ("smp_ops", False, code("arch_cpu_idle_dead", " call *0x10(%rax)")),
    ("smp_ops", 16, code("arch_cpu_idle_dead", " mov smp_ops(%rip), %rax\n call *smp_ops+0x10(%rip)")),
    ("__cpu_online_mask", True, code("set_cpu_online", """
 bts %rax, __cpu_online_mask(%rip)
 btr %rax, __cpu_online_mask(%rip)
 btc %rax, __cpu_present_mask(%rip)""")),
    ("__cpu_online_mask", False, code("set_cpu_online", """
 bts %rax, __cpu_online_mask(%rip)
 btr %rax, __cpu_present_mask(%rip)""")),
    ("__cpu_online_mask", False, code("set_cpu_online", " bts %rax, (%rcx)")),
    *(("__cpu_present_mask", found, {"smt": fn("cpuhp_smt_enable", f"{text}\n call _cpu_up\n ret"),
                                     "extra": "".join(map(quiet, FIND))}) for text, found in (
        (" and %gs:__cpu_present_mask(%rip), %rbx\n and __cpu_present_mask(%rip), %rbx", True),
        (" and %gs:__cpu_present_mask(%rip), %rbx", False),
        (" and __cpu_online_mask(%rip), %ebx\n and __cpu_present_mask(%rip), %rbx", True),
        (" and __cpu_present_mask(%rip), %ebx", False),
        (" or __cpu_present_mask(%rip), %rbx", False),
        (" and (%rcx), %rbx", False),
        (" mov %rcx, %rdi\n call find_next_bit\n and __cpu_present_mask(%rip), %rbx", True),
        (" mov $__cpu_present_mask, %rsi\n mov %rcx, %rdi\n call find_next_bit", False),
        (" mov %rcx, %rsi\n mov $__cpu_present_mask, %rdi\n call cpumask_next", False),
        (" mov $__cpu_present_mask, %rdi\n call find_next_bit\n mov $smp_ops, %rdi\n call find_next_bit", True),
    )),
    *(("cpu_number", found, code(name, text)) for name in ("cond_wakeup_cpu0", "wakeup_cpu0") for text, found in (
        (" mov %gs:cpu_number(%rip), %eax", True),
        (" mov %gs:this_cpu_off(%rip), %rcx\n mov %gs:cpu_number(%rip), %eax", True),
        (" mov nr_cpu_ids(%rip), %ecx\n mov %gs:(%rcx), %edx\n mov %gs:cpu_number(%rip), %eax", True),
        (" mov %gs:cpu_number(%rip), %eax\n mov %gs:fixed_percpu_data(%rip), %ecx", True),
        (" mov %gs:cpu_number(%rip), %rax", False),
        (" mov cpu_number(%rip), %eax", False),
    )),
    *(("apic", found, code("native_send_call_func_single_ipi", text)) for text, found in (
        (" mov apic(%rip), %rax\n mov apic(%rip), %rcx", True),
        (" mov %gs:this_cpu_off(%rip), %rcx\n mov nr_cpu_ids(%rip), %edx\n mov apic(%rip), %rax", True),
        (" mov %rcx, smp_ops(%rip)\n mov (%rcx), %rcx\n mov apic(%rip), %rax", True),
        (" mov apic(%rip), %rax\n mov smp_ops(%rip), %rcx", False),
        (" mov apic(%rip), %eax", False),
        (" mov %gs:apic(%rip), %rax", False),
        (" mov %rax, apic(%rip)", False),
    )),
    *(("boot_cpu_data", found, {"extra": fn("check_bugs", f"{text}\n ret") + quiet("identify_cpu")})
      for text, found in (
        (" mov %rcx, %rdi\n call identify_cpu\n mov $boot_cpu_data, %rdi\n call identify_cpu", True),
        (" mov $boot_cpu_data, %rdi\n call identify_cpu\n mov $smp_ops, %rdi\n call identify_cpu", True),
        (" mov $boot_cpu_data, %rsi\n call identify_cpu", False),
        (" mov $boot_cpu_data, %rdi\n call freeze_secondary_cpus", False),
    )),
    *(("mwait_cpu_dead", found, monitors(place)) for place, found in (
        (0xFFF, False), (0x1000, True), (0x3FFFFFFF, True), (0x40000000, False), (0x7FFFFFFF, False),
        (0xFFFFFFFF80000000, True), (0xFFFFFFFFBFFFFFFF, True), (0xFFFFFFFFC0000000, False),
    )),
    *(("mwait_cpu_dead", found, monitors(0x2040, how)) for how, found in (
        (" mov %gs:this_cpu_off(%rip), %rbp\n lea mwait_cpu_dead(%rbp), %rbp", True),
        (" lea mwait_cpu_dead(%rip), %rbp", False),
        (" mov %gs:this_cpu_off(%rip), %rbx\n lea mwait_cpu_dead(%rbx), %rcx", False),
        (" mov $mwait_cpu_dead, %rbp\n add this_cpu_off(%rip), %rbp", False),
        (" mov $mwait_cpu_dead, %rbp\n sub %gs:this_cpu_off(%rip), %rbp", False),
        (" mov $mwait_cpu_dead, %rcx\n add %gs:this_cpu_off(%rip), %rcx", False),
        (" mov $0x3040, %rcx\n add %gs:this_cpu_off(%rip), %rcx\n mov $mwait_cpu_dead, %rbp\n"
         " add %gs:this_cpu_off(%rip), %rbp", True),
    )),
    ("mwait_cpu_dead", True, monitors(0xFFFFFFFF82003000, " mov %gs:0x40, %rbp\n lea mwait_cpu_dead(%rbp), %rbp")),
    *((name, found, {"extra": JUMPS + fn("jump_label_init", text)})
      for name in ("__start___jump_table", "__stop___jump_table") for text, found in (
        (INIT, True),
        (" mov $2f, %rax\n mov $2f, %rcx\n2:" + INIT, True),
        (INIT.replace("sub $__start", "sub $4+__start"), False),
        (INIT.replace("sub $__start", "add $__start"), False),
        (INIT.replace("cmp $__stop", "test $__stop"), False),
        (INIT.replace("$__stop___jump_table", "$__stop___jump_table + 8"), False),
        (INIT.replace("$__start___jump_table", "$__start___jump_table + 16"), 16 if "start" in name else True),
        (INIT.replace("__start", "__Start").replace("__stop", "__start").replace("__Start", "__stop"), True),
        ("".join(f" mov ${n + 1}, %rax\n cmp ${START + n:#x}, %rax\n cmp ${START + n:#x}, %rax\n"
                 for n in range(6)) + INIT, True),
        ("".join(f" cmp ${START + n:#x}, %rax\n cmp ${START + n:#x}, %rax\n" for n in range(7)) + INIT, False),
    )),
    ("intel_idle_ids", False, {"extra": IDLE + fn("intel_idle_init", """
 mov %rcx, %rdi
 call x86_match_cpu
 mov $intel_idle_ids, %rdi
 call x86_match_cpu
 ret""") + quiet("x86_match_cpu")}),
    # gates: a vector, the kernel's code segment, and code of the kernel
    *(("def_idts", found, gates(text)) for text, found in (
        (given("def_idts", 1), True), (given("def_idts", 255), True), (given("def_idts", 0), False),
        (given("def_idts", 256), False),
        (given("def_idts + 24", 1), 24), (given("def_idts + 4", 2), False), (given("0x1000", 2), False),
        (given("smp_ops", 2) + "\n" + given("def_idts", 2), True),
        (" mov $def_idts, %rbx\n cmp $def_idts + 48, %rbx", True),
        (" mov $def_idts, %rbx\n cmp $def_idts + 24 * 256 - 1, %rbx", True),
        (" mov $def_idts, %rbx\n cmp $def_idts + 24 * 256, %rbx", False),
        (" mov $def_idts, %rbx\n cmp $def_idts, %rbx", False),
        (" mov $def_idts, %rbx\n add $def_idts + 48, %rbx", False),
        (" mov $def_idts, %rbx\n cmp $def_idts + 48, %rcx", False),
        (" lea def_idts(%rip), %rbx\n cmp $def_idts + 48, %rbx", False),
    )),
    *(("def_idts", found, gates(text, ONE_GATE)) for text, found in (
        (" mov def_idts(%rip), %eax", True), (" mov def_idts + 4(%rip), %eax", True),
        (" mov def_idts + 8(%rip), %eax", True), (" mov def_idts + 16(%rip), %rax", True),
        (" mov def_idts + 12(%rip), %eax", False), (" mov %eax, def_idts(%rip)", False), (" mov (%rcx), %eax", False),
        (" mov def_idts + 16(%rip), %rax\n mov def_idts + 4(%rip), %eax", True),
    )),
    *(("def_idts", found, gates(given("def_idts", 2), IDT.replace(*change))) for change, found in (
        (("2, 0x10, 0x8e02", "255, 0x10, 0"), True), (("2, 0x10, 0x8e02", "256, 0x10, 0"), False),
        (("2, 0x10, 0x8e02", "2, 0x18, 0"), False), (("hlt_play_dead", "0xffffffff80000000"), True),
        (("hlt_play_dead", "0xffffffff7fffffff"), False),
    )),
    *((name, True, gates(given(name, 2), IDT.replace("def_idts", name), caller)) for name, caller in (
        ("early_idts", "idt_setup_early_traps"), ("early_pf_idts", "idt_setup_early_pf"),
        ("ist_idts", "idt_setup_ist_traps"))),
    # page tables, each led to by the one before it
    *((name, found, tables(*change)) for change, lost in (
        ((), ""),
        (("init_top_pgt: .zero 4096", f"init_top_pgt: .zero 4088\n .quad level3_kernel_pgt - {START:#x} + 0x67"), ""),
        ((".quad level3_kernel_pgt", ".quad level2_kernel_pgt"), "level4"),
        (("level3_kernel_pgt - START + 0x67".replace("START", hex(START)),
          f"level3_kernel_pgt - {START:#x} + 0x66"), "level4"),
        (("level3_kernel_pgt - START + 0x67".replace("START", hex(START)),
          f"level3_kernel_pgt - {START:#x} + 0xe7"), "level4"),
        ((".zero 8 * 511", ".zero 8 * 510"), "level4 level3 level2"),
        ((f"level2_kernel_pgt - {START:#x} + 0x63", "0x3ff00063"), "level4 level3 level2"),  # which is not in the file
        (("+ 0x63", "+ 0x62"), "level4 level3 level2"), (("+ 0x63", "+ 0xe3"), "level4 level3 level2"),
        (("0x1e3", "0x163"), "level4 level3 level2"), (("0x1e3", "0x1e2"), "level4 level3 level2"),
        (("level2_fixmap_pgt - START + 0x67".replace("START", hex(START)),
          f"level2_kernel_pgt - {START:#x} + 0x67"), "level4 level3 level2"),
        (("level2_kernel_pgt: .quad", " .zero 4096 * 20\nlevel2_kernel_pgt: .quad"), ""),
        (("level4_kernel_pgt: .zero", " .zero 4096 * 13\nlevel4_kernel_pgt: .zero"), ""),
        (("level4_kernel_pgt: .zero", " .zero 4096 * 14\nlevel4_kernel_pgt: .zero"), "level4 level3 level2"),
        (("level3_kernel_pgt: .zero", f" .zero 8 * 511\n .quad level3_kernel_pgt - {START:#x} + 0x67\n"
          "level3_kernel_pgt: .zero"), "level4"),
    ) for name in ("init_top_pgt", "level4_kernel_pgt", "level3_kernel_pgt", "level2_kernel_pgt", "level2_fixmap_pgt")
      for found in [name.partition("_")[0] not in lost]),
    *(("init_top_pgt", found, {"extra": TABLES + fn("secondary_startup_64", f"{text}\n ret")}) for text, found in (
        (f" add $(init_top_pgt - {START:#x}), %rax", True),
        (f" mov $(init_top_pgt - {START:#x}), %rax", False),
        (f" sub $(init_top_pgt - {START:#x}), %rax", False),
        (f" add $0, %rax\n add $-4096, %rax\n add $0x40000000, %rax\n add $(init_top_pgt - {START:#x}), %rax", True),
        (f" add $(init_top_pgt - {START:#x}), %rax\n add $0x1000, %rax", True),
        (f" add $(init_top_pgt - {START:#x} + 8), %rax", False),
    )),
    *(("nr_cpu_ids", found, code("default_cpu_present_to_apicid", text)) for text, found in (
        (" cmp nr_cpu_ids(%rip), %edi\n cmp cpu_smt_control(%rip), %edi", True),
        (" cmp nr_cpu_ids(%rip), %rdi", False), (" test %edi, nr_cpu_ids(%rip)", False), (" cmp (%rcx), %edi", False),
    )),
    *(("x86_cpu_to_apicid", found, {"extra": LISTED + AREA + fn("default_send_IPI_single_phys", f"{text}\n ret")})
      for text, found in (
        (" mov __per_cpu_offset(,%rdi,8), %rdx\n mov x86_cpu_to_apicid(%rdx), %edi", True),
        (" mov $0x2140, %rdx\n mov __per_cpu_offset(,%rdi,8), %rax\n mov (%rdx,%rax), %edi", True),
        (" mov $0x2100, %rdx\n mov __per_cpu_offset(,%rdi,8), %rax\n mov 0x40(%rdx,%rax), %edi", True),
        (" mov x86_cpu_to_apicid(%rdx), %rdi", False), (" mov 0x40(%rdx), %edi", False),
        (" mov x86_cpu_to_apicid(%rdx), %edi\n mov 0x3000(%rdx), %edi", True),
    )),
    *(("__per_cpu_offset", found, {"extra": LISTED + fn("default_send_IPI_single_phys", f"{text}\n ret")})
      for text, found in (
        (" mov __per_cpu_offset(,%rdi,4), %rdx", False), (" mov __per_cpu_offset(,%rdi,8), %edx", False),
        (" mov __per_cpu_offset(%rcx,%rdi,8), %rdx", False), (" mov __per_cpu_offset(%rip), %rdx", False),
    )),
    *(("cpu_smt_control", found, code("cpu_smt_possible", text)) for text, found in (
        (" cmpl $3, cpu_smt_control(%rip)\n mov cpu_smt_control(%rip), %eax", True),
        (" mov cpu_smt_control(%rip), %eax\n mov nr_cpu_ids(%rip), %ecx", False),
        (" mov %eax, cpu_smt_control(%rip)", False), (" mov %gs:cpu_smt_control(%rip), %eax", False),
        (" mov (%rcx), %eax\n mov cpu_smt_control(%rip), %edx", True),
    )),
    *(("boot_params", found, {"extra": LISTED + fn("boot_params_data_read", f"{text}\n ret")}) for text, found in (
        (" lea boot_params(%rip), %rsi", False), (" lea 0x40(%r8), %rsi", False), (" mov $boot_params, %rsi", False),
        (" lea boot_params(%r8), %rsi\n lea smp_ops(%r8), %rsi", True),
    )),
    *(("x86_topo_system", found, {"extra": LISTED + fn("topology_unit_count", f"{text}\n ret")}) for text, found in (
        (" mov x86_topo_system(,%rcx,8), %eax", False), (" mov x86_topo_system(,%rcx,4), %rax", False),
        (" mov x86_topo_system(%rdx,%rcx,4), %eax", False), (" mov x86_topo_system(%rip), %eax", False),
        (" mov x86_topo_system(,%rcx,4), %eax\n mov x86_topo_system-4(,%rcx,4), %eax", True),
    )),
    *(("topo_info", found, {"extra": LISTED.replace("1, 0, 0, 0xffff, 0xffff", words)
                            + fn("topo_register_apic", f"{text}\n ret")}) for text, words, found in (
        (" incl topo_info+8(%rip)", "0, 0, 0, 0xffff, 0xffff", True),
        (" incl topo_info+8(%rip)", "0, 0, 0, -1, -1", True), (" incl topo_info+8(%rip)", "2, 0, 0, -1, -1", False),
        (" incl topo_info+8(%rip)", "1, 1, 0, -1, -1", False), (" incl topo_info+8(%rip)", "1, 0, 1, -1, -1", False),
        (" incl topo_info+8(%rip)", "1, 0, 0, -1, 0xffff", False), (" incl topo_info+8(%rip)", "1, 0, 0, 0, 0", False),
        (" incl topo_info+4(%rip)", "1, 0, 0, -1, -1", False), (" incq topo_info+8(%rip)", "1, 0, 0, -1, -1", False),
        (" addl $2, topo_info+8(%rip)", "1, 0, 0, -1, -1", False), (" incl (%rcx)", "1, 0, 0, -1, -1", False),
        (" subl $1, topo_info+8(%rip)", "1, 0, 0, -1, -1", False), (" incl 0x1000", "1, 0, 0, -1, -1", False),
    )),
    *(("phys_cpu_present_map", found, {"extra": LISTED + fn("native_kick_ap", f"{text}\n ret")}) for text, found in (
        (" bt %rdi, phys_cpu_present_map(%rip)\n bt %rax, boot_cpu_data(%rip)", False),
        (" bts %rdi, phys_cpu_present_map(%rip)", False), (" bt %rdi, %gs:phys_cpu_present_map(%rip)", False),
        (" bt %rdi, (%rcx)\n bt %rdi, phys_cpu_present_map(%rip)", True),
    )),
    *(("frozen_cpus", found, {"other": OTHER + fn("freeze_secondary_cpus", f"{text}\n ret"), "extra": LISTED})
      for text, found in (
        (" bts %rax, frozen_cpus(%rip)\n bts %rax, boot_cpu_data(%rip)", False),
        (" btr %rax, frozen_cpus(%rip)", False), (" bts $3, %rax\n bts %rax, frozen_cpus(%rip)", True),
        (" mov frozen_cpus(%rip), %rdx\n mov %rdx, %rcx\n bts %rax, (%rcx)", False),
        (" mov %gs:frozen_cpus(%rip), %rdx\n bts %rax, (%rdx)", False),
        (" add frozen_cpus(%rip), %rdx\n bts %rax, (%rdx)", False),
        (" mov frozen_cpus(%rip), %rdx\n call _cpu_up\n bts %rax, (%rdx)", False),
        (" bts %rax, (%rdx)", False), (" mov $frozen_cpus, %rdx\n bts %rax, (%rdx)", False),
    )),
    ("hib_comp_algo", False, {"extra": LISTED + fn("software_resume", """
 mov $hib_comp_algo, %rsi
 call crypto_has_acomp
 ret""") + quiet("crypto_has_acomp")}),
    *(("gdt_page", found, {"extra": GDT + fn("load_direct_gdt", f"{text}\n ret")}) for text, found in (
        (" mov $gdt_page + 8, %rcx\n movq $gdt_page + 4096, 8(%rcx)\n mov $gdt_page, %rax", True),
        (" mov $gdt_page, %rax\n mov $0x5000, %rcx", True),
        (" add $gdt_page, %rax", False), (" movq $gdt_page, 8(%rcx)", False), (" mov $gdt_page + 8, %rax", False),
    )),
]  # fmt: skip
"""A symbol, whether it is found (or so far behind its beginning), and the code that uses it or something else."""


@pytest.mark.parametrize("scenario", OTHERS, ids=lambda one: f"{one[0]}-{'' if one[1] else 'not '}found")
def test_what_is_found_beside_other_code(made, scenario):
    name, expected, parts = scenario
    found, there = place_of(made, name, **parts)
    assert found == (None if expected is False else there + (0 if expected is True else expected))


def test_how_long_what_was_found_is(made):
    with open_kernel(made.path(strip=(*BARE, "init_top_pgt", "gdt_page"), extra=TABLES + PAGES.replace("!", "") + GDT
                               + fn("load_direct_gdt", " mov $gdt_page, %rax\n ret"))) as bare:  # fmt: skip
        supplement(bare)
        assert bare.require("init_top_pgt").size == bare.require("gdt_page").size == 4096


@pytest.mark.parametrize(("text", "table", "entries"), [
    (given("def_idts", 2), IDT, 2), (given("def_idts", 7), IDT, 7),
    (" mov $def_idts, %rbx\n cmp $def_idts + 48, %rbx", IDT, 2),
    (" mov $def_idts, %rbx\n cmp $def_idts + 24, %rbx", IDT, 1), (" mov def_idts + 4(%rip), %eax", ONE_GATE, 1),
])  # fmt: skip
def test_how_long_a_table_of_gates_is(made, text, table, entries):
    """sizeof(struct idt_data) is 24."""
    with open_kernel(made.path(strip=(*BARE, "def_idts"), **gates(text, table))) as bare:
        supplement(bare)
        assert bare.require("def_idts").size == 24 * entries


@pytest.mark.parametrize(("name", "parts", "size"), [
    ("__cpu_present_mask", {"smt": fn("cpuhp_smt_enable", " and __cpu_present_mask(%rip), %rbx\n ret")}, 8),
    ("__cpu_present_mask", {"smt": fn("cpuhp_smt_enable", " mov $__cpu_present_mask, %rdi\n call find_next_bit\n ret"),
                            "extra": quiet("find_next_bit")}, None),
    ("__cpu_online_mask", code("set_cpu_online", " bts %rax, __cpu_online_mask(%rip)"), None),
    ("cpu_number", code("wakeup_cpu0", " mov %gs:cpu_number(%rip), %eax"), 4),
    ("apic", code("native_send_call_func_single_ipi", " mov apic(%rip), %rax"), 8),
])  # fmt: skip
def test_how_long_a_variable_is_that_one_instruction_reads(made, name, parts, size):
    with open_kernel(made.path(strip=(*BARE, name), **parts)) as bare:
        assert recovered(bare)[name].size == size


def test_where_the_kernel_ends(made):
    text = ".globl _text\n.set _text, 0xffffffff81000000\n"
    with open_kernel(made.path(strip=(*BARE, "_end", "linux_banner"), extra=text)) as bare:
        supplement(bare)
        last = max(bare.elf.span_end(at) or 0 for at, _, _ in bare.elf.loaded())
        assert last <= bare.require("_end").address < last + 4096
        assert bare.require("_end").address % 4096 == 0
        assert bare.read(bare.require("linux_banner").address, 13) == b"Linux version"


CALLERS = (
    "arch_cpu_idle_dead", "set_cpu_online", "mwait_play_dead", "identify_boot_cpu", "arch_cpu_finalize_init",
    "check_bugs", "intel_idle_init", "jump_label_init", "native_send_call_func_single_ipi", "idt_setup_early_traps",
    "idt_setup_early_pf", "idt_setup_traps", "idt_setup_ist_traps", "load_direct_gdt", "__x64_sys_getcpu",
    "default_cpu_present_to_apicid", "default_send_IPI_single_phys", "topology_smt_supported", "topology_unit_count",
    "topology_get_logical_id", "topo_register_apic", "topology_register_apic", "native_kick_ap", "cpu_smt_possible",
    "default_check_phys_apicid_present", "cmdline_proc_show", "e820__get_entry_type", "boot_params_data_read",
    "cpuidle_get_driver", "software_resume", "xbc_get_embedded_bootconfig",
)  # fmt: skip
"""Functions that are read, of which a kernel has each."""


@pytest.mark.parametrize("callers", [(), CALLERS], ids=["no function", "all of them"])
def test_what_is_read_is_looked_up_in_one_pass(made, callers):
    """A pass over a kernel's symbols costs more than reading its code; a second is for what GCC has renamed."""
    asked = []
    parts = {"smt": ""} if not callers else {}
    hook = PARTS["hook"].replace("call cpuhp_smt_enable", "xor %eax, %eax") if not callers else PARTS["hook"]
    with open_kernel(made.path(**parts, hook=hook, extra="".join(map(quiet, callers)))) as kernel:
        look_up = kernel.symbols

        def looked_up(names):
            asked.append(set(names))
            return look_up(asked[-1])

        kernel.symbols = looked_up
        recovered(kernel)
    assert {*CALLERS, "cond_wakeup_cpu0", "wakeup_cpu0", "secondary_startup_64", "x86_match_cpu"} <= asked[0]
    later = {name for names in asked[1:] for name in names}
    assert {name for name in later if "." not in name} <= {"linux_banner"}  # which the kernel itself looks for
    assert len(asked) <= 3
