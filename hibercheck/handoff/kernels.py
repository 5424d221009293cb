"""Opening a kernel for a check: a kernel file in any of its forms, or a facts file; its symbols asked for at once."""

from __future__ import annotations

from hibercheck.errors import HibercheckError, MalformedKernel, MissingFact
from hibercheck.kernel.code.names import candidates
from hibercheck.kernel.kernel import Kernel, open_kernel

HANDOFF_SYMBOLS = frozenset(
    {
        "linux_banner", "restore_registers", "nr_cpu_ids", "__cpu_present_mask", "frozen_cpus", "cpu_smt_control",
        "saved_command_line", "e820_table_firmware", "boot_cpu_data", "x86_cap_flags", "x86_cpu_to_apicid",
        "x86_topo_system", "smp_num_siblings", "__per_cpu_offset", "__per_cpu_start", "cpuidle_curr_driver",
        "cpuidle_play_dead", "acpi_cstate", "_text", "_etext", "_end", "init_top_pgt", "level4_kernel_pgt",
        "level3_kernel_pgt", "level2_kernel_pgt", "arch_resume_nosmt", "asm_exc_nmi", "asm_exc_machine_check",
        "gdt_page", "mcheck_cpu_init", "mwait_cpu_dead", "topo_info", "phys_cpu_present_map", "num_processors",
        "disabled_cpus",
    }
)  # fmt: skip
"""Every symbol that the handoff asks for; one pass over the table finds them all."""


def open_resumer(path: str, symbols: str | None) -> Kernel:
    """Open the resumer and look up all symbols that reading its code and placing it needs, in one pass.

    Raises:
        HibercheckError: The file cannot be read as a kernel.
    """
    return _opened(path, symbols, HANDOFF_SYMBOLS | candidates())


def open_resumee(path: str, symbols: str | None) -> Kernel:
    """Open the resumee, of which only data is read; raises like `open_resumer`."""
    return _opened(path, symbols, HANDOFF_SYMBOLS)


def _opened(path: str, symbols: str | None, names: frozenset[str]) -> Kernel:
    kernel = open_kernel(path, symbols=symbols)
    try:
        kernel.symbols(names)
        kernel.require("_text")
    except MissingFact as missing:
        raise _no_kernel(kernel, missing) from missing
    return kernel


def _no_kernel(kernel: Kernel, missing: MissingFact) -> HibercheckError:
    """Tell a kernel without symbols from a file that is no kernel at all."""
    if kernel.elf.data.find(b"Linux version ") >= 0:
        return missing
    return MalformedKernel(
        "is an x86-64 ELF file, but no Linux kernel: nothing in it begins with 'Linux version'",
        path=kernel.path,
        advice="give a vmlinux or vmlinuz",
    )
