"""What the resume hook does, in the spellings that compilers and backports give it."""

from __future__ import annotations

import pytest

from tests.kernel.code.conftest import PARTS

SEND_INIT = """
 mov $0xc500, %edi
 mov $1, %esi
 call native_apic_icr_write
"""
WRITE_ICR = """
fn native_apic_icr_write
 ret
end native_apic_icr_write
"""


def hook(body):
    name = "hibernate_resume_nonboot_cpu_disable"
    return f"fn {name}\n{body}\nend {name}\n"


REPLACE = " movq $resume_play_dead, smp_ops+0x10(%rip)\n call freeze_secondary_cpus\n ret"


def test_rescue_then_hlt(made):
    traits = made.traits()
    assert traits.hibernate_disable_hook.value is True
    assert traits.rescues_offline.value is True
    assert traits.replaces_play_dead.value is True
    assert traits.resume_park.value == "hlt"
    assert traits.sends_init.value is False
    assert traits.init_targets.value is None


def test_evidence_shows_the_instruction(made):
    (evidence,) = made.traits().rescues_offline.evidence
    assert evidence.symbol == "hibernate_resume_nonboot_cpu_disable"
    assert evidence.text == "call cpuhp_smt_enable"
    replaced = made.traits().replaces_play_dead.evidence[0]
    assert "smp_ops.play_dead = resume_play_dead" in replaced.text


def test_hlt_without_rescue(made):
    traits = made.traits(hook=hook(REPLACE))
    assert traits.rescues_offline.value is False
    assert traits.resume_park.value == "hlt"


@pytest.mark.parametrize(
    "store",
    [
        " lea resume_play_dead(%rip), %rax\n mov %rax, smp_ops+0x10(%rip)",
        " mov $resume_play_dead, %rcx\n nop\n mov %rcx, smp_ops+0x10(%rip)",
        " movq $resume_play_dead, smp_ops+0x10",
    ],
    ids=["lea", "register", "absolute"],
)
def test_every_way_to_store_the_pointer(made, store):
    traits = made.traits(hook=hook(f"{store}\n call freeze_secondary_cpus\n ret"))
    assert traits.replaces_play_dead.value is True
    assert traits.resume_park.value == "hlt"


def test_the_replacement_may_have_any_name(made):
    renamed = PARTS["resume"].replace("resume_play_dead", "park_me.llvm.123")
    traits = made.traits(resume=renamed, hook=PARTS["hook"].replace("resume_play_dead", "park_me.llvm.123"))
    assert traits.resume_park.value == "hlt"


def test_a_register_that_a_call_could_have_changed_is_unknown(made):
    body = """
 mov $resume_play_dead, %rax
 call cpuhp_smt_enable
 mov %rax, smp_ops+0x10(%rip)
 mov %rbx, smp_ops+0x10(%rip)
 ret"""
    traits = made.traits(hook=hook(body))
    assert traits.replaces_play_dead.value is None
    assert traits.resume_park.value is None


def test_saving_and_restoring_is_not_replacing(made):
    body = """
 mov smp_ops+0x10(%rip), %rbx
 call freeze_secondary_cpus
 mov %rbx, smp_ops+0x10(%rip)
 ret"""
    traits = made.traits(hook=hook(body))
    assert traits.hibernate_disable_hook.value is True
    assert traits.replaces_play_dead.value is False
    assert traits.resume_park.value == "mwait"


def test_another_operation_is_not_play_dead(made):
    body = " movq $resume_play_dead, smp_ops+8(%rip)\n call freeze_secondary_cpus\n ret"
    assert made.traits(hook=hook(body)).replaces_play_dead.value is False


def test_the_weak_default_is_no_hook(made):
    traits = made.traits(hook=hook(" xor %edi, %edi\n jmp freeze_secondary_cpus"))
    assert traits.hibernate_disable_hook.value is False
    assert traits.rescues_offline.value is False


def test_before_4_8_there_is_no_hook(made):
    traits = made.traits(hook="")
    assert traits.hibernate_disable_hook.value is False
    assert traits.resume_park.value == "mwait"


def test_a_kernel_without_hibernation_is_unknown(made):
    traits = made.traits(hook="", hibernation="")
    assert traits.hibernate_disable_hook.value is None
    assert "without hibernation" in traits.hibernate_disable_hook.reason
    assert traits.sends_init.value is None


def test_the_rescue_in_a_helper_or_a_tail_call(made):
    body = " movq $resume_play_dead, smp_ops+0x10(%rip)\n jmp helper"
    helper = "fn helper\n call freeze_secondary_cpus\n jmp cpuhp_smt_enable\nend helper\n"
    assert made.traits(hook=hook(body), extra=helper).rescues_offline.value is True


