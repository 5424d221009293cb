"""Cores: every frame at its address, and clients that open them."""

import errno
import os
import struct

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given, settings

from hibercheck.errors import InputProblem, MalformedImage
from hibercheck.files.elf import PN_XNUM, note
from hibercheck.swsusp import reserve
from hibercheck.swsusp.bulk import BATCH_CHUNKS
from hibercheck.swsusp.codec import BLOCK_PAGES
from hibercheck.swsusp.export import LEAST_HOLE, export
from hibercheck.swsusp.image import open_image
from hibercheck.swsusp.vmcore import NOTE_ROOM, USER_REGS, data_offset, head, prstatus
from tests.support.image_format import PAGE
from tests.support.image_writer import ZERO, ImageWriter
from tests.swsusp.strategies import page, writers

VMCOREINFO = b"OSRELEASE=6.1.0-test\nPAGESIZE=4096\nNUMBER(phys_base)=0\n"


def export_to(writer, path, **more):
    image = writer.write(path.with_name("image.bin"))
    with open_image(str(image)) as opened:
        return export(opened, str(path), **more)


def segments(path):
    with path.open("rb") as stream:
        elf = ELFFile(stream)
        assert elf["e_type"] == "ET_CORE"
        return [
            (segment["p_paddr"], segment.data()) for segment in elf.iter_segments() if segment["p_type"] == "PT_LOAD"
        ]


