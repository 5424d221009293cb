"""Code that the resume hook copies for parked CPUs: followed to the loop, whatever anything is called."""

from __future__ import annotations

import pytest

from hibercheck.kernel.code.place import Origin, origins
from hibercheck.kernel.code.traits import traits_on_demand
from hibercheck.kernel.kernel import open_kernel
from tests.kernel.code.conftest import PARTS

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


@pytest.mark.parametrize("unknown", [0, 1, 2])
def test_more_words_than_one_leave_it_open_which_of_them_announces(made, unknown):
    words = [0x1122334455667780 + number for number in range(unknown)]
    load = " movabs $0x1122334455667788, %rax\n"
    more = "".join(f" movabs ${word:#x}, %rax\n cmp %rax, 0x38(%rdi)\n" for word in words)
    sides = [text.replace(load, more + load) for text in (SAVE, RESTORE)]
    found = made.traits(save=sides[0], header=sides[1], back=BACK, inbox=INBOX).park_announcement
    if unknown:
        assert found.value is None
        assert f"{unknown + 1} words" in found.reason
    else:
        assert found.value == 0x1122334455667788


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


CALLED, ARGUMENT, UNKNOWN = Origin("call", 0), Origin("argument"), Origin("unknown")
"""``CALLED`` stands for what `get_safe_page` returned."""


def numbers(*values):
    return {Origin("constant", value % (1 << 64)) for value in values}


