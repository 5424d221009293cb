"""How a kernel starts: in which order its CPUs, and with whose parameters."""

from __future__ import annotations

import pytest

NO_DATA = ("init_task", "smp_ops", "builtin_cmdline", "__cpu_primary_thread_mask", "boot_command_line", "command_line")
"""Symbols that a kernel without KALLSYMS_ALL does not list."""

OBJECTS = ".data\nobj __cpu_primary_thread_mask, 64\n.text\n"
ONE_BY_ONE = """
fn bringup_nonboot_cpus
1: mov %ebx, %edi
 call cpu_up
 inc %ebx
 jmp 1b
end bringup_nonboot_cpus
fn cpu_up
 ret
end cpu_up
"""
PARALLEL = (
    OBJECTS
    + """
fn bringup_nonboot_cpus
 call arch_cpuhp_init_parallel_bringup
 test %al, %al
 je 1f
 mov $__cpu_primary_thread_mask, %rdx
 call __bitmap_and
1: jmp cpuhp_bringup_mask
end bringup_nonboot_cpus
fn arch_cpuhp_init_parallel_bringup
 ret
end arch_cpuhp_init_parallel_bringup
fn __bitmap_and
 ret
end __bitmap_and
fn cpuhp_bringup_mask
 ret
end cpuhp_bringup_mask
"""
)
NOT_INLINED = (
    PARALLEL.replace("bringup_nonboot_cpus", "cpuhp_bringup_cpus_parallel.constprop.0")
    + """
fn bringup_nonboot_cpus
 call cpuhp_bringup_cpus_parallel.constprop.0
 ret
end bringup_nonboot_cpus
"""
)
SWITCH = "fn parallel_bringup_parse_param\n ret\nend parallel_bringup_parse_param\n"
START = "fn start_kernel\n ret\nend start_kernel\n"


@pytest.mark.parametrize(
    ("extra", "value"),
    [
        (ONE_BY_ONE, False),
        (PARALLEL, True),
        (NOT_INLINED, True),
        (PARALLEL.replace(" mov $__cpu_primary_thread_mask, %rdx\n", ""), False),
        ("", None),
    ],
    ids=["one by one", "parallel", "not inlined", "parallel without SMT", "absent"],
)
def test_the_order_of_cpus(made, extra, value):
    trait = made.traits(extra=extra).parallel_bringup
    assert trait.value is value
    assert (trait.commit is not None) is (value is not None)


def test_the_order_of_cpus_without_data_symbols(made):
    assert made.traits(extra=PARALLEL, strip=NO_DATA).parallel_bringup.value is True
    assert made.traits(extra=PARALLEL, strip=NO_DATA, smt="", hook="").parallel_bringup.value is False
    assert made.traits(extra=ONE_BY_ONE, strip=NO_DATA).parallel_bringup.value is False


def test_whether_it_can_be_switched_off(made):
    assert made.traits(extra=PARALLEL + SWITCH).parallel_switch.value is True
    assert made.traits(extra=PARALLEL + START).parallel_switch.value is False
    assert made.traits(extra=PARALLEL).parallel_switch.value is None


LINES = """
.data
.globl builtin_cmdline, boot_command_line, command_line
builtin_cmdline: .asciz "nosmt quiet"
 .zero 2036
boot_command_line: .zero 2048
command_line: .zero 2048
.text
fn strscpy
 ret
end strscpy
fn strlcat
 ret
end strlcat
"""
HAND_OVER = """
 mov $2048, %edx
 mov $boot_command_line, %rsi
 mov $command_line, %rdi
 call strscpy
 ret
end setup_arch
"""
PREPENDED = (
    LINES
    + """
fn setup_arch
 cmpb $0, builtin_cmdline(%rip)
 je 1f
 mov $builtin_cmdline, %rbx
 mov %rbx, %rdi
 call strlcat
 mov $boot_command_line, %rsi
 mov %rbx, %rdi
 call strlcat
 mov %rbx, %rsi
 lea boot_command_line(%rip), %rdi
 call strscpy
1:
"""
    + HAND_OVER
)
REPLACED = (
    LINES
    + """
fn setup_arch
 mov $builtin_cmdline, %rsi
 mov $boot_command_line, %rdi
 call strscpy
"""
    + HAND_OVER
)
NONE = LINES.replace("builtin_cmdline", "other") + "fn setup_arch\n" + HAND_OVER


@pytest.mark.parametrize("strip", [(), NO_DATA], ids=["data symbols", "code symbols only"])
@pytest.mark.parametrize(
    ("extra", "line", "overrides"),
    [(PREPENDED, "nosmt quiet", False), (REPLACED, "nosmt quiet", True), (NONE, "", None)],
    ids=["prepended", "replaced", "none"],
)
def test_the_built_in_command_line(made, extra, line, overrides, strip):
    traits = made.traits(extra=extra, strip=strip)
    assert traits.builtin_cmdline.value == line
    assert traits.builtin_cmdline_overrides.value is overrides


def test_a_built_in_command_line_that_cannot_be_found(made):
    assert made.traits(strip=NO_DATA).builtin_cmdline.value is None
    clobbered = PREPENDED.replace(" mov %rbx, %rsi\n", " pop %rsi\n").replace(" mov %rbx, %rdi\n", " pop %rdi\n")
    traits = made.traits(extra=clobbered)
    assert traits.builtin_cmdline.value == "nosmt quiet"
    assert traits.builtin_cmdline_overrides.value is None


SAYS = """
.section .rodata
asked: .asciz "\\0013'bootconfig' found on command line, but no bootconfig found\\n"
forced: .asciz "\\0016No bootconfig data provided, so skipping bootconfig"
.text
fn xbc_init
 ret
end xbc_init
"""


@pytest.mark.parametrize(
    ("extra", "value"),
    [
        (START, "no"),
        (SAYS + "fn start_kernel\n mov $asked, %rdi\n ret\nend start_kernel\n", "if asked for"),
        (SAYS + "fn start_kernel\n mov $asked, %rdi\n lea forced(%rip), %rdi\n ret\nend start_kernel\n", "always"),
        (SAYS + START + "fn setup_boot_config.isra.0\n mov $asked, %rdi\n ret\nend setup_boot_config.isra.0\n",
         "if asked for"),
        (SAYS + START, None),
        ("", None),
    ],
    ids=["no", "inlined", "forced", "not inlined", "not understood", "unknown"],
)  # fmt: skip
def test_bootconfig(made, extra, value):
    assert made.traits(extra=extra).bootconfig.value == value
