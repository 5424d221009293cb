"""Kernels of a few dozen instructions, assembled and linked as the real ones are."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from hibercheck.kernel.code.program import Program
from hibercheck.kernel.code.traits import read_traits, traits_on_demand
from hibercheck.kernel.kernel import open_kernel

MACROS = """
.macro fn name
 .balign 16, 0xcc
 .globl \\name
 .type \\name, @function
\\name:
.endm
.macro end name
 .size \\name, . - \\name
.endm
.macro obj name, size
 .globl \\name
 .type \\name, @object
 .size \\name, \\size
\\name: .zero \\size
.endm
"""

# One function each, so that a test can replace the one it is about.
PARTS = {
    "hook": """
fn hibernate_resume_nonboot_cpu_disable
 push %rbx
 mov smp_ops+0x10(%rip), %rbx
 call cpuhp_smt_enable
 test %eax, %eax
 jne 1f
 movq $resume_play_dead, smp_ops+0x10(%rip)
 xor %edi, %edi
 call freeze_secondary_cpus
 mov %rbx, smp_ops+0x10(%rip)
1: pop %rbx
 ret
end hibernate_resume_nonboot_cpu_disable
""",
    "resume": """
fn resume_play_dead
 call play_dead_common
 jmp hlt_play_dead
end resume_play_dead
""",
    "common": """
fn play_dead_common
 cli
 ret
end play_dead_common
""",
    "hlt": """
fn hlt_play_dead
1: hlt
 jmp 1b
end hlt_play_dead
""",
    "native": """
fn native_play_dead
 push %rbp
 call play_dead_common
 movzbl boot_cpu_data+1(%rip), %eax
 cmp $2, %al
 je 3f
 cmp $9, %al
 je 3f
 mov $mwait_cpu_dead, %rbp
 add %gs:this_cpu_off(%rip), %rbp
 xor %ecx, %ecx
1: mfence
 clflush (%rbp)
 mov %rbp, %rax
 mov %rcx, %rdx
 monitor
 mov %rbx, %rax
 mwait
 mov (%rbp), %eax
 cmp $0x4a17dead, %eax
 je 4f
 mov %gs:cpu_number(%rip), %eax
 test %eax, %eax
 jne 1b
 mov enable_start_cpu0(%rip), %eax
 test %eax, %eax
 je 1b
 call start_cpu0
 jmp 1b
3: call cpuidle_play_dead
 test %eax, %eax
 jne 5f
 pop %rbp
 ret
4: movl $0x4a17dead, 4(%rbp)
6: hlt
 jmp 6b
5: call hlt_play_dead
end native_play_dead
""",
    "smt": """
fn cpuhp_smt_enable
 push %rbx
 movl $0, cpu_smt_control(%rip)
 xor %ebx, %ebx
1: mov %ebx, %eax
 bt %rax, __cpu_online_mask(%rip)
 jb 2f
 mov %ebx, %edi
 call _cpu_up
2: inc %ebx
 cmp nr_cpu_ids(%rip), %ebx
 jb 1b
 xor %eax, %eax
 pop %rbx
 ret
end cpuhp_smt_enable
""",
    "other": """
fn _cpu_up
 xor %eax, %eax
 ret
end _cpu_up
fn freeze_secondary_cpus
 xor %eax, %eax
 ret
end freeze_secondary_cpus
fn cpuidle_play_dead
 mov $-19, %eax
 ret
end cpuidle_play_dead
fn start_cpu0
 ret
end start_cpu0
fn topology_get_primary_thread
 xor %eax, %eax
 ret
end topology_get_primary_thread
""",
    "hibernation": """
fn swsusp_arch_resume
 xor %eax, %eax
 ret
end swsusp_arch_resume
fn hibernation_restore
 ret
end hibernation_restore
""",
    "snapshot": """
fn snapshot_write_next
 mov (%rdi), %rax
 ret
end snapshot_write_next
""",
    "header": """
fn arch_hibernation_header_restore
 movabs $0x23456789abcdef02, %rax
 cmp %rax, 0x18(%rdi)
 jne 1f
 call crc32_le
 xor %eax, %eax
 ret
1: mov $-22, %eax
 ret
end arch_hibernation_header_restore
fn crc32_le
 ret
end crc32_le
""",
    "data": """
.section .rodata, "a"
.globl linux_banner
linux_banner: .asciz "Linux version 6.1.0-made (a@b) (gcc) #1 SMP\\n"
.data
.balign 8
.globl smp_ops
.type smp_ops, @object
.size smp_ops, 0x20
smp_ops: .quad 0, 0, native_play_dead, 0
obj init_task, 8
obj boot_cpu_data, 64
obj cpu_smt_control, 4
obj nr_cpu_ids, 4
obj enable_start_cpu0, 4
obj __cpu_online_mask, 64
obj __cpu_present_mask, 64
obj apic, 8
.section percpu, "aw"
.globl __per_cpu_start
__per_cpu_start:
obj fixed_percpu_data, 64
obj this_cpu_off, 8
obj cpu_number, 4
.balign 64
obj mwait_cpu_dead, 64
""",
}


@functools.cache
def _linked(source: str) -> bytes:
    """Assemble and link; tests ask for the same kernel as it is, with symbols taken away, and again."""
    with tempfile.TemporaryDirectory() as name:
        made, kernel = Path(name) / "made.o", Path(name) / "vmlinux"
        subprocess.run(["as", "--64", "-o", made, "-"], input=source, text=True, check=True)
        link = ["-Ttext=0xffffffff81000000", "-Tdata=0xffffffff82000000", "--section-start=percpu=0"]
        link += ["--section-start=.rodata=0xffffffff83000000", "-z", "max-page-size=4096", "--no-warn-rwx-segments"]
        subprocess.run(["ld", *link, "-e", "0", "-o", kernel, made], check=True, stderr=subprocess.DEVNULL)
        return kernel.read_bytes()


class MadeKernels:
    """Makes kernels out of `PARTS`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._count = 0

    def path(self, *, strip: Iterable[str] = (), extra: str = "", **parts: str) -> str:
        """Assemble and link; ``parts`` replace those of the same name, an empty one drops it."""
        self._count += 1
        kernel = self._directory / f"vmlinux-{self._count}"
        kernel.write_bytes(_linked(MACROS + "\n.text\n" + "\n".join({**PARTS, **parts}.values()) + "\n.text\n" + extra))
        remove = [argument for name in strip for argument in ("-N", name)]
        if remove:
            subprocess.run(["objcopy", *remove, kernel], check=True)
        return str(kernel)

    def traits(self, **parts):
        """The traits of such a kernel."""
        with open_kernel(self.path(**parts)) as kernel:
            return read_traits(kernel)

    def value(self, name, **parts):
        """The value of one trait of such a kernel."""
        with open_kernel(self.path(**parts)) as kernel:
            return getattr(traits_on_demand(kernel), name).value

    def program(self, **parts) -> Program:
        """Its code."""
        return Program(open_kernel(self.path(**parts)))


@pytest.fixture
def made(tmp_path):
    """Make kernels from assembly; skips where there are no binutils."""
    if not all(shutil.which(tool) for tool in ("as", "ld", "objcopy")):
        pytest.skip("binutils (as, ld, objcopy) are needed to make kernels")
    return MadeKernels(tmp_path)
