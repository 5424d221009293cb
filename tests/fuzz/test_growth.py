"""Absurd sizes: each reader's work grows no faster than what it is given, and ends where no real input comes to."""

from __future__ import annotations

import gzip
import json
import resource
import struct
from contextlib import suppress
from pathlib import Path

import pytest

from hibercheck.cpulist import parse_cpu_list
from hibercheck.dump.dump import open_dump
from hibercheck.dump.notes import MAX_COUNT, iter_notes
from hibercheck.errors import HibercheckError, MalformedDump, MalformedKernel
from hibercheck.handoff.facts.resumer_facts import parse_facts
from hibercheck.kernel import kallsyms
from hibercheck.kernel.btf import Btf
from hibercheck.kernel.code.traits import read_traits
from hibercheck.kernel.kernel import open_kernel
from hibercheck.swsusp.image import open_image
from tests.fuzz.targets_image import _pack
from tests.support import btf_writer, elf_writer, kallsyms_writer
from tests.support.effort import ends, steps
from tests.support.image_writer import ImageWriter
from tests.support.wrappers import zstd

STRUCT, TYPEDEF, INT = btf_writer.STRUCT, btf_writer.TYPEDEF, btf_writer.INT
Type = btf_writer.Type


def ask_types(data):
    types = Btf(data, "made")
    for question in (types.offset_of, types.size_of, types.has_member):
        try:
            question("a", "m.n")
        except HibercheckError:
            continue


def many_symbols(count, name=None):
    """A kernel with so many symbols more, all of one name or each of its own."""
    data = bytearray(elf_writer.write_kernel(elf_writer.SYMBOLS))
    start, number = struct.unpack_from("<Q", data, 40)[0], struct.unpack_from("<H", data, 60)[0]
    rows = [list(struct.unpack_from("<IIQQQQIIQQ", data, start + 64 * index)) for index in range(number)]
    table = next(row for row in rows if row[1] == 2)
    strings = rows[table[6]]
    names = (name or b"").join((b"", b"\0")) if name else b"".join(b"f%07d\0" % index for index in range(count))
    first, step = strings[5], 0 if name else 9
    more = b"".join(
        struct.pack("<IBBHQQ", first + step * index, 0x12, 0, 1, elf_writer.TEXT + 16 * (index % 512), 2)
        for index in range(count)
    )
    for row, content in ((table, more), (strings, names)):
        whole = bytes(data[row[4] : row[4] + row[5]]) + content
        row[4], row[5] = len(data), len(whole)
        data += whole
    for index, row in enumerate(rows):
        struct.pack_into("<IIQQQQIIQQ", data, start + 64 * index, *row)
    return bytes(data)


def ask_kernel(path):
    with open_kernel(str(path)) as kernel:
        kernel.symbols(["native_play_dead", "idt_table", "a", "b", "c", "d"])
        kernel.nearest(elf_writer.TEXT + 5)
        read_traits(kernel)


def core(count):
    """An ELF core with so many note segments, all of them the same thousand notes."""
    notes = bytes(12 * 1000)
    body = 64 + 56 * count + 64
    head = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 4, 62, 1, 0, 64, 64 + 56 * count, 0, 64, 56, 0xFFFF, 64, 1, 0
    )
    segments = struct.pack("<IIQQQQQQ", 4, 0, body, 0, 0, len(notes), len(notes), 0) * count
    return head + segments + bytes(44) + struct.pack("<I", count) + bytes(16) + notes


def ask_dump(path):
    with open_dump(str(path)) as dump:
        len(dump.cpus)


def facts(count):
    lines = [
        line for cpu in range(count) for line in (f"processor: {cpu}", f"apicid: {cpu}", "vendor_id: GenuineIntel")
    ]
    topology = [{"cpu": cpu, "core": str(cpu), "package": "0"} for cpu in range(count)]
    return json.dumps(
        {"hibercheck_facts": 1, "present": f"0-{count - 1}", "online": f"0-{count - 1}", "cpuinfo": lines,
         "topology": topology}
    )  # fmt: skip


def chain(count):
    return btf_writer.write_btf([Type(TYPEDEF, "a", number + 2) for number in range(count)])


