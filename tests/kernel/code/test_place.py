"""Code that the resume hook copies for parked CPUs: followed to the loop, whatever anything is called."""

from __future__ import annotations

import pytest

HOOK = """
fn hibernate_resume_nonboot_cpu_disable
 push %rbx
 mov smp_ops+0x10(%rip), %rbx
 call make_room
 movq $leave_for_good, smp_ops+0x10(%rip)
 xor %edi, %edi
 call freeze_secondary_cpus
 mov %rbx, smp_ops+0x10(%rip)
 pop %rbx
 ret
end hibernate_resume_nonboot_cpu_disable
"""
LEAVE = """
fn leave_for_good
 call play_dead_common
 mov somewhere(%rip), %rdi
 mov tables(%rip), %rsi
 mov %rdi, %rdx
 jmp *%rdi
end leave_for_good
"""
ROOM = """
fn make_room
 push %rbx
 mov $blob_end, %r13
 sub $blob, %r13
 jmp 4f
4: call a_page
 mov %rax, %rbx
 test %rax, %rax
 je 1f
 mov %rax, somewhere(%rip)
 mov %r13, %rdx
 mov $blob, %rsi
 mov %rbx, %rdi
 call memcpy
1: pop %rbx
 ret
end make_room
"""
PAGE = """
fn a_page
 push %rbx
1: mov $0x820, %edi
 call get_safe_page
 mov %rax, %rbx
 test %rax, %rax
 je 3f
 cmp forbidden(%rip), %rax
 je 1b
 mov %rbx, %rax
2: pop %rbx
 ret
3: mov pool(%rip), %rcx
 test %rcx, %rcx
 jne 1b
 mov %rcx, %rax
 jmp 2b
end a_page
"""
ALLOCATORS = """
fn get_safe_page
 mov pool(%rip), %rax
 ret
end get_safe_page
fn get_zeroed_page
 mov pool(%rip), %rax
 ret
end get_zeroed_page
fn memcpy
 mov %rdx, %rcx
 rep movsb
 ret
end memcpy
"""
OBJECTS = """
.data
obj somewhere, 8
obj tables, 8
obj forbidden, 8
obj pool, 8
"""
ENTER = """
 cli
 mov %rsi, %cr3
 lgdt 0x1a0(%rdi)
 lidt 0x1b0(%rdi)
 mov %rdx, %rsp
"""
LOOP = "1: hlt\n jmp 1b\n"
RELOAD = """
 pushq $0x10
 leaq 3f(%rip), %rax
 pushq %rax
 lretq
3:
"""
FLAT = """
 pushq $8
 addq $flat - blob, %r8
 pushq %r8
 lretq
 .code32
flat:
 movl %cr0, %eax
 andl $0x7fffffff, %eax
 movl %eax, %cr0
 movl $0xc0000080, %ecx
 rdmsr
 andl $~0x100, %eax
 wrmsr
1: hlt
 jmp 1b
 .code64
"""
HANDLER = "4: iretq\n"


def blob(code):
    return f'.section .rodata, "a"\n.balign 16\nblob:\n{code}\nblob_end:\n.text\n'


def traits(made, code, **parts):
    given = {"hook": HOOK, "resume": "", "leave": LEAVE, "room": ROOM, "page": PAGE, "objects": OBJECTS, **parts}
    return made.traits(allocators=ALLOCATORS, blob=blob(code), **given)


def place(made, code, **parts):
    return traits(made, code, **parts).own_place


def test_a_place_with_page_tables_of_its_own(made):
    found = traits(made, ENTER + RELOAD + LOOP + HANDLER)
    assert found.resume_park.value == "place"
    assert found.own_place.value == ("hlt", "GDT", "IDT", "page tables", "stack", "frames of no image")
    texts = [one.text for one in found.own_place.evidence]
    assert texts[0].endswith("an address that it computes")
    assert "of 3" in texts[1]
    assert texts[1].endswith("of blob")
    assert any(text.startswith("hlt") for text in texts)
    assert any("get_safe_page" in text for text in texts)


def test_a_place_without_paging_is_followed_into_32_bit_code(made):
    found = place(made, ENTER + FLAT)
    assert found.value == ("hlt", "GDT", "IDT", "paging off", "stack", "frames of no image")


def test_paging_that_stays_on_is_not_taken_for_off(made):
    found = place(made, ENTER + FLAT.replace("$0x7fffffff", "$0xfffeffff"))
    assert "paging off" not in (found.value or ())
    assert "page tables" in (found.value or ())


def test_frames_of_another_allocator_are_not_vouched_for(made):
    found = place(made, ENTER + LOOP, page=PAGE.replace("get_safe_page", "get_zeroed_page"))
    assert found.value == ("hlt", "GDT", "IDT", "page tables", "stack")


def test_page_tables_of_another_allocator_are_not_vouched_for_either(made):
    room = ROOM.replace("1: pop", " call get_zeroed_page\n mov %rax, tables(%rip)\n1: pop")
    assert "frames of no image" not in (place(made, ENTER + LOOP, room=room).value or ("frames of no image",))
    assert "frames of no image" in (place(made, ENTER + FLAT, room=room).value or ())


