"""What a check asks of a kernel, in one place: what a facts file must keep."""

from __future__ import annotations

NEEDED_SYMBOLS: frozenset[str] = frozenset(
    {
        "_text",
        "_etext",
        "_stext",
        "_end",
        "restore_registers",
        "init_top_pgt",
        "init_level4_pgt",
        "level4_kernel_pgt",
        "level3_kernel_pgt",
        "level2_kernel_pgt",
        "level2_fixmap_pgt",
        "level1_fixmap_pgt",
        "phys_base",
        "page_offset_base",
        "__per_cpu_offset",
        "__per_cpu_start",
        "__per_cpu_end",
        "linux_banner",
        "saved_command_line",
        "__cpu_present_mask",
        "__cpu_possible_mask",
        "__cpu_online_mask",
        "frozen_cpus",
        "nr_cpu_ids",
        "cpu_smt_control",
        "cpu_smt_max_threads",
        "smp_num_siblings",
        "__max_threads_per_core",
        "x86_topo_system",
        "topo_info",
        "phys_cpu_present_map",
        "num_processors",
        "disabled_cpus",
        "cpuid_to_apicid",
        "x86_cpu_to_apicid",
        "boot_cpu_data",
        "cpu_info",
        "cpu_number",
        "pcpu_hot",
        "current_task",
        "mwait_cpu_dead",
        "x86_cap_flags",
        "cpuidle_curr_driver",
        "cpuidle_play_dead",
        "acpi_cstate",
        "acpi_idle_play_dead",
        "intel_idle_enter_dead",
        "acpi_processor_ffh_play_dead",
        "e820_table_firmware",
        "idt_table",
        "gdt_page",
        "cpu_tss_rw",
        "_cea_offset",
        "asm_exc_nmi",
        "asm_exc_machine_check",
        "asm_exc_page_fault",
        "asm_exc_double_fault",
        "asm_exc_general_protection",
        "native_play_dead",
        "mwait_play_dead",
        "hlt_play_dead",
        "resume_play_dead",
        "cpuhp_smt_enable",
        "hibernate_resume_nonboot_cpu_disable",
        "freeze_secondary_cpus",
        "smp_ops",
        "swsusp_hardware_signature",
        "__pgtable_l5_enabled",
        "pgtable_l5_enabled",
        "swapper_pg_dir",
        "mcheck_cpu_init",
        "arch_resume_nosmt",
    }
)
"""Symbols whose addresses a check uses."""

NEEDED_TEXT: frozenset[str] = frozenset(
    {"restore_registers", "asm_exc_nmi", "asm_exc_machine_check", "asm_exc_page_fault", "asm_exc_double_fault"}
)
"""Functions whose first bytes a check looks at."""

NEEDED_MEMBERS: frozenset[tuple[str, str]] = frozenset(
    {
        ("cpuinfo_x86", "x86_vendor"),
        ("cpuinfo_x86", "x86_vendor_id"),
        ("cpuinfo_x86", "x86_capability"),
        ("cpuinfo_x86", "cpuid_level"),
        ("cpuinfo_x86", "x86_phys_bits"),
        ("cpuinfo_x86", "x86_virt_bits"),
        ("cpuidle_driver", "name"),
        ("cpuidle_driver", "states"),
        ("cpuidle_driver", "state_count"),
        ("cpuidle_state", "enter_dead"),
        ("cpuidle_state", "flags"),
        ("acpi_processor_cx", "entry_method"),
        ("acpi_processor_cx", "address"),
        ("pcpu_hot", "cpu_number"),
        ("smp_ops", "play_dead"),
    }
)
"""Structure members whose offsets a check uses."""

NEEDED_SIZES: frozenset[str] = frozenset({"cpu_entry_area", "cpuidle_state", "cpuinfo_x86", "cpuidle_driver"})
"""Structures whose sizes a check uses."""
