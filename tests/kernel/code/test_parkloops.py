"""Park loops: exactly what is executed again and again, and what that touches."""

from __future__ import annotations

import pytest

from hibercheck.errors import MissingFact
from hibercheck.kernel.code.traits import read_traits
from hibercheck.kernel.kernel import Kernel, open_kernel
from hibercheck.kernel.symbols import Symbol
from tests.kernel.code.conftest import PARTS
from tests.support.btf_writer import INT, STRUCT, Type, write_btf


def texts(loop):
    return [one.text.split()[0] for one in loop.instructions]


def test_the_mwait_loop_is_the_cycle_and_nothing_else(made):
    (loop,) = made.traits().loops("native", "mwait")
    assert texts(loop) == [
        "mfence",
        "clflush",
        "mov",
        "mov",
        "monitor",
        "mov",
        "mwait",
        "mov",
        "cmp",
        "je",
        "mov",
        "test",
        "jne",
    ]
    assert loop.line == "rbp"
    assert loop.code[:3] == bytes.fromhex("0faef0")
    assert loop.entry == loop.start
    assert loop.ranges == ((loop.start, loop.end),)
    assert not loop.pushes


PEELED = """ mfence
 clflush (%rbp)
 mov %rbp, %rax
 mov %rcx, %rdx
 monitor
 mov %rbx, %rax
first:
 mwait
 jmp 9f
 .balign 16
"""


def test_the_first_turn_that_llvm_copies_before_the_loop(made):
    native = PARTS["native"].replace("1: mfence\n", PEELED + "1: mfence\n")
    native = native.replace(" mwait\n mov (%rbp), %eax", " mwait\n9: mov (%rbp), %eax")
    with open_kernel(made.path(native=native)) as kernel:
        traits, first = read_traits(kernel), kernel.require("first").address
    (loop,) = traits.loops("native", "mwait")
    assert loop.wait == first
    assert loop.resume_at == first + 3
    # What follows the copied MWAIT, then the whole cycle with the other; not what leads to the copy.
    assert texts(loop)[:2] == ["mwait", "jmp"]
    assert texts(loop)[2:8] == ["mfence", "clflush", "mov", "mov", "monitor", "mov"]
    assert loop.ranges[0][0] == loop.start == first
    assert len(loop.ranges) == 2
    assert (loop.line, loop.after_kick) == ("rbp", False)
    assert traits.kick_value.value == 0x4A17DEAD
    assert traits.play_dead_order.value == ("mwait", "cpuidle", "hlt")
    (kicked,) = traits.loops("native", after_kick=True)
    assert kicked.kind == "hlt"


def test_what_only_cpu_0_does_is_not_in_the_loop(made):
    (loop,) = made.traits().loops("native", "mwait")
    assert not any(touch.symbol == "enable_start_cpu0" for touch in loop.touches)
    # The same code without the test of the CPU's number belongs to the loop.
    native = PARTS["native"].replace(" mov %gs:cpu_number(%rip), %eax\n test %eax, %eax\n jne 1b\n", "")
    (loop,) = made.traits(native=native).loops("native", "mwait")
    assert any(touch.symbol == "enable_start_cpu0" for touch in loop.touches)


def test_touches_of_the_mwait_loop(made):
    (loop,) = made.traits().loops("native", "mwait")
    seen = {
        (touch.kind, touch.access, touch.symbol or touch.register) for touch in loop.touches if touch.kind != "text"
    }
    assert seen == {("line", "read", "rbp"), ("percpu", "read", "cpu_number")}
    (text,) = [touch for touch in loop.touches if touch.kind == "text"]
    assert (text.address, text.size) == (loop.start, loop.end - loop.start)


def test_the_loop_after_the_kick_is_told_apart(made):
    traits = made.traits()
    (kicked,) = traits.loops("native", after_kick=True)
    assert (kicked.kind, kicked.symbol) == ("hlt", "native_play_dead")
    (plain,) = traits.loops("native", "hlt")
    assert (plain.symbol, plain.via) == ("hlt_play_dead", ("native_play_dead", "hlt_play_dead"))


