"""How a CPU dies: order, vendors, what is monitored."""

from __future__ import annotations

import pytest

from tests.kernel.code.conftest import PARTS

NATIVE_NEW = """
fn native_play_dead
 call play_dead_common
 call cpuidle_play_dead
 call hlt_play_dead
end native_play_dead
"""
MWAIT = """
fn mwait_play_dead
 mov $mwait_cpu_dead, %rsi
 add %gs:this_cpu_off(%rip), %rsi
1: mfence
 clflush (%rsi)
 mov %rsi, %rax
 xor %edx, %edx
 monitor
 mov %edi, %eax
 mwait
 cmpl $0x4a17dead, (%rsi)
 jne 1b
2: hlt
 jmp 2b
end mwait_play_dead
"""
INTEL = "fn intel_idle_enter_dead\n mov $0x60, %edi\n call mwait_play_dead\n nop\nend intel_idle_enter_dead\n"


def test_mwait_first(made):
    traits = made.traits()
    assert traits.play_dead_order.value == ("mwait", "cpuidle", "hlt")
    assert traits.mwait_vendor_check.value == ("AMD", "Hygon")
    assert traits.monitored.value == "percpu:mwait_cpu_dead"
    assert traits.kick_value.value == 0x4A17DEAD


def test_cpuidle_first(made):
    traits = made.traits(native=NATIVE_NEW, extra=MWAIT + INTEL)
    assert traits.play_dead_order.value == ("cpuidle", "hlt")
    assert traits.enter_dead.value == ("intel_idle:mwait",)
    assert traits.mwait_vendor_check.value == ()
    assert traits.kick_value.value == 0x4A17DEAD


def test_mwait_in_a_function_of_its_own(made):
    native = NATIVE_NEW.replace(" call cpuidle", " call mwait_play_dead.part.0\n call cpuidle")
    mwait = MWAIT.replace("mwait_play_dead", "mwait_play_dead.part.0").replace(
        "fn mwait_play_dead.part.0\n",
        "fn mwait_play_dead.part.0\n cmpb $2, boot_cpu_data+1(%rip)\n jne 3f\n ret\n3:\n",
    )
    traits = made.traits(native=native, extra=mwait)
    assert traits.play_dead_order.value == ("mwait", "cpuidle", "hlt")
    assert traits.mwait_vendor_check.value == ("AMD",)
    assert traits.loops("native", "mwait")[0].via == ("native_play_dead", "mwait_play_dead.part.0")


def test_without_cpuidle(made):
    native = NATIVE_NEW.replace(" call cpuidle_play_dead\n", "")
    others = PARTS["other"].replace("fn cpuidle_play_dead\n mov $-19, %eax\n ret\nend cpuidle_play_dead\n", "")
    assert made.traits(native=native, other=others, extra=MWAIT).play_dead_order.value == ("hlt",)


def test_a_cpuidle_that_nothing_was_seen_to_call_is_a_doubt(made):
    order = made.traits(native=NATIVE_NEW.replace(" call cpuidle_play_dead\n", ""), extra=MWAIT).play_dead_order
    assert order.value is None
    assert "nothing was seen to call cpuidle_play_dead" in order.reason


def test_a_line_to_wait_on_and_no_loop_that_does_is_a_doubt(made):
    order = made.traits(native=NATIVE_NEW).play_dead_order
    assert order.value is None
    assert "mwait_cpu_dead, and no loop" in order.reason


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (" jmp 9f\n mov $1, %eax\n9:", "nothing in native_play_dead reaches its code at"),
        (" je 8f\n .byte 0x0f, 0x04\n8:", "the code of native_play_dead has no instruction at"),
        (" je 8f\n .byte 0xb8\n8: nop\n nop\n nop\n nop", "instructions of native_play_dead overlap at"),
    ],
)
def test_code_with_a_flaw_proves_the_absence_of_nothing(made, damage, reason):
    native = NATIVE_NEW.replace(" call play_dead_common\n", f" call play_dead_common\n{damage}\n")
    order = made.traits(native=native, extra=MWAIT).play_dead_order
    assert order.value is None
    assert reason in order.reason


