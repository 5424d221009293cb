"""The one reader of PE programs and of Linux's setup header."""

from __future__ import annotations

import struct

import pytest

from hibercheck.files.pe import SETUP_SIZE, read_program, read_setup_header, signed_fields
from tests.support.wrappers import bzimage, summed, uki


def reader(data):
    return lambda offset, size: data[offset : offset + size]


def sections(data):
    found = read_program(reader(data)).sections
    return {name: data[place.offset : place.offset + place.size] for name, place in found.items()}


def test_sections_without_what_fills_them_up():
    made = {".osrel": b"ID=x\n", ".cmdline": b"quiet", ".linux": b"\x7fELF" + bytes(600)}
    assert sections(uki(made)) == made


def test_more_sections_than_a_page_of_headers_holds():
    made = {f".s{number}": bytes([number]) for number in range(150)} | {".linux": b"kernel"}
    assert sections(uki(made)) == made


def test_of_several_profiles_the_first():
    """A profile's own sections come before those of all profiles; the next profile's are of no concern."""
    shared = {".osrel": b"ID=x", ".cmdline": b"shared", ".linux": b"kernel"}
    first = ((".profile", b"ID=main"), (".cmdline", b"main"))
    second = ((".profile", b"ID=rescue"), (".cmdline", b"rescue"), (".initrd", b"more"))
    expected = {**shared, ".profile": b"ID=main", ".cmdline": b"main"}
    assert sections(uki(shared, more=(*first, *second))) == expected


@pytest.mark.parametrize("size", [0, 1, 0x3F, 0x40, 0x80, 0x83, 0x97])
def test_cut_before_the_sections(size):
    assert read_program(reader(uki({".linux": b"x"})[:size])) is None


def test_cut_in_the_sections():
    data = uki({".a": b"x", ".linux": b"x"})
    table = 0x80 + 24 + 240
    found = read_program(reader(data[: table + 50]))
    assert (found.cut, found.table, list(found.sections)) == (True, table, [".a"])
    assert not read_program(reader(data)).cut


def test_fields_that_a_signature_changes():
    image = summed(bzimage(b"payload"))
    signed = summed(bzimage(b"payload"), signed=True)
    (checksum, four), (certificates, eight) = signed_fields(reader(image))
    changed = {at for at, (one, other) in enumerate(zip(image, signed, strict=False)) if one != other}
    assert changed <= {*range(checksum, checksum + four), *range(certificates, certificates + eight)}
    assert changed >= {checksum, certificates}
    assert image[checksum : checksum + four] == bytes(4)
    assert image[certificates : certificates + eight] == bytes(8)


@pytest.mark.parametrize(
    "data",
    [b"", b"MZ", b"\x7fELF" + bytes(200), b"MZ" + bytes(200), summed(bzimage(b"x"))[:0x400], uki({".linux": b"x"})],
)
def test_no_such_fields(data):
    """In a PE program for 32 bits they are elsewhere; the one that is made here does not say which it is."""
    assert signed_fields(reader(data)) == ()


def test_no_program():
    assert read_program(reader(b"MZ" + bytes(200))) is None
    assert read_program(reader(b"\x7fELF" + bytes(200))) is None


def test_the_setup_header():
    head = bytearray(bzimage(b"payload", size=None))
    struct.pack_into("<Q", head, 0x258, 0x1000000)
    found = read_setup_header(bytes(head))
    assert (found.long_mode, found.alignment, found.setup, found.preferred) == (True, 0x200000, 512 * 5, 0x1000000)
    start, length = found.payload
    assert head[start : start + length] == b"payload"
    assert found.summed is None
    struct.pack_into("<I", head, 0x1F4, 3)
    assert read_setup_header(bytes(head)).summed == 512 * 5 + 48
    struct.pack_into("<I", head, 0x1F4, 0)
    head[0x1F1] = 0  # "for backwards compatibility, if the setup_sects field contains 0, the real value is 4"
    assert read_setup_header(bytes(head)) == found


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (0x204, (True, None, False, None)),
        (0x205, (True, 0x200000, False, None)),
        (0x208, (True, 0x200000, True, None)),
        (0x20A, (True, 0x200000, True, 0)),
        (0x20C, (False, 0x200000, True, 0)),
    ],
)
def test_a_field_is_read_where_the_protocol_has_it(version, expected):
    found = read_setup_header(bzimage(b"payload", version=version, flags=0))
    assert (found.long_mode, found.alignment, found.payload is not None, found.preferred) == expected


def test_an_alignment_that_makes_no_sense():
    for value in (0, 3, 0x300000):
        head = bytearray(bzimage(b""))
        struct.pack_into("<I", head, 0x230, value)
        assert read_setup_header(bytes(head)).alignment is None


def test_no_setup_header():
    head = bzimage(b"")
    assert read_setup_header(head[:SETUP_SIZE]) is not None
    assert read_setup_header(head[: SETUP_SIZE - 1]) is None
    assert read_setup_header(bytes(SETUP_SIZE)) is None