def test_a_jump_label_goes_both_ways(made):
    hlt = """
fn hlt_play_dead
1: .byte 0xeb, 7
.globl ds
 verw ds(%rip)
2: hlt
 jmp 1b
end hlt_play_dead
.section .rodata
ds: .word 0x18
.balign 8
.globl __start___jump_table, __stop___jump_table
__start___jump_table:
 .long 1b - ., 2b - .
 .quad 0
__stop___jump_table:
.text
"""
    (loop,) = made.traits(hlt=hlt).loops("resume", "hlt")
    assert texts(loop) == ["jmp", "verw", "hlt", "jmp"]
    (patch,) = loop.patchable
    assert (patch.why, patch.variants) == ("jump label", (bytes.fromhex("eb07"), bytes.fromhex("6690")))
    assert [(touch.kind, touch.symbol) for touch in loop.touches if touch.kind == "rodata"] == [("rodata", "ds")]


def test_a_jump_label_that_is_a_nop_in_the_file(made):
    hlt = """
fn hlt_play_dead
1: .byte 0x66, 0x90
 jmp 2f
3: pause
2: hlt
 jmp 1b
end hlt_play_dead
.section .rodata
.balign 8
.globl __start___jump_table, __stop___jump_table
__start___jump_table:
 .long 1b - ., 3b - .
 .quad 0
__stop___jump_table:
.text
"""
    (loop,) = made.traits(hlt=hlt).loops("resume", "hlt")
    assert texts(loop) == ["xchg", "jmp", "pause", "hlt", "jmp"]
    (patch,) = loop.patchable
    assert patch.variants == (bytes.fromhex("6690"), bytes.fromhex("eb02"))


@pytest.mark.parametrize(("size", "distance"), [(2, 1 << 20), (2, -(1 << 20)), (1, 3)])
def test_a_jump_label_that_cannot_be(made, size, distance):
    hlt = f"""
fn hlt_play_dead
1: .byte {"0x66, 0x90" if size == 2 else "0x90"}
 hlt
 jmp 1b
end hlt_play_dead
.section .rodata
.balign 8
.globl __start___jump_table, __stop___jump_table
__start___jump_table:
 .long 1b - ., 1b + {distance} - .
 .quad 0
__stop___jump_table:
.text
"""
    (loop,) = made.traits(hlt=hlt).loops("resume", "hlt")
    assert [(patch.why, patch.variants) for patch in loop.patchable] == [("jump label", ())]


def test_absolute_jump_labels_of_old_kernels(made):
    hlt = """
fn hlt_play_dead
1: .byte 0xeb, 1
3: nop
2: hlt
 jmp 1b
end hlt_play_dead
.section .rodata
.balign 8
.globl __start___jump_table, __stop___jump_table
__start___jump_table:
 .quad 1b, 2b, 0
__stop___jump_table:
.text
"""
    (loop,) = made.traits(hlt=hlt).loops("resume", "hlt")
    assert texts(loop) == ["jmp", "nop", "hlt", "jmp"]


@pytest.mark.parametrize(
    "tail", [".word 3\n .byte 1, 1", ".word 3\n .byte 1, 1, 0", ".long 3\n .byte 1, 1"], ids=["12", "13", "14"]
)
def test_alternatives_of_every_age(made, tail):
    hlt = f"""
fn hlt_play_dead
2: hlt
1: nop
 jmp 2b
end hlt_play_dead
.section .rodata
.globl __alt_instructions, __alt_instructions_end
__alt_instructions:
 .long 1b - ., 1b - .
 {tail}
__alt_instructions_end:
.text
"""
    (loop,) = made.traits(hlt=hlt).loops("resume", "hlt")
    (patch,) = loop.patchable
    assert (patch.start, patch.end, patch.why) == (loop.start + 1, loop.start + 2, "alternative")


