"""A kernel with types: members stand where the types say, and nowhere else, whatever is usual."""

from __future__ import annotations

import pytest

from hibercheck.kernel.code.model import IdleState
from hibercheck.kernel.code.traits import read_traits
from hibercheck.kernel.kernel import open_kernel
from tests.kernel.code.conftest import PARTS
from tests.support.btf_writer import INT, STRUCT, Type, write_btf


def types(**structures):
    """Return assembly of a section that declares structures: (size, {member: offset})."""
    declared = [Type(INT, "int", 4)]
    declared += [
        Type(STRUCT, name, size, tuple((member, 1, 8 * at) for member, at in members.items()))
        for name, (size, members) in structures.items()
    ]
    data = ", ".join(map(str, write_btf(declared)))
    return f'.section .BTF, "a"\n.byte {data}\n.text\n'


def traits_of(made, extra="", structures=None, **parts):
    with open_kernel(made.path(extra=types(**(structures or {})) + extra, **parts)) as kernel:
        return read_traits(kernel)


@pytest.mark.parametrize(("at", "found"), [(1, ("AMD", "Hygon")), (2, ()), (5, ())])
def test_the_vendor_is_where_the_types_have_it(made, at, found):
    """The code looks at byte 1 of boot_cpu_data; without types that, or byte 2, would be taken for it."""
    assert traits_of(made, structures={"cpuinfo_x86": (64, {"x86_vendor": at})}).mwait_vendor_check.value == found
    assert traits_of(made, structures={"cpuinfo_x86": (64, {"other": at})}).mwait_vendor_check.value == ("AMD", "Hygon")


@pytest.mark.parametrize(("at", "replaces"), [(0x10, True), (8, False)])
def test_play_dead_is_where_the_types_have_it(made, at, replaces):
    found = traits_of(made, structures={"smp_ops": (32, {"play_dead": at})})
    assert found.replaces_play_dead.value is replaces


@pytest.mark.parametrize(("word", "native"), [
    ("native_play_dead", "native_play_dead"), ("play_dead_common", None), ("0", "native_play_dead"),
    ("0x1234", "native_play_dead"), ("0xffffffff7fffffff", "native_play_dead"), ("init_task", None),
])  # fmt: skip
def test_what_smp_ops_holds_counts_if_it_is_in_the_kernel(made, word, native):
    """Memory that is written at boot holds no address in the file: then it is native_play_dead by its name."""
    data = PARTS["data"].replace("smp_ops: .quad 0, 0, native_play_dead, 0", f"smp_ops: .quad 0, 0, {word}, 0")
    found = traits_of(made, structures={"smp_ops": (32, {"play_dead": 0x10})}, data=data)
    assert bool(found.loops("native", "mwait")) is (native is not None)


@pytest.mark.parametrize(("structures", "cpu0"), [
    ({"pcpu_hot": (64, {"cpu_number": 12})}, True), ({"pcpu_hot": (64, {"cpu_number": 20})}, False),
    ({"pcpu_hot": (64, {"other": 20})}, True),
])  # fmt: skip
def test_the_cpu_s_number_is_where_the_types_have_it(made, structures, cpu0):
    """pcpu_hot.cpu_number, from 6.2 to 6.14; what only CPU 0 does is not part of the loop."""
    native = PARTS["native"].replace("%gs:cpu_number(%rip)", "%gs:pcpu_hot+12(%rip)")
    extra = '.section percpu, "aw"\n.balign 64\nobj pcpu_hot, 64\n.text\n'
    (loop,) = traits_of(made, extra, structures, native=native, strip=("cpu_number",)).loops("native", "mwait")
    assert any(touch.symbol == "enable_start_cpu0" for touch in loop.touches) is not cpu0


def test_the_size_of_an_entry_area_is_that_of_its_type(made):
    code = "fn get_cpu_entry_area\n imul $0x3b000, %rdi, %rax\n ret\nend get_cpu_entry_area\n"
    assert traits_of(made, code).cea_size.value == 0x3B000
    found = traits_of(made, code, {"cpu_entry_area": (0x3C000, {"gdt": 0})}).cea_size
    assert (found.value, found.evidence[0].text) == (0x3C000, "0x3c000 bytes")


STATE = {"name": 0, "flags": 84, "exit_latency": 88, "enter": 96}


def state(name, hint, flags, latency):
    """A struct cpuidle_state of 112 bytes with members at places of their own."""
    enter = "hlt_play_dead" if name else "0"
    return (
        f' .ascii "{name}"\n .zero {84 - len(name)}\n .long {hint << 24 | flags:#x}, {latency}, 0xffffffff\n'
        f" .quad {enter}, 0x1111\n"
    )


@pytest.mark.parametrize("acpi", [0, 1])
def test_idle_states_and_their_use_of_acpi_are_where_the_types_have_them(made, acpi):
    extra = f"""
fn intel_idle_init
 ret
end intel_idle_init
fn start_kernel
 ret
end start_kernel
.data
.balign 8
deep: {state("C1", 0, 0, 2)}{state("C6", 0x20, 8, 133)} .zero 112
cpu: .quad deep, 0
 .byte 1, 1, 1, {acpi}, 1, 1, 1, 1
.globl intel_idle_ids
intel_idle_ids: .word 0, 6, 60, 0, 0, 0, 0, 0
 .quad cpu
 .zero 24
.text
"""
    structures = {"cpuidle_state": (112, STATE), "idle_cpu": (24, {"use_acpi": 19})}
    found = traits_of(made, extra, structures).intel_idle
    assert found.value is not None, found.reason
    assert found.value.tables == ((IdleState("C1", 0, 2, True), IdleState("C6", 0x20, 133, False)),)
    assert found.value.models[0].acpi is bool(acpi)