ORIGINS = {
    # constants, and what is added to them
    " mov $5, %eax": numbers(5),
    " mov $-5, %rax": numbers(-5),
    " mov $5, %eax\n add $3, %rax": numbers(8),
    " mov $5, %eax\n sub $7, %rax": numbers(-2),
    " mov $5, %eax\n add $3, %rax\n sub $1, %rax\n add $16, %rax": numbers(23),
    " mov $5, %eax\n add $3, %rcx": numbers(5),
    " mov $5, %ecx\n mov %rcx, %rdx\n add $1, %rdx\n mov %rdx, %rax": numbers(6),
    " xor %eax, %eax": numbers(0),
    " xor %eax, %eax\n add $9, %rax": numbers(9),
    " xor %ecx, %eax": {UNKNOWN},
    " mov $5, %eax\n add %rcx, %rax": {UNKNOWN},
    " mov $5, %eax\n add 8(%rcx), %rax": {UNKNOWN},
    " mov $5, %eax\n addq $1, 8(%rcx)": numbers(5),
    " mov $5, %eax\n or $1, %rax": {UNKNOWN},
    " mov $5, %eax\n and $1, %rax": {UNKNOWN},
    " mov $5, %eax\n lea 4(%rax), %rax": {UNKNOWN},
    " mov $5, %eax\n xchg %rax, %rcx": {UNKNOWN},
    # as the function was called
    **{f" mov %{one}, %rax": {ARGUMENT} for one in ("rdi", "rsi", "rdx", "rcx", "r8", "r9")},
    **{f" mov %{one}, %rax": {UNKNOWN} for one in ("rbx", "rbp", "r10", "r12")},
    " mov %rdi, %rax\n add $24, %rax": {ARGUMENT},
    " mov %rdi, %rax\n sub $8, %rax": {ARGUMENT},
    " nop": {UNKNOWN},
    # what a call returns, and what it keeps
    " call get_safe_page": {CALLED},
    " call get_safe_page\n add $64, %rax": {Origin("call", 0, 64)},
    " call get_safe_page\n mov %rax, %rbx\n call get_zeroed_page\n mov %rbx, %rax": {CALLED},
    " call *%rcx": {Origin("call")},
    " call *8(%rcx)": {Origin("call")},
    **{f" mov $5, %{one}\n call get_safe_page\n mov %{one}, %rax": numbers(5)
       for one in ("rbx", "rbp", "r12", "r13", "r14", "r15")},
    **{f" mov $5, %{one}\n call get_safe_page\n mov %{one}, %rax": {UNKNOWN}
       for one in ("rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11")},
    " mov $5, %ecx\n call *%rdx\n mov %rcx, %rax": {UNKNOWN},
    # through memory
    " movq $9, 8(%rsp)\n movq $3, 16(%rsp)\n movq $4, 8(%rbp)\n mov 8(%rsp), %rax": numbers(9),
    " mov %rdi, 8(%rbx)\n nop\n mov 8(%rbx), %rax": {ARGUMENT},
    " mov %rdi, 8(%rsp)\n call get_safe_page\n mov 8(%rsp), %rax": {UNKNOWN},
    " mov %rdi, 8(%rbx)\n call get_safe_page\n mov 8(%rbx), %rax": {ARGUMENT},
    " mov $9, %ecx\n mov %rcx, 8(%rbx)\n mov $1, %ecx\n mov 8(%rbx), %rax\n add $1, %rax": numbers(10),
    " movq $9, 8(%rbx)\n mov $1, %ebx\n mov 8(%rbx), %rax": {UNKNOWN},
    " movq $9, 8(%rbx)\n addq $1, 8(%rbx)\n mov 8(%rbx), %rax": numbers(9),
    " movq $9, 8(%rbx)\n mov 8(%rbx), %rcx\n mov 8(%rbx), %rax": numbers(9),
    " movq $9, 8(%rbx,%rcx)\n mov 8(%rbx,%rcx), %rax": {UNKNOWN},
    " movq $9, %gs:8(%rbx)\n mov %gs:8(%rbx), %rax": {UNKNOWN},
    " movq $9, somewhere(%rip)\n mov somewhere(%rip), %rax": {UNKNOWN},
    " mov 8(%rbx), %rax": {UNKNOWN},
    " mov 8(%rdi), %rax": {UNKNOWN},
    # on several ways
    " mov $1, %eax\n cmp $3, %edi\n je 1f\n mov $2, %eax\n1: nop": numbers(1, 2),
    " mov $2, %ecx\n mov %rdi, %rax\n cmp $3, %edi\n jne 1f\n mov %rcx, %rax\n1: nop": {ARGUMENT, *numbers(2)},
    # what a branch has found to be zero
    " call get_safe_page\n test %rax, %rax\n jne 1f\n nop\n ret\n1: nop": {CALLED},
    " call get_safe_page\n test %rax, %rax\n je 1f\n ret\n1: nop": numbers(0),
    " call get_safe_page\n test %rax, %rax\n jne 1f\n jmp 2f\n1: ud2\n2: nop": numbers(0),
    " call get_safe_page\n test %rax, %rax\n je 1f\n1: nop": {CALLED},
    " call get_safe_page\n test %rax, %rax\n js 1f\n ret\n1: nop": {CALLED},
    " call get_safe_page\n cmp %rax, %rax\n je 1f\n ret\n1: nop": {CALLED},
    " call get_safe_page\n test %rax, %rcx\n je 1f\n ret\n1: nop": {CALLED},
    " call get_safe_page\n test %rcx, %rax\n je 1f\n ret\n1: nop": {CALLED},
    " call get_safe_page\n test %rcx, %rcx\n je 1f\n ret\n1: nop": {CALLED},
    " call get_safe_page\n test %rax, %rax\n je 1f\n ret\n1: add $4, %rax": numbers(4),
    # without an end
    " mov $5, %eax\n1: add $1, %rax\n jmp 1b\n ret": {UNKNOWN},
}  # fmt: skip
"""What a function does, and where that which is in RAX at the last of its NOPs or returns comes from."""


def test_where_a_value_comes_from(made):
    names = {text: f"origin_{number}" for number, text in enumerate(ORIGINS)}
    functions = "".join(f"fn {name}\n{text}\n ret\nend {name}\n" for text, name in names.items())
    program = made.program(allocators=ALLOCATORS, objects=OBJECTS, extra=f".text\n{functions}")
    safe = program.address("get_safe_page")

    def found(name):
        function = program.function_of(name)
        *_, last = (node.address for node in function)
        return {
            Origin(one.kind, 0 if one.kind == "call" and one.value == safe else one.value, one.added)
            for one in origins(function, last, "rax")
        }

    assert {text: found(name) for text, name in names.items()} == ORIGINS