def test_a_function_that_the_loop_calls_is_part_of_it(made):
    hlt = """
fn hlt_play_dead
1: hlt
 call checked
 jmp 1b
end hlt_play_dead
fn checked
 mov boot_cpu_data(%rip), %eax
 test %eax, %eax
 je 1f
 ret
1: jmp elsewhere
end checked
fn elsewhere
 nop
 ret
end elsewhere
"""
    (loop,) = made.traits(hlt=hlt).loops("resume", "hlt")
    assert {"hlt", "call", "mov", "test", "je", "ret", "jmp", "nop"} <= set(texts(loop))
    assert loop.pushes
    assert len(loop.ranges) == 3
    assert loop.incomplete is None


def test_an_indirect_call_makes_the_list_incomplete(made):
    hlt = PARTS["hlt"].replace("1: hlt", "1: hlt\n call *%rax")
    (loop,) = made.traits(hlt=hlt).loops("resume", "hlt")
    assert loop.incomplete is not None
    assert "indirect call" in loop.incomplete


def test_waiting_with_interrupts_on(made):
    loop = made.traits(hlt=PARTS["hlt"].replace("1: hlt", "1: sti\n hlt")).loops("resume", "hlt")[0]
    assert loop.interrupts
    assert not made.traits().loops("resume", "hlt")[0].interrupts


ACPI = """
fn acpi_idle_play_dead
 mov %rsi, %rbx
1: movzbl 8(%rbx), %eax
 cmp $2, %al
 je 2f
 test %al, %al
 jne 3f
 mov 4(%rbx), %edx
 in (%dx), %al
 jmp 1b
2: sti
 hlt
 jmp 1b
3: mov $-19, %eax
 ret
end acpi_idle_play_dead
"""


def test_hlt_and_port_of_one_cycle_are_two_loops(made):
    traits = made.traits(extra=ACPI)
    assert sorted(traits.enter_dead.value) == ["acpi_idle:hlt", "acpi_idle:port_io"]
    (port,) = traits.loops("cpuidle", "port_io")
    (halt,) = traits.loops("cpuidle", "hlt")
    assert "hlt" not in texts(port)
    assert "in" not in texts(halt)
    assert (port.driver, halt.interrupts) == ("acpi_idle", True)
    assert [(touch.kind, touch.register) for touch in port.touches if touch.kind == "io"] == [("io", "rdx")]


def test_a_read_of_a_port_elsewhere_is_no_parking(made):
    common = PARTS["common"].replace("cli", "cli\n1: in $0x80, %al\n test %al, %al\n jne 1b")
    kinds = {loop.kind for loop in made.traits(common=common).park_loops}
    assert kinds == {"hlt", "mwait"}


@pytest.mark.parametrize("name", ["native_play_dead", "hlt_play_dead"])
def test_endbr_and_padding_change_nothing(made, name):
    part = {"native_play_dead": "native", "hlt_play_dead": "hlt"}[name]
    prefixed = PARTS[part].replace(
        f"fn {name}\n", f"fn __pfx_{name}\n .rept 16\n nop\n .endr\n{name}:\n .type {name}, @function\n endbr64\n"
    )
    plain, other = made.traits(), made.traits(**{part: prefixed})
    assert [texts(loop) for loop in plain.park_loops] == [texts(loop) for loop in other.park_loops]


def test_without_sizes_all_is_the_same(made, monkeypatch):
    path = made.path()
    with open_kernel(path) as kernel:
        with_sizes = read_traits(kernel)
    forget_sizes(monkeypatch)
    with open_kernel(path) as kernel:
        assert read_traits(kernel) == with_sizes


def forget_sizes(monkeypatch):
    """Make kernels look like those whose symbols come from kallsyms: without sizes."""
    symbols, nearest = Kernel.symbols, Kernel.nearest

    def bare(symbol):
        return Symbol(symbol.name, symbol.address, None, symbol.letter)

    monkeypatch.setattr(Kernel, "symbols", lambda self, names: {n: bare(s) for n, s in symbols(self, names).items()})

    def near(self, address):
        found = nearest(self, address)
        return None if found is None else (bare(found[0]), found[1])

    monkeypatch.setattr(Kernel, "nearest", near)


