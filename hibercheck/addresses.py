"""Sizes and addresses that hold for every x86-64 Linux, and that every package needs."""

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT

ADDRESS_MASK = (1 << 64) - 1
"""All bits of an address: what the processor keeps of a sum."""

START_KERNEL_MAP = 0xFFFF_FFFF_8000_0000
"""``__START_KERNEL_map``: what a link-time address of the kernel's text and data exceeds its physical address by
(arch/x86/include/asm/page_64_types.h)."""

LOAD_ALIGNMENT = 0x200000
"""The least CONFIG_PHYSICAL_ALIGN of x86-64 (arch/x86/Kconfig): what a kernel's load address is a multiple of."""

CPU_ENTRY_AREA = 0xFFFF_FE00_0000_0000
"""CPU_ENTRY_AREA_BASE, arch/x86/include/asm/pgtable_64_types.h: the read-only IDT is its first page."""