OFF = " mov %rax, %cr0\n"
CR0 = " mov %cr0, %rax\n"
AWAY = " and $0x7fffffff, %eax\n"
CODE = " lea 3f(%rip), %rax\n"
JUMP = " push %rax\n lretq\n nop\n ud2\n3:\n"
WAYS = {
    # how it waits
    LOOP: ("hlt",),
    "1: mwait\n jmp 1b\n": ("mwait",),
    "1: mwaitx\n jmp 1b\n": ("mwait",),
    "1: monitor\n mwait\n nop\n jmp 1b\n": ("mwait",),
    f" hlt\n{LOOP}": ("hlt",),
    " hlt\n1: nop\n jmp 1b\n": "in a loop in which none of the instructions wait",
    "1: hlt\n hlt\n jmp 1b\n": "in a loop in which 2 of the instructions wait",
    "1: hlt\n mwait\n hlt\n jmp 1b\n": "in a loop in which 3 of the instructions wait",
    # what it has of its own
    f" lgdt 8(%rdi)\n{LOOP}": ("hlt", "GDT"),
    f" lidt 8(%rdi)\n{LOOP}": ("hlt", "IDT"),
    f" sgdt 8(%rdi)\n{LOOP}": ("hlt",),
    f" mov %rdx, %rsp\n{LOOP}": ("hlt", "stack"),
    f" mov 8(%rdx), %rsp\n{LOOP}": ("hlt",),
    f" mov %rdx, %rbp\n{LOOP}": ("hlt",),
    f" mov %rsi, %cr3\n{LOOP}": ("hlt", "page tables"),
    f" mov %cr3, %rsi\n{LOOP}": ("hlt",),
    f" mov %rsi, %cr4\n{LOOP}": ("hlt",),
    # out of paging: bit 31 of CR0 has been taken away
    CR0 + AWAY + OFF + LOOP: ("hlt", "paging off"),
    f" mov %rsi, %cr3\n{CR0}{AWAY}{OFF}{LOOP}": ("hlt", "paging off"),
    f"{CR0} btr $31, %rax\n{OFF}{LOOP}": ("hlt", "paging off"),
    f"{CR0} btr $30, %rax\n{OFF}{LOOP}": ("hlt",),
    f"{CR0} and $0xfffeffff, %eax\n{OFF}{LOOP}": ("hlt",),
    f"{CR0} and $0xfffeffff, %eax\n{AWAY}{OFF}{LOOP}": ("hlt", "paging off"),
    f"{CR0}{AWAY} and $0xfffeffff, %eax\n{OFF}{LOOP}": ("hlt", "paging off"),
    f"{CR0} btr $0, %rax\n btr $31, %rax\n btr $1, %rax\n{OFF}{LOOP}": ("hlt", "paging off"),
    f"{CR0}{AWAY} mov %rax, %rcx\n mov %rcx, %cr0\n{LOOP}": ("hlt", "paging off"),
    f"{CR0}{AWAY} mov %rcx, %cr0\n{LOOP}": ("hlt",),
    f"{CR0}{AWAY} mov $1, %eax\n{OFF}{LOOP}": ("hlt",),
    f"{CR0}{AWAY} mov %rdx, %rax\n{OFF}{LOOP}": ("hlt",),
    f"{CR0}{AWAY} mov 8(%rdx), %rax\n{OFF}{LOOP}": ("hlt",),
    f"{CR0}{AWAY} or %rdx, %rax\n{OFF}{LOOP}": ("hlt",),
    f"{CR0}{AWAY} xor %eax, %eax\n{OFF}{LOOP}": ("hlt",),
    f"{CR0}{AWAY} cpuid\n{OFF}{LOOP}": ("hlt",),
    f" btr $31, %rax\n{OFF}{LOOP}": ("hlt",),  # of a value that is not CR0's
    f" mov %cr4, %rax\n btr $31, %rax\n{OFF}{LOOP}": ("hlt",),
    f"{CR0} mov $1, %eax\n btr $31, %rax\n{OFF}{LOOP}": ("hlt",),
    f"{CR0} btr $63, %rax\n{OFF}{LOOP}": ("hlt", "paging off"),  # as AND has it: of 32 bits
    f"{CR0} btr %rcx, %rax\n{OFF}{LOOP}": ("hlt",),
    CR0 + OFF + LOOP: ("hlt",),
    AWAY + OFF + LOOP: ("hlt",),
    f" mov %cr4, %rax\n{AWAY}{OFF}{LOOP}": ("hlt",),
    # where a far return goes, and in code of how many bits
    f" pushq $0x10\n{CODE}{JUMP}{LOOP}": ("hlt", 64),
    f" pushq $0x8\n{CODE}{JUMP}{LOOP}": ("hlt", 32),
    f" mov $0x10, %eax\n push %rax\n{CODE}{JUMP}{LOOP}": ("hlt", 64),
    f" mov $0x10, %eax\n mov %rax, %rcx\n push %rcx\n{CODE}{JUMP}{LOOP}": ("hlt", 64),
    f" push %rcx\n{CODE}{JUMP}{LOOP}": ("hlt", 32),
    f" push 8(%rcx)\n{CODE}{JUMP}{LOOP}": ("hlt", 32),
    f" pushq $1\n pushq $0x10\n{CODE}{JUMP}{LOOP}": ("hlt", 64),
    f" pushq $0x10\n{CODE} add $2, %rax\n{JUMP} ud2\n{LOOP}": ("hlt", 64),
    f" pushq $0x10\n{CODE} mov %rax, %rcx\n push %rcx\n lretq\n3:\n{LOOP}": ("hlt", 64),
    f" pushq $0x10\n add $3f - blob, %rcx\n push %rcx\n lretq\n3:\n{LOOP}": ("hlt", 64),
    f" pushq $0x10\n add $3f - blob - 4, %rcx\n add $4, %rcx\n push %rcx\n lretq\n3:\n{LOOP}": ("hlt", 64),
    f" pushq $0x10\n mov %rcx, %rax\n{JUMP}{LOOP}": "where is not known",
    f" pushq $0x10\n{CODE} mov %rdx, %rax\n{JUMP}{LOOP}": "where is not known",
    f" pushq $0x10\n{CODE} sub $0, %rax\n{JUMP}{LOOP}": "where is not known",
    f" pushq $0x10\n{CODE} add 8(%rdx), %rax\n{JUMP}{LOOP}": "where is not known",
    f" pushq $0x10\n{CODE} mov %cr0, %rax\n{JUMP}{LOOP}": "where is not known",
    f" pushq $0x10\n lea 8(%rdx), %rax\n{JUMP}{LOOP}": "where is not known",
    f" pushq $0x10\n mov $3f, %rax\n{JUMP}{LOOP}": "where is not known",
    f" pushq $0x10\n cpuid\n add $3f - blob, %rcx\n push %rcx\n lretq\n3:\n{LOOP}": "where is not known",
    f" pushq $0x10\n push 8(%rcx)\n lretq\n3:\n{LOOP}": "where is not known",
    f"{CODE}{JUMP}{LOOP}": "to where it was called from",
    f" lretq\n{LOOP}": "to where it was called from",
    # where it is lost
    f" jmp 2f\n ud2\n2:\n{LOOP}": ("hlt",),
    f" ud2\n{LOOP}": "has ud2",
    f" jmp *%rdi\n{LOOP}": "has jmp",
    f" call 1f\n{LOOP}": "has call",
    f" je 1f\n{LOOP}": "has je",
    f" jmp blob_end\n{LOOP}": "has no instruction at",
    f" jmp blob - 4\n{LOOP}": "has no instruction at",
    " nop\n" * 253 + LOOP: ("hlt",),
    " nop\n" * 254 + LOOP: "for more than 256 instructions",
}
"""Code that is copied, and what is seen of its way, or why it was lost."""


