"""What a loop is said to touch, beside what it touches as it is followed; and how far called functions are read."""

from __future__ import annotations

import pytest

from hibercheck.errors import MalformedKernel
from hibercheck.kernel.code.parkloops import LoopReader
from hibercheck.kernel.code.program import Program
from hibercheck.kernel.kernel import open_kernel
from hibercheck.x86.follow import CourseEnd, follow

GS = 0xFFFF888000000000
REGISTERS = {"rsp": 0xFFFFC90000004800, "rbp": 0xFFFFC90000005800, "rbx": 0xFFFF888012340040, "rax": 5}
BODIES = {
    "mov 8(%rsp), %eax": ("stack", "read", "rsp"),
    "mov %ax, -16(%rsp)": ("stack", "write", "rsp"),
    "push %rax; lea 8(%rsp), %rsp": ("stack", "write", "rsp"),
    "pop %rcx; lea -8(%rsp), %rsp": ("stack", "read", "rsp"),
    "mov 4(%rbp), %rax": ("data", "read", "rbp"),
    "mov -4(%rbx), %cx": ("data", "read", "rbx"),
    "movb $1, 3(%rbx)": ("data", "write", "rbx"),
    "addl $1, 12(%rbx)": ("data", "write", "rbx"),
    "mov boot_cpu_data(%rip), %ecx": ("data", "read", "boot_cpu_data"),
    "incl nr_cpu_ids(%rip)": ("data", "write", "nr_cpu_ids"),
    "mov nr_cpu_ids, %ecx": ("data", "read", "nr_cpu_ids"),
    "mov %gs:cpu_number(%rip), %ecx": ("percpu", "read", "cpu_number"),
    "movb $1, %gs:cpu_number(%rip)": ("percpu", "write", "cpu_number"),
    "mov %gs:8(%rax), %edx": ("percpu", "read", "rax"),
    "clflush 0x23(%rbx)": ("data", "read", "rbx"),
    "verw ds(%rip)": ("rodata", "read", "ds"),
    "test %eax, %eax": None,
}
DATA = "\n.section .rodata\n.globl ds\n.type ds, @object\n.size ds, 2\nds: .word 0x18\n.text\n"


def kernel_of(made, body, wait="hlt"):
    """Open a kernel that parks in a loop with this body."""
    lines = "\n".join(body.split(";"))
    return open_kernel(made.path(hlt=f"fn hlt_play_dead\n1: {lines}\n {wait}\n jmp 1b\nend hlt_play_dead{DATA}"))


def loops_of(kernel, function="hlt_play_dead", **more):
    return LoopReader(Program(kernel)).loops(kernel.require(function).address, **more)


@pytest.mark.parametrize("body", BODIES)
def test_it_touches_what_it_is_seen_to_touch(made, body):
    with kernel_of(made, body) as kernel:
        (loop,) = loops_of(kernel)

        def read(address, size):
            text = loop.start <= address < loop.end
            return kernel.read(address, min(size, loop.end + 8 - address)) if text else bytes(size)

        course = follow(read, REGISTERS, loop.start, gs_base=GS, gdt=None, foreign=lambda _address, _size: False)
    assert course.end is CourseEnd.WAITS
    lines = "clflush" in body
    seen = [(one.address, one.size, str(one.access), one.by) for one in course.data]
    told = []
    for touch in loop.touches:
        if touch.kind != "text":
            address = REGISTERS[touch.register] + touch.displacement if touch.address is None else touch.address
            address += GS if touch.kind == "percpu" else 0
            size = touch.size
            if lines:  # of a line that is not monitored no size is told
                address, size = address & -64, 64
            told.append((address, size, touch.access, touch.instruction))
    assert sorted(told) == sorted({one for one in seen if one[3] < loop.wait})
    expected = BODIES[body]
    if expected is not None:
        what = {(one.kind, one.access, one.symbol or one.register) for one in loop.touches}
        assert expected in what
    assert loop.pushes is (expected is not None and expected[:2] == ("stack", "write"))


