"""The dumps of the measured cases: registers against the truth, tables against themselves, events against QEMU."""

from __future__ import annotations

import json
import struct

import pytest

from hibercheck.dump.dump import open_dump
from hibercheck.swsusp.image import open_image
from hibercheck.x86.cpu import CpuState, infer_efer
from hibercheck.x86.emulator import GENERAL_REGISTERS
from hibercheck.x86.exceptions import DeliveryEnd, deliver
from hibercheck.x86.execute import ExecutionEnd, cached_tables, execute
from hibercheck.x86.memory import LayeredMemory
from hibercheck.x86.paging import Access, PageFaultCode, walk

CASES = ("kaslr-nosmt-hlt-small", "nosmt-hlt-deb61", "nosmt-hlt-same-build", "stock612-resumes-61-offline-nmi")


@pytest.fixture(params=CASES)
def case(request, shared_cases):
    cases = json.loads((shared_cases / "cases.json").read_text())["cases"]
    return next(case for case in cases if case["name"] == request.param)


@pytest.fixture
def dump(case, unpacked):
    with open_dump(str(unpacked(case["memory"]))) as opened:
        yield opened


@pytest.fixture
def image(case, unpacked):
    with open_image(str(unpacked(case["image"]))) as opened:
        yield opened


def cpu_state(dump, number):
    registers = dump.cpus[number]
    return CpuState.of(registers, efer=infer_efer(dump, registers), max_phys_bits=40)


def qemu_code(code):
    """QEMU 7.2 leaves P clear where it sets RSVD; the SDM and later versions set both."""
    return None if code is None else code & ~PageFaultCode.P if code & PageFaultCode.RSVD else code


def test_registers_equal_the_truth(case, dump):
    truth = case["truth"]["parked"] + case["truth"]["boot_cpu"]
    assert len(dump.cpus) == len(truth)
    for expected in truth:
        cpu = dump.cpus[expected["cpu"]]
        for name, value in expected.items():
            if name in ("cpu", "efer", "halted"):  # not in QEMU's notes
                continue
            assert getattr(cpu, name) == int(value, 16), name
        assert infer_efer(dump, cpu) == int(expected["efer"], 16)


def leaves(memory, table, level=4, base=0, slots=range(512)):
    """Yield (virtual address, physical address, size) of all present leaf entries, by our own reading."""
    for index, (entry,) in enumerate(struct.iter_unpack("<Q", memory.frame(table >> 12))):
        if not entry & 1 or index not in slots:
            continue
        address = base | index << (3 + 9 * level)
        below = entry & 0xF_FFFF_FFFF_F000
        if level == 1 or (level < 4 and entry & 0x80):
            size = 1 << (3 + 9 * level)
            yield address | (address >> 47 and 0xFFFF << 48), below & ~(size - 1), size
        else:
            yield from leaves(memory, below, level - 1, address)


def test_every_translation_walks_to_itself(dump):
    """All present leaves of the boot CPU's and the AP's tables, at both ends of each page."""
    for number in range(len(dump.cpus)):
        cpu = cpu_state(dump, number)
        count = 0
        for address, physical, size in leaves(dump, cpu.cr3 & ~0xFFF, slots=range(256, 512)):
            for offset in (0, size - 1):
                done = walk(dump, cpu.mode, cpu.cr3, address + offset)
                assert (done.physical, done.page_size) == (physical + offset, size)
            count += 1
        assert count > 100


def test_the_direct_map_is_linear(dump):
    """Every leaf in the direct map lies at its base plus its physical address; the CPUs' own GS bases lie in it."""
    cpu = cpu_state(dump, 1)
    found = list(leaves(dump, cpu.cr3 & ~0xFFF, slots=range(256, 512)))
    own = walk(dump, cpu.mode, cpu.cr3, cpu.gs_base)
    base = cpu.gs_base - own.physical
    ram = next(dump.runs())[1] << 12
    direct = [leaf for leaf in found if base <= leaf[0] < base + ram]
    assert len(direct) > 50
    assert {address - physical for address, physical, _size in direct} == {base}
    assert sum(size for _address, _physical, size in direct) > 100 << 20


