"""Whom cpuhp_smt_enable() passes over."""

from __future__ import annotations

import pytest

from tests.kernel.code.conftest import PARTS

ASK = """
 mov %ebx, %edi
 call topology_get_primary_thread
 test %eax, %eax
 js 2f
 bt %rax, __cpu_online_mask(%rip)
 jae 2f
"""
INLINED = " mov cpuid_to_apicid(,%rbx,4), %ecx\n and $-2, %ecx\n bt %rcx, __cpu_online_mask(%rip)\n jae 2f\n"
APICIDS = ".data\nobj cpuid_to_apicid, 64\n.text\n"


def smt(extra):
    return PARTS["smt"].replace(" mov %ebx, %edi\n call _cpu_up", extra + " mov %ebx, %edi\n call _cpu_up")


def test_no_question_is_asked(made):
    trait = made.traits().rescue_needs_primary
    assert trait.value is False
    assert trait.evidence


@pytest.mark.parametrize("question", [ASK, INLINED], ids=["called", "inlined"])
def test_the_primary_thread_is_asked_for(made, question):
    trait = made.traits(smt=smt(question), extra=APICIDS).rescue_needs_primary
    assert trait.value is True
    assert "2066f00e5b2d" in trait.commit


def test_the_question_in_a_helper(made):
    helper = "fn helper\n call topology_get_primary_thread\n ret\nend helper\n"
    assert made.traits(smt=smt(" call helper\n"), extra=helper).rescue_needs_primary.value is True


LOOP = """
 mov __cpu_present_mask(%rip), %rbp
3: mov %ebp, %edi
 call bringup_hibernate_cpu
 shr $1, %rbp
 jne 3b
"""
BRINGUP = "fn bringup_hibernate_cpu\n call _cpu_up\n ret\nend bringup_hibernate_cpu\n"


def test_a_hook_that_brings_all_present_cpus_up_asks_for_nothing(made):
    def hook(more):
        return PARTS["hook"].replace(" movq $resume_play_dead", more + " movq $resume_play_dead")

    asking = {"smt": smt(ASK), "extra": BRINGUP}
    trait = made.traits(hook=hook(LOOP), **asking).rescue_needs_primary
    assert trait.value is False
    assert "bringup_hibernate_cpu" in trait.evidence[1].text
    once = LOOP.replace(" jne 3b\n", "")
    assert made.traits(hook=hook(once), **asking).rescue_needs_primary.value is True
    others = LOOP.replace("__cpu_present_mask", "smp_ops")
    assert made.traits(hook=hook(others), **asking).rescue_needs_primary.value is True


def test_a_question_after_bringing_up_is_no_condition(made):
    late = PARTS["smt"].replace(" xor %eax, %eax\n pop", " call topology_get_primary_thread\n xor %eax, %eax\n pop")
    assert made.traits(smt=late).rescue_needs_primary.value is False


def test_two_tests_without_topology_are_not_it(made):
    twice = smt(" bt %rax, __cpu_online_mask(%rip)\n jae 2f\n")
    assert made.traits(smt=twice).rescue_needs_primary.value is False


TEST_ONLINE = " bt %rbx, __cpu_online_mask(%rip)\n jae 1b"
CALL_ONLINE = " call cpu_online\n test %al, %al\n je 1b"


@pytest.mark.parametrize(
    ("turn", "order"),
    [
        (f"1: dec %ebx\n js 9f\n{TEST_ONLINE}", "descending"),
        (f"1: lea -1(%rbx), %rax\n test %rbx, %rbx\n mov %rax, %rbx\n jle 9f\n{TEST_ONLINE}", "descending"),
        (f"1: sub $1, %ebx\n js 9f\n{CALL_ONLINE}", "descending"),
        (" call find_next_bit\n cmp nr_cpu_ids(%rip), %eax\n jae 9f", "ascending"),
        (f"1: inc %ebx\n js 9f\n{TEST_ONLINE}", None),
    ],
)
def test_the_order_in_which_cpus_are_taken_down(made, turn, order):
    function = f"""
fn freeze_secondary_cpus
 mov nr_cpu_ids(%rip), %ebx
2:
{turn}
 call _cpu_down
 jmp 2b
9: ret
end freeze_secondary_cpus
fn _cpu_down
 ret
end _cpu_down
.type find_next_bit, @function
find_next_bit: nop
.balign 16
fn cpu_online
 ret
end cpu_online
"""
    other = PARTS["other"]
    begin, end = other.index("fn freeze_secondary_cpus"), other.index("end freeze_secondary_cpus\n")
    other = other[:begin] + function + other[end + len("end freeze_secondary_cpus\n") :]
    assert made.traits(other=other).freeze_order.value == order


