"""Constants that code sets up: what it stores where, and with which argument it calls."""

from __future__ import annotations

import pytest

from hibercheck.kernel.code.values import argument, calls_to, low32, references, returned_factor, stores

VALUE = 0xFFFFFFFF81000040


def function_of(made, body):
    """Return the graph of a function with this body, in a kernel of its own."""
    program = made.program(extra=f"fn mwait_play_dead\n{body}\n ret\nend mwait_play_dead\n")
    return program, program.function_of("mwait_play_dead")


@pytest.mark.parametrize(("body", "value"), [
    ("movq $0x40, smp_ops(%rip)", 0x40),
    ("mov $0x40, %eax; mov %rax, smp_ops(%rip)", 0x40),
    ("mov $0xffffffff81000040, %rax; mov %rax, smp_ops(%rip)", VALUE),
    ("lea init_task(%rip), %rcx; nop; mov %rcx, smp_ops(%rip)", "init_task"),
    ("xor %eax, %eax; mov %rax, smp_ops(%rip)", 0),
    ("xor %ebx, %eax; mov %rax, smp_ops(%rip)", None),
    ("mov %rbx, %rax; mov %rax, smp_ops(%rip)", None),
    ("mov init_task(%rip), %rax; mov %rax, smp_ops(%rip)", None),
    ("mov $0x40, %eax; call crc32_le; mov %rax, smp_ops(%rip)", None),
    ("mov $0x40, %eax; add $1, %eax; mov %rax, smp_ops(%rip)", None),
    ("mov $0x40, %eax; mov $0x41, %ecx; xchg %rax, smp_ops(%rip)", 0x40),
    ("mov $0x40, %eax;" + "nop;" * 22 + "mov %rax, smp_ops(%rip)", 0x40),
    ("mov $0x40, %eax;" + "nop;" * 24 + "mov %rax, smp_ops(%rip)", None),
])  # fmt: skip
def test_what_is_stored_at_a_fixed_address(made, body, value):
    program, function = function_of(made, body.replace(";", "\n"))
    found = [one for one in stores(function) if one.address == program.address("smp_ops")]
    assert [one.value for one in found] == [program.address(value) if isinstance(value, str) else value]


@pytest.mark.parametrize("body", ["mov smp_ops(%rip), %rax", "cmpq $1, smp_ops(%rip)", "mov %rax, (%rbx)",
                                  "mov %rax, %gs:cpu_number(%rip)"])  # fmt: skip
def test_what_stores_nothing_at_a_fixed_address(made, body):
    assert list(stores(function_of(made, body)[1])) == []


@pytest.mark.parametrize(("body", "value"), [
    ("mov $5, %edi", 5), ("mov $5, %ebx; mov %rbx, %rdi", 5),
    ("mov $5, %ebx; call play_dead_common; mov %rbx, %rdi", 5),
    ("mov $5, %edi; call play_dead_common", None),  # a call may change it

    ("lea init_task(%rip), %rdi", "init_task"), ("mov (%rbx), %rdi", None), ("lea 8(%rbx), %rdi", None),
    ("mov $5, %edi; test %eax, %eax; je 1f; nop; 1:", 5), ("jmp 1f; 1:", None),
])  # fmt: skip
def test_the_constant_in_a_register_at_a_call(made, body, value):
    program, function = function_of(made, f"{body};call crc32_le".replace(";", "\n"))
    (call,) = calls_to(function, [program.address("crc32_le"), None])
    assert argument(function, call, "rdi") == (program.address(value) if isinstance(value, str) else value)
    assert argument(function, call, None) is None


@pytest.mark.parametrize(("body", "factor"), [
    ("mov %rdi, %rax", 1), ("lea (%rdi,%rdi,2), %rax", 3), ("mov %rdi, %rax; shl $4, %rax", 16),
    ("imul $24, %rdi, %rax", None), ("mov %rdi, %rax; imul $24, %rax", None), ("mov %rdi, %rax; imul %rsi, %rax", None),
    ("lea 7(,%rdi,8), %rax", 8), ("mov %rdi, %rax; add $9, %rax", 1),
    ("mov %rdi, %rax; shl $2, %rax; sub %rdi, %rax", 3), ("mov %rdi, %rax; add %rax, %rax; add %rdi, %rax", 3),
    ("mov $5, %eax", 0), ("mov (%rdi), %rax", None), ("mov %rdi, %rax; xor %eax, %eax", None), ("jmp 1f; 1:", None),
    ("call play_dead_common; mov %rdi, %rax", 1), ("mov %rdi, %rax; call play_dead_common", None),
    ("movslq %edi, %rax; shl $3, %rax", 8),
])  # fmt: skip
def test_by_how_much_a_function_multiplies_its_argument(made, body, factor):
    assert returned_factor(function_of(made, body.replace(";", "\n"))[1]) == factor


def test_references_name_an_address_in_any_way(made):
    program, function = function_of(made, "mov smp_ops+8(%rip), %rax\n lea smp_ops(%rip), %rcx\n mov $smp_ops, %rdx\n"
                                          " mov smp_ops(,%rbx,8), %rax\n mov init_task(%rip), %rax")  # fmt: skip
    start = program.address("smp_ops")
    assert [one.mnemonic for one in references(function, start, 16)] == ["mov", "lea", "mov", "mov"]
    assert [one.mnemonic for one in references(function, start)] == ["lea", "mov", "mov"]
    assert references(function, start + 9, 7) == []


def test_the_low_half_of_an_immediate():
    assert low32(0xFFFFFFFF80000001) == 0x80000001
    assert low32(5) == 5
