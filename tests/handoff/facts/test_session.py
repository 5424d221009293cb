"""When, where and since which boot: out of the images of real kernels, and none of it made up."""

from __future__ import annotations

import struct
from types import SimpleNamespace

import pytest

from hibercheck.errors import MissingFact
from hibercheck.handoff.facts.session import read_session, rfc3339, session_of, shown_time
from hibercheck.swsusp.image import open_image

TIMES = {
    "images/66a25b5b9c.bin.xz": "2026-11-22T17:03:39Z",  # 7.3: timekeeper_data
    "images/5cfca45430.bin.xz": "2026-11-22T17:04:24Z",  # 6.12: tk_core
    "images/b9e5b9779f.bin.xz": "2026-11-22T16:56:55Z",
    "images/18e790bff4.bin.xz": "2026-11-22T17:20:03Z",  # KASLR, no BTF
}


@pytest.mark.parametrize("name", TIMES)
def test_when_it_was_written(unpacked, name):
    with open_image(str(unpacked(name))) as image:
        found = session_of(image)
    assert rfc3339(found.written) == TIMES[name]
    assert (found.node, found.boot_id) == (None, None)  # a busybox without a host name, and nobody asked for the id


def test_a_kernel_whose_symbols_are_not_there(committed):
    with open_image(committed("refused")["image"]) as image:
        found = session_of(image)
    assert (found.written, found.node, found.boot_id) == (None, None, None)


class Space:
    """Memory of a kernel by symbol."""

    def __init__(self, **memory):
        self._memory = memory
        self.kernel = SimpleNamespace(symbol=lambda name: name if name in memory else None)

    def address(self, symbol):
        return symbol

    def read(self, symbol, size):
        if symbol not in self._memory:
            raise MissingFact(symbol)
        return self._memory[symbol][:size].ljust(size, b"\0")


def timekeeper(*words):
    return struct.pack(f"<{len(words)}Q", *words)


@pytest.mark.parametrize("before", range(6))
@pytest.mark.parametrize("between", range(9))
def test_wherever_the_seconds_are(before, between):
    now = 1_800_000_123
    data = timekeeper(*[0xFFFF888012345678] * before, now * 10**9, *[1_700_000_000] * between, now, 7)
    assert read_session(Space(tk_core=data)).written == now


@pytest.mark.parametrize(
    "data",
    [
        b"",
        timekeeper(0),
        timekeeper(1_800_000_123, 1_800_000_123 * 10**9),  # the wrong order
        timekeeper(1_800_000_123 * 10**9 + 1, 1_800_000_123),
        timekeeper(5 * 10**9, 5),  # a clock that was never set
    ],
)
def test_what_is_no_time_is_not_told(data):
    assert read_session(Space(tk_core=data)).written is None


def test_name_and_boot_id():
    names = b"\1\0\0\0\0\0\0\0" + b"Linux".ljust(65, b"\0") + b"tulip\x1b[2J".ljust(65, b"\0") + b"6.1".ljust(65, b"\0")
    found = read_session(Space(init_uts_ns=names, sysctl_bootid=bytes(range(16))))
    assert found.node == "tulip[2J"
    assert found.boot_id == "00010203-0405-0607-0809-0a0b0c0d0e0f"
    assert shown_time(1_800_000_123) == "2027-01-15 08:02:03 UTC"