def own_place(made, code, **parts):
    given = {"hook": HOOK, "resume": "", "leave": LEAVE, "room": ROOM, "page": PAGE, "objects": OBJECTS, **parts}
    with open_kernel(made.path(allocators=ALLOCATORS, blob=blob(code), **given)) as kernel:
        return traits_on_demand(kernel).own_place


@pytest.mark.parametrize("code", WAYS)
def test_the_way_through_the_copied_code(made, code):
    expected, found = WAYS[code], own_place(made, code)
    if isinstance(expected, str):
        assert found.value is None
        assert expected in str(found.reason)
        return
    wide = [one for one in expected if isinstance(one, int)]
    assert found.value == (*(one for one in expected if isinstance(one, str)), "frames of no image")
    on = [one.text.partition("on in ")[2] for one in found.evidence if "on in " in one.text]
    assert on == [f"{bits}-bit code" for bits in wide]


def test_each_thing_is_shown_once(made):
    twice = " lgdt 8(%rdi)\n lidt 8(%rdi)\n mov %rsi, %cr3\n mov %rdx, %rsp\n" * 2
    notes = [one.text.rpartition("  # ")[2] for one in own_place(made, twice + LOOP).evidence[2:-1]]
    assert notes == ["GDT", "IDT", "page tables", "stack", "waits"]
    lost = own_place(made, "1: pause\n nop\n jmp 1b\n").evidence
    assert lost[-1].text.startswith("pause")
    assert lost[-1].text.endswith("  # the loop")


