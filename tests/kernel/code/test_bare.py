"""Kernels that list only their code, as tests/lab/kernels/bare.sh built them: fixtures/kernels/bare-*.bzImage."""

from __future__ import annotations

from pathlib import Path

import pytest

from hibercheck.handoff.facts.kernels import open_resumer
from hibercheck.kernel.code.traits import read_traits
from hibercheck.kernel.kernel import open_kernel

KERNELS = Path(__file__).resolve().parents[3] / "fixtures" / "kernels"

BOTH = {
    "play_dead_order": ("mwait", "cpuidle", "hlt"),
    "enter_dead": ("acpi_idle:hlt", "acpi_idle:port_io"),
    "mwait_vendor_check": ("AMD", "Hygon"),
    "monitored": "percpu:mwait_cpu_dead",
    "kick_value": 0x4A17DEAD,
    "idle_drivers": ("intel_idle:builtin", "acpi_idle:builtin", "haltpoll:builtin"),
    "parallel_bringup": True,
    "parallel_switch": True,
    "builtin_cmdline": "nosmt quiet",
    "physical_align": 0x1000000,
    "randomize_base": True,
    "randomize_memory": True,
    "la57": True,
    "cea_random": True,
    "cea_size": 0x3B000,
    "fred": False,
}
HIBERNATES = {
    "hibernation": True,
    "rescues_offline": True,
    "rescue_needs_primary": False,
    "rescue_needs_node": True,
    "freeze_order": "descending",
    "replaces_play_dead": True,
    "resume_park": "hlt",
    "sends_init": False,
    "nosmt_resume_targets": "present",
    "compressors": ("lzo:builtin", "lz4:builtin"),
    "zero_pages": True,
    "hw_sig": True,
    "e820_check": "crc32",
    "refuses_while": (),
    "locked_down_by": (),
}
OF = {
    "bare-prepended": BOTH | HIBERNATES | {"builtin_cmdline_overrides": False, "bootconfig": "always"},
    "bare-replaced": BOTH
    | {"hibernation": False, "builtin_cmdline_overrides": True, "bootconfig": "if asked for", "rescues_offline": None},
}
STACKS = {1: 3, 2: 2, 8: 1, 18: 4}


@pytest.mark.parametrize("name", sorted(path.name.removesuffix(".bzImage") for path in KERNELS.glob("bare-*.bzImage")))
def test_traits(name):
    with open_kernel(str(KERNELS / f"{name}.bzImage")) as kernel:
        traits = read_traits(kernel)
        assert kernel.supplemented
        assert "#1 SMP" in kernel.banner
    values = {one.name: one.value for one in traits}
    assert {trait: values[trait] for trait in OF[name]} == OF[name]
    assert {gate.vector: gate.ist for gate in traits.idt_gates.value if gate.ist} == STACKS
    assert len(traits.intel_idle.value.models) == 51  # 50 of intel_idle_ids, and intel_mwait_ids
    assert {(loop.role, loop.kind) for loop in traits.park_loops} >= {("native", "hlt"), ("native", "mwait")}


def test_it_can_be_opened_as_a_resumer():
    with open_resumer(str(KERNELS / "bare-prepended.bzImage"), None) as kernel:
        for name in ("init_top_pgt", "level4_kernel_pgt", "gdt_page", "_end", "mwait_cpu_dead", "linux_banner"):
            assert kernel.symbol(name) is not None


def test_without_section_headers(tmp_path):
    """As a kernel in libkrunfw is: nothing says where .altinstr_aux is, through which native_play_dead jumps."""
    with open_kernel(str(KERNELS / "bare-prepended.bzImage")) as kernel:
        whole, data = read_traits(kernel), bytearray(kernel.elf.data[:])
    data[0x28:0x30] = bytes(8)  # e_shoff
    data[0x3C:0x40] = bytes(4)  # e_shnum, e_shstrndx
    path = tmp_path / "vmlinux"
    path.write_bytes(data)
    with open_kernel(str(path)) as kernel:
        assert kernel.elf.sections == ()
        bare = read_traits(kernel)
    for one, other in zip(whole, bare, strict=True):
        assert other.value == one.value or one.name == "physical_align", f"{one.name}: {other.reason}"
    assert [loop.ranges for loop in bare.park_loops] == [loop.ranges for loop in whole.park_loops]