def test_a_loop_that_calls_stores_to_the_stack(made):
    hlt = "fn hlt_play_dead\n1: hlt\n call crc32_le\n jmp 1b\nend hlt_play_dead"
    (loop,) = made.traits(hlt=hlt).loops("resume", "hlt")
    assert loop.pushes
    (touch,) = [one for one in loop.touches if one.kind == "stack" and one.access == "write"]
    assert (touch.register, touch.displacement, touch.size, touch.instruction) == ("rsp", -8, 8, loop.start + 1)


@pytest.mark.parametrize(("register", "line"), [
    ("rbp", "mov %rbp, %rax"), ("r12", "mov %r12, %rax"), ("rbx", "mov %rbx, %rax\n xor %ecx, %ecx\n xor %edx, %edx"),
    ("rax", "mov boot_cpu_data(%rip), %rax"), ("rax", "lea 8(%rbx), %rax"), ("rax", "nop"),
])  # fmt: skip
def test_the_register_that_keeps_the_line(made, register, line):
    body = f"fn hlt_play_dead\n1: clflush ({'%' + register})\n {line}\n monitor\n mwait\n"
    body += f" mov 4(%{register}), %esi\n mov 8(%rdi), %esi\n jmp 1b\nend hlt_play_dead"
    with open_kernel(made.path(hlt=body)) as kernel:
        (loop,) = loops_of(kernel)
    assert (loop.kind, loop.line) == ("mwait", register)
    lines = [(one.size, one.displacement) for one in loop.touches if one.kind == "line"]
    assert lines == [(64, 0), (64, 0), (4, 4)]  # what is flushed and what is monitored is the whole of it
    assert [one.register for one in loop.touches if one.kind == "data" and one.register] == ["rdi"]


@pytest.mark.parametrize("suffix", ["", "x"])
def test_amd_s_own_instructions_monitor_a_line_as_well(made, suffix):
    """MONITORX and MWAITX (APM 3)."""
    body = f"fn hlt_play_dead\n1: mov %rbx, %rax\n monitor{suffix}\n mwait{suffix}\n jmp 1b\nend hlt_play_dead"
    with open_kernel(made.path(hlt=body)) as kernel:
        (loop,) = loops_of(kernel)
    assert (loop.kind, loop.line) == ("mwait", "rbx")
    (line,) = [one for one in loop.touches if one.kind == "line"]
    assert (line.access, line.register, line.displacement, line.size) == ("read", "rbx", 0, 64)


@pytest.mark.parametrize(("depth", "complete"), [(1, True), (4, True), (5, False), (6, False)])
def test_how_deep_calls_are_read(made, depth, complete):
    """Each function calls the next; the last one only returns."""
    calls = "".join(
        f"fn deep_{number}\n {f'call deep_{number + 1}' if number < depth else 'nop'}\n ret\nend deep_{number}\n"
        for number in range(1, depth + 1)
    )
    hlt = f"fn hlt_play_dead\n1: hlt\n call deep_1\n jmp 1b\nend hlt_play_dead\n{calls}"
    (loop,) = made.traits(hlt=hlt).loops("resume", "hlt")
    assert len(loop.ranges) == 1 + min(depth, 4)
    assert (loop.incomplete is None) is complete
    assert complete or "calls nest deeper than 4" in loop.incomplete


def test_functions_that_call_one_another_are_read_once(made):
    calls = "fn one\n call two\n ret\nend one\nfn two\n call one\n ret\nend two\n"
    hlt = f"fn hlt_play_dead\n1: hlt\n call one\n jmp 1b\nend hlt_play_dead\n{calls}"
    (loop,) = made.traits(hlt=hlt).loops("resume", "hlt")
    assert (len(loop.ranges), loop.incomplete) == (3, None)