@pytest.mark.parametrize(("source", "size", "pieces"), [
    ("blob", "1", None), ("blob", "4096", None), ("blob", "4097", "no piece"), ("blob", "0", "no piece"),
    ("0x1000", "16", "no piece"), ("0x7fffffffffff", "16", "no piece"), ("0xffffffff00001000", "16", "no piece"),
])  # fmt: skip
def test_what_is_taken_for_a_copied_piece(made, source, size, pieces):
    room = ROOM.replace("mov %r13, %rdx", f"mov ${size}, %rdx").replace("mov $blob, %rsi", f"movabs ${source}, %rsi")
    found = own_place(made, LOOP, room=room)
    assert (pieces in str(found.reason)) if pieces else "seen to copy" not in str(found.reason)


@pytest.mark.parametrize(("end", "thunk"), [
    ("jmp __x86_return_thunk", True), ("jmp its_return_thunk", True), ("jmp elsewhere", False), ("ud2", False),
])  # fmt: skip
def test_an_allocator_may_end_in_a_return_thunk(made, end, thunk):
    """What a function returns is what RAX holds where it does; a kernel with mitigations returns by a jump."""
    page = PAGE.replace("2: pop %rbx\n ret", f"2: pop %rbx\n {end}")
    assert page != PAGE
    more = "".join(f"fn {name}\n ret\nend {name}\n" for name in ("__x86_return_thunk", "its_return_thunk", "elsewhere"))
    found = own_place(made, LOOP, page=page + more)
    assert found.value == ("hlt", *(["frames of no image"] if thunk else []))


GIVES = (
    # mm/page_alloc.c, include/linux/gfp.h; with CONFIG_MEM_ALLOC_PROFILING by another name, since v6.10
    "get_zeroed_page", "get_zeroed_page_noprof", "__get_free_pages", "get_free_pages_noprof", "alloc_pages",
    "alloc_pages_noprof", "__alloc_pages", "__alloc_pages_noprof", "__alloc_frozen_pages_noprof",
)  # fmt: skip


@pytest.mark.parametrize("name", GIVES)
def test_tables_in_a_frame_that_any_allocator_gave_are_not_vouched_for(made, name):
    """The code is in a frame that the image does not have; the page tables that it switches to need not be."""
    room = ROOM.replace("1: pop", f" call {name}\n mov %rax, tables(%rip)\n1: pop")
    allocator = "" if name == "get_zeroed_page" else f"fn {name}\n mov pool(%rip), %rax\n ret\nend {name}\n"
    found = own_place(made, f" mov %rsi, %cr3\n{LOOP}", room=room + allocator)
    assert found.value == ("hlt", "page tables")
    other = room.replace(f"call {name}", "call of_no_name") + "fn of_no_name\n ret\nend of_no_name\n"
    assert "frames of no image" in own_place(made, f" mov %rsi, %cr3\n{LOOP}", room=other).value


@pytest.mark.parametrize("name", ["memcpy", "__memcpy"])
def test_code_is_copied_by_either_name_of_memcpy(made, name):
    room = ROOM.replace("call memcpy", f"call {name}")
    more = "" if name == "memcpy" else f"fn {name}\n rep movsb\n ret\nend {name}\n"
    assert own_place(made, LOOP, room=room + more).value == ("hlt", "frames of no image")


