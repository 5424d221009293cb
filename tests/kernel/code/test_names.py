"""The names that reading code takes: each is tried in a kernel that has what goes by it."""

from __future__ import annotations

import pytest

from hibercheck.kernel.code.names import (
    ALLOCATORS,
    ANY_CODE,
    COPIES,
    ELSEWHERE,
    ENTER_DEAD,
    ON_THE_WAY,
    OTHER_PLAY_DEAD,
    PARKING,
    PLAY_DEAD,
    SAFE,
    Wanted,
)
from hibercheck.kernel.code.parkloops import LoopReader
from hibercheck.kernel.code.program import Program
from hibercheck.kernel.code.traits import WANTED
from hibercheck.kernel.kernel import open_kernel
from tests.kernel.code.conftest import PARTS

# arch/x86/lib/retpoline.S makes one for each register but RSP (through which nothing is called), with and without ITS
REGISTERS = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15")
RETPOLINES = (
    *(f"__x86_indirect_thunk_{register}" for register in REGISTERS),
    "__x86_indirect_thunk_array",
    "__x86_indirect_its_thunk_array",
)
RETURNS = ("__x86_return_thunk", "srso_return_thunk", "retbleed_return_thunk", "its_return_thunk")
TRACING = "__fentry__"

COMPLAINTS = (
    # lib/ubsan.c, kernel/panic.c
    "__ubsan_handle_out_of_bounds",
    "__ubsan_handle_shift_out_of_bounds",
    "__ubsan_handle_load_invalid_value",
    "__stack_chk_fail",
    "panic",
    "__warn_printk",
)
QUIET = (
    # called by native_play_dead(), play_dead_common(), cpuidle_play_dead() and the functions of drivers, v4.19 to v7.3
    "_printk",
    "printk",
    "mutex_lock",
    "mutex_unlock",
    "start_cpu0",
    "tboot_shutdown",
    "idle_task_exit",
    "cpu_report_death",
    "cpuhp_ap_report_dead",
    "cpuidle_play_dead",
    "kobject_uevent",
    "get_cpu_device",
)
SUFFIXES = (".isra.0", ".constprop.0", ".part.0", ".constprop.0.isra.0", ".isra.0.constprop.0")


def kernel_of(made, text):
    """A kernel that has nothing but these functions."""
    parts = dict.fromkeys(PARTS, "")
    return made.path(**parts, alone=f".text\n.globl _stext\n_stext:\n{text}")


def loops(kernel, name):
    """Where a CPU can park that enters a function: (function, kind)."""
    program = Program(kernel)
    return [(loop.symbol, loop.kind) for loop in LoopReader(program).loops(kernel.require(name).address)]


def test_a_call_of_a_thunk_is_of_no_function(made):
    """A loop that calls through a thunk is not made of the thunk's code, and the call may be patched."""
    whys = {**dict.fromkeys(RETPOLINES, "retpoline"), **dict.fromkeys(RETURNS, "return thunk"), TRACING: "ftrace"}
    every = {**whys, "another": None}
    thunks = "".join(f"fn {name}\n pause\n ret\nend {name}\n" for name in every)
    callers = "".join(f"fn by_{name}\n1: call {name}\n hlt\n jmp 1b\nend by_{name}\n" for name in every)
    with open_kernel(kernel_of(made, thunks + callers)) as kernel:
        program = Program(kernel)
        reader = LoopReader(program)
        for name, why in every.items():
            (loop,) = reader.loops(kernel.require(f"by_{name}").address)
            assert [one.why for one in loop.patchable] == [why] * (why is not None), name
            assert any(one.text == "pause" for one in loop.instructions) == (why is None), name
            assert program.is_thunk(kernel.require(name).address) is (why is not None), name


@pytest.mark.parametrize("name", RETURNS)
def test_a_jump_to_a_return_thunk_is_a_return(made, name):
    """What a call of such a function is followed by is still the loop; the thunk's own text is fetched perhaps."""
    text = f"fn {name}\n ret\n int3\nend {name}\nfn small\n nop\n jmp {name}\nend small\n"
    text += "fn park\n1: call small\n hlt\n jmp 1b\nend park\n"
    with open_kernel(kernel_of(made, text)) as kernel:
        (loop,) = LoopReader(Program(kernel)).loops(kernel.require("park").address)
    assert [one.text.split()[0] for one in loop.instructions] == ["nop", "jmp", "call", "hlt", "jmp"]
    assert [(one.symbol, one.size) for one in loop.touches if one.kind == "text" and one.symbol == name] == [(name, 1)]


def test_what_follows_a_complaint_is_no_place_to_park(made):
    """The same code after another call is one."""
    text = "".join(
        f"fn {name}\n ret\nend {name}\n"
        f"fn with_{name}\n test %eax, %eax\n jne 1f\n2: hlt\n jmp 2b\n"
        f"1: call {name}\n3: mwait\n jmp 3b\nend with_{name}\n"
        for name in (*COMPLAINTS, "another")
    )
    with open_kernel(kernel_of(made, text)) as kernel:
        found = {name: {kind for _, kind in loops(kernel, f"with_{name}")} for name in (*COMPLAINTS, "another")}
    assert found == {**dict.fromkeys(COMPLAINTS, frozenset({"hlt"})), "another": {"hlt", "mwait"}}


def test_what_is_known_not_to_park_is_not_read(made):
    """As tboot_shutdown(), which halts only if the firmware fails to (arch/x86/kernel/tboot.c)."""
    every = (*QUIET, *COMPLAINTS, "another")
    text = "".join(
        f"fn {name}\n1: hlt\n jmp 1b\nend {name}\nfn with_{name}\n call {name}\n ret\nend with_{name}\n"
        for name in every
    )
    with open_kernel(kernel_of(made, text)) as kernel:
        found = {name: loops(kernel, f"with_{name}") for name in every}
    assert {name: places for name, places in found.items() if places} == {"another": [("another", "hlt")]}


