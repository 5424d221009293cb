"""The symbols that reading any code of a kernel takes, and how their compiler-made variants are spelled.

What a single trait needs besides is declared with it, in `hibercheck.kernel.code.traits`.  All of them are looked up in
one pass: on a kernel with DWARF a pass costs more than everything else together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

_SUFFIXES = (".isra.0", ".constprop.0", ".part.0", ".constprop.0.isra.0", ".isra.0.constprop.0")
"""What GCC appends to the name of a static function that it changed."""

_REGISTERS = ("ax", "bx", "cx", "dx", "si", "di", "bp", *(str(number) for number in range(8, 16)))

RETURN_THUNKS = frozenset({"__x86_return_thunk", "srso_return_thunk", "retbleed_return_thunk", "its_return_thunk"})

INDIRECT_THUNKS = frozenset(
    {f"__x86_indirect_thunk_r{name}" for name in _REGISTERS}
    | {"__x86_indirect_thunk_array", "__x86_indirect_its_thunk_array"}
)

THUNKS = RETURN_THUNKS | INDIRECT_THUNKS | {"__fentry__"}
"""Returns, indirect jumps and tracing no-ops in disguise."""

COMPLAINTS = frozenset(
    {
        "__ubsan_handle_out_of_bounds",
        "__ubsan_handle_shift_out_of_bounds",
        "__ubsan_handle_load_invalid_value",
        "__stack_chk_fail",
        "panic",
        "__warn_printk",
    }
)
"""Reports that the kernel itself is wrong; paths through them are not what a working kernel does."""

NOISE = frozenset(
    {
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
    }
)
"""Functions that a play_dead calls and in which no CPU parks for good."""

TABLES = frozenset(
    {
        "__start___jump_table",
        "__stop___jump_table",
        "__alt_instructions",
        "__alt_instructions_end",
        "__parainstructions",
        "__parainstructions_end",
    }
)
"""Where the kernel lists the places in its code that it rewrites."""

ANY_CODE = THUNKS | COMPLAINTS | NOISE | TABLES
"""What reading whichever function takes."""

OF_OTHER_CPUS = ("start_secondary", "smp_init", "bringup_nonboot_cpus", "native_play_dead")
"""Functions that only a kernel with CONFIG_SMP has."""
OF_ONE_CPU = {"up_late_init": "CONFIG_UP_LATE_INIT", "srcu_drive_gp": "CONFIG_TINY_SRCU"}
"""Functions that only one without has, and the options that they come with, which nobody can choose.

The first (arch/x86/Kconfig) has one caller, and may become a part of it where a kernel is linked as one (CONFIG_LTO);
clang 16 leaves it.  The second (kernel/rcu/Kconfig), since d8be81735aa8 ("srcu: Create a tiny SRCU", in v4.12) in
kernels without preemption, is exported and called through a pointer, so that it stays.
"""


def built_for_one_cpu(find: Callable[[str], object | None]) -> bool | None:
    """Tell whether a kernel is built without CONFIG_SMP.

    None where it lists neither what only such a kernel has nor what only others have.  That the latter is not listed
    does not suffice: symbols may be stripped or cut, and a kernel that is taken for one that parks nobody is called
    safe.

    Args:
        find: Finds one of its symbols.
    """
    if any(find(name) is not None for name in OF_OTHER_CPUS):
        return False
    return True if any(find(name) is not None for name in OF_ONE_CPU) else None


PLAY_DEAD = ("native_play_dead", "mwait_play_dead", "hlt_play_dead", "resume_play_dead")
"""What smp_ops.play_dead may be, and what these call to park a CPU."""
OTHER_PLAY_DEAD = {
    "xen_pv_play_dead": "Xen PV guests: the hypervisor takes the CPU down",
    "sev_es_play_dead": "SEV-ES guests: AP reset hold",
    "acpi_mp_play_dead": "ACPI wakeup mailbox with a reset vector: back to the firmware",
}
"""What it is on machines of some kind, and what becomes of the CPU there."""
ENTER_DEAD = {"acpi_idle": "acpi_idle_play_dead", "intel_idle": "intel_idle_enter_dead"}
"""The function by which each cpuidle driver parks a dead CPU.

A driver that is entered here is looked up, read, kept, collected and obeyed as the others are.
"""
ENTER_DEAD_CALLS = ("acpi_processor_ffh_play_dead",)
"""Functions that these call and in which a CPU parks."""
PARKING = (*PLAY_DEAD, *ENTER_DEAD.values(), *ENTER_DEAD_CALLS)
"""Code in which a CPU may be parked."""
ON_THE_WAY = (*PARKING, "play_dead_common")
"""That, and what runs before it in the same place (arch/x86/kernel/smpboot.c)."""

COPIES = ("memcpy", "__memcpy")
"""What copies code to another place."""
ALLOCATORS = (
    "get_zeroed_page",
    "get_zeroed_page_noprof",
    "__get_free_pages",
    "get_free_pages_noprof",
    "alloc_pages",
    "alloc_pages_noprof",
    "__alloc_pages",
    "__alloc_pages_noprof",
    "__alloc_frozen_pages_noprof",
)
"""What gives out frames of which the image knows nothing."""
SAFE = "get_safe_page"
"""What gives out frames that the image does not have (kernel/power/snapshot.c)."""

ELSEWHERE = ("set_memory_x", "set_memory_nx", "__kmalloc", "__kmalloc_noprof", "kmalloc_trace", "kfree", "memset")
"""What is not looked into: it allocates for the kernel's own tables and objects."""


class Wanted:
    """Names to look up.

    Args:
        declared: As traits declare them: with a ``*`` after the name of a function that a compiler may rename.
    """

    def __init__(self, declared: Iterable[str] = ()) -> None:
        given = frozenset(declared)
        self.static = frozenset(name[:-1] for name in given if name.endswith("*"))
        self.names = ANY_CODE | self.static | {name for name in given if not name.endswith("*")}

    @property
    def candidates(self) -> frozenset[str]:
        """Every name that may be looked up, so that one pass over the symbols finds all."""
        return self.names.union(*map(self.suffixed, self.static))

    def suffixed(self, name: str) -> tuple[str, ...]:
        """Return other names under which a function may be linked; none for one that the compiler may not rename."""
        return tuple(name + suffix for suffix in _SUFFIXES) if name in self.static else ()
