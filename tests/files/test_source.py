"""Files read where they are asked for, decompressed on the way if they are compressed."""

from __future__ import annotations

import os
import random
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibercheck.errors import InputProblem, MalformedDump, MalformedImage
from hibercheck.files import inputs, spool, text
from hibercheck.files.compression import CHUNK, FORMATS, MARKED, Undecodable, decoded, recognise, slices
from hibercheck.files.source import open_content, open_source, open_unpacked
from tests.support.wrappers import COMPRESS

PLAIN = random.Random(1).randbytes(300_000) + bytes(1 << 20) + random.Random(2).randbytes(5000)
FORMS = [form.name for form in MARKED]


@pytest.fixture
def plain(tmp_path):
    (tmp_path / "plain").write_bytes(PLAIN)
    with open_source(str(tmp_path / "plain")) as source:
        yield source


def test_ranges(plain):
    assert len(plain) == plain.size == len(PLAIN)
    for offset, size in ((0, 10), (299_990, 20), (len(PLAIN) - 3, 10), (len(PLAIN), 1), (len(PLAIN) + 5, 9), (5, 0)):
        assert plain.read(offset, size) == PLAIN[offset : offset + size]
        assert plain[offset : offset + size] == PLAIN[offset : offset + size]
    assert plain[-5:] == PLAIN[-5:]
    assert plain[10:5] == b""
    buffer = bytearray(30)
    plain.fill(memoryview(buffer), [(7, 10), (300_010, 5), (0, 15)])
    assert (
        bytes(buffer)
        == PLAIN[7:17] + PLAIN[300_010:300_015] + PLAIN[:15]
        == plain.gather([(7, 10), (300_010, 5), (0, 15)])
    )
    for offset in (0, 8, 8000, 290_000, 16):
        assert plain.word(offset) == int.from_bytes(PLAIN[offset : offset + 8], "little")


@given(st.integers(0, len(PLAIN)), st.integers(1, 40), st.integers(0, 200_000), st.integers(-40, 40))
def test_searches(tmp_path_factory, start, size, at, more):
    path = tmp_path_factory.getbasetemp() / "searched"
    if not path.exists():
        path.write_bytes(PLAIN)
    wanted = PLAIN[at : at + size]
    with open_source(str(path)) as source:
        assert source.find(wanted) == PLAIN.find(wanted)
        assert source.find(wanted, start) == PLAIN.find(wanted, start)
        assert source.find(wanted, 0, at + more + 40) == PLAIN.find(wanted, 0, at + more + 40)


def test_a_read_that_returns_less(plain, monkeypatch):
    """One call ends at 2 GiB."""
    read = os.pread
    monkeypatch.setattr(os, "pread", lambda descriptor, size, offset: read(descriptor, min(size, 1000), offset))
    assert plain.read(5, 10_000) == PLAIN[5:10_005]


def test_a_device_that_fails(plain, monkeypatch):
    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(InputProblem, match=r"plain: cannot be read: Input/output error \(at byte 0x7\)"):
        plain.read(7, 5)


def test_closing_twice(plain):
    plain.close()
    plain.close()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("error", [MalformedImage, MalformedDump])
def test_compressed_files(tmp_path, form, error):
    packed = COMPRESS[form](PLAIN)
    (tmp_path / "packed").write_bytes(packed)
    with open_unpacked(str(tmp_path / "packed"), error) as source:
        assert source.read(299_990, 20) == PLAIN[299_990:300_010]
        assert source[:] == PLAIN
        assert not source.is_hole(500_000)
        assert not source.reaches(len(PLAIN) + 1)
    (tmp_path / "cut").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(error, match=rf"the {form} (file is cut short|data are damaged) after \d+ plain bytes"):
        len(open_unpacked(str(tmp_path / "cut"), error))
    (tmp_path / "empty").touch()
    with pytest.raises(error, match="the file is empty"):
        open_unpacked(str(tmp_path / "empty"), error)


