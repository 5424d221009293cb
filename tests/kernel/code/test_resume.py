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