def test_the_rescue_inlined(made):
    body = " movl $0, cpu_smt_control(%rip)\n xor %edi, %edi\n call _cpu_up\n" + REPLACE
    assert made.traits(hook=hook(body), smt="").rescues_offline.value is True


def test_init_by_function(made):
    traits = made.traits(hook=hook(REPLACE.replace(" ret", SEND_INIT + " ret")), extra=WRITE_ICR)
    assert traits.sends_init.value is True
    assert traits.resume_park.value == "init"


def test_init_by_the_apic_driver_and_to_whom(made):
    body = REPLACE.replace(
        " ret", " mov $__cpu_present_mask, %rdi\n mov $0x4500, %edi\n mov apic(%rip), %rax\n call *0x80(%rax)\n ret"
    )
    traits = made.traits(hook=hook(body))
    assert traits.sends_init.value is True
    assert traits.init_targets.value == "present"


def test_init_by_x2apic_msr(made):
    body = REPLACE.replace(" ret", " mov $0xc500, %eax\n mov $0x830, %ecx\n wrmsr\n ret")
    assert made.traits(hook=hook(body)).sends_init.value is True


def test_init_in_a_helper_on_the_way_to_the_copy(made):
    other = PARTS["hibernation"].replace(
        "fn swsusp_arch_resume\n",
        "fn park_in_init\n" + SEND_INIT + " ret\nend park_in_init\nfn swsusp_arch_resume\n call park_in_init\n",
    )
    assert made.traits(hibernation=other, extra=WRITE_ICR).sends_init.value is True


@pytest.mark.parametrize("command", [0x4600, 0x400, 0xFB, 0x12C500])
def test_other_interrupts_are_no_init(made, command):
    send = SEND_INIT.replace("0xc500", hex(command))
    traits = made.traits(hook=hook(REPLACE.replace(" ret", send + " ret")), extra=WRITE_ICR)
    assert traits.sends_init.value is False


def test_what_brings_cpus_up_may_send_inits(made):
    other = PARTS["other"].replace("fn _cpu_up\n", "fn _cpu_up\n" + SEND_INIT)
    assert made.traits(other=other, extra=WRITE_ICR).sends_init.value is False


THUNKS = """
fn __x86_return_thunk
 ret
end __x86_return_thunk
fn __x86_indirect_thunk_rax
 jmp *%rax
end __x86_indirect_thunk_rax
"""


@pytest.mark.parametrize(("call", "sends"), [
    ("call *0x80(%rax)\n ret", True), ("mov 0x80(%rax), %rax\n call __x86_indirect_thunk_rax\n ret", True),
    ("ret", False), ("jmp __x86_return_thunk", False),  # a return, and no call of the APIC's driver
])  # fmt: skip
def test_an_init_is_sent_where_the_driver_of_the_apic_is_called(made, call, sends):
    body = f" call cpuhp_smt_enable\n mov $0x4500, %edi\n mov apic(%rip), %rax\n {call}"
    assert made.traits(hook=hook(body), extra=THUNKS).sends_init.value is sends


KICK = "fn smp_kick_mwait_play_dead\n ret\nend smp_kick_mwait_play_dead\n"


@pytest.mark.parametrize(("depth", "kicks"), [(0, True), (1, True), (2, False)])
def test_how_far_down_a_kick_is_looked_for(made, depth, kicks):
    calls = "".join(
        f"fn step_{number}\n call {f'step_{number + 1}' if number < depth else 'smp_kick_mwait_play_dead'}\n ret\n"
        f"end step_{number}\n"
        for number in range(1, depth + 1)
    )
    body = REPLACE.replace(" ret", f" call {'step_1' if depth else 'smp_kick_mwait_play_dead'}\n ret")
    assert made.traits(hook=hook(body), extra=KICK + calls).kicks_offline.value is kicks


def test_the_mask_is_that_of_the_function_that_sends(made):
    """The hook looks at another one."""
    sends = (
        "fn sends\n mov $__cpu_present_mask, %rdi\n mov $0xc500, %edi\n call native_apic_icr_write\n ret\nend sends\n"
    )
    body = " mov __cpu_online_mask(%rip), %rax\n call sends\n ret"
    found = made.traits(hook=hook(body), extra=sends + WRITE_ICR)
    assert (found.sends_init.value, found.init_targets.value) == (True, "present")


def stands(name, text):
    return f"fn {name}\n{text}\n ret\nend {name}\n"


