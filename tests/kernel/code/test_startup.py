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


OTHERS = "fn {0}\n ret\nend {0}\n"


@pytest.mark.parametrize(
    ("extra", "value"),
    [
        (OTHERS.format("up_late_init"), True),
        (OTHERS.format("srcu_drive_gp"), True),  # linked as one the kernel has lost the other
        (OTHERS.format("srcu_drive_gp") + OTHERS.format("smp_init"), False),
        (START, None),  # of symbols that are stripped, or a part, nothing follows
        (START + OTHERS.format("start_secondary"), False),
        (START + OTHERS.format("start_secondary.isra.0"), False),
        (START + OTHERS.format("smp_init"), False),
        (OTHERS.format("start_secondary"), False),
        ("", None),
    ],
)
def test_whether_it_is_built_for_one_cpu(made, extra, value):
    trait = made.traits(extra=extra, strip=("native_play_dead",)).one_cpu
    assert trait.value is value
    assert bool(trait.evidence)
    assert bool(trait.reason) is (value is None)


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


def stands(name, text):
    return f"fn {name}\n{text}\n ret\nend {name}\n"


def says(text):
    return f'.section .rodata\nsaid: .asciz "{text}"\n.text\n{stands("xbc_init", "")}'


CUT = " call crc32_le\n .byte 6"
ASKS = " call arch_cpuhp_init_parallel_bringup\n"
MASK = " mov $__cpu_primary_thread_mask, %rdx\n"
ANSWERS = stands("arch_cpuhp_init_parallel_bringup", "")
COPY = " mov $builtin_cmdline, %rsi\n mov $boot_command_line, %rdi\n call strscpy\n"
JOIN = " mov $builtin_cmdline, %rdi\n mov $boot_command_line, %rsi\n call strlcat\n"


def setup(text, lines=LINES):
    return lines + f"fn setup_arch\n{text}{HAND_OVER}"


SPELLED = [
    *(("parallel_bringup", found, {"extra": OBJECTS + ANSWERS + stands("bringup_nonboot_cpus", text)})
      for text, found in (
        (ASKS + MASK, True), (ASKS, False), (MASK, False), (CUT, None), (f"{ASKS}{MASK}{CUT}", True),
        (f"{ASKS}{CUT}", False),
    )),
    *(("parallel_bringup", found, {"extra": OBJECTS + ANSWERS + stands("bringup_nonboot_cpus", "")
        + stands(name, ASKS + MASK)}) for name, found in (("cpuhp_bringup_cpus_parallel", True), ("another", False))),
    ("parallel_bringup", True, {"extra": ANSWERS + stands("bringup_nonboot_cpus", ASKS)}),
    ("parallel_bringup", False, {"extra": ANSWERS + stands("bringup_nonboot_cpus", ASKS), "smt": "", "hook": ""}),
    # the line that is built in, and what is done with the boot loader's
    *(("builtin_cmdline_overrides", found, {"extra": setup(text)}) for text, found in (
        (COPY, True), (COPY.replace("strscpy", "strlcat"), None), (JOIN, False), (JOIN + COPY, False), ("", None),
        (COPY.replace("$builtin_cmdline", "$command_line"), None), (COPY.replace("%rsi", "%rdx"), None),
        (" mov $command_line, %rdi\n call strlcat\n" + COPY, True),
    )),
    *(("builtin_cmdline_overrides", True, {"extra": setup(COPY.replace("strscpy", name)) + stands(name, "")})
      for name in ("strlcpy", "sized_strscpy")),
    *(("builtin_cmdline", found, {"extra": setup("", LINES.replace("nosmt quiet", line))}) for line, found in (
        (" a b ", "a b"), ("", ""), ("x" * 60, "x" * 60), ("caf\\351", "caf\ufffd"),
    )),
    ("builtin_cmdline", "", {}),
    ("builtin_cmdline", None, {"strip": NO_DATA}),
    # whether parameters that are attached count
    *(("bootconfig", found, {"extra": says(text) + stands(name, f" {load}")}) for name, load, text, found in (
        ("setup_boot_config", "mov $said, %rdi", "skipping bootconfig", "always"),
        ("start_kernel", "mov $said, %rdi", "skipping bootconfig", "always"),
        ("another", "mov $said, %rdi", "skipping bootconfig", None),
        ("start_kernel", "lea said(%rip), %rdi", "skipping bootconfig", "always"),
        ("start_kernel", "mov said(%rip), %rdi", "skipping bootconfig", None),
        ("start_kernel", "mov $said, %rdi", "Skipping bootconfig", None),
        ("start_kernel", "mov $said, %rdi", "x'bootconfig' found on command line, but", "if asked for"),
        ("start_kernel", "mov $said, %rdi", "'bootconfig' found on command line", None),
        ("start_kernel", "mov $said, %rdi", "x" * 109 + "skipping bootconfig", "always"),
        ("start_kernel", "mov $said, %rdi", "x" * 110 + "skipping bootconfig", None),
    )),
]  # fmt: skip
"""A trait, its value, and the code that it is read from."""


@pytest.mark.parametrize("scenario", SPELLED, ids=lambda one: f"{one[0]}-{one[1]}")
def test_what_is_read_of_code_that_is_nearly_the_same(made, scenario):
    name, expected, parts = scenario
    assert made.value(name, **parts) == expected
