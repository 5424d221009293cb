"""Each instruction by which something is recognised, taken away: without it it is not, and others do not matter.

A line that begins with ``!`` is one of those without which the trait has another value.
"""

from __future__ import annotations

import re

import pytest

from tests.kernel.code.conftest import PARTS
from tests.kernel.code.test_deadcpu import MWAIT, NATIVE_NEW
from tests.kernel.code.test_place import (
    ALLOCATORS,
    BACK,
    ENTER,
    FLAT,
    INBOX,
    LEAVE,
    LOOP,
    OBJECTS,
    PAGE,
    RELOAD,
    RESTORE,
    ROOM,
    SAVE,
    blob,
)
from tests.kernel.code.test_place import HOOK as COPYING
from tests.kernel.code.test_rescue import APICIDS
from tests.kernel.code.test_resume import THUNKS, WRITE_ICR
from tests.kernel.code.test_startup import HAND_OVER, LINES


def fn(name, body):
    return f"fn {name}\n{body}\nend {name}\n"


def hook(body):
    return fn("hibernate_resume_nonboot_cpu_disable", body)


def quiet(*names):
    return "".join(fn(name, " ret") for name in names)


FOUND = [
    ("replaces_play_dead", True, "hook", hook("""
 mov smp_ops+0x10(%rip), %rbx
! mov $resume_play_dead, %rax
 xor %edi, %edi
! mov %rax, smp_ops+0x10(%rip)
 ret"""), {}),
    ("rescues_offline", True, "hook", hook("""
 push %rbx
! call cpuhp_smt_enable
 movq $resume_play_dead, smp_ops+0x10(%rip)
 call freeze_secondary_cpus
 ret"""), {}),
    ("kicks_offline", True, "hook", hook("""
 movq $resume_play_dead, smp_ops+0x10(%rip)
 call freeze_secondary_cpus
! call smp_kick_mwait_play_dead
 ret"""), {"extra": quiet("smp_kick_mwait_play_dead")}),
    ("sends_init", True, "hook", hook("""
 call freeze_secondary_cpus
! mov $0xc500, %edi
 mov $1, %esi
! call native_apic_icr_write
 ret"""), {"extra": WRITE_ICR}),
    ("sends_init", True, "hook", hook("""
 call freeze_secondary_cpus
! mov $0xc500, %eax
! mov $0x830, %ecx
! wrmsr
 ret"""), {}),
    ("sends_init", True, "hook", hook("""
 mov $1, %esi
! mov $0x4500, %edi
! mov apic(%rip), %rax
! call *0x80(%rax)
 ret"""), {}),
    ("sends_init", True, "hook", hook("""
! mov $0x4500, %edi
! mov apic(%rip), %rax
 mov 0x80(%rax), %rax
! call __x86_indirect_thunk_rax
 ret"""), {"extra": THUNKS}),
    ("init_targets", "present", "hook", hook("""
! mov $__cpu_present_mask, %rdi
! mov $0x4500, %edi
! call native_apic_icr_write
 ret"""), {"extra": WRITE_ICR}),
    ("init_targets", "online", "hook", hook("""
! mov __cpu_online_mask(%rip), %rdi
! mov $0x4500, %edi
! call native_apic_icr_write
 ret"""), {"extra": WRITE_ICR}),
    # who is brought back
    ("rescue_needs_primary", True, "smt", PARTS["smt"].replace(" mov %ebx, %edi\n call _cpu_up", """
! mov cpuid_to_apicid(,%rbx,4), %ecx
 and $-2, %ecx
! bt %rcx, __cpu_online_mask(%rip)
 jae 2f
 mov %ebx, %edi
! call _cpu_up""").replace(" bt %rax", "! bt %rax"), {"extra": APICIDS}),
    ("rescue_needs_primary", True, "smt", PARTS["smt"].replace(" mov %ebx, %edi\n call _cpu_up", """
 mov %ebx, %edi
! call topology_get_primary_thread
 test %eax, %eax
 js 2f
 mov %ebx, %edi
! call _cpu_up"""), {}),
    ("rescue_needs_primary", False, "hook", hook("""
! mov __cpu_present_mask(%rip), %rbp
3: mov %ebp, %edi
! call _cpu_up
 shr $1, %rbp
! jne 3b
 ret"""), {"smt": PARTS["smt"].replace(" call _cpu_up", " call topology_get_primary_thread\n call _cpu_up")}),
    ("rescue_needs_node", True, "smt", PARTS["smt"].replace(" call _cpu_up", """
! testb $1, node_states(%rip)
 je 2f
 call _cpu_up"""), {"extra": ".data\nobj node_states, 64\n.text\n"}),
    ("freeze_order", "descending", "other", PARTS["other"].replace("fn freeze_secondary_cpus\n", """
fn freeze_secondary_cpus
 mov nr_cpu_ids(%rip), %ebx
! 1: dec %ebx
 js 9f
! bt %rbx, __cpu_online_mask(%rip)
 jae 1b
 call start_cpu0
 jmp 1b
9:
"""), {}),
    ("freeze_order", "ascending", "other", PARTS["other"].replace("fn freeze_secondary_cpus\n", """
fn freeze_secondary_cpus
 mov $-1, %ebx
! 1: call find_next_bit
 cmp nr_cpu_ids(%rip), %eax
 jae 9f
 call start_cpu0
! jmp 1b
9:
"""), {"extra": quiet("find_next_bit")}),
    ("reparks_siblings_after_resume", True, "extra", fn("arch_resume_nosmt", """
 push %rbx
! call cpuhp_smt_enable
 pop %rbx
 ret"""), {}),
    ("nosmt_resume_targets", "present", "extra", fn("arch_resume_nosmt", """
 push %rbx
! call arch_cpu_rescan_dead_smt_siblings
 pop %rbx
 ret""") + quiet("arch_cpu_rescan_dead_smt_siblings"), {}),
    ("nosmt_resume_targets", "online cores", "smt", PARTS["smt"].replace(" mov %ebx, %edi\n call _cpu_up", """
 mov %ebx, %edi
! call topology_get_primary_thread
 mov %ebx, %edi
! call _cpu_up"""), {"extra": fn("arch_resume_nosmt", " call cpuhp_smt_enable\n ret")}),
    # how they die
    ("mwait_vendor_check", ("AMD", "Hygon"), "native", PARTS["native"]
        .replace(" movzbl", "! movzbl").replace(" cmp $2", "! cmp $2").replace(" cmp $9", "! cmp $9")
        .replace(" je 3f", "! je 3f").replace(" mwait\n", "! mwait\n").replace("1: mfence", "1: mfence"), {}),
    ("monitored", "percpu:mwait_cpu_dead", "native", PARTS["native"]
        .replace(" mov $mwait_cpu_dead", "! mov $mwait_cpu_dead").replace(" mwait\n", "! mwait\n"), {}),
    ("kick_value", 0x4A17DEAD, "native", PARTS["native"]
        .replace(" mov (%rbp), %eax", "! mov (%rbp), %eax").replace(" cmp $0x4a17dead", "! cmp $0x4a17dead")
        .replace(" mov %rbp, %rax", "! mov %rbp, %rax").replace(" monitor", "! monitor")
        .replace(" je 4f", "! je 4f").replace(" mwait\n", "! mwait\n"), {}),
    ("play_dead_order", ("mwait", "cpuidle", "hlt"), "native", PARTS["native"]
        .replace(" mwait\n", "! mwait\n").replace("3: call", "! 3: call").replace("5: call", "! 5: call")
        .replace(" jne 5f", "! jne 5f"), {}),
    ("play_dead_order", ("cpuidle", "hlt"), "native",
        NATIVE_NEW.replace(" call cpuidle", "! call cpuidle").replace(" call hlt", "! call hlt"), {"extra": MWAIT}),
    ("enter_dead", ("acpi_idle:port_io", "acpi_idle:hlt"), "extra", fn("acpi_idle_play_dead", """
 mov %rsi, %rbx
1: movzbl 8(%rbx), %eax
 cmp $2, %al
! je 2f
 test %al, %al
 jne 3f
 mov 4(%rbx), %edx
! in (%dx), %al
! jmp 1b
2: sti
! hlt
! jmp 1b
3: mov $-19, %eax
 ret"""), {}),
    # what it accepts
    ("zero_pages", True, "snapshot", fn("snapshot_write_next", """
 mov (%rdi), %rax
! btr $63, %rax
 jae 1f
1: ret"""), {}),
    ("arch_record_magic", 0x23456789ABCDEF02, "header", PARTS["header"].replace(" movabs", "! movabs"), {}),
    ("arch_record_magic", 0x23456789ABCDEF77, "header",
        PARTS["header"].replace(" movabs", "! movabs").replace("cdef02", "cdef77"), {}),
    ("e820_check", "crc32", "header", PARTS["header"].replace("0x23456789abcdef02", "0x123456789abcdef0")
        .replace(" call crc32_le", "! call crc32_le"), {}),
    ("refuses_while", ("locked down", "secretmem", "CXL memory"), "extra", fn("hibernation_available", """
 mov $5, %edi
! call security_locked_down
 test %eax, %eax
! call secretmem_active
! call cxl_mem_active
 ret""") + quiet("security_locked_down", "secretmem_active", "cxl_mem_active"), {}),
    ("hw_sig", True, "extra", fn("swsusp_check", """
 testb $8, 0xfe8(%rax)
 je 1f
! mov 0xfd8(%rax), %esi
1: ret"""), {}),
    # how it starts
    ("parallel_bringup", True, "extra", ".data\nobj __cpu_primary_thread_mask, 64\n.text\n"
        + fn("bringup_nonboot_cpus", """
! call arch_cpuhp_init_parallel_bringup
 test %al, %al
 je 1f
! mov $__cpu_primary_thread_mask, %rdx
1: ret""") + quiet("arch_cpuhp_init_parallel_bringup"), {}),
    ("builtin_cmdline_overrides", True, "extra", LINES + "fn setup_arch" + """
! mov $builtin_cmdline, %rsi
! mov $boot_command_line, %rdi
! call strscpy
""" + HAND_OVER, {}),
    ("builtin_cmdline_overrides", False, "extra", LINES + "fn setup_arch" + """
 cmpb $0, builtin_cmdline(%rip)
! mov $builtin_cmdline, %rbx
! mov $boot_command_line, %rsi
! mov %rbx, %rdi
! call strlcat
 mov %rbx, %rsi
 mov $boot_command_line, %rdi
 call strscpy
""" + HAND_OVER, {}),
]  # fmt: skip
PLACE = ("hlt", "GDT", "IDT", "page tables", "stack", "frames of no image")
FLAT_PLACE = ("hlt", "GDT", "IDT", "paging off", "stack", "frames of no image")
PLACED = {"hook": COPYING, "resume": "", "allocators": f".text{ALLOCATORS}", "leave": LEAVE, "room": ROOM, "page": PAGE,
          "objects": OBJECTS}  # fmt: skip