BOUNDS = (
    # include/asm-generic/vmlinux.lds.h and arch/x86/kernel/vmlinux.lds.S
    "__start___jump_table",
    "__stop___jump_table",
    "__alt_instructions",
    "__alt_instructions_end",
    "__parainstructions",
    "__parainstructions_end",
)
TABLES = f"""
.section .rodata
.balign 8
.globl {", ".join(BOUNDS)}
__start___jump_table:
 .long label - ., after - .
 .quad 0
__stop___jump_table:
__alt_instructions:
 .long fence - ., other - .
 .long 0
 .byte 3, 3
__alt_instructions_end:
 .balign 8
__parainstructions:
 .quad hypercall
 .byte 0, 5
 .zero 6
__parainstructions_end:
.text
"""


def test_the_tables_of_what_is_rewritten_are_found_by_their_symbols(made):
    text = "fn park\nlabel: .byte 0x66, 0x90\nafter: nop\nfence: lfence\nhypercall: .byte 0x0f, 0x1f, 0x44, 0, 0\n"
    text += " hlt\n jmp label\nend park\nother: mfence\n"
    with open_kernel(kernel_of(made, text + TABLES)) as kernel:
        (loop,) = LoopReader(Program(kernel)).loops(kernel.require("park").address)
    assert [one.why for one in loop.patchable] == ["jump label", "alternative", "paravirt"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_static_function_is_found_by_what_gcc_made_of_its_name(made, suffix):
    text = f"fn some{suffix}\n ret\nend some{suffix}\nfn other\n ret\nend other\n"
    with open_kernel(kernel_of(made, text)) as kernel:
        assert Program(kernel, Wanted(("some*",))).find("some").name == f"some{suffix}"
        assert Program(kernel, Wanted(("some",))).find("some") is None  # one that is not static has its own name
        assert Program(kernel, Wanted(("some*",))).find("other").name == "other"


def test_names_that_are_wanted():
    wanted = Wanted(("some*", "other"))
    assert wanted.names == ANY_CODE | {"some", "other"}
    assert wanted.suffixed("some") == tuple(f"some{suffix}" for suffix in SUFFIXES)
    assert wanted.suffixed("other") == ()
    assert wanted.candidates == wanted.names | {f"some{suffix}" for suffix in SUFFIXES}
    assert {*RETPOLINES, *RETURNS, TRACING, *COMPLAINTS, *QUIET, *BOUNDS} == ANY_CODE
    assert WANTED.names >= ANY_CODE


PARK = {
    # arch/x86/kernel/smpboot.c; resume_play_dead() since v5.2, in arch/x86/power/cpu.c
    "native_play_dead", "mwait_play_dead", "hlt_play_dead", "resume_play_dead",
    # drivers/acpi/processor_idle.c and arch/x86/kernel/acpi/cstate.c, drivers/idle/intel_idle.c
    "acpi_idle_play_dead", "acpi_processor_ffh_play_dead", "intel_idle_enter_dead",
}  # fmt: skip


def test_functions_in_which_a_cpu_may_be_parked():
    assert set(PARKING) == PARK
    assert set(ON_THE_WAY) == {*PARK, "play_dead_common"}
    assert set(PLAY_DEAD) == {name for name in PARK if name.endswith("play_dead") and not name.startswith("acpi")}
    # struct cpuidle_driver's name: acpi_idle_driver, intel_idle_driver
    assert ENTER_DEAD == {"acpi_idle": "acpi_idle_play_dead", "intel_idle": "intel_idle_enter_dead"}


@pytest.mark.parametrize(("name", "where"), [
    ("xen_pv_play_dead", "Xen PV guests"),  # arch/x86/xen/smp_pv.c
    ("sev_es_play_dead", "SEV-ES guests"),  # arch/x86/coco/sev/core.c, before arch/x86/kernel/sev.c
    ("acpi_mp_play_dead", "ACPI wakeup mailbox"),  # arch/x86/kernel/acpi/madt_wakeup.c
])  # fmt: skip
def test_what_play_dead_is_on_other_machines(name, where):
    assert OTHER_PLAY_DEAD[name].startswith(f"{where}")
    assert len(OTHER_PLAY_DEAD) == 3


GIVE_FRAMES = {
    # mm/page_alloc.c, include/linux/gfp.h; by the other name where allocations are counted (b951aaff5035 ("mm: enable
    # page allocation tagging", in v6.10))
    "get_zeroed_page", "get_zeroed_page_noprof", "__get_free_pages", "get_free_pages_noprof", "alloc_pages",
    "alloc_pages_noprof", "__alloc_pages", "__alloc_pages_noprof", "__alloc_frozen_pages_noprof",
}  # fmt: skip


def test_functions_that_are_known_by_what_they_do_for_a_place():
    """What each is for is held in test_place.py, where kernels have them."""
    assert set(ALLOCATORS) == GIVE_FRAMES
    assert SAFE == "get_safe_page"  # kernel/power/snapshot.c
    assert set(COPIES) == {"memcpy", "__memcpy"}  # arch/x86/lib/memcpy_64.S
    # arch/x86/mm/pat/set_memory.c, mm/slub.c, arch/x86/lib/memset_64.S
    kmalloc = {"__kmalloc", "__kmalloc_noprof", "kmalloc_trace", "kfree"}
    assert set(ELSEWHERE) == {"set_memory_x", "set_memory_nx", "memset", *kmalloc}