def circle(count):
    return btf_writer.write_btf([Type(TYPEDEF, "a", (number + 1) % count + 1) for number in range(count)])


def anonymous(count):
    outer, inner = (Type(STRUCT, name, 8, (("", to, 0),) * count) for name, to in (("a", 2), ("", 1)))
    return btf_writer.write_btf([outer, inner])


def nested(count):
    names = ["a", *[""] * (count - 1)]
    return btf_writer.write_btf([Type(STRUCT, name, 8, (("", n + 2, 0),) * 2) for n, name in enumerate(names)])


def symbol_tables(count):
    base = 0xFFFFFFFF81000000
    symbols = [(base + 64 * number, "T", f"cpu_hib{number}_init__st") for number in range(count)]
    return kallsyms_writer.write_kallsyms(symbols, kallsyms_writer.LAYOUTS[-1], base + 0x1000000)


def ask_symbol_tables(data):
    list(kallsyms.find(data, 0xFFFFFFFF82000000) or ())


def sections(count):
    extra = [elf_writer.Section(f"s{number}", 0, b"x", 0) for number in range(count)]
    return elf_writer.write_kernel(elf_writer.SYMBOLS, extra=extra)


GROWING = {
    "a chain of typedefs": (chain, ask_types, 20_000),
    "typedefs in a circle": (circle, ask_types, 20_000),
    "anonymous members": (anonymous, ask_types, 5_000),
    "anonymous structures in one another": (nested, ask_types, 5_000),
    "types of one name": (lambda n: btf_writer.write_btf([Type(INT, "a", 4)] * n), ask_types, 20_000),
    "empty notes": (lambda n: bytes(12 * n), lambda data: list(iter_notes(data, "made")), 20_000),
    "CPUs in facts": (facts, lambda text: parse_facts(text, "made"), 1_500),
    "kallsyms": (symbol_tables, ask_symbol_tables, 5_000),
    "nothing like kallsyms": (lambda n: b"\1\0\0\0" * n, ask_symbol_tables, 1 << 20),
    "a list of CPUs": (lambda n: ",".join(str(number % 9) for number in range(n)), parse_cpu_list, 50_000),
}

IN_FILES = {
    "symbols": (many_symbols, ask_kernel, 50_000),
    "symbols of one name": (lambda n: many_symbols(n, b"native_play_dead"), ask_kernel, 10_000),
    "sections": (sections, ask_kernel, 2_000),
    "segments of the same notes": (core, ask_dump, 20),
}


def grows_in_proportion(ask, small, large):
    with ends(), suppress(HibercheckError):
        ask(large)  # without a tracer, which would hide what a loop in C takes
    assert steps(ask, large) <= 4.5 * steps(ask, small) + 1000


@pytest.mark.parametrize("name", GROWING)
def test_four_times_as_much_takes_four_times_the_work(name):
    make, ask, size = GROWING[name]
    grows_in_proportion(ask, make(size), make(4 * size))


@pytest.mark.parametrize("name", IN_FILES)
def test_files_of_four_times_as_much(name, tmp_path):
    make, ask, size = IN_FILES[name]
    paths = []
    for number in (size, 4 * size):
        paths.append(tmp_path / str(number))
        paths[-1].write_bytes(make(number))
    grows_in_proportion(ask, *paths)