def test_a_loop_in_which_nothing_waits_is_not_guessed_at(made):
    found = traits(made, ENTER + "1: pause\n jmp 1b\n")
    assert found.own_place.value is None
    assert found.resume_park.value is None
    assert "blob, ends in a loop in which none of the instructions wait" in str(found.resume_park.reason)
    assert any(one.text.startswith("pause") for one in found.own_place.evidence)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (" test %rdi, %rdi\n je 1f\n1: hlt\n jmp 1b\n", "has je"),
        (" call *%rdi\n", "has call"),
        (" ret\n", "has ret"),
        (" push %rax\n push %rbx\n lretq\n", "where is not known"),
        (" jmp elsewhere\n.text\nfn elsewhere\n hlt\nend elsewhere\n.section .rodata\n", "has no instruction at"),
        (" nop\n" * 300, "for more than"),
    ],
)
def test_code_that_cannot_be_followed_says_where(made, code, reason):
    found = place(made, code)
    assert found.value is None
    assert reason in str(found.reason)


def test_two_copied_pieces_leave_it_open(made):
    room = ROOM.replace("1: pop", " mov $16, %edx\n mov $blob, %rsi\n mov %rbx, %rdi\n call memcpy\n1: pop")
    found = place(made, ENTER + LOOP, room=room)
    assert found.value is None
    assert "2 pieces" in str(found.reason)


def test_a_park_loop_in_the_kernel_is_no_place(made):
    found = made.traits()
    assert found.own_place.value == ()
    assert found.resume_park.value == "hlt"
    assert found.park_announcement.value is None or found.park_announcement.value == 0
    assert found.takes_parked_over.value is False


SAVE = """
fn arch_hibernation_header_save
 movabs $0x23456789abcdef02, %rax
 mov %rax, 0x18(%rdi)
 movabs $0x1122334455667788, %rax
 mov %rax, 0x28(%rdi)
 mov $inbox - 0xffffffff80000000, %rax
 add phys_base(%rip), %rax
 mov %rax, 0x30(%rdi)
 xor %eax, %eax
 ret
end arch_hibernation_header_save
"""
RESTORE = """
fn arch_hibernation_header_restore
 movabs $0x23456789abcdef02, %rax
 cmp %rax, 0x18(%rdi)
 jne 1f
 movabs $0x1122334455667788, %rax
 cmp %rax, 0x28(%rdi)
 call crc32_le
1: xor %eax, %eax
 ret
end arch_hibernation_header_restore
fn crc32_le
 ret
end crc32_le
"""
BACK = """
fn hibernation_snapshot
 call look_early
 call arch_resume_nosmt
 ret
end hibernation_snapshot
fn look_early
 mov inbox+4(%rip), %eax
 ret
end look_early
fn arch_resume_nosmt
 mov inbox(%rip), %edi
 test %edi, %edi
 je 1f
 call cpu_device_up
1: ret
end arch_resume_nosmt
fn cpu_device_up
 ret
end cpu_device_up
"""
INBOX = "\n.data\n.globl _etext, _end\n_etext:\nobj phys_base, 8\nobj inbox, 64\n_end:\n"


def test_a_kernel_that_takes_over_what_it_is_told_of(made):
    found = made.traits(header=RESTORE, save=SAVE, back=BACK, inbox=INBOX)
    assert found.park_announcement.value == 0x1122334455667788
    assert found.takes_parked_over.value is True
    assert [one.symbol for one in found.takes_parked_over.evidence] == ["look_early", "arch_resume_nosmt"]


def test_a_word_that_only_one_side_knows_is_no_announcement(made):
    silent = SAVE.replace("0x1122334455667788", "0x1122334455667789")
    assert made.traits(header=RESTORE, save=silent, back=BACK, inbox=INBOX).park_announcement.value == 0


def test_a_kernel_that_starts_no_cpus_by_it_takes_none_over(made):
    quiet = BACK.replace(" call cpu_device_up\n", " nop\n")
    assert made.traits(header=RESTORE, save=SAVE, back=quiet, inbox=INBOX).takes_parked_over.value is False


def test_frames_that_nobody_keeps_leave_it_open(made):
    careless = BACK.replace(" mov inbox+4(%rip), %eax\n", " mov apic(%rip), %eax\n")
    found = made.traits(header=RESTORE, save=SAVE, back=careless, inbox=INBOX).takes_parked_over
    assert found.value is None
    assert found.reason


def deeper(depth):
    """A snapshot that looks into the image's object so many calls down."""
    calls = "".join(
        f"fn look_{number}\n {f'call look_{number + 1}' if number < depth else 'mov inbox+4(%rip), %eax'}\n ret\n"
        f"end look_{number}\n"
        for number in range(1, depth + 1)
    )
    return BACK.replace("call look_early", "call look_1") + calls


@pytest.mark.parametrize(("depth", "value"), [(1, True), (2, True), (3, None)])
def test_how_far_down_the_way_back_is_read(made, depth, value):
    found = made.traits(header=RESTORE, save=f".text{SAVE}", back=deeper(depth), inbox=INBOX)
    assert found.takes_parked_over.value is value