def test_a_rescue_that_brings_nothing_up_is_not_understood(made):
    trait = made.traits(smt=PARTS["smt"].replace("call _cpu_up", "nop")).rescue_needs_primary
    assert trait.value is None
    assert "could not be understood" in trait.reason


def test_no_rescue_no_restriction(made):
    name = "hibernate_resume_nonboot_cpu_disable"
    hook = f"fn {name}\n mov smp_ops(%rip), %rax\n ret\nend {name}\n"
    assert made.traits(smt="", hook=hook).rescue_needs_primary.value is None


def test_the_static_function_under_another_name(made):
    renamed = {name: part.replace("_cpu_up", "_cpu_up.constprop.0") for name, part in PARTS.items()}
    renamed["smt"] = smt(ASK).replace("_cpu_up", "_cpu_up.constprop.0")
    assert made.traits(**renamed).rescue_needs_primary.value is True


def freeze(body):
    return PARTS["other"].replace("fn freeze_secondary_cpus\n", f"fn freeze_secondary_cpus\n{body}")


def test_order_of_taking_down(made):
    down = " mov $8, %rbp\n1: bt %rbp, __cpu_online_mask(%rip)\n jae 2f\n nop\n2: sub $1, %rbp\n jns 1b\n"
    up = "1: call _find_next_bit\n cmp nr_cpu_ids(%rip), %eax\n jb 1b\n"
    bits = "fn _find_next_bit\n ret\nend _find_next_bit\n"
    assert made.traits(other=freeze(down)).freeze_order.value == "descending"
    assert made.traits(other=freeze(up), extra=bits).freeze_order.value == "ascending"
    assert made.traits().freeze_order.value is None


RESUMED = "fn arch_resume_nosmt\n call cpuhp_smt_enable\n ret\nend arch_resume_nosmt\n"


@pytest.mark.parametrize(
    ("extra", "parts", "targets"),
    [
        ("", {}, "none"),
        (RESUMED, {}, "present"),
        (RESUMED, {"smt": smt(ASK)}, "online cores"),
        (
            RESUMED + BRINGUP,
            {"smt": smt(ASK), "hook": PARTS["hook"].replace(" movq $resume", LOOP + " movq $resume")},
            "online cores",
        ),
        (RESUMED.replace("cpuhp_smt_enable", "freeze_secondary_cpus"), {}, "none"),
        (RESUMED, {"smt": PARTS["smt"].replace(" call _cpu_up\n", "")}, None),
    ],
    ids=["nothing", "everybody", "online cores", "what the hook does besides", "another call", "not understood"],
)
def test_whom_a_kernel_resumed_with_smt_off_brings_up(made, extra, parts, targets):
    assert made.traits(extra=extra, **parts).nosmt_resume_targets.value == targets


FREEZES = "fn freeze_secondary_cpus\n xor %eax, %eax\n ret\nend freeze_secondary_cpus"


@pytest.mark.parametrize(("name", "order"), [
    ("find_next_bit", "ascending"), ("_find_next_bit", "ascending"), ("cpumask_next", "ascending"),
    ("cpumask_next.isra.0", "ascending"), ("cpumask_next_and", None), ("other", None),
])  # fmt: skip
def test_what_walks_a_mask_by_its_name_or_a_copy_of_it(made, name, order):
    function = f"""
fn freeze_secondary_cpus
1: call {name}
 cmp nr_cpu_ids(%rip), %eax
 jae 9f
 call _cpu_up
 jmp 1b
9: ret
end freeze_secondary_cpus
fn {name}
 ret
end {name}
"""
    other = PARTS["other"].replace(
        "fn freeze_secondary_cpus\n xor %eax, %eax\n ret\nend freeze_secondary_cpus", function
    )
    assert made.traits(other=other).freeze_order.value == order


@pytest.mark.parametrize(("step", "down"), [
    ("dec %ebx", True), ("sub $1, %ebx", True), ("add $-1, %ebx", True), ("lea -1(%rbx), %ebx", True),
    ("sub $2, %ebx", False), ("add $1, %ebx", False), ("lea -2(%rbx), %ebx", False), ("lea -1(%rbx,%rcx), %ebx", False),
    ("inc %ebx", False),
])  # fmt: skip
def test_what_counts_down(made, step, down):
    function = f"""
fn freeze_secondary_cpus
1: {step}
 js 9f
 bt %rbx, __cpu_online_mask(%rip)
 jae 1b
 call _cpu_up
 jmp 1b
9: ret
end freeze_secondary_cpus
"""
    other = PARTS["other"].replace(
        "fn freeze_secondary_cpus\n xor %eax, %eax\n ret\nend freeze_secondary_cpus", function
    )
    assert made.traits(other=other).freeze_order.value == ("descending" if down else None)