def test_a_kernel_cut_short_is_unknown_and_not_a_guess(made, monkeypatch):
    path = made.path()
    with open_kernel(path) as kernel:
        hook = kernel.require("hibernate_resume_nonboot_cpu_disable").address
    read = Kernel.read

    def cut(self, address, size):
        if hook + 4 <= address < hook + 64:
            raise MissingFact("nothing there")
        return read(self, address, size)

    monkeypatch.setattr(Kernel, "read", cut)
    with open_kernel(path) as kernel:
        traits = read_traits(kernel)
    assert traits.rescues_offline.value is None
    assert "could not be read to its end" in traits.rescues_offline.reason
    assert traits.resume_park.value is None


ASKS = " mov %gs:cpu_number(%rip), %eax\n test %eax, %eax\n jne 1b\n"


@pytest.mark.parametrize(("asks", "cpu0"), [
    (ASKS, True), (" cmpl $0, %gs:cpu_number(%rip)\n jne 1b\n", True),
    (" mov %gs:cpu_number(%rip), %eax\n cmp $0, %eax\n jne 1b\n", True),
    (" mov %gs:cpu_number(%rip), %eax\n test %eax, %eax\n je 8f\n jmp 1b\n8:\n", True),
    (" testl $-1, %gs:cpu_number(%rip)\n jne 1b\n", True),
    (" cmpl $1, %gs:cpu_number(%rip)\n jne 1b\n", False),
    (" cmpl $0, %gs:this_cpu_off(%rip)\n jne 1b\n", False), (" cmpl $0, cpu_number(%rip)\n jne 1b\n", False),
    (" mov %gs:cpu_number(%rip), %eax\n cmp $1, %eax\n jne 1b\n", False),
    (" mov %gs:this_cpu_off(%rip), %eax\n test %eax, %eax\n jne 1b\n", False),
    (" mov cpu_number(%rip), %eax\n test %eax, %eax\n jne 1b\n", False),
    (" mov %gs:cpu_number(%rip), %ecx\n test %eax, %eax\n jne 1b\n", False),
    (" mov %gs:cpu_number(%rip), %eax\n and %eax, %eax\n jne 1b\n", False),
    (" add %gs:cpu_number(%rip), %eax\n test %eax, %eax\n jne 1b\n", False),
    (" mov %gs:cpu_number(%rip), %eax\n test %eax, %eax\n ja 1b\n", False),
    (" mov %gs:cpu_number(%rip), %eax\n nop\n jne 1b\n", False),
    (" mov %gs:cpu_number(%rip), %eax\n nop\n test %eax, %eax\n jne 1b\n", False),
])  # fmt: skip
def test_what_asks_whether_it_is_cpu_0(made, asks, cpu0):
    assert ASKS in PARTS["native"]
    (loop,) = made.traits(native=PARTS["native"].replace(ASKS, asks)).loops("native", "mwait")
    assert any(touch.symbol == "enable_start_cpu0" for touch in loop.touches) is not cpu0


@pytest.mark.parametrize(("offset", "types", "cpu0"), [
    (12, None, True), (8, None, False), (16, None, False), (16, 16, True), (12, 16, False),
])  # fmt: skip
def test_the_number_of_a_cpu_may_be_in_pcpu_hot(made, offset, types, cpu0):
    """struct pcpu_hot, v6.2 to v6.14: by the kernel's types or else where it stood."""
    asks = f" mov %gs:pcpu_hot+{offset}(%rip), %eax\n test %eax, %eax\n jne 1b\n"
    data = ".data\nobj pcpu_hot, 64\n.text\n"
    if types is not None:
        described = [Type(INT, "int", 4), Type(STRUCT, "pcpu_hot", 64, (("cpu_number", 1, 8 * types),))]
        data += f'.section .BTF, "a"\n.byte {", ".join(map(str, write_btf(described)))}\n.text\n'
    (loop,) = made.traits(native=PARTS["native"].replace(ASKS, asks), extra=data).loops("native", "mwait")
    assert any(touch.symbol == "enable_start_cpu0" for touch in loop.touches) is not cpu0