@pytest.mark.parametrize("name", [
    "set_memory_x", "set_memory_nx", "__kmalloc", "__kmalloc_noprof", "kmalloc_trace", "kfree", "memset",
    "freeze_secondary_cpus", "suspend_disable_secondary_cpus", "cpuhp_smt_enable", "_cpu_up", "cpu_up", *GIVES,
])  # fmt: skip
def test_what_is_not_looked_into_copies_no_code_for_parked_cpus(made, name):
    """The kernel's allocators copy much; what they copy is not what a CPU is parked in."""
    copies = f"fn {name}\n mov $16, %edx\n mov $blob, %rsi\n call memcpy\n ret\nend {name}\n"
    room = ROOM.replace("1: pop", f" call {name}\n1: pop")
    own = {"other": PARTS["other"], "smt": PARTS["smt"]}
    for part, text in own.items():
        if f"fn {name}\n" in text:
            first, _, rest = text.partition(f"fn {name}\n")
            own[part] = first + rest.partition(f"end {name}\n")[2]
    given = ALLOCATORS
    if f"fn {name}\n" in given:
        first, _, rest = given.partition(f"fn {name}\n")
        given = first + rest.partition(f"end {name}\n")[2]
    parts = {"hook": HOOK, "resume": "", "leave": LEAVE, "page": PAGE, "objects": OBJECTS, **own}
    with open_kernel(made.path(allocators=given, blob=blob(LOOP), room=room + copies, **parts)) as kernel:
        assert traits_on_demand(kernel).own_place.value == ("hlt", "frames of no image")
    other = room.replace(f"call {name}", "call of_no_name") + copies.replace(name, "of_no_name")
    assert "2 pieces" in str(own_place(made, LOOP, room=other).reason)


def through(depth):
    """An allocator that hands on what the next one returns, so many calls down to get_safe_page()."""
    last = PAGE.replace("a_page", f"page_{depth}")
    return last + "".join(
        f"fn page_{number}\n push %rbx\n call page_{number + 1}\n pop %rbx\n ret\nend page_{number}\n"
        for number in range(depth)
    ).replace("page_0", "a_page")


@pytest.mark.parametrize(("page", "safe"), [
    (through(1), True), (through(2), False),  # so far down it is not read what is returned
    ("fn a_page\n mov %rdi, %rax\n ret\nend a_page\n", False),  # what it was given
    ("fn a_page\n mov pool(%rip), %rax\n ret\nend a_page\n", False), ("fn a_page\n ud2\nend a_page\n", False),
    ("fn a_page\n call *pool(%rip)\n ret\nend a_page\n", False),
    ("fn a_page\n call get_safe_page\n add $64, %rax\n ret\nend a_page\n", False),
    ("fn a_page\n call get_safe_page\n ret\nend a_page\n", True),
    ("fn a_page\n call get_safe_page\n test %rax, %rax\n je 1f\n ret\n1: mov $8, %eax\n ret\nend a_page\n", False),
    ("fn a_page\n call get_safe_page\n test %rax, %rax\n je 1f\n ret\n1: xor %eax, %eax\n ret\nend a_page\n", True),
    ("fn a_page\n test %edi, %edi\n je 1f\n call get_safe_page\n ret\n"
     "1: call get_zeroed_page\n ret\nend a_page\n", False),
])  # fmt: skip
def test_what_gives_a_frame_that_no_image_has(made, page, safe):
    """On each way it returns what get_safe_page() gave, as it gave it, or nothing."""
    room = ROOM.replace("1: pop", " call get_safe_page\n mov %rax, tables(%rip)\n1: pop")
    assert own_place(made, LOOP, room=room, page=page).value == ("hlt", *(["frames of no image"] if safe else []))


def test_a_frame_that_the_copying_function_was_given_is_not_followed_to_its_callers(made):
    inner = ROOM.replace("make_room", "copy_there").replace("4: call a_page\n mov %rax, %rbx\n", "4: mov %rdi, %rbx\n")
    inner = inner.replace(" test %rax, %rax\n je 1f\n", "")
    room = "fn make_room\n call a_page\n mov %rax, %rdi\n call copy_there\n ret\nend make_room\n"
    assert own_place(made, LOOP, room=room + inner).value == ("hlt",)
