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


def stands(name, text):
    return f"fn {name}\n{text}\n ret\nend {name}\n"


def asking(question, extra=""):
    return {"smt": smt(question), "extra": APICIDS + ".data\nobj node_states, 64\nobj after, 8\n.text\n" + extra}


def freezing(text, extra=""):
    name = "freeze_secondary_cpus"
    assert FREEZES in PARTS["other"]
    return {"other": PARTS["other"].replace(FREEZES, stands(name, text).rstrip()), "extra": extra}


def walks(name, turn=" call {}\n jne 1b"):
    return freezing("1: nop\n" + turn.format(name), stands(name, ""))


DOWN = "1: dec %ebx\n bt %rbx, __cpu_online_mask(%rip)\n jae 1b"
CALLS = " call helper\n"
ONLINE, TOPOLOGY = " bt %rcx, __cpu_online_mask(%rip)\n", " mov cpuid_to_apicid(,%rbx,4), %ecx\n"
AGAIN = "__freeze_secondary_cpus", "disable_nonboot_cpus"
SPELLED = [
    *(("rescue_needs_primary", found, asking(*how)) for found, *how in (
        (True, TOPOLOGY + ONLINE), (False, TOPOLOGY), (False, ONLINE),
        (False, TOPOLOGY + ONLINE.replace("bt", "bts")), (True, TOPOLOGY + " testb $1, __cpu_online_mask(%rip)\n"),
        (True, " mov cpuid_to_apicid+3(%rip), %cl\n" + ONLINE), (False, " mov cpuid_to_apicid+4(%rip), %cl\n" + ONLINE),
        (True, " mov x86_topo_system(%rip), %cl\n" + ONLINE, ".data\nobj x86_topo_system, 8\n.text\n"),
        (True, " mov __cpu_primary_thread_mask(%rip), %cl\n" + ONLINE,
         ".data\nobj __cpu_primary_thread_mask, 8\n.text\n"),
        (True, CALLS, stands("helper", " call topology_get_primary_thread")),
        (True, CALLS, stands("helper", TOPOLOGY + ONLINE)), (False, CALLS, stands("helper", TOPOLOGY)),
        (False, CALLS, stands("helper", ONLINE)), (False, CALLS, stands("helper", "")),
        (False, CALLS, stands("helper", " call deeper") + stands("deeper", " call topology_get_primary_thread")),
        (False, " call mutex_lock\n", stands("mutex_lock", " call topology_get_primary_thread")),
        (False, " call __fentry__\n", stands("__fentry__", " call topology_get_primary_thread")),
        (False, " call swsusp_read\n", stands("swsusp_read", " call topology_get_primary_thread")),
    )),
    ("rescue_needs_primary", None, {"smt": stands("cpuhp_smt_enable", " call _cpu_up\n .byte 6")}),
    ("rescue_needs_primary", True, {"smt": stands("cpuhp_smt_enable",
        " call topology_get_primary_thread\n call _cpu_up\n .byte 6")}),
    ("rescue_needs_primary", True, {"smt": smt(ASK).replace("_cpu_up", "cpu_up"), "extra": stands("cpu_up", "")}),
    *(("rescue_needs_primary", False, {"smt": smt(ASK), "extra": stands(name, " call _cpu_up"), "hook":
        PARTS["hook"].replace(" movq $resume", LOOP.replace("bringup_hibernate_cpu", name) + " movq $resume")})
      for name in ("bringup_hibernate_cpu", "add_cpu", "cpu_up")),
    *(("rescue_needs_node", found, asking(text)) for text, found in (
        (" testb $1, node_states(%rip)\n je 2f\n", True), (" testb $1, node_states+63(%rip)\n", True),
        (" testb $1, after(%rip)\n", False), ("", False),
    )),
    *(("rescue_needs_node", found, {"smt": smt(text), "strip": ("init_task", "smp_ops", *stripped)})
      for text, found, *stripped in (
        (" bt %rcx, __cpu_present_mask(%rip)\n", True), (" bt %rcx, __cpu_online_mask(%rip)\n", False),
        (" bt %rcx, %rax\n", False), (" bt %rcx, (%rax)\n", False), (" test %cl, __cpu_present_mask(%rip)\n", False),
        (" bt %rcx, __cpu_present_mask(%rip)\n", None, "__cpu_online_mask"),
    )),
    ("rescue_needs_node", None, {"smt": stands("cpuhp_smt_enable", " call _cpu_up\n .byte 6")}),
    ("rescue_needs_node", None, {"smt": "", "hook": stands("hibernate_resume_nonboot_cpu_disable", "")}),
    # in which order
    *(("freeze_order", "ascending", walks(name)) for name in ("_find_next_bit", "find_next_bit", "cpumask_next")),
    ("freeze_order", None, walks("find_next_bit", " call {}\n jne 2f\n2:")),
    ("freeze_order", None, walks("find_last_bit")),
    *(("freeze_order", found, freezing(text)) for text, found in (
        (DOWN, "descending"), (DOWN.replace("jae 1b", "jae 2f\n2:"), None),
        (DOWN.replace("__cpu_online_mask", "__cpu_present_mask"), None), (DOWN.replace("bt ", "bts "), None),
        (DOWN.replace("bt %rbx", "test %rbx"), "descending"), (DOWN.replace("dec", "inc"), None),
    )),
    ("freeze_order", "descending", freezing(DOWN.replace("bt %rbx, __cpu_online_mask(%rip)", "call cpu_online"),
                                            stands("cpu_online", ""))),
    *(("freeze_order", "descending", {"other": PARTS["other"].replace(FREEZES, stands(name, DOWN).rstrip()),
        "hook": stands("hibernate_resume_nonboot_cpu_disable", "")}) for name in AGAIN),
    ("freeze_order", None, {"other": PARTS["other"].replace(FREEZES, ""),
        "hook": stands("hibernate_resume_nonboot_cpu_disable", "")}),
    # after a resume
    *(("reparks_siblings_after_resume", found, {"extra": stands("arch_resume_nosmt", text)
        + stands("arch_cpu_rescan_dead_smt_siblings", "")}) for text, found in (
        (" call cpuhp_smt_enable", True), (" call arch_cpu_rescan_dead_smt_siblings", True), ("", False),
        (" call crc32_le", False), (" call crc32_le\n .byte 6", None), (" call cpuhp_smt_enable\n .byte 6", True),
    )),
    ("reparks_siblings_after_resume", False, {}),
    ("rescans_dead_siblings", False, {}),
    ("rescans_dead_siblings", True, {"extra": stands("arch_cpu_rescan_dead_smt_siblings", "")}),
    ("nosmt_resume_targets", None, {"extra": stands("arch_resume_nosmt", " call crc32_le\n .byte 6")}),
]  # fmt: skip
"""A trait, its value, and the code that it is read from."""


@pytest.mark.parametrize("scenario", SPELLED, ids=lambda one: f"{one[0]}-{one[1]}")
def test_what_is_read_of_a_rescue_that_is_nearly_the_same(made, scenario):
    name, expected, parts = scenario
    assert made.value(name, **parts) == expected
