from __future__ import annotations

import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hibercheck.dump.dump import open_dump
from hibercheck.dump.flattened import Flattened
from hibercheck.errors import MalformedDump

A = bytes([0xA1]) * 4096


class Bytes:
    path = "stream"

    def __init__(self, content):
        self.content = content
        self.size = len(content)

    def read(self, offset, size, what="data"):
        if offset + size > self.size:
            raise MalformedDump("outside", path=self.path)
        return self.content[offset : offset + size]

    def close(self):
        pass


def flatten(blocks, *, end=True):
    stream = struct.pack(">16sqq", b"makedumpfile", 1, 1).ljust(4096, b"\0")
    for offset, content in blocks:
        stream += struct.pack(">qq", offset, len(content)) + content
    return stream + (struct.pack(">qq", -1, -1) if end else b"")


blocks = st.lists(st.tuples(st.integers(0, 60), st.binary(max_size=30)), max_size=12)


@settings(max_examples=500, deadline=None)
@given(blocks, st.data())
def test_it_reads_as_the_file_that_the_writes_would_make(written, data):
    size = max((offset + len(content) for offset, content in written if content), default=0)
    expected = bytearray(size)
    for offset, content in written:
        if content:
            expected[offset : offset + len(content)] = content
    flattened = Flattened(Bytes(flatten(written)))
    assert flattened.size == size
    start = data.draw(st.integers(0, size))
    length = data.draw(st.integers(0, size - start))
    assert flattened.read(start, length) == expected[start : start + length]
    assert flattened.read(0, size) == expected
    with pytest.raises(MalformedDump, match="outside the dump"):
        flattened.read(start, size - start + 1)


@pytest.mark.parametrize("kind", ["elf", "kdump"])
def test_dumps_within(write, writers, kind):
    content = writers.elf_core([(0, A)]) if kind == "elf" else writers.kdump({0: A}, b"", b"A=B")
    pieces = [(place, content[place : place + 1000]) for place in range(0, len(content), 1000)]
    with open_dump(write(flatten([(0, bytes(50)), *reversed(pieces)]))) as dump:
        assert dump.frame(0) == A


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 200), st.sampled_from([b"\xff", b"\x7f", b"\x80", b"\0"]))
def test_damaged_block_headers_end_in_one_error(place, byte):
    stream = bytearray(flatten([(0, b"abc"), (10, b"defg")]))
    place = 4096 + place % (len(stream) - 4096)
    stream[place : place + 1] = byte
    try:
        flattened = Flattened(Bytes(bytes(stream)))
    except MalformedDump:
        return
    if flattened.size < 1 << 20:
        assert len(flattened.read(0, flattened.size)) == flattened.size


def test_cut_and_unknown_streams():
    with pytest.raises(MalformedDump):
        Flattened(Bytes(flatten([(0, b"abc")], end=False)))
    with pytest.raises(MalformedDump, match="block of 9999 bytes"):
        Flattened(Bytes(flatten([], end=False) + struct.pack(">qq", 0, 9999) + b"x"))
    stream = bytearray(flatten([]))
    stream[23] = 7
    with pytest.raises(MalformedDump, match="unknown type 7"):
        Flattened(Bytes(bytes(stream)))