def command(text):
    return {"hook": hook(f"{text}\n ret"), "extra": WRITE_ICR}


def slots(index):
    """A kernel whose play_dead is the one that stands so far on in a longer smp_ops."""
    own = "smp_ops: .quad 0, 0, native_play_dead, 0"
    assert own in PARTS["data"]
    data = PARTS["data"].replace(own, f"smp_ops: .zero {8 * index}\n.quad native_play_dead\n.zero 64")
    return {"data": data, "hook": hook(f" movq $resume_play_dead, smp_ops+{8 * index}(%rip)\n ret")}


ICR = "call native_apic_icr_write"
NATIVE = stands("native_play_dead", "")
INLINED = " movl $0, cpu_smt_control(%rip)\n call _cpu_up\n ret"
GONE = {"hook": "", "hibernation": ""}
SPELLED = [
    # an INIT: delivery mode 5 with any level, trigger and destination, and no vector
    *(("sends_init", bit in {11, 12, 13, 14, 15, 18, 19}, command(f" mov ${0x500 ^ 1 << bit:#x}, %edi\n {ICR}"))
      for bit in range(32)),
    *(("sends_init", sends, command(f" {text}\n {ICR}")) for text, sends in (
        ("mov $0x4500, %edi", True), ("or $0x4500, %edi", True), ("push $0x4500", True), ("add $0x4500, %edi", False),
        ("cmp $0x4500, %edi", False), ("test $0x4500, %edi", False), ("mov %esi, %edi", False),
    )),
    *(("sends_init", True, {"hook": hook(f" mov $0x4500, %edi\n call {name}\n ret"), "extra": stands(name, "")})
      for name in ("native_apic_icr_write", "native_x2apic_icr_write", "apic_icr_write",
                   "__SCT__apic_call_icr_write")),
    *(("sends_init", sends, {"hook": hook(f" mov $0x4500, %eax\n{text}\n ret")}) for text, sends in (
        (" mov $0x830, %ecx\n wrmsr", True), (" mov $0x831, %ecx\n wrmsr", False),
        (" mov $0x830, %ecx\n rdmsr", False), (" wrmsr", False),
        (" mov apic(%rip), %rcx\n call *(%rcx)", True), (" mov apic(%rip), %rcx\n call crc32_le", False),
        (" mov smp_ops(%rip), %rcx\n call *(%rcx)", False), (" call *(%rcx)", False), ("", False),
    )),
    # between parking and the copy, two calls down from the hook and one from swsusp_arch_resume()
    *(("sends_init", depth <= 2, {"hook": hook(" call down_1\n ret"), "extra": WRITE_ICR + "".join(
        stands(f"down_{n}", f" call down_{n + 1}" if n < depth else SEND_INIT) for n in range(1, depth + 1))})
      for depth in (1, 2, 3)),
    *(("sends_init", depth <= 1, {"hibernation": stands("swsusp_arch_resume", " call down_1"), "extra": WRITE_ICR
        + "".join(stands(f"down_{n}", f" call down_{n + 1}" if n < depth else SEND_INIT)
                  for n in range(1, depth + 1))}) for depth in (1, 2)),
    *(("sends_init", False, {"hook": hook(f" call {name}\n ret"), "extra": WRITE_ICR + stands(name, SEND_INIT)})
      for name in ("__freeze_secondary_cpus", "disable_nonboot_cpus", "suspend_disable_secondary_cpus", "cpu_up",
                   "restore_image")),
    ("sends_init", None, {"hook": hook(" mov $0x4500, %eax\n call *(%rcx)\n ret"),
                          "strip": ("apic",), "hibernation": PARTS["hibernation"]}),
    ("sends_init", None, {"hook": hook(" call crc32_le\n .byte 6")}),
    ("sends_init", None, {**GONE, "extra": ""}),
    ("sends_init", None, {**GONE, "extra": stands("hibernation_restore", "")}),
    ("sends_init", False, {**GONE, "extra": stands("swsusp_arch_resume", "")}),
    ("sends_init", None, {**GONE, "extra": stands("swsusp_read", "")}),
    # to whom: the first of the masks that the function which sends it names
    *(("init_targets", found, {"hook": hook(f"{text}{SEND_INIT} ret"), "extra": WRITE_ICR
        + ".data\nobj __cpu_possible_mask, 64\n.text\n"}) for text, found in (
        (" mov $__cpu_present_mask, %rbx\n", "present"), (" mov $__cpu_possible_mask, %rbx\n", "possible"),
        (" mov $__cpu_online_mask, %rbx\n", "online"), (" mov $smp_ops, %rbx\n", None),
        (" mov $__cpu_online_mask, %rbx\n mov $__cpu_present_mask, %rbx\n", "present"),
        (" mov $__cpu_online_mask, %rbx\n mov $__cpu_possible_mask, %rbx\n", "possible"),
    )),
    # what the hook installs
    *(("replaces_play_dead", True, slots(index)) for index in (0, 1, 23)),
    ("replaces_play_dead", None, slots(24)),
    *(("replaces_play_dead", found, {"hook": hook(f"{text}\n ret")}) for text, found in (
        (" movq $0x1000, smp_ops+0x10(%rip)", False), (" movq $-1, smp_ops+0x10(%rip)", True),
        (" movq $0x7fffffff, smp_ops+0x10(%rip)", False), (" movq $resume_play_dead, smp_ops(%rip)", False),
        (" mov %rbx, smp_ops+0x10(%rip)", False),
        (" mov %rbx, smp_ops+0x10(%rip)\n mov %rcx, smp_ops+0x10(%rip)", None),
        (" mov %rbx, smp_ops+8(%rip)\n mov %rcx, smp_ops+0x10(%rip)", False), (" call crc32_le\n .byte 6", None),
        (" movq $resume_play_dead, smp_ops+0x10(%rip)\n .byte 6", True),
    )),
    ("replaces_play_dead", None, {"strip": ("smp_ops",)}),
    ("replaces_play_dead", False, {"hook": ""}), ("replaces_play_dead", None, GONE),
    # whether it brings CPUs up before
    *(("rescues_offline", found, {"hook": hook(text), "smt": ""}) for text, found in (
        (INLINED, True), (INLINED.replace("cpu_smt_control", "nr_cpu_ids"), False),
        (INLINED.replace(" call _cpu_up\n", ""), False), (" call crc32_le\n .byte 6", None),
    )),
    *(("rescues_offline", depth <= 1, {"hook": hook(" call down_1\n ret"), "extra": "".join(
        stands(f"down_{n}", f" call down_{n + 1}" if n < depth else " call cpuhp_smt_enable")
        for n in range(1, depth + 1))}) for depth in (1, 2)),
    ("rescues_offline", False, {"hook": ""}), ("rescues_offline", None, GONE),
    *(("rescues_offline", False, {"hook": hook(f" call {name}\n ret"), "extra": stands(name, " call cpuhp_smt_enable")})
      for name in ("__freeze_secondary_cpus", "disable_nonboot_cpus", "suspend_disable_secondary_cpus")),
    # whether it is x86's own hook
    *(("hibernate_disable_hook", found, {"hook": hook(text)}) for text, found in (
        (" mov smp_ops(%rip), %rax\n ret", True), (" mov smp_ops+0x1f(%rip), %al\n ret", True),
        (" mov smp_ops+0x20(%rip), %rax\n ret", False), (" jmp cpuhp_smt_enable", True),
        (" call freeze_secondary_cpus\n ret", False), (" call freeze_secondary_cpus\n .byte 6", None),
        (" mov smp_ops(%rip), %rax\n .byte 6", True),
    )),
    *(("kicks_offline", found, {"hook": hook(text), "extra": KICK}) for text, found in (
        (" call smp_kick_mwait_play_dead\n ret", True), (" call smp_kick_mwait_play_dead\n .byte 6", True),
        (" call crc32_le\n .byte 6", None), (" ret", False),
    )),
    ("kicks_offline", False, {"hook": ""}), ("kicks_offline", None, GONE),
]  # fmt: skip
"""A trait, its value, and the code that it is read from."""


@pytest.mark.parametrize("scenario", SPELLED, ids=lambda one: f"{one[0]}-{one[1]}")
def test_what_is_read_of_a_hook_that_is_nearly_the_same(made, scenario):
    name, expected, parts = scenario
    assert made.value(name, **parts) == expected


@pytest.mark.parametrize(("word", "replaces"), [(0, True), (2, True), (23, True), (24, None), (30, None)])
def test_play_dead_is_sought_among_the_first_members_of_smp_ops(made, word, replaces):
    """Without types: struct smp_ops has some fifteen pointers (arch/x86/include/asm/smp.h)."""
    data = PARTS["data"].replace(".size smp_ops, 0x20", ".size smp_ops, 0x100")
    data = data.replace(".quad 0, 0, native_play_dead, 0", f".zero {8 * word}\n .quad native_play_dead\n .zero 256")
    hook = PARTS["hook"].replace("smp_ops+0x10", f"smp_ops+{8 * word:#x}")
    assert made.traits(hook=hook, data=data).replaces_play_dead.value is replaces
