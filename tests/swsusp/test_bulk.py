"""Batches come in order, damage is reported in the order of the stream, and no thread is left behind."""

import os
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from hibercheck.errors import InputProblem, MalformedImage
from hibercheck.swsusp import bulk, codec, stream
from hibercheck.swsusp.codec import BLOCK_PAGES
from hibercheck.swsusp.export import export
from hibercheck.swsusp.image import open_image
from tests.support.image_format import PAGE
from tests.support.image_writer import ImageWriter
from tests.swsusp.strategies import page

COUNT = 3000
FRAMES = {pfn: page(4 * pfn + 3) for pfn in range(COUNT)}


@pytest.fixture(params=[1, 2, 5])
def processors(request, monkeypatch):
    """A machine of so many processors: what is said must not depend on it."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(request.param)))
    return request.param


def opened(tmp_path, *damage, block=0, **more):
    writer = ImageWriter(frames=FRAMES, damage=damage, damaged_block=block, **more)
    return open_image(str(writer.write(tmp_path / "image.bin")))


def through(image, work):
    with closing(bulk.batches(image.source, image.stream.storage, work)) as results:
        return list(results)


@pytest.mark.usefixtures("processors")
@pytest.mark.parametrize("compressor", ["lzo", "lz4", "none"])
def test_everything_comes_once_and_in_order(tmp_path, compressor):
    def work(batch):
        time.sleep(0.01 * (batch.first % 3))  # later batches are ready before earlier ones
        return batch.first, bytes(batch.plain)

    with opened(tmp_path, compressor=compressor, shuffle=3) as image:
        results = through(image, work)
        everything = b"".join(image.stream.page(number) for number in range(image.stream.pages))
    assert [first for first, _ in results] == list(range(0, -(-image.stream.pages // BLOCK_PAGES), bulk.BATCH_CHUNKS))
    assert b"".join(data for _, data in results) == everything


@pytest.mark.usefixtures("processors")
def test_the_first_failure_of_the_stream_is_raised(tmp_path):
    def work(batch):
        if batch.first:
            time.sleep(0.001 * (100 - batch.first))  # the last is the first to fail
            raise ValueError(batch.first)
        return batch.first

    with opened(tmp_path) as image, pytest.raises(ValueError, match=f"^{bulk.BATCH_CHUNKS}$"):
        through(image, work)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("hibercheck")]


@pytest.mark.usefixtures("processors")
def test_damage_is_told_in_the_order_of_the_stream(tmp_path):
    path = ImageWriter(frames=FRAMES).write(tmp_path / "image.bin")
    with open_image(str(path)) as image:
        places = [image.stream.storage.payload(number)[0] for number in (20, 37, 60)]
    data = bytearray(path.read_bytes())
    for place in places[:2]:
        data[place + 8 : place + 40] = b"\xff" * 32
    data[places[2] : places[2] + 8] = bytes(8)
    path.write_bytes(data)
    with open_image(str(path)) as image:
        problems = image.verify().problems
        said = [int(problem.split("compressed block ")[1].split()[0]) for problem in problems]
        with pytest.raises(MalformedImage, match="compressed block 20 "):
            export(image, str(tmp_path / "core"))
    assert said == [20, 37, 60]
    assert "0 bytes long" in problems[2]


@pytest.mark.usefixtures("processors")
@pytest.mark.parametrize("damage", ["length-zero", "length-huge"])
def test_what_lies_before_a_lost_block_is_still_read(tmp_path, damage):
    with opened(tmp_path, damage, block=70) as image:
        result = image.verify()
        with pytest.raises(MalformedImage, match=r"compressed block 70 says .* \(at byte 0x"):
            export(image, str(tmp_path / "core"))
    assert result.pages == 70 * BLOCK_PAGES
    assert len(result.problems) == 1
    assert "compressed block 70 says" in result.problems[0]


@pytest.mark.parametrize("command", ["verify", "export"])
@pytest.mark.parametrize("compressor", ["lzo", "lz4", "none"])
def test_a_file_that_is_cut_meanwhile(tmp_path, command, compressor):
    with opened(tmp_path, compressor=compressor) as image:
        size = Path(image.path).stat().st_size
        os.truncate(image.path, size // 2 // PAGE * PAGE)
        with pytest.raises(InputProblem, match=r"was cut while it was being read \(at byte 0x"):
            image.verify() if command == "verify" else export(image, str(tmp_path / "core"))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["image.bin"]


@pytest.mark.parametrize("compressor", ["lzo", "none"])
def test_a_file_that_grows_meanwhile(tmp_path, compressor):
    with opened(tmp_path, compressor=compressor) as image:
        os.truncate(image.path, Path(image.path).stat().st_size + (1 << 20))
        assert image.verify().ok


def test_a_file_that_changes_meanwhile(tmp_path):
    with opened(tmp_path) as image:
        image.stream.storage.walk(image.stream.chunks - 1)
        place = image.stream.storage.payload(30)[0]
        with Path(image.path).open("r+b") as stream:
            stream.seek(place)
            stream.write(b"\xff" * 8)  # a length that leads far beyond what was read for the block
        problems = image.verify().problems
    assert any("compressed block 30" in problem for problem in problems)


def test_memory_stays_small_when_one_batch_is_slow(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    monkeypatch.setattr(bulk, "BATCH_CHUNKS", 1)
    taken, waiting = [], threading.Event()

    def work(batch):
        taken.append(batch.first)
        if batch.first == 0:
            waiting.wait(0.3)
        return batch.first

    with opened(tmp_path) as image:
        results = bulk.batches(image.source, image.stream.storage, work)
        with closing(results):
            timer = threading.Timer(0.15, lambda: (taken.append(-1), waiting.set()))
            timer.start()
            assert list(results) == list(range(image.stream.chunks))
    assert taken.index(-1) <= bulk.AHEAD * 3


def test_a_limit_of_threads_is_no_hindrance(tmp_path, monkeypatch):
    def refuse(_thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    with opened(tmp_path) as image:
        assert image.verify().ok


def test_threads_without_memory_leave_the_work_to_others(tmp_path, monkeypatch, capsys):
    make = bulk.buffer

    def scarce(size):
        if threading.current_thread() is not threading.main_thread():
            raise MemoryError
        return make(size)

    monkeypatch.setattr(bulk, "buffer", scarce)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    with opened(tmp_path) as image:
        assert image.verify().ok
    assert capsys.readouterr().err == ""


def test_an_interrupt_ends_it_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    seen = []

    def work(batch):
        seen.append(batch.first)
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        time.sleep(0.1)  # so that the batches before it are not done

    monkeypatch.setattr(bulk, "BATCH_CHUNKS", 1)
    with opened(tmp_path) as image, pytest.raises(KeyboardInterrupt):
        through(image, work)
    assert len(seen) <= 6
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("hibercheck")]


@pytest.mark.parametrize("damage", [None, "block-garbage", "block-short", "block-uneven", "length-short", "bomb"])
def test_lz4_is_decoded_in_place_as_it_is_by_the_library(tmp_path, monkeypatch, damage):
    """What `filler` gives, and what is made without it, is the same, damaged blocks and their messages included."""
    results = []
    for fill in (codec.filler, lambda _: None):
        monkeypatch.setattr(stream, "filler", fill)
        with opened(tmp_path, *([damage] if damage else []), block=5, compressor="lz4") as image:
            batches = through(image, lambda batch: (batch.pages, batch.lost, sound(batch), told(batch)))
        results.append(batches)
    assert results[0] == results[1]
    assert any(lost for _, lost, *_ in results[0]) == (damage is not None)


def sound(batch):
    damaged = {number - batch.first for number, _ in batch.damaged}
    size = BLOCK_PAGES * PAGE
    pieces = [bytes(batch.plain[at : at + size]) for at in range(0, batch.pages * PAGE, size)]
    return [piece for number, piece in enumerate(pieces) if number not in damaged]


def told(batch):
    return [(number, str(problem)) for number, problem in batch.damaged]


def test_the_library_gives_its_decoder_out():
    """Without it LZ4 images are gone through at half the speed."""
    assert codec.filler("lz4") is not None
    assert codec.filler("lzo") is None