def test_an_nmi_before_the_copy_reaches_the_handler(dump):
    for number in range(len(dump.cpus)):
        delivery = deliver(dump, cpu_state(dump, number), 2)
        assert delivery.end is DeliveryEnd.HANDLED
        assert walk(dump, cpu_state(dump, number).mode, dump.cpus[number].cr3, delivery.rip, Access.FETCH).physical


def test_the_parked_cpu_waits_again_before_the_copy(dump):
    pytest.importorskip("unicorn")
    cpu = cpu_state(dump, 1)
    registers = {name: getattr(dump.cpus[1], name) for name in GENERAL_REGISTERS}
    result = execute(dump, cpu, registers, inside=[(cpu.rip - 0x40, cpu.rip + 0x40)])
    assert (result.end, result.agrees) == (ExecutionEnd.WAITS_AGAIN, True)


@pytest.mark.parametrize("case", ["stock612-resumes-61-offline-nmi"], indirect=True)
def test_the_nmi_after_the_copy_dies_as_qemu_logged(case, dump, image):
    delivery = deliver(LayeredMemory([image, dump]), cpu_state(dump, 1), 2)
    logged = [
        (int(vector, 16), int(code, 16), int(rip, 16), int(rsp, 16), int(cr2, 16) if cr2 else None)
        for vector, code, rip, rsp, cr2 in case["truth"]["fault"]["last_exceptions"]
    ]
    start = next(number for number, entry in enumerate(logged) if entry[0] == 2)
    ours = [
        (raised.vector, qemu_code(raised.error_code) or 0, raised.rip, raised.rsp, raised.cr2)
        for raised in delivery.raised
    ]
    assert ours == logged[start:]
    assert delivery.end is DeliveryEnd.SHUTDOWN


@pytest.mark.parametrize("case", ["nosmt-hlt-same-build"], indirect=True)
def test_the_same_build_leaves_the_cpu_where_it_is(dump, image):
    pytest.importorskip("unicorn")
    memory = LayeredMemory([image, dump])
    cpu = cpu_state(dump, 1)
    registers = {name: getattr(dump.cpus[1], name) for name in GENERAL_REGISTERS}
    result = execute(memory, cpu, registers, inside=[(cpu.rip - 0x40, cpu.rip + 0x40)])
    assert (result.end, result.agrees) == (ExecutionEnd.WAITS_AGAIN, True)
    assert deliver(memory, cpu, 2).end is DeliveryEnd.HANDLED


@pytest.mark.parametrize("case", ["nosmt-hlt-deb61"], indirect=True)
def test_another_build_takes_its_loop_away(dump, image):
    pytest.importorskip("unicorn")
    memory = LayeredMemory([image, dump])
    cpu = cpu_state(dump, 1)
    result = execute(memory, cpu, {}, inside=[(cpu.rip - 0x40, cpu.rip + 0x40)])
    assert (result.end, result.agrees, result.cr2) == (ExecutionEnd.FAULTS, True, cpu.rip)
    assert result.delivery.end is DeliveryEnd.SHUTDOWN


@pytest.mark.parametrize("case", ["kaslr-nosmt-hlt-small"], indirect=True)
def test_a_loop_that_is_not_overwritten_lives_as_long_as_its_tlb(dump, image):
    """The truth is that it resumed: tables overwritten, its text not."""
    pytest.importorskip("unicorn")
    memory = LayeredMemory([image, dump])
    cpu = cpu_state(dump, 1)
    registers = {name: getattr(dump.cpus[1], name) for name in GENERAL_REGISTERS}
    inside = [(cpu.rip - 0x40, cpu.rip + 0x40)]
    assert execute(memory, cpu, registers, inside=inside).end is ExecutionEnd.FAULTS
    cached = cached_tables(dump, cpu, [cpu.rip, cpu.rsp, cpu.gs_base])
    result = execute(LayeredMemory([cached, memory]), cpu, registers, inside=inside)
    assert (result.end, result.left) == (ExecutionEnd.WAITS_AGAIN, None)
