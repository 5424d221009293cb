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


def native(old, new):
    assert old in PARTS["native"]
    return {"native": PARTS["native"].replace(old, new)}


VENDORS = {0: "Intel", 1: "Cyrix", 2: "AMD", 3: "UMC", 5: "Centaur", 7: "Transmeta", 8: "NSC", 9: "Hygon",
           10: "Zhaoxin"}  # fmt: skip
LOADS, SKIPS = " movzbl boot_cpu_data+1(%rip), %eax\n", " cmp $2, %al\n je 3f\n cmp $9, %al\n je 3f\n"
OWN = " mov $mwait_cpu_dead, %rbp\n add %gs:this_cpu_off(%rip), %rbp\n"
KICK = " mov (%rbp), %eax\n cmp $0x4a17dead, %eax\n je 4f\n"
PERCPU = '.section percpu, "aw"\n{}\n.text\n'
FIXED = 0xFFFFFFFFFF7FF000


def chain(text):
    return native(LOADS + SKIPS, text)


def line(text, extra=""):
    return {**native(OWN, text), "extra": extra}


def kick(text):
    return native(KICK, text)


def mapped(body, more="", function="native_set_fixmap"):
    """A kernel that monitors page 0x201 of the fixmap, and what setup_arch() does."""
    setup = f"fn setup_arch\n{body}\n ret\nend setup_arch\n{more}"
    setup += f"fn {function}\n ret\nend {function}\nfn register_nosave_region\n ret\nend register_nosave_region\n"
    return {**line(f" mov ${FIXED - 0x201000:#x}, %rbp\n"), "setup": setup}


def maps(index=0x201, frame="$0x8000", function="native_set_fixmap"):
    return f" mov {frame}, %rsi\n mov ${index}, %edi\n call {function}\n"


def withholds(first, end):
    return f" mov ${first}, %edi\n mov ${end}, %esi\n call register_nosave_region\n"