@pytest.mark.parametrize(
    ("tail", "park"), [("0, 0, 0xcc, 0xcc, 0, 0", "hlt"), ("0xcc, 0xcc, 0", "hlt"), ("0, 0, 0x31, 0xc0", None)]
)
def test_what_lld_fills_gaps_with_is_no_code(made, tail, park):
    hlt = PARTS["hlt"].replace(" jmp 1b\n", f" jmp 1b\n .byte {tail}\n")
    assert made.traits(hlt=hlt).resume_park.value == park


def test_a_vendor_that_goes_on_to_mwait_is_not_turned_away(made):
    native = PARTS["native"].replace(" cmp $9, %al\n je 3f", " cmp $9, %al\n je 7f\n7:")
    assert made.traits(native=native).mwait_vendor_check.value == ("AMD",)


def test_the_idle_tasks_flags(made):
    native = PARTS["native"].replace(
        " mov $mwait_cpu_dead, %rbp\n add %gs:this_cpu_off(%rip), %rbp", " mov %gs:current_task(%rip), %rbp"
    )
    extra = '.section percpu, "aw"\nobj current_task, 8\n.text\n'
    assert made.traits(native=native, extra=extra).monitored.value == "thread_info.flags"


def test_an_unknown_line_is_unknown(made):
    native = PARTS["native"].replace(
        " mov $mwait_cpu_dead, %rbp\n add %gs:this_cpu_off(%rip), %rbp", " lea 64(%rsp), %rbp"
    )
    trait = made.traits(native=native).monitored
    assert trait.value is None
    assert "MONITOR" in trait.reason


def test_no_kick(made):
    native = PARTS["native"].replace(" cmp $0x4a17dead, %eax\n je 4f\n", "")
    trait = made.traits(native=native).kick_value
    assert trait.value is None
    assert "no word leads out" in trait.reason


def test_a_comparison_with_something_else_is_no_kick(made):
    native = PARTS["native"].replace(" mov (%rbp), %eax\n", " mov boot_cpu_data(%rip), %eax\n")
    assert made.traits(native=native).kick_value.value is None


def test_a_kick_compared_in_memory(made):
    native = PARTS["native"].replace(" mov (%rbp), %eax\n cmp $0x4a17dead, %eax", " cmpl $7, (%rbp)")
    assert made.traits(native=native).kick_value.value == 7


def test_a_kernel_without_hotplug_is_unknown(made):
    data = PARTS["data"].replace("native_play_dead", "0")
    traits = made.traits(native="", data=data)
    assert traits.play_dead_order.value is None
    assert traits.mwait_vendor_check.value is None


def test_a_replacement_that_parks_in_no_known_way_is_unknown(made):
    resume = "fn resume_play_dead\n1: pause\n jmp 1b\nend resume_play_dead\n"
    trait = made.traits(resume=resume).resume_park
    assert trait.value is None
    assert "nothing recognised" in trait.reason


def test_static_functions_under_clangs_suffix(made):
    extra = MWAIT + INTEL.replace("intel_idle_enter_dead", "intel_idle_enter_dead.llvm.1234567890")
    gcc = made.traits(native=NATIVE_NEW, extra=extra)
    assert gcc.enter_dead.value == ()
    data = PARTS["data"].replace("(gcc)", "(clang version 21.1.0)")
    assert made.traits(native=NATIVE_NEW, extra=extra, data=data).enter_dead.value == ("intel_idle:mwait",)


@pytest.mark.parametrize("suffix", [".isra.0", ".constprop.0", ".part.0"])
def test_static_enter_dead_under_any_suffix(made, suffix):
    extra = MWAIT + INTEL.replace("intel_idle_enter_dead", f"intel_idle_enter_dead{suffix}")
    assert made.traits(native=NATIVE_NEW, extra=extra).enter_dead.value == ("intel_idle:mwait",)


def test_since_when_cpuidle_comes_first(made):
    first = made.traits(native=NATIVE_NEW, extra=MWAIT + INTEL).play_dead_order
    assert first.value[0] == "cpuidle"
    assert first.commit is not None
    assert made.traits().play_dead_order.commit is None