def test_what_is_not_needed_is_not_unpacked(tmp_path):
    (tmp_path / "packed").write_bytes(COMPRESS["gzip"](PLAIN + random.Random(3).randbytes(8 << 20)))
    with open_unpacked(str(tmp_path / "packed"), MalformedImage) as source:
        assert source.read(0, 100) == PLAIN[:100]
        (tmp_path / "packed").write_bytes(b"")  # what is left of it is not there any more: nobody notices before
        assert source.read(200_000, 10) == PLAIN[200_000:200_010]
        with pytest.raises((InputProblem, MalformedImage), match="cut"):
            len(source)


@pytest.mark.parametrize("form", ["gzip", "xz", "zstd", "bzip2", "lz4 frame"])
@pytest.mark.parametrize("strict", [True, False])
def test_members_one_after_the_other(form, strict):
    """Wherever the chunks of the stream begin: at a boundary one decoder took the first member for the whole."""
    found, pack = recognise(COMPRESS[form](b"")), COMPRESS[form]
    parts = [b"one " * 1000, b"", random.Random(1).randbytes(3000), b"three"]
    packed = b"".join(map(pack, parts))
    first = len(pack(parts[0]))
    for size in (1, 7, first - 1, first, first + 1, len(packed)):
        chunks = (packed[at : at + size] for at in range(0, len(packed), size))
        assert b"".join(decoded(found, chunks, strict=strict)) == b"".join(parts)
    padded = pack(parts[0]) + bytes(512) + pack(parts[2]) + bytes(100)
    chunks = (padded[at : at + 64] for at in range(0, len(padded), 64))
    assert b"".join(decoded(found, chunks, strict=strict)) == parts[0] + parts[2]


@pytest.mark.parametrize("form", ["gzip", "xz", "zstd", "bzip2", "lz4 frame", "lzma"])
def test_something_else_behind_a_member(form):
    """A kernel's payload ends with its size; behind a copy of a device nothing may be left over."""
    packed = COMPRESS[form](b"plain" * 100) + b"\x12\x34\x56\x78"
    found = next(one for one in FORMATS if one.name == form)
    assert b"".join(decoded(found, slices(packed, 0, len(packed)))) == b"plain" * 100
    with pytest.raises(Undecodable, match="something else follows them"):
        list(decoded(found, slices(packed, 0, len(packed)), strict=True))


def test_frames_for_users_data():
    """As pzstd writes them, between others."""
    skipped = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"mine"
    for form in ("zstd", "lz4 frame"):
        packed = COMPRESS[form](b"one") + skipped + COMPRESS[form](b"two") + skipped
        assert b"".join(decoded(recognise(packed), iter([packed]), strict=True)) == b"onetwo"


@pytest.mark.parametrize("form", [form.name for form in FORMATS])
def test_chunks_are_bounded(form):
    packed = COMPRESS[form](bytes(20 << 20))
    found = next(one for one in FORMATS if one.name == form)
    assert max(map(len, decoded(found, slices(packed, 0, len(packed))))) <= 8 * CHUNK


def test_no_room_for_plain_bytes(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    (tmp_path / "packed").write_bytes(COMPRESS["gzip"](PLAIN))
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(InputProblem, match=r"no room for its plain bytes in /.*: No space left on device; set TMPDIR"):
        open_unpacked(str(tmp_path / "packed"), MalformedImage)
    monkeypatch.setattr(spool.tempfile, "TemporaryFile", full)
    with pytest.raises(InputProblem, match="no temporary file for its plain bytes: No space left"):
        open_unpacked(str(tmp_path / "packed"), MalformedImage)


@pytest.mark.parametrize("kind", ["directory", "fifo", "/dev/zero", "absent", "a\0b", "denied"])
@pytest.mark.parametrize("opening", [open_source, lambda path: open_unpacked(path, MalformedDump)])
def test_what_cannot_be_opened(tmp_path, monkeypatch, kind, opening):
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "denied").touch()
    path = kind if kind.startswith("/") else f"{tmp_path}/{kind}"
    if kind == "denied":
        deny(monkeypatch, path)
    said = {
        "directory": "is a directory", "fifo": "is neither a file nor a block device",
        "/dev/zero": "is neither a file nor a block device", "absent": "cannot be opened: No such file or directory",
        "a\0b": "cannot be opened: embedded null byte",
        "denied": f"cannot be opened: Permission denied; {inputs.AS_ROOT}",
    }[kind]  # fmt: skip
    with pytest.raises(InputProblem) as told:
        opening(path)
    assert str(told.value) == f"{path}: {said}"
    assert told.value.exit_status == 3


