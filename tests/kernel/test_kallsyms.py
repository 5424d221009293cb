from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hibercheck.kernel.kallsyms import MemoryBytes, find
from hibercheck.kernel.kernel import open_kernel
from tests.support.effort import ends, steps
from tests.support.kallsyms_writer import LAYOUTS, Layout, write_kallsyms
from tests.support.unpacked import plain_path

BASE = 0xFFFFFFFF81000000
AT = 0xFFFFFFFF82123458


def symbols(count: int, percpu: int) -> list[tuple[int, str, str]]:
    """Symbols with shared addresses, long names and every kind of character."""
    low = [(16 * number, "A", f"percpu_{number}") for number in range(percpu)]
    names = ["_text", "cpu_init", "__hibernate.isra.0", "native_play_dead", "x" * 200, "Rust$LT$T$GT$"]
    high = [
        (
            BASE + 8 * (number // 2),
            "tTdDrRbB"[number % 8],
            f"{names[number % len(names)]}_{number}" if number else "_text",
        )
        for number in range(count - percpu)
    ]
    return low + high


def able(layout: Layout) -> int:
    """How many of the symbols can be per-CPU offsets in this layout."""
    return 40 if layout.addresses in {"percpu", "absolute"} else 0


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
@pytest.mark.parametrize("count", [512, 600, 601, 1500, 4099])
@pytest.mark.parametrize("before", [b"", b"\0" * 64, b"linux" * 321], ids=["start", "zeros", "text"])
def test_recovers_every_layout(layout: Layout, count: int, before: bytes) -> None:
    wanted = symbols(count, able(layout))
    before += bytes(-len(before) % 8)
    data = before + write_kallsyms(wanted, layout, AT + len(before)) + bytes(9000)
    found = find(data, AT)
    assert found is not None
    assert [(one.address, one.letter, one.name) for one in found] == wanted


def test_tables_packed_to_four_bytes() -> None:
    wanted = symbols(777, 0)
    data = bytes(4096) + write_kallsyms(wanted, LAYOUTS[-1], AT + 4096, align=4) + bytes(4096)
    found = find(data, AT)
    assert found is not None
    assert [(one.address, one.letter, one.name) for one in found] == wanted


def test_a_relocated_kernels_own_values() -> None:
    slide = 0x1AC00000
    moved = [(value + slide, letter, name) for value, letter, name in symbols(900, 0)]
    data = bytes(64) + write_kallsyms(moved, LAYOUTS[-1], AT + slide + 64) + bytes(64)
    found = find(data, AT + slide)
    assert found is not None
    assert found.lookup(["_text"])["_text"][0].address == BASE + slide


def test_out_of_memory_with_holes() -> None:
    layout = LAYOUTS[5]
    wanted = symbols(3000, 40)
    start = 0xFFFFFFFF82000000
    at = start + 0x312340
    table = write_kallsyms(wanted, layout, at)
    memory = {}
    image = bytes(at % 4096) + table
    for number in range(0, len(image), 4096):
        memory[at - at % 4096 + number] = image[number : number + 4096].ljust(4096, b"\0")
    asked = []

    def read(address: int, size: int) -> bytes:
        asked.append((address, size))
        return b"".join(memory.get(at, bytes(4096)) for at in range(address, address + size, 4096))

    found = find(MemoryBytes(read, start, start + (8 << 20)), start)
    assert found is not None
    assert [(one.address, one.letter, one.name) for one in found] == wanted
    assert all(not size % 4096 and not address % 4096 for address, size in asked)


def test_nothing_where_there_is_nothing() -> None:
    assert find(b"", AT) is None
    assert find(bytes(1 << 20), AT) is None
    assert find(b"".join(b"%d\0" % digit for digit in range(10)) * 5000, AT) is None


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_descending_addresses_are_refused(layout: Layout) -> None:
    wrong = symbols(600, 0)
    wrong[300] = (BASE - 0x100000, "t", "behind")
    if layout.addresses in {"base", "percpu"}:
        wrong[300] = (BASE + 0x100000, "t", "ahead")
    assert find(bytes(64) + write_kallsyms(wrong, layout, AT + 64) + bytes(64), AT) is None


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damage_never_raises(data: st.DataObject) -> None:
    layout = data.draw(st.sampled_from(LAYOUTS))
    table = bytearray(bytes(32) + write_kallsyms(symbols(700, able(layout)), layout, AT + 32) + bytes(32))
    for _ in range(data.draw(st.integers(1, 8))):
        table[data.draw(st.integers(0, len(table) - 1))] = data.draw(st.integers(0, 255))
    found = find(bytes(table), AT)
    assert found is None or len(found) <= len(table)


def test_a_table_made_to_waste_time_ends() -> None:
    tokens = write_kallsyms(symbols(512, 0), LAYOUTS[-1], AT)
    table = tokens[tokens.index(b"\0!\0") - 40 :]
    bait = struct.pack("<3I", 0, 600, 500) * 200_000
    with ends():
        assert find(bait + table, AT) is None


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 20000))
def test_truncation_never_raises(cut: int) -> None:
    table = write_kallsyms(symbols(700, 40), LAYOUTS[4], AT)
    find(table[:cut], AT)


KERNEL = "kernels/v73-stock.vmlinux.xz"


@pytest.mark.parametrize(
    ("table", "byte"), [("kallsyms_offsets", 162), ("kallsyms_markers", 162), ("kallsyms_names", 0)]
)
def test_a_real_table_with_one_wrong_byte_is_given_up_soon(table: str, byte: int) -> None:
    """Each took four seconds of searching for another table that would fit; now reading as long as a whole one."""
    with open_kernel(plain_path(KERNEL)) as kernel:
        section = kernel.section(".rodata")
        assert section is not None
        data = bytearray(kernel.read(section.address, section.size))
        place = kernel.require(table).address - section.address
    assert find(bytes(data), section.address) is not None
    whole = steps(find, bytes(data), section.address)
    data[place + byte] ^= 0x7F
    assert find(bytes(data), section.address) is None
    assert steps(find, bytes(data), section.address) < 10 * whole
