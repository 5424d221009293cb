"""What the handoff asks of a kernel besides its traits, in one place: looked up at once, and kept in a kernel summary.

A symbol that is added here is looked up with the others, held to where it can be, and kept.
"""

from __future__ import annotations

from typing import Literal

from hibercheck.kernel.code.names import OF_ONE_CPU, OF_OTHER_CPUS, PARKING

Place = Literal["image", "page", "percpu"]
"""In the kernel's image; there and on a page of its own; in the per-CPU area, whose symbols may be offsets."""

_IMAGE = f"""
{" ".join((*OF_OTHER_CPUS, *OF_ONE_CPU))}
_text _stext _etext _end linux_banner init_uts_ns saved_command_line saved_context
restore_registers arch_resume_nosmt hibernate_resume_nonboot_cpu_disable freeze_secondary_cpus cpuhp_smt_enable
cpuidle_play_dead smp_ops cpuidle_curr_driver
phys_base __per_cpu_offset pgtable_l5_enabled
level1_fixmap_pgt level2_fixmap_pgt swapper_pg_dir
__cpu_present_mask __cpu_possible_mask __cpu_online_mask cpus_booted_once_mask frozen_cpus nr_cpu_ids
cpu_smt_control cpu_smt_max_threads smp_num_siblings
x86_topo_system topo_info phys_cpu_present_map num_processors disabled_cpus total_cpus cpuid_to_apicid
smp_found_config setup_max_cpus topology_register_apic apic_intr_mode
boot_cpu_data x86_cap_flags e820_table_firmware e820_table node_data contig_page_data
boot_params builtin_cmdline hib_comp_algo kernel_locked_down nohibernate swsusp_hardware_signature
restore_jump_address restore_cr3 restore_pblist nr_copy_pages x86_hyper_type init_s4_sigcheck
idt_table asm_exc_page_fault asm_exc_double_fault
embedded_bootconfig_data embedded_bootconfig_data_end
x2apic_mode irq_remapping_enabled intel_iommu_enabled sme_me_mask
mcheck_cpu_init __start_notes __stop_notes sysctl_bootid tk_core timekeeper_data
"""

HANDLERS = """
asm_exc_nmi exc_nmi nmi do_nmi
asm_exc_machine_check exc_machine_check machine_check do_mce do_machine_check
paranoid_entry paranoid_exit
asm_fred_entrypoint_user asm_fred_entrypoint_kernel fred_entry_from_kernel fred_exc_nmi fred_exc_machine_check
"""
"""What handles an NMI or a machine check, by the names of all kernels."""

_PAGES = "init_top_pgt level4_kernel_pgt level3_kernel_pgt level2_kernel_pgt"

_PERCPU = """
__per_cpu_start __per_cpu_end x86_cpu_to_apicid gdt_page mwait_cpu_dead acpi_cstate cpu_info
cpu_number pcpu_hot current_task cpu_tss_rw _cea_offset
"""

SYMBOLS: dict[str, Place] = {
    **dict.fromkeys((*_IMAGE.split(), *HANDLERS.split(), *PARKING), "image"),
    **dict.fromkeys(_PAGES.split(), "page"),
    **dict.fromkeys(_PERCPU.split(), "percpu"),
}
"""Symbols whose addresses the handoff uses, and where each can be."""

TEXT: frozenset[str] = frozenset({"restore_registers", "asm_exc_page_fault", "asm_exc_double_fault", *HANDLERS.split()})
"""Functions whose bytes it looks at: a page of each at most."""

MEMBERS: frozenset[tuple[str, str]] = frozenset(
    {
        ("cpuinfo_x86", "x86_vendor"),
        ("cpuinfo_x86", "x86_vendor_id"),
        ("cpuinfo_x86", "x86"),
        ("cpuinfo_x86", "x86_model"),
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
        ("pglist_data", "node_present_pages"),
        ("kmem_cache", "name"),
        ("smp_ops", "play_dead"),
    }
)
"""Structure members whose offsets it uses."""

SIZES: frozenset[str] = frozenset({"cpu_entry_area", "cpuidle_state", "cpuinfo_x86", "cpuidle_driver"})
"""Structures whose sizes it uses."""