def notes(path):
    with path.open("rb") as stream:
        elf = ELFFile(stream)
        (segment,) = (segment for segment in elf.iter_segments() if segment["p_type"] == "PT_NOTE")
        stream.seek(segment["p_offset"])
        data = stream.read(segment["p_filesz"])
    result = []
    while data:
        name, size, kind = struct.unpack_from("<3I", data)
        start = 12 + (name + 3) // 4 * 4
        result.append((data[12 : 12 + name].rstrip(b"\0"), kind, data[start : start + size]))
        data = data[start + (size + 3) // 4 * 4 :]
    return result


@settings(deadline=None, max_examples=60)
@given(writers())
def test_every_frame_is_at_its_address(tmp_path_factory, writer):
    path = tmp_path_factory.mktemp("export") / "core"
    result = export_to(writer, path)
    found = {}
    for address, data in segments(path):
        for offset in range(0, len(data), PAGE):
            found[(address + offset) // PAGE] = data[offset : offset + PAGE]
    assert found == {pfn: content or ZERO for pfn, content in writer.frames.items()}
    assert result.frames == len(found)
    assert sorted(path.parent.iterdir()) == [path, path.with_name("image.bin")]


def test_zeros_are_holes(tmp_path):
    frames = dict.fromkeys(range(2000)) | {1000: page(3)}
    result = export_to(ImageWriter(frames=frames), tmp_path / "core")
    assert result.written == PAGE
    assert (tmp_path / "core").stat().st_blocks * 512 < 64 << 10


def test_vmcoreinfo_of_the_image_itself_is_found(tmp_path):
    other = VMCOREINFO.replace(b"6.1.0-test", b"other").replace(b"phys_base)=0", b"phys_base)=4096")
    frames = {
        5: other.ljust(PAGE, b"\0"),
        6: note(b"VMCOREINFO", 0, VMCOREINFO).ljust(PAGE, b"\0"),
        7: b"OSRELEASE=nothing else".ljust(PAGE, b"\0"),
    }
    result = export_to(ImageWriter(frames=frames), tmp_path / "core", vmcoreinfo=lambda: pytest.fail("not needed"))
    assert result.found
    assert notes(tmp_path / "core") == [(b"VMCOREINFO", 0, VMCOREINFO)]


def test_vmcoreinfo_that_is_ambiguous_is_not_used(tmp_path):
    frames = {pfn: VMCOREINFO.replace(b"=0\n", b"=%d\n" % pfn).ljust(PAGE, b"\0") for pfn in (5, 6)}
    result = export_to(ImageWriter(frames=frames), tmp_path / "core")
    assert result.vmcoreinfo is None
    result = export_to(ImageWriter(frames=frames), tmp_path / "core", vmcoreinfo=lambda: VMCOREINFO)
    assert (result.found, result.vmcoreinfo) == (False, VMCOREINFO.decode())


def test_registers(tmp_path):
    registers = {name: number + 1 for number, name in enumerate(USER_REGS)}
    export_to(ImageWriter(frames={5: None}), tmp_path / "core", notes=prstatus(registers, pid=7))
    ((name, kind, status),) = notes(tmp_path / "core")
    assert (name, kind, len(status)) == (b"CORE", 1, 336)
    assert struct.unpack_from("<27Q", status, 112) == tuple(range(1, 28))
    assert struct.unpack_from("<i", status, 32) == (7,)


@pytest.mark.parametrize("damage", ["block-garbage", "length-zero", "pfn-twice", "count-of-data"])
def test_nothing_is_half_written(tmp_path, damage):
    target = tmp_path / "core"
    target.write_text("before")
    frames = {pfn: page(4 * pfn + 3) for pfn in range(3000)}
    with pytest.raises(MalformedImage):
        export_to(ImageWriter(frames=frames, damage=[damage], damaged_block=50), target)
    assert target.read_text() == "before"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["core", "image.bin"]


def test_an_interrupt_leaves_nothing(tmp_path):
    def interrupt(_done, _total):
        raise KeyboardInterrupt

    frames = {pfn: page(4 * pfn + 3) for pfn in range(3000)}
    with pytest.raises(KeyboardInterrupt):
        export_to(ImageWriter(frames=frames), tmp_path / "core", progress=interrupt)
    assert [each.name for each in tmp_path.iterdir()] == ["image.bin"]


def test_a_target_that_cannot_be_written(tmp_path):
    image = ImageWriter(frames={5: None}).write(tmp_path / "image.bin")
    target = str(tmp_path / "no" / "core")
    with open_image(str(image)) as opened, pytest.raises(InputProblem, match=r"cannot be written: No such file"):
        export(opened, target)


def test_the_core_has_the_permissions_of_any_new_file(tmp_path):
    mask = os.umask(0o027)
    try:
        export_to(ImageWriter(frames={5: None}), tmp_path / "core")
    finally:
        os.umask(mask)
    assert (tmp_path / "core").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("count", [PN_XNUM - 2, PN_XNUM - 1, 70000])
def test_more_segments_than_the_elf_header_can_count(tmp_path, count):
    path = tmp_path / "core"
    start = data_offset(count)
    path.write_bytes(head([(2 * number, 1, number) for number in range(count)], b"", start))
    assert start - PAGE < path.stat().st_size + NOTE_ROOM <= start
    with path.open("rb") as stream:
        elf = ELFFile(stream)
        assert elf.num_segments() == count + 1
        assert elf.get_segment(count)["p_paddr"] == 2 * (count - 1) * PAGE


def test_drgn_reads_physical_memory(tmp_path):
    drgn = pytest.importorskip("drgn")
    frames = {pfn: page(4 * pfn + 3) for pfn in (1, 2, 3, 0x1000, 0x1001, 0x100000)} | {4: None}
    export_to(ImageWriter(frames=frames), tmp_path / "core", notes=note(b"VMCOREINFO", 0, VMCOREINFO + KERNEL))
    program = drgn.Program()
    program.set_core_dump(str(tmp_path / "core"))
    assert program["UTS_RELEASE"].string_() == b"6.1.0-test"
    for pfn, content in frames.items():
        assert program.read(pfn * PAGE, PAGE, physical=True) == (content or ZERO)
    with pytest.raises(drgn.FaultError):
        program.read(0x2000 * PAGE, 8, physical=True)


KERNEL = b"KERNELOFFSET=0\nSYMBOL(swapper_pg_dir)=ffffffff82a10000\nNUMBER(pgtable_l5_enabled)=0\n"


def test_notes_fit_their_room():
    assert len(note(b"VMCOREINFO", 0, bytes(PAGE)) + prstatus({})) <= NOTE_ROOM


@pytest.mark.parametrize("compressor", ["lzo", "none"])
def test_what_the_system_writes_in_part_is_gone_on_with(tmp_path, monkeypatch, compressor):
    plain = os.pwritev

    def a_little(descriptor, pieces, offset):
        data = b"".join(pieces)
        return plain(descriptor, [data[: max(1, min(len(data), 131072 + 1000))]], offset)

    monkeypatch.setattr(os, "pwritev", a_little)
    frames = {pfn: page(4 * pfn + 3) for pfn in range(3000)}
    export_to(ImageWriter(frames=frames, compressor=compressor), tmp_path / "core")
    ((_, data),) = segments(tmp_path / "core")
    assert data == b"".join(frames.values())


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(_descriptor, _data, _offset):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    frames = {pfn: page(4 * pfn + 3) for pfn in range(3000)}
    with pytest.raises(InputProblem, match=r"core: cannot be written: No space left on device"):
        export_to(ImageWriter(frames=frames), tmp_path / "core")
    assert [each.name for each in tmp_path.iterdir()] == ["image.bin"]


def test_a_core_that_the_file_system_cuts_in_pieces(tmp_path, monkeypatch):
    """A write may take less than it was given."""
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: write(descriptor, data[:5000], offset))
    frames = {pfn: page(4 * pfn + 3) for pfn in range(700)}
    export_to(ImageWriter(frames=frames), tmp_path / "core")
    ((_, data),) = segments(tmp_path / "core")
    assert data == b"".join(frames.values())


def test_a_file_system_that_reserves_nothing(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(reserve, "fallocate", lambda: lambda *what: asked.append(what) or -1)
    frames = {pfn: page(4 * pfn + 3) for pfn in range(700)}
    result = export_to(ImageWriter(frames=frames), tmp_path / "core")
    assert sum(size for *_, size in asked) == result.written
    ((_, data),) = segments(tmp_path / "core")
    assert data == b"".join(frames.values())


@pytest.mark.parametrize("count", [1, 1000, 70_000])
@pytest.mark.parametrize("meta", [1, 3, 511, 512, 513])
def test_batches_begin_at_multiples_of_their_size(count, meta):
    start = data_offset(count, meta * PAGE, 512 * PAGE)
    assert (start - meta * PAGE) % (512 * PAGE) == 0
    assert 0 <= start - data_offset(count) < 512 * PAGE


def rows(first, count):
    """The parts of a row of data pages in a list of three pages that the batches of an export see."""
    parts = {}
    for number in range(first, first + count):
        batch = (3 + number) // (BATCH_CHUNKS * BLOCK_PAGES)
        parts[batch] = parts.get(batch, 0) + 1
    return parts.values()


@pytest.mark.parametrize("gap", [1, LEAST_HOLE - 1, LEAST_HOLE, LEAST_HOLE + 1, 70])
@pytest.mark.parametrize("start", [0, 1, 27, 31, 32, 500])
def test_rows_of_zeros_are_left_out_and_single_pages_of_them_written(tmp_path, gap, start):
    frames = {pfn: None if start <= pfn < start + gap else page(4 * pfn + 3) for pfn in range(1200)}
    result = export_to(ImageWriter(frames=frames, compressor="lz4"), tmp_path / "core")
    left_out = sum(row for row in rows(start, gap) if row >= LEAST_HOLE)
    assert result.written == (1200 - left_out) * PAGE
    ((_, data),) = segments(tmp_path / "core")
    assert data == b"".join(content or ZERO for content in frames.values())


def test_a_page_that_is_nearly_zeros_is_written(tmp_path):
    frames = {pfn: bytes(pfn) + b"\1" + bytes(PAGE - 1 - pfn) for pfn in range(PAGE)}
    assert export_to(ImageWriter(frames=frames, compressor="lz4"), tmp_path / "core").written == PAGE * PAGE


MANY = {pfn: None if pfn % 7 == 0 else bytes([pfn % 251 + 1]) * PAGE for pfn in range(200, 900) if pfn % 50}


def found_in(path):
    found = {}
    for address, data in segments(path):
        for offset in range(0, len(data), PAGE):
            found[(address + offset) // PAGE] = data[offset : offset + PAGE]
    return found


def left_out(result):
    return {pfn for first, length in result.lost for pfn in range(first, first + length)}


@pytest.mark.parametrize("block", [1, 3, 7])
@pytest.mark.parametrize("zero_flag", [False, True])
def test_what_cannot_be_decoded_is_left_out_and_listed(tmp_path, block, zero_flag):
    writer = ImageWriter(frames=MANY, zero_flag=zero_flag, damage=("block-garbage",), damaged_block=block)
    with pytest.raises(MalformedImage, match=f"block {block} "):
        export_to(writer, tmp_path / "core")
    result = export_to(writer, tmp_path / "core", keep_going=True)
    found, gone = found_in(tmp_path / "core"), left_out(result)
    assert 0 < len(gone) <= BLOCK_PAGES
    assert found == {pfn: content or ZERO for pfn, content in MANY.items() if pfn not in gone}
    assert result.frames == len(found)
    assert [f"block {block} " in line for line in result.problems] == [True]
    if zero_flag:
        assert not any(MANY[pfn] is None for pfn in gone)  # a zero page is not stored, so that it cannot be lost


def test_behind_a_length_that_is_lost_nothing_can_be_found(tmp_path):
    writer = ImageWriter(frames=MANY, damage=("length-huge",), damaged_block=5)
    result = export_to(writer, tmp_path / "core", keep_going=True)
    found, gone = found_in(tmp_path / "core"), left_out(result)
    assert found == {pfn: content or ZERO for pfn, content in MANY.items() if pfn not in gone}
    assert len(found) == 5 * BLOCK_PAGES - 2  # two pages of PFN list
    assert gone | set(found) == set(MANY)
    assert "what follows it cannot be found" in result.problems[0]


def test_a_sound_image_loses_nothing(tmp_path):
    result = export_to(ImageWriter(frames=MANY), tmp_path / "core", keep_going=True)
    assert (result.lost, result.problems, result.frames) == ((), (), len(MANY))
