"""Opening a kernel for a check: a kernel file in any of its forms, or a facts file; its symbols asked for at once."""

from __future__ import annotations

from hibercheck.addresses import PAGE_SIZE, START_KERNEL_MAP
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
        "disabled_cpus", "cpu_info", "cpu_smt_max_threads",
    }
)  # fmt: skip
"""Every symbol that the handoff asks for; one pass over the table finds them all."""

_PAGES = frozenset({"init_top_pgt", "level4_kernel_pgt", "level3_kernel_pgt", "level2_kernel_pgt"})
_PER_CPU = frozenset({"x86_cpu_to_apicid", "__per_cpu_start", "gdt_page", "mwait_cpu_dead", "acpi_cstate", "cpu_info"})
_MOST = 1 << 30
"""KERNEL_IMAGE_SIZE with RANDOMIZE_BASE, arch/x86/include/asm/page_64_types.h: no kernel's image is larger."""


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
        _check_places(kernel)
    except MissingFact as missing:
        raise _no_kernel(kernel, missing) from missing
    return kernel


def _check_places(kernel: Kernel) -> None:
    """See that symbols are where they can be: of a damaged table others would be believed.

    Raises:
        MissingFact: It has no symbols.
        MalformedKernel: One is outside the kernel's image, or a page table not on a page.
    """
    text, last = kernel.require("_text").address, kernel.symbol("_end")
    end = last.address if last is not None else text + _MOST
    if not START_KERNEL_MAP <= text < end <= text + _MOST:
        raise _misplaced(kernel, "_text", text)
    for name, symbol in kernel.symbols(HANDOFF_SYMBOLS).items():
        per_cpu = name in _PER_CPU and symbol.address < _MOST  # an offset, in the zero-based layout
        if not (text <= symbol.address <= end or per_cpu) or (name in _PAGES and symbol.address % PAGE_SIZE):
            raise _misplaced(kernel, name, symbol.address)


def _misplaced(kernel: Kernel, name: str, address: int) -> MalformedKernel:
    return MalformedKernel(
        f"has its symbol {name} at {address:#x}, where no kernel has it",
        path=kernel.path,
        advice="it is damaged, or its symbols are of another build",
    )


def _no_kernel(kernel: Kernel, missing: MissingFact) -> HibercheckError:
    """Tell a kernel without symbols from a file that is no kernel at all."""
    if kernel.elf.data.find(b"Linux version ") >= 0:
        return missing
    return MalformedKernel(
        "is an x86-64 ELF file, but no Linux kernel: nothing in it begins with 'Linux version'",
        path=kernel.path,
        advice="give a vmlinux or vmlinuz",
    )
