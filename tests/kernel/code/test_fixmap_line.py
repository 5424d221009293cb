"""A monitored line in a page of the fixmap: which page, and which frame the kernel puts behind it."""

from __future__ import annotations

import pytest

from tests.kernel.code.conftest import PARTS

OWN = " mov $mwait_cpu_dead, %rbp\n add %gs:this_cpu_off(%rip), %rbp\n"
NUMBER = " mov %gs:cpu_number(%rip), %eax\n and $63, %eax\n shl $6, %rax\n"
LEA = NUMBER + " lea -0xa02000(%rax), %rbp\n"
SUB = NUMBER + " sub $0xa02000, %rax\n mov %rax, %rbp\n"
SETUP = """
fn setup_arch
 push %rbx
 call reserve_the_page
 pop %rbx
 ret
end setup_arch
fn reserve_the_page
 mov $0x8000, %esi
 mov $0x201, %edi
 call native_set_fixmap
 ret
end reserve_the_page
fn native_set_fixmap
 ret
end native_set_fixmap
"""


@pytest.mark.parametrize("code", [LEA, SUB], ids=["lea", "sub"])
def test_the_page_and_its_frame(made, code):
    traits = made.traits(native=PARTS["native"].replace(OWN, code), setup=SETUP)
    assert traits.monitored.value == "fixmap:0xffffffffff5fe000"
    assert traits.monitored_frame.value == (8,)
    assert "native_set_fixmap" in traits.monitored_frame.evidence[0].text


def test_another_page_of_the_fixmap_says_nothing_of_this_one(made):
    traits = made.traits(native=PARTS["native"].replace(OWN, LEA), setup=SETUP.replace("0x201", "0x202"))
    assert traits.monitored.value == "fixmap:0xffffffffff5fe000"
    assert traits.monitored_frame.value is None


def test_two_pages_leave_it_open(made):
    two = LEA + " lea -0xa04000(%rax), %rdi\n"
    assert made.traits(native=PARTS["native"].replace(OWN, two), setup=SETUP).monitored.value is None


def test_a_line_of_the_cpu_is_in_no_frame_that_the_code_names(made):
    traits = made.traits(setup=SETUP)
    assert traits.monitored.value == "percpu:mwait_cpu_dead"
    assert traits.monitored_frame.value == ()


WITHHOLDS = (
    SETUP.replace(
        "call native_set_fixmap\n ret",
        "call native_set_fixmap\n mov ${end}, %esi\n mov ${first}, %edi\n jmp register_nosave_region",
    )
    + "fn register_nosave_region\n ret\nend register_nosave_region\n"
)


@pytest.mark.parametrize(("first", "end", "withheld"), [(8, 9, True), (0, 16, True), (9, 16, False), (1, 8, False)])
def test_a_frame_that_is_kept_from_images(made, first, end, withheld):
    setup = WITHHOLDS.replace("{first}", str(first)).replace("{end}", str(end))
    traits = made.traits(native=PARTS["native"].replace(OWN, LEA), setup=setup)
    assert traits.monitored_frame.value == (8,)
    assert traits.line_withheld.value is withheld


@pytest.mark.parametrize(("depth", "seen"), [(0, True), (1, True), (2, False)])
def test_setup_arch_and_what_it_calls_itself_are_read_for_it(made, depth, seen):
    calls = [*(f" call deep_{number}\n ret\n" for number in range(depth)), SETUP.partition("fn reserve_the_page\n")[2]]
    names = ["setup_arch", *(f"deep_{number}" for number in range(depth))]
    body = (
        calls.pop()
        .partition("end reserve_the_page")[0]
        .replace(
            "call native_set_fixmap",
            "call native_set_fixmap\n mov $9, %esi\n mov $8, %edi\n call register_nosave_region",
        )
    )
    setup = "".join(f"fn {name}\n{text}end {name}\n" for name, text in zip(names, [*calls, body], strict=True))
    setup += "".join(f"fn {name}\n ret\nend {name}\n" for name in ("native_set_fixmap", "register_nosave_region"))
    traits = made.traits(native=PARTS["native"].replace(OWN, LEA), setup=setup)
    assert traits.monitored_frame.value == ((8,) if seen else None)
    assert traits.line_withheld.value == (True if seen else None)


def test_a_kernel_without_setup_arch_maps_no_page_that_is_seen(made):
    traits = made.traits(native=PARTS["native"].replace(OWN, LEA))
    assert (traits.monitored_frame.value, traits.line_withheld.value) == (None, None)


def test_a_frame_of_which_nothing_is_said_is_in_images_as_any_other(made):
    assert made.traits(native=PARTS["native"].replace(OWN, LEA), setup=SETUP).line_withheld.value is False
    assert made.traits(setup=SETUP).line_withheld.value is False