def deny(monkeypatch, path):
    """Make a file one that the caller, who is not root, may not open."""
    opening = os.open

    def refuse(what, *more, **options):
        if os.fspath(what) == path:
            raise PermissionError(13, "Permission denied", what)
        return opening(what, *more, **options)

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


def test_through_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    path = str(tmp_path / "fifo")
    writer = threading.Thread(target=lambda: (tmp_path / "fifo").write_bytes(PLAIN))
    writer.start()
    assert open_content(path, path, limit=1 << 22, what="a kernel") == PLAIN
    writer.join()
    writer = threading.Thread(target=lambda: (tmp_path / "fifo").write_bytes(b""))
    writer.start()
    with pytest.raises(InputProblem, match="is empty"):
        open_content(path, path, limit=1 << 22, what="a kernel")
    writer.join()
    (tmp_path / "empty").touch()
    with pytest.raises(InputProblem, match="is empty"):
        open_content(tmp_path / "empty", "shown", limit=1 << 22, what="a kernel")
    with open_content(__file__, "shown", limit=1, what="a kernel") as source:
        assert source[:3] == b'"""'


def test_files_of_procfs_have_no_size():
    assert b"Linux version" in open_content("/proc/version", "v", limit=1 << 10, what="text")


class TestWhole:
    """What is read whole: `hibercheck.files.text.read_whole`."""

    def test_files_and_the_limit(self, tmp_path):
        (tmp_path / "file").write_bytes(b"x" * 100)
        assert text.read_whole(str(tmp_path / "file"), 100, "a list") == b"x" * 100
        with pytest.raises(InputProblem, match="file: is larger than 99 bytes, which is too much for a list"):
            text.read_whole(str(tmp_path / "file"), 99, "a list")
        assert text.read_whole("/dev/null", 10, "a list") == b""

    def test_a_pipe_in_pieces(self, tmp_path):
        read, written = os.pipe()

        def fill():
            for number in range(5):
                os.write(written, b"%d" % number)
            os.close(written)

        writer = threading.Thread(target=fill)
        writer.start()
        assert text.read_whole(f"/dev/fd/{read}", 100, "a list") == b"01234"
        writer.join()
        os.close(read)

    @pytest.mark.parametrize("how", ["nobody writes", "silent", "endless"])
    def test_pipes_that_never_end(self, tmp_path, monkeypatch, how):
        monkeypatch.setattr(text, "PATIENCE", 0.2)
        os.mkfifo(tmp_path / "fifo")
        path = str(tmp_path / "fifo")
        held = None if how == "nobody writes" else os.open(path, os.O_RDWR)
        if how == "endless":
            os.write(held, bytes(60_000))
        said = "is larger than 50000 bytes" if how == "endless" else "nothing came through this pipe for 0 s"
        with pytest.raises(InputProblem, match=said):
            text.read_whole(path, 50_000, "a list")
        if held is not None:
            os.close(held)

    @pytest.mark.parametrize("path", ["/dev/zero", "/dev/random", "/dev/ptmx", "/dev", "/dev/watchdog"])
    def test_devices_are_not_even_opened(self, path, monkeypatch):
        if not os.path.exists(path):  # noqa: PTH110
            pytest.skip(f"no {path}")
        monkeypatch.setattr(os, "open", lambda *_: pytest.fail("opened"))
        with pytest.raises(
            InputProblem, match=r"is a (character device|directory); give a list, or a pipe that brings it"
        ):
            text.read_whole(path, 10, "a list")

    def test_a_file_without_an_end(self, tmp_path, monkeypatch):
        """As /proc/kmsg is, whose messages are not ours to take: it has nothing more for the moment."""
        (tmp_path / "kmsg").write_text("message")
        monkeypatch.setattr(os, "read", lambda *_: (_ for _ in ()).throw(BlockingIOError(11, "")))
        with pytest.raises(InputProblem, match="has no end; give a list"):
            text.read_whole(str(tmp_path / "kmsg"), 10, "a list")
