"""Traits of kernels from other compilers and with other settings: fixtures/compilers/, described in its README."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from hibercheck.kernel.code.traits import Traits, read_traits
from hibercheck.kernel.kernel import open_kernel
from tests.support.unpacked import plain_path

TEXT = 0xFFFFFFFF81000000
KERNELS = Path(__file__).resolve().parents[3] / "fixtures" / "compilers"
OLD = {
    "play_dead_order": ("mwait", "cpuidle", "hlt"),
    "mwait_vendor_check": ("AMD", "Hygon"),
    "rescue_needs_primary": False,
    "freeze_order": "ascending",
    "rescans_dead_siblings": False,
    "zero_pages": False,
}
NEW = {
    "play_dead_order": ("cpuidle", "hlt"),
    "mwait_vendor_check": (),
    "rescue_needs_primary": True,
    "freeze_order": "descending",
    "rescans_dead_siblings": True,
    "zero_pages": True,
}
ALWAYS = {
    "hibernate_disable_hook": True,
    "rescues_offline": True,
    "replaces_play_dead": True,
    "resume_park": "hlt",
    "sends_init": False,
    "monitored": "percpu:mwait_cpu_dead",
    "kick_value": 0x4A17DEAD,
    "reparks_siblings_after_resume": True,
    "hw_sig": True,
    "arch_record_magic": 0x23456789ABCDEF02,
    "e820_check": "crc32",
    "la57": True,
    "randomize_memory": True,
}
ENTER_DEAD = {
    "6.1": {"acpi_idle:hlt", "acpi_idle:port_io"},
    "7.3": {"acpi_idle:hlt", "acpi_idle:port_io", "acpi_idle:mwait", "intel_idle:mwait"},
}


def names() -> list[str]:
    return sorted(path.name.removesuffix(".vmlinux.xz") for path in KERNELS.glob("*.vmlinux.xz"))


def traits_of(name: str) -> Traits:
    with open_kernel(plain_path(KERNELS / f"{name}.vmlinux.xz")) as kernel:
        return read_traits(kernel)


@pytest.mark.parametrize("name", names())
def test_traits_do_not_depend_on_the_compiler(name: str) -> None:
    traits = traits_of(name)
    expected = ALWAYS | (OLD if name.startswith("6.1") else NEW)
    assert {one: getattr(traits, one).value for one in expected} == expected
    assert set(traits.enter_dead.value or ()) == ENTER_DEAD[name[:3]]
    assert {gate.vector: gate.ist for gate in traits.idt_gates.value or () if gate.ist} == {1: 3, 2: 2, 8: 1, 18: 4}
    assert all(loop.incomplete is None for loop in traits.park_loops)
    role = "native" if name.startswith("6.1") else "cpuidle"
    for loop in traits.loops(role, "mwait"):
        assert loop.line
        assert any(one.text.startswith("monitor") for one in loop.instructions)
    assert any(loop.kind == "hlt" for loop in traits.loops(role, after_kick=True))


def test_there_are_kernels_of_both_compilers() -> None:
    assert {name.split("-")[1].rstrip("0123456789") for name in names()} == {"clang", "gcc"}


def test_the_first_mwait_of_a_clang_kernel_is_where_a_cpu_waits() -> None:
    (loop,) = traits_of("6.1-clang16-lto").loops("native", "mwait")
    # The copy of the first turn: MWAIT, a jump into the loop; then the loop, with its own MWAIT.
    waits = [one.address for one in loop.instructions if one.text.startswith("mwait")]
    assert waits == [loop.wait, 0xFFFFFFFF8104986C]
    assert loop.wait == 0xFFFFFFFF81049846
    assert loop.ranges == ((0xFFFFFFFF81049846, 0xFFFFFFFF8104984B), (0xFFFFFFFF81049850, 0xFFFFFFFF81049884))


def test_symbols_without_sizes_say_the_same(tmp_path: Path) -> None:
    """What LLD fills the gap after a function with belongs to that function, by a list without sizes."""
    path = plain_path(KERNELS / "6.1-clang16-lto.vmlinux.xz")
    listed = tmp_path / "System.map"
    with open_kernel(str(path)) as kernel:
        listed.write_text("".join(f"{one.address:x} {one.letter} {one.name}\n" for one in kernel.source))
        told = {one.name: one.value for one in read_traits(kernel)}
    with open_kernel(str(path), symbols=str(listed)) as kernel:
        assert {one.name: one.value for one in read_traits(kernel)} == told


def code_only(name: str, directory: Path) -> tuple[Path, Path]:
    """A kernel without its symbol table, and a list of its functions.

    What is not compiled is a function there, data too, such as init_task, by which a kernel that lists data is known.
    """
    data = bytearray(Path(plain_path(KERNELS / f"{name}.vmlinux.xz")).read_bytes())
    path, listed = directory / "vmlinux", directory / "System.map"
    path.write_bytes(data)
    with open_kernel(str(path)) as kernel:
        kept = [
            one for one in kernel.source if one.letter in "tTwW" and one.name not in ("_text", "init_task", "smp_ops")
        ]
        sections = [one.name for one in kernel.elf.sections]
    (table,) = struct.unpack_from("<Q", data, 0x28)
    struct.pack_into("<I", data, table + 64 * sections.index(".symtab") + 4, 0)  # SHT_NULL
    path.write_bytes(data)
    lines = [f"{one.address:x} {one.letter} {one.name}\n" for one in sorted(kept, key=lambda one: one.address)]
    listed.write_text(f"{TEXT:x} T _text\n{''.join(lines)}")
    return path, listed


@pytest.mark.parametrize("name", [name for name in names() if not name.endswith("lto")])
def test_symbols_of_code_only_say_the_same(tmp_path: Path, name: str) -> None:
    """As without CONFIG_KALLSYMS_ALL; of `lto` only is left what its own symbols lead to."""
    path, listed = code_only(name, tmp_path)
    whole = traits_of(name)
    with open_kernel(str(path), symbols=str(listed)) as kernel:
        bare = read_traits(kernel)
        assert kernel.supplemented
    for one, other in zip(whole, bare, strict=True):
        if one.name != "physical_start":  # _text is not linked
            assert other.value == one.value, f"{one.name}: {other.reason}"
    assert [(loop.kind, loop.ranges) for loop in bare.park_loops] == [
        (one.kind, one.ranges) for one in whole.park_loops
    ]