@pytest.mark.parametrize(("depth", "found"), [(0, True), (3, True), (4, False)])
def test_how_deep_a_park_loop_is_looked_for(made, depth, found):
    """play_dead itself is the first function of four."""
    chain = "".join(f"fn down_{number}\n call down_{number + 1}\n ret\nend down_{number}\n" for number in range(depth))
    chain += f"fn down_{depth}\n1: hlt\n jmp 1b\nend down_{depth}\n"
    with open_kernel(made.path(extra=chain)) as kernel:
        loops = loops_of(kernel, "down_0")
    if found:
        (loop,) = loops
        assert loop.via[0] == "down_0"
    assert bool([one for one in loops if one.symbol == f"down_{depth}"]) is found


@pytest.mark.parametrize(("ports", "kinds"), [(False, []), (True, ["port_io"])])
def test_reading_a_port_is_waiting_where_that_is_asked_for(made, ports, kinds):
    with kernel_of(made, "nop", wait="in (%dx), %al") as kernel:
        found = loops_of(kernel, ports=ports)
    assert [one.kind for one in found] == kinds
    for loop in found:
        (touch,) = [one for one in loop.touches if one.kind == "io"]
        assert (touch.access, touch.address, touch.register, touch.size) == ("read", None, "rdx", 1)


def test_a_port_with_a_number_is_named_by_it(made):
    with kernel_of(made, "nop", wait="in $0x80, %al") as kernel:
        (loop,) = loops_of(kernel, ports=True)
    assert [one.address for one in loop.touches if one.kind == "io"] == [0x80]


def test_a_function_that_waits_in_too_many_places_is_no_park_function(made):
    calls = "".join(f" cmp ${number}, %edi\n je {number}f\n" for number in range(1, 66))
    waits = "".join(f"{number}: hlt\n jmp {number}b\n" for number in range(1, 66))
    many = f"fn many\n{calls} ret\n{waits}end many\n"
    with open_kernel(made.path(extra=many)) as kernel, pytest.raises(MalformedKernel, match="many waits in 65 places"):
        loops_of(kernel, "many")
    one_less = many.replace(" cmp $65, %edi\n je 65f\n", "")
    with open_kernel(made.path(extra=one_less)) as kernel:
        assert len(loops_of(kernel, "many")) == 64


@pytest.mark.parametrize(("call", "complete"), [
    ("slot(%rip)", True), ("other(%rip)", False), ("0x1000", False), ("8(%rax)", False), ("%rax", False),
])  # fmt: skip
def test_a_call_through_a_pointer_of_the_file_is_followed(made, call, complete):
    """As paravirt operations are called; a word that leads to no code of the kernel is none, and neither is no word."""
    hlt = f"fn hlt_play_dead\n1: hlt\n call *{call}\n jmp 1b\nend hlt_play_dead\nfn called\n pause\n ret\nend called\n"
    data = ".data\n.globl slot, other\nslot: .quad called\nother: .quad 0x7fffffff\n.text\n"
    (loop,) = made.traits(hlt=hlt, extra=data).loops("resume", "hlt")
    assert any(one.text == "pause" for one in loop.instructions) is complete
    assert (loop.incomplete is None) is complete
    assert complete or "indirect call at" in loop.incomplete


@pytest.mark.parametrize("call", ["called", "*slot(%rip)"])
def test_a_function_that_waits_and_returns_is_part_of_the_loop_that_calls_it(made, call):
    hlt = f"fn hlt_play_dead\n1: call {call}\n jmp 1b\nend hlt_play_dead\nfn called\n sti\n hlt\n ret\nend called\n"
    data = ".data\n.globl slot\nslot: .quad called\n.text\n"
    with open_kernel(made.path(hlt=hlt, extra=data)) as kernel:
        (loop,) = loops_of(kernel)
        assert loop.wait == kernel.require("called").address + 1
    assert (loop.kind, len(loop.ranges), loop.symbol) == ("hlt", 2, "hlt_play_dead")
