"""The symbols that reading a kernel's handoff takes, and how their compiler-made variants are spelled.

All of them are looked up in one pass: on a kernel with DWARF a pass costs more than everything else together.
"""

from __future__ import annotations

SUFFIXES = (".isra.0", ".constprop.0", ".part.0", ".constprop.0.isra.0", ".isra.0.constprop.0")
"""What GCC appends to the name of a static function that it changed."""

STATIC_FUNCTIONS = frozenset(
    {
        "acpi_idle_play_dead",
        "intel_idle_enter_dead",
        "mwait_play_dead",
        "cpu_up",
        "_cpu_up",
        "bringup_hibernate_cpu",
        "add_cpu",
        "unpack_orig_pfns",
        "load_compressed_image",
        "load_image_lzo",
        "lzo_decompress_threadfn",
        "decompress_threadfn",
        "get_e820_md5",
        "compute_e820_crc32",
    }
)
"""Functions that may carry a suffix because they are static."""

FUNCTIONS = frozenset(
    {
        # the handoff in the resumer
        "xen_pv_play_dead",
        "sev_es_play_dead",
        "acpi_mp_play_dead",
        "hibernate_resume_nonboot_cpu_disable",
        "hibernation_restore",
        "freeze_secondary_cpus",
        "__freeze_secondary_cpus",
        "disable_nonboot_cpus",
        "suspend_disable_secondary_cpus",
        "cpuhp_smt_enable",
        "swsusp_arch_resume",
        "restore_image",
        # what a dead CPU does
        "native_play_dead",
        "start_cpu0",
        "cpuidle_play_dead",
        "acpi_processor_ffh_play_dead",
        "tboot_shutdown",
        # rescue and topology
        "topology_get_primary_thread",
        "arch_cpu_rescan_dead_smt_siblings",
        "arch_resume_nosmt",
        "get_cpu_entry_area",
        "get_cpu_device",
        "kobject_uevent",
        "_find_next_bit",
        "find_next_bit",
        "cpumask_next",
        "mutex_lock",
        "mutex_unlock",
        # interrupts between processors
        "native_apic_icr_write",
        "native_x2apic_icr_write",
        "apic_icr_write",
        "__SCT__apic_call_icr_write",
        "_printk",
        "printk",
        # which images it accepts
        "snapshot_write_next",
        "swsusp_read",
        "arch_hibernation_header_restore",
        "crc32_le",
        "crc32_le_base",
        "crc32_le_arch",
        "crypto_alloc_shash",
        "crypto_shash_digest",
        "lzo1x_decompress_safe",
        "lzo_mod_init",
        "lz4_mod_init",
        # exception entries
        "asm_fred_entrypoint_kernel",
        # start-up
        "kernel_randomize_memory",
        "kaslr_get_random_long",
        "pti_init",
        "startup_64",
    }
    | STATIC_FUNCTIONS
)

OBJECTS = frozenset(
    {
        "smp_ops",
        "apic",
        "cpu_number",
        "pcpu_hot",
        "current_task",
        "cpu_current_top_of_stack",
        "kernel_stack",
        "cpu_tss",
        "cpu_tss_rw",
        "mwait_cpu_dead",
        "boot_cpu_data",
        "cpu_smt_control",
        "cpuid_to_apicid",
        "__cpu_online_mask",
        "__cpu_present_mask",
        "__cpu_possible_mask",
        "node_states",
        "__cpu_primary_thread_mask",
        "init_task",
        "early_idts",
        "early_pf_idts",
        "x86_topo_system",
        "zero_bm",
        "swsusp_hardware_signature",
        "hib_comp_algo",
        "def_idts",
        "ist_idts",
        "_cea_offset",
        "kernel_config_data",
        "level4_kernel_pgt",
        "pgdir_shift",
        "_text",
        "_stext",
        "__start___jump_table",
        "__stop___jump_table",
        "__alt_instructions",
        "__alt_instructions_end",
        "__parainstructions",
        "__parainstructions_end",
    }
)


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


def wanted() -> frozenset[str]:
    """Every name to look up at first."""
    return FUNCTIONS | OBJECTS | THUNKS | COMPLAINTS | NOISE


def candidates() -> frozenset[str]:
    """Every name that may be looked up, so that one pass over the symbols finds all."""
    return wanted().union(*map(suffixed, STATIC_FUNCTIONS))


def suffixed(name: str) -> tuple[str, ...]:
    """The other names under which a function may be linked; empty for one that the compiler may not rename."""
    return tuple(name + suffix for suffix in SUFFIXES) if name in STATIC_FUNCTIONS else ()