def test_notes_end(tmp_path):
    with pytest.raises(MalformedDump, match="more than 262144 notes"):
        list(iter_notes(bytes(12 * (MAX_COUNT + 1)), "made"))
    (tmp_path / "core").write_bytes(core(1 + MAX_COUNT // 1000))
    with pytest.raises(MalformedDump, match="more than 262144 notes"):
        ask_dump(tmp_path / "core")


@pytest.mark.parametrize("count", [1000, 65_000])
def test_segments_that_share_bytes_of_the_file(count, tmp_path):
    """A file of some megabytes that is read as gigabytes of memory."""
    size = 4 << 20
    start = 64 + 56 * count
    head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 4, 62, 1, 0, 64, 0, 0, 64, 56, count, 64, 0, 0)
    rows = (struct.pack("<IIQQQQQQ", 1, 0, start, 0, number * size, size, size, 0) for number in range(count))
    (tmp_path / "core").write_bytes(head + b"".join(rows) + bytes(size))
    with ends(), pytest.raises(MalformedDump, match="segments share them"):
        ask_dump(tmp_path / "core")


def test_sections_and_symbols_end(tmp_path):
    head = bytearray(elf_writer.write_kernel(elf_writer.SYMBOLS))
    start = struct.unpack_from("<Q", head, 40)[0]
    struct.pack_into("<H", head, 60, 0)  # the number is in the first section's size
    struct.pack_into("<Q", head, start + 32, 1_000_000)
    (tmp_path / "vmlinux").write_bytes(head + bytes(64_000_000))
    with pytest.raises(MalformedKernel, match="claims 1000000 sections"):
        ask_kernel(tmp_path / "vmlinux")


@pytest.mark.parametrize("depth", [2, 3, 50])
def test_compressed_again_and_again(tmp_path, depth):
    forms = ("gzip", "xz", "zstd")
    for name, content in (
        ("kernel", elf_writer.write_kernel(elf_writer.SYMBOLS)),
        ("image", ImageWriter(frames={n: bytes([n & 255]) * 4096 for n in range(256, 300)}).encode()),
    ):
        data = content
        for level in range(depth):
            data = gzip.compress(data, 1) if depth > 3 else _pack(forms[level % 3], data)
        path = Path(tmp_path / name)
        path.write_bytes(data)
        with ends(), suppress(HibercheckError), (open_kernel if name == "kernel" else open_image)(str(path)):
            pass


@pytest.mark.parametrize("text", ["0-18446744073709551615", "0-" + "9" * 4000, "99999999999", "0-99999999"])
def test_more_cpus_than_there_are(text):
    with pytest.raises(ValueError, match="CPU"):
        parse_cpu_list(text)
    with pytest.raises(MalformedDump):
        parse_facts(json.dumps({"hibercheck_facts": 1, "present": text, "online": text}), "made")


def test_a_list_that_names_all_cpus_again_and_again():
    once = steps(parse_cpu_list, "0-8191")
    assert steps(parse_cpu_list, "0-8191," * 5_000) <= 5_000 * (once + 20)
    with ends():
        assert len(parse_cpu_list("0-8191," * 50_000)) == 8192


def tar_header(name, size, kind):
    """A tar header as GNU tar writes it."""
    header = bytearray(512)
    header[: len(name)], header[100:108], header[124:136] = name, b"0000644\0", b"%011o\0" % size
    header[156:157], header[257:265], header[148:156] = kind, b"ustar  \0", b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def package(path, head, filling, count):
    """A Debian package whose data are a head and so many mebibytes of a filling, compressed to next to nothing."""
    compress = zstd.ZstdCompressor(level=1)
    data = compress.compress(head) + b"".join(compress.compress(filling) for _ in range(count)) + compress.flush()
    member = b"%-16s%-12d%-6d%-6d%-8s%-10d`\n" % (b"data.tar.zst", 0, 0, 0, b"100644", len(data))
    path.write_bytes(b"!<arch>\n" + member + data)
    return str(path)


@pytest.mark.parametrize("kind", [b"L", b"K", b"x", b"g"])
def test_a_name_of_hundreds_of_mebibytes_in_a_package(kind, tmp_path):
    path = package(tmp_path / "a.deb", tar_header(b"long", 900 << 20, kind), b"a" * (1 << 20), 900)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with ends(), pytest.raises(MalformedKernel, match="a name of 943718400 bytes"):
        open_kernel(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


def test_a_million_members_of_a_package(tmp_path):
    header = tar_header(b"./usr/share/doc/x", 0, b"0")
    path = package(tmp_path / "a.deb", b"", header * 2048, 600)
    with ends(), pytest.raises(MalformedKernel, match="has more than 262144 members"):
        open_kernel(path)


def test_a_package_that_expands_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr("hibercheck.kernel.package.UNQUESTIONED", 64 << 20)
    path = package(tmp_path / "a.deb", tar_header(b"x", 7 << 30, b"0"), bytes(1 << 20), 100)
    with pytest.raises(MalformedKernel, match="expands more than 100-fold without a kernel"):
        open_kernel(path)
