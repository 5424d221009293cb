"""What the resumee's symbols add to a core of its memory: the boot CPU's registers, and VMCOREINFO if it has none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hibercheck.errors import MissingFact
from hibercheck.swsusp.vmcore import prstatus

if TYPE_CHECKING:
    from hibercheck.handoff.facts.space import KernelSpace

REGISTERS = {
    "sp": "rsp",
    "bp": "rbp",
    "si": "rsi",
    "di": "rdi",
    "bx": "rbx",
    "cx": "rcx",
    "dx": "rdx",
    "r8": "r8",
    "r9": "r9",
    "r10": "r10",
    "r11": "r11",
    "r12": "r12",
    "r13": "r13",
    "r14": "r14",
    "r15": "r15",
    "flags": "eflags",
}
KERNEL_CS = 0x10  # arch/x86/include/asm/segment.h: GDT_ENTRY_KERNEL_CS * 8
KERNEL_DS = 0x18


def saved_cpu(space: KernelSpace) -> bytes:
    """Return an NT_PRSTATUS note of the CPU that hibernated, as it returns from ``swsusp_arch_suspend``.

    arch/x86/power/hibernate_asm_64.S stores its registers in ``saved_context`` right before the image is made; the
    return address is what lies at its stack pointer then.

    Raises:
        MissingFact: A symbol, a layout or the page of the stack is missing.
    """
    kernel = space.kernel
    base = space.address("saved_context")
    registers = {
        name: space.number(base + kernel.offset_of("saved_context", f"regs.{member}"))
        for member, name in REGISTERS.items()
    }
    registers["rip"] = space.number(registers["rsp"])
    registers["rsp"] += 8
    registers |= {"cs": KERNEL_CS, "ss": KERNEL_DS, "orig_rax": -1}
    member = "kernelmode_gs_base"
    if kernel.has_member("saved_context", member):
        registers["gs_base"] = space.number(base + kernel.offset_of("saved_context", member))
    return prstatus(registers)


def vmcoreinfo(space: KernelSpace) -> bytes:
    """Make the VMCOREINFO lines that crash and drgn ask for, for a kernel built without CONFIG_VMCORE_INFO.

    The names are those of kernel/vmcore_info.c and arch/x86/kernel/vmcore_info_64.c.
    """
    return "".join(f"{key}={value}\n" for key, value in _lines(space)).encode("ascii", "replace")


def _lines(space: KernelSpace) -> Iterator[tuple[str, str]]:
    kernel = space.kernel
    yield "OSRELEASE", kernel.release
    if kernel.build_id:
        yield "BUILD-ID", kernel.build_id
    yield "PAGESIZE", "4096"
    for name, symbol in (
        ("init_uts_ns", "init_uts_ns"),
        ("swapper_pg_dir", "init_top_pgt"),
        ("_stext", "_stext"),
        ("init_top_pgt", "init_top_pgt"),
    ):
        try:
            yield f"SYMBOL({name})", f"{space.address(symbol):x}"
        except MissingFact:
            continue
    yield "NUMBER(phys_base)", str(space.phys_base)
    yield "NUMBER(pgtable_l5_enabled)", str(int(space.mode.levels == 5))
    yield "KERNELOFFSET", f"{space.kaslr_offset:x}"
    yield "NUMBER(KERNEL_IMAGE_SIZE)", str(1 << 30)