TAKEN = {"header": RESTORE, "save": f".text{SAVE}", "back": BACK, "inbox": INBOX}


def marked(text, *matter):
    """Mark those lines of a text."""
    lines = text.split("\n")
    assert {line.strip() for line in lines} >= set(matter)
    return "\n".join(f"!{line}" if line.strip() in matter else line for line in lines)


WHERE = ("lgdt 0x1a0(%rdi)", "lidt 0x1b0(%rdi)", "mov %rdx, %rsp", "1: hlt", "jmp 1b")
FOUND += [
    ("own_place", PLACE, "blob", marked(
        blob(ENTER + RELOAD + LOOP), *WHERE, "mov %rsi, %cr3", "pushq $0x10", "leaq 3f(%rip), %rax", "pushq %rax"
    ), PLACED),
    ("own_place", FLAT_PLACE, "blob", marked(
        blob(ENTER + FLAT), *WHERE, "pushq $8", "addq $flat - blob, %r8", "pushq %r8", "movl %cr0, %eax",
        "andl $0x7fffffff, %eax", "movl %eax, %cr0",
    ), PLACED),
    ("own_place", PLACE, "room", marked(
        ROOM, "mov $blob_end, %r13", "sub $blob, %r13", "4: call a_page", "mov %rax, %rbx", "mov %r13, %rdx",
        "mov $blob, %rsi", "mov %rbx, %rdi", "call memcpy",
    ), {**PLACED, "blob": blob(ENTER + LOOP)}),
    ("own_place", PLACE, "page", marked(
        PAGE, "call get_safe_page", "mov %rax, %rbx", "ret", "test %rcx, %rcx", "jne 1b"
    ), {**PLACED, "blob": blob(ENTER + LOOP)}),
    ("own_place", PLACE, "leave", marked(LEAVE, "jmp *%rdi"), {**PLACED, "blob": blob(ENTER + LOOP)}),
    ("own_place", PLACE, "hook", marked(COPYING, "call make_room", "movq $leave_for_good, smp_ops+0x10(%rip)"),
     {**PLACED, "blob": blob(ENTER + LOOP)}),
    ("park_announcement", 0x1122334455667788, "save", marked(
        f".text{SAVE}", "movabs $0x1122334455667788, %rax"
    ), TAKEN),
    # without the record's own word there is but one, which is then taken for the record's
    ("park_announcement", 0x1122334455667788, "header", marked(
        RESTORE, "movabs $0x1122334455667788, %rax", "movabs $0x23456789abcdef02, %rax"
    ), TAKEN),
    ("takes_parked_over", True, "save", marked(f".text{SAVE}", "mov $inbox - 0xffffffff80000000, %rax"), TAKEN),
    ("takes_parked_over", True, "back", marked(
        BACK, "call look_early", "mov inbox+4(%rip), %eax", "mov inbox(%rip), %edi", "call cpu_device_up"
    ), TAKEN),
]  # fmt: skip


def lines_of(text):
    """Return the lines of a part, and of each that is an instruction whether it is said to matter."""
    lines = text.split("\n")
    kinds = {}
    for number, line in enumerate(lines):
        bare = re.sub(r"^!?\s*(\w+:)?\s*", "", line)
        if bare and not bare.startswith((".", "fn ", "end ", "obj ")):
            kinds[number] = line.startswith("!")
        lines[number] = line.removeprefix("!")
    return lines, kinds


def without(lines, number):
    """Leave an instruction out, but for its label."""
    label = re.match(r"\s*\w+:", lines[number])
    return "\n".join([*lines[:number], label[0] if label else "", *lines[number + 1 :]])


@pytest.mark.parametrize("scenario", FOUND, ids=lambda one: f"{one[0]}-{one[1]}")
def test_what_is_recognised_by_each_of_some_instructions(made, scenario):
    name, value, part, text, others = scenario
    lines, kinds = lines_of(text)
    assert made.value(name, **{**others, part: "\n".join(lines)}) == value
    for number, matters in kinds.items():
        found = made.value(name, **{**others, part: without(lines, number)})
        assert (found != value) is matters, f"without {lines[number].strip()}: {found}"