TRAITS = [
    # vendors that are sent away from MWAIT
    *(("mwait_vendor_check", (name,), chain(f"{LOADS} cmp ${number}, %al\n je 3f\n"))
      for number, name in VENDORS.items()),
    *(("mwait_vendor_check", (), chain(f"{LOADS} cmp ${number}, %al\n je 3f\n")) for number in (4, 6, 11)),
    *(("mwait_vendor_check", found, chain(text)) for text, found in (
        (f"{LOADS} cmp $2, %al\n jne 7f\n jmp 3f\n7:", ("AMD",)),
        (f"{LOADS} cmp $2, %al\n jne 3f\n", ()),
        (f"{LOADS} cmp $2, %al\n ja 3f\n", ()),
        (f"{LOADS} cmp $2, %al\n nop\n je 3f\n", ()),
        (f"{LOADS} cmp $2, %cl\n je 3f\n", ()),
        (f"{LOADS} cmp %cl, %al\n je 3f\n", ()),
        (f"{LOADS} test $2, %al\n je 3f\n", ()),
        (LOADS.replace("+1", "+2") + SKIPS, ("AMD", "Hygon")),
        (LOADS.replace("+1", "+0") + SKIPS, ()),
        (LOADS.replace("+1", "+3") + SKIPS, ()),
        (" cmpb $2, boot_cpu_data+1(%rip)\n je 3f\n", ("AMD",)),
        (" cmpb $2, boot_cpu_data+1(%rip)\n je 3f\n cmp $9, %al\n je 3f\n", ("AMD",)),
        (LOADS + " mov $2, %ecx\n" + SKIPS, ("AMD", "Hygon")),
        (LOADS + " mov $2, %eax\n" + SKIPS, ()),
        (f"{LOADS} cmp $2, %al\n je 3f\n xor %eax, %eax\n cmp $9, %al\n je 3f\n", ("AMD",)),
        (LOADS + " call play_dead_common\n" + SKIPS, ()),
        (LOADS + " jmp 7f\n7:" + SKIPS, ()),
        (LOADS + " test %ecx, %ecx\n je 3f\n" + SKIPS, ("AMD", "Hygon")),
        (LOADS + " nop\n" * 63 + " cmp $2, %al\n je 3f\n", ("AMD",)),
        (LOADS + " nop\n" * 64 + " cmp $2, %al\n je 3f\n", ()),
        (f"{LOADS} cmp $2, %al\n je 3f\n cmp $2, %al\n je 3f\n cmp $0, %al\n je 3f\n", ("AMD", "Intel")),
        (f"{LOADS}{SKIPS} movzbl boot_cpu_data+2(%rip), %ecx\n cmp $5, %cl\n je 3f\n", ("AMD", "Centaur", "Hygon")),
    )),
    ("mwait_vendor_check", None, {"strip": ("boot_cpu_data",)}),
    # what is monitored
    *(("monitored", "thread_info.flags", line(f" mov %gs:{task}(%rip), %rbp\n", PERCPU.format(f"obj {task}, 8")))
      for task in ("current_task", "pcpu_hot", "cpu_current_top_of_stack", "kernel_stack", "cpu_tss", "cpu_tss_rw")),
    *(("monitored", found, line(text, PERCPU.format("obj current_task, 8\nobj after, 8"))) for text, found in (
        (" mov %gs:current_task+7(%rip), %rbp\n", "thread_info.flags"),
        (" mov %gs:after(%rip), %rbp\n", None),
        (" mov %gs:current_task(%rip), %rcx\n" + OWN, "percpu:mwait_cpu_dead"),
        (" mov $mwait_cpu_dead+63, %rbp\n add %gs:this_cpu_off(%rip), %rbp\n", "percpu:mwait_cpu_dead"),
    )),
    ("monitored", None, line(" mov $mwait_cpu_dead+64, %rbp\n add %gs:this_cpu_off(%rip), %rbp\n")),
    # a page of the fixmap: its first is FIXADDR_TOP - 4096, and the others go down
    *(("monitored", found, line(text)) for text, found in (
        (f" mov ${FIXED:#x}, %rbp\n", f"fixmap:{FIXED:#x}"),
        (f" mov ${FIXED + 0xFFF:#x}, %rbp\n", f"fixmap:{FIXED:#x}"),
        (f" mov ${FIXED + 0x1000:#x}, %rbp\n", None),
        (f" mov ${FIXED - 0x400000 + 1:#x}, %rbp\n", f"fixmap:{FIXED - 0x400000:#x}"),
        (f" mov ${FIXED - 0x400000:#x}, %rbp\n", None),
        (f" mov ${FIXED - 1:#x}, %rbp\n", f"fixmap:{FIXED - 0x1000:#x}"),
        (f" mov ${FIXED - 0x1000:#x}, %rbp\n add $64, %rbp\n", f"fixmap:{FIXED - 0x1000:#x}"),
        (f" sub ${(1 << 64) - FIXED + 0x1000:#x}, %rbp\n", f"fixmap:{FIXED - 0x1000:#x}"),
        (f" and ${(1 << 64) - FIXED + 0x1000:#x}, %rbp\n", None),
        (f" mov ${FIXED:#x}, %rbp\n mov ${FIXED + 8:#x}, %rcx\n", f"fixmap:{FIXED:#x}"),
        (f" mov ${FIXED:#x}, %rbp\n mov ${FIXED - 8:#x}, %rcx\n", None),
    )),
    *(("monitored_frame", found, mapped(*how)) for found, *how in (
        ((8,), maps()),
        ((8,), maps(frame="$0x8fff")),
        ((0,), maps(frame="$0x8")),
        ((8,), maps(function="__native_set_fixmap"), "", "__native_set_fixmap"),
        ((8,), maps(0x202, "$0x9000") + maps() + maps(0x201, "$0xa000")),
        ((9,), maps(frame="%rcx") + maps(frame="$0x9000")),
        (None, maps(0x200)), (None, maps(0x202)), (None, maps(frame="%rcx")),
        (None, maps(function="set_it"), "fn set_it\n ret\nend set_it\n"),
        ((8,), " call deeper", "fn deeper\n" + maps() + " ret\nend deeper\n"),
        (None, " call deep", "fn deep\n call deeper\n ret\nend deep\nfn deeper\n" + maps() + " ret\nend deeper\n"),
    )),
    *(("line_withheld", found, mapped(maps() + how)) for found, how in (
        (True, withholds(8, 9)), (True, withholds(7, 9)), (True, withholds(8, 10)), (False, withholds(8, 8)),
        (False, withholds(9, 10)), (False, withholds(7, 8)), (True, withholds(1, 2) + withholds(8, 9)),
        (True, withholds(8, 9) + withholds(1, 2)), (False, withholds(8, 9).replace("$8, %edi", "%rcx, %rdi")),
        (False, " mov $8, %edi\n mov %rcx, %rsi\n call register_nosave_region\n"),
        (False, withholds(8, 9).replace("register_nosave_region", "play_dead_common")),
    )),
    ("line_withheld", None, mapped(maps(0x202) + withholds(8, 9))),
    # the word that ends the wait
    *(("kick_value", found, kick(text)) for text, found in (
        (KICK, 0x4A17DEAD),
        (" mov (%rbp), %eax\n cmp $-1, %eax\n je 4f\n", 0xFFFFFFFF),
        (" cmpl $7, 4(%rbp)\n je 4f\n", 7),
        (" cmpl $7, 4(%rbx)\n je 4f\n", None),
        (" testl $7, 4(%rbp)\n je 4f\n", None),
        (" cmp %ecx, 4(%rbp)\n je 4f\n", None),
        (" mov (%rbp), %eax\n cmp $7, %ecx\n je 4f\n", None),
        (" mov (%rcx), %eax\n cmp $7, %eax\n je 4f\n", None),
        (" add (%rbp), %eax\n cmp $7, %eax\n je 4f\n", None),
        (" mov (%rbp), %eax\n nop\n cmp $7, %eax\n je 4f\n", None),
        (" cmpl $7, (%rbp)\n je 1b\n", None),
        (" cmpl $7, (%rbp)\n je 1b\n cmpl $9, (%rbp)\n je 4f\n", 9),
        (" cmpl $7, (%rbp)\n je 4f\n cmpl $9, (%rbp)\n je 4f\n", 7),
        (" cmpl $7, (%rbp)\n nop\n je 4f\n", None),
    )),
    ("kick_value", None, native(OWN, OWN + " cmpl $7, (%rbp)\n je 4f\n") | native(KICK, "")),
    # the ways, in their order
    *(("play_dead_order", found, {"native": NATIVE_NEW.replace("native_play_dead\n call play_dead_common",
                                                              f"native_play_dead\n{text}"), "extra": MWAIT})
      for text, found in (
        (" test %edi, %edi\n je 1f\n call mwait_play_dead\n1:", ("mwait", "cpuidle", "hlt")),
        (" call cpuidle_play_dead\n test %edi, %edi\n je 1f\n call mwait_play_dead\n1:", ("cpuidle", "mwait", "hlt")),
        (" test %edi, %edi\n je 2f\n1: hlt\n jmp 1b\n2:", ("cpuidle", "hlt")),
    )),
]  # fmt: skip
"""A trait, its value, and the code that it is read from."""


@pytest.mark.parametrize("scenario", TRAITS, ids=lambda one: f"{one[0]}-{one[1]}")
def test_what_is_read_of_code_that_is_nearly_the_same(made, scenario):
    name, expected, parts = scenario
    assert made.value(name, **parts) == expected
