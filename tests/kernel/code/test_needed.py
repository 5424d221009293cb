"""What the handoff asks of a kernel is in a summary of it, with the value that the kernel gives."""

from __future__ import annotations

import json

import pytest

from hibercheck.kernel.code.facts import FactsKernel, facts_of
from hibercheck.kernel.code.needed import MEMBERS, SIZES, SYMBOLS, TEXT
from hibercheck.kernel.kernel import open_kernel
from tests.support.btf_writer import INT, STRUCT, Type, write_btf

ASKED = {
    # arch/x86/include/asm/processor.h
    "cpuinfo_x86": (
        "x86_vendor", "x86_vendor_id", "x86", "x86_model", "x86_capability", "cpuid_level", "x86_phys_bits",
        "x86_virt_bits",
    ),
    "cpuidle_driver": ("name", "states", "state_count"),  # include/linux/cpuidle.h
    "cpuidle_state": ("enter_dead", "flags"),
    "acpi_processor_cx": ("entry_method", "address"),  # include/acpi/processor.h
    "pcpu_hot": ("cpu_number",),  # arch/x86/include/asm/current.h, v6.2 to v6.14
    "pglist_data": ("node_present_pages",),  # include/linux/mmzone.h
    "kmem_cache": ("name",),  # include/linux/slub_def.h, mm/slab.h
    "smp_ops": ("play_dead",),  # arch/x86/include/asm/smp.h
}  # fmt: skip
SIZED = ("cpuinfo_x86", "cpuidle_driver", "cpuidle_state", "cpu_entry_area")
"""What stands in arrays, and the area that each CPU has one of."""
FIRST_BYTES = (
    "restore_registers", "asm_exc_nmi", "asm_exc_machine_check", "asm_exc_page_fault", "asm_exc_double_fault",
    "exc_nmi", "exc_machine_check", "paranoid_entry", "paranoid_exit",
    "nmi", "do_nmi", "machine_check", "do_mce", "do_machine_check",  # before v5.8
    "asm_fred_entrypoint_user", "asm_fred_entrypoint_kernel",
    "fred_entry_from_kernel", "fred_exc_nmi", "fred_exc_machine_check",
)  # fmt: skip


@pytest.fixture
def both(made):
    """A kernel with types and functions, and the summary of it."""
    structures = {**ASKED, "cpu_entry_area": ("gdt",), "task_struct": ("stack",)}
    types = [Type(INT, "int", 4)]
    for number, (name, members) in enumerate(structures.items(), start=1):
        places = tuple((member, 1, 8 * (100 * number + 4 * place)) for place, member in enumerate(members))
        types.append(Type(STRUCT, name, 100 * number + 64, places))
    data = ", ".join(map(str, write_btf(types)))
    functions = "".join(f"fn {name}\n mov $0x{number:x}, %eax\n ret\nend {name}\n"
                        for number, name in enumerate(FIRST_BYTES, start=0x4711))  # fmt: skip
    functions = functions.replace("end exc_nmi\n", ".skip 0x1100, 0x90\nend exc_nmi\n")
    with open_kernel(made.path(extra=f'{functions}.section .BTF, "a"\n.byte {data}\n.text\n')) as kernel:
        yield kernel, FactsKernel("kernel.json", json.loads(json.dumps(facts_of(kernel))))


@pytest.mark.parametrize(("struct", "member"), [(one, member) for one, members in ASKED.items() for member in members])
def test_a_member_is_kept(both, struct, member):
    kernel, kept = both
    assert kept.offset_of(struct, member) == kernel.offset_of(struct, member) > 0
    assert kept.has_member(struct, member)


@pytest.mark.parametrize("struct", SIZED)
def test_a_size_is_kept(both, struct):
    kernel, kept = both
    assert kept.size_of(struct) == kernel.size_of(struct) > 0


@pytest.mark.parametrize("name", FIRST_BYTES)
def test_the_first_bytes_of_a_function_are_kept(both, name):
    kernel, kept = both
    address = kept.require(name).address
    assert kept.read(address, 6) == kernel.read(address, 6)


def test_a_function_is_kept_beyond_its_first_page_as_far_as_a_page_is_long(both):
    kernel, kept = both
    address = kept.require("exc_nmi").address
    assert address % 0x1000
    assert kept.read(address, 0x1000) == kernel.read(address, 0x1000)


def test_nothing_else_is_kept():
    """What is in no list above is asked by nobody, and would only make summaries larger."""
    assert {(struct, member) for struct, members in ASKED.items() for member in members} == MEMBERS
    assert set(SIZED) == SIZES
    assert set(FIRST_BYTES) == TEXT


@pytest.mark.parametrize(("name", "place"), [
    ("restore_registers", "image"), ("native_play_dead", "image"), ("acpi_idle_play_dead", "image"),
    ("init_top_pgt", "page"), ("level4_kernel_pgt", "page"), ("level2_kernel_pgt", "page"),
    ("mwait_cpu_dead", "percpu"), ("cpu_number", "percpu"), ("gdt_page", "percpu"),
])  # fmt: skip
def test_where_a_symbol_can_be(name, place):
    """Page tables may be on a page beyond the image; per-CPU objects are linked from 0, or after the data."""
    assert SYMBOLS[name] == place
