"""Constants that code sets up: what it stores where, and with which argument it calls."""

from __future__ import annotations

import importlib
from random import Random

import pytest

from hibercheck.kernel.code.values import argument, calls_to, low32, references, returned_factor, stores, wide

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
    ("movslq %edi, %rax; shl $3, %rax", 8), ("mov %rdi, %rax; shl $64, %rax", 1),
    ("mov %rdi, %rax; shl $63, %rax", 1 << 63),
    ("mov %rdi, %rax; sub $9, %rax", 1), ("mov $5, %eax; sub %rdi, %rax", -1), ("lea 8(%rsi), %rax", 0),
    ("mov %rdi, %rax; add %rdi, 8(%rsi); add %rdi, %rax", 2), ("mov %rdi, %rcx; lea (%rsi,%rcx,4), %rax", 4),
    ("movsbq %dil, %rax", 1), ("mov %rdi, %rax; mov %rax, (%rsi)", 1), ("nop", None),
])  # fmt: skip
def test_by_how_much_a_function_multiplies_its_argument(made, body, factor):
    assert returned_factor(function_of(made, body.replace(";", "\n"))[1]) == factor


STEPS = (
    "mov %rdi, %{0}", "mov %{1}, %{0}", "lea (%{1},%rdi,{2}), %{0}", "lea ({2})(,%{1},{2}), %{0}", "lea 5(%{1}), %{0}",
    "add %{1}, %{0}", "sub %{1}, %{0}", "add ${3}, %{0}", "sub ${3}, %{0}", "shl ${2}, %{0}", "mov ${3}, %{0}",
)  # fmt: skip


def test_by_how_much_random_functions_multiply(made):
    """As the emulator computes them: what each returns grows by the factor as its argument does."""
    unicorn = pytest.importorskip("unicorn")
    x86 = importlib.import_module("unicorn.x86_const")
    random, names = Random(14), [f"random_{number}" for number in range(80)]

    def step():
        registers = random.choices(("rax", "rcx", "r8"), k=2)
        return f" {random.choice(STEPS).format(*registers, random.choice((1, 2, 4, 8)), 7)}\n"

    bodies = ["".join(step() for _ in range(random.randint(1, 6))) for _ in names]
    functions = "".join(f"fn {name}\n{body} ret\nend {name}\n" for name, body in zip(names, bodies, strict=True))
    program = made.program(extra=functions)
    told = 0
    for name, body in zip(names, bodies, strict=True):
        function = program.function_of(name)
        uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        uc.mem_map(0x1000, 0x1000)
        code = b"".join(node.code for node in function)
        uc.mem_write(0x1000, code)
        results = []
        for given in (0, 1, 1000, (1 << 64) - 5):
            for register in ("RAX", "RCX", "R8"):
                uc.reg_write(getattr(x86, f"UC_X86_REG_{register}"), 0x1234)
            uc.reg_write(x86.UC_X86_REG_RDI, given)
            uc.emu_start(0x1000, 0x1000 + len(code) - 1)
            results.append((given, uc.reg_read(x86.UC_X86_REG_RAX)))
        factor = returned_factor(function)
        if factor is None:
            assert "%rax\n" not in body  # it never writes what it returns
            continue
        told += 1
        assert all((result - results[0][1] - factor * given) % (1 << 64) == 0 for given, result in results), body
    assert told > 40


def test_references_name_an_address_in_any_way(made):
    program, function = function_of(made, "mov smp_ops+8(%rip), %rax\n lea smp_ops(%rip), %rcx\n mov $smp_ops, %rdx\n"
                                          " mov smp_ops(,%rbx,8), %rax\n mov init_task(%rip), %rax")  # fmt: skip
    start = program.address("smp_ops")
    assert [one.mnemonic for one in references(function, start, 16)] == ["mov", "lea", "mov", "mov"]
    assert [one.mnemonic for one in references(function, start)] == ["lea", "mov", "mov"]
    assert references(function, start + 9, 7) == []


@pytest.mark.parametrize(("immediate", "expected"), [
    (None, False), (0, False), ((1 << 32) - 1, False), (1 << 32, True), (0x123456789ABCDEF0, True),
    ((1 << 64) - (1 << 31) - 1, True), ((1 << 64) - (1 << 31), False), ((1 << 64) - 1, False),
])  # fmt: skip
def test_what_takes_64_bits(immediate, expected):
    assert wide(immediate) is expected


def test_the_low_half_of_an_immediate():
    assert low32(0xFFFFFFFF80000001) == 0x80000001
    assert low32(5) == 5
