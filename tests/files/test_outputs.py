"""What may be written: files, pipes, open descriptors, terminals; never a device, never an input."""

from __future__ import annotations

import os
import pty
import re
import socket
import stat
import threading

import pytest

from hibercheck.errors import InputProblem, UsageProblem
from hibercheck.files.inputs import Inputs, backing_files, note, note_named, open_input, watching
from hibercheck.files.outputs import Outputs, descriptor_named
from hibercheck.files.places import FileOutput
from tests.support.devices import block_node, close_descriptors, loop_device, names_of
from tests.support.file_systems import without_nameless_files


def write(path, *parts):
    write_parts(path, parts or ("text",))


def write_parts(path, parts):
    with Outputs() as outputs:
        outputs.open(path)
        outputs.write(path, parts)


@pytest.fixture(params=[True, False], ids=["nameless", "named"])
def any_file_system(request, monkeypatch):
    if not request.param:
        monkeypatch.setattr(os, "open", without_nameless_files(os.open))


@pytest.mark.usefixtures("any_file_system")
class TestFiles:
    def test_a_new_file_has_the_permissions_of_any(self, tmp_path):
        mask = os.umask(0o027)
        try:
            write(str(tmp_path / "new"), "a", "ä\n")
        finally:
            os.umask(mask)
        assert (tmp_path / "new").read_bytes() == "aä\n".encode()
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640

    def test_an_old_one_keeps_its_own(self, tmp_path):
        (tmp_path / "old").write_text("something longer")
        (tmp_path / "old").chmod(0o604)
        write(str(tmp_path / "old"))
        assert (tmp_path / "old").read_text() == "text"
        assert stat.S_IMODE((tmp_path / "old").stat().st_mode) == 0o604
        assert [one.name for one in tmp_path.iterdir()] == ["old"]

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
    def test_an_old_one_keeps_its_owner(self, tmp_path):
        (tmp_path / "old").touch()
        os.chown(tmp_path / "old", 1234, 4321)
        write(str(tmp_path / "old"))
        status = (tmp_path / "old").stat()
        assert (status.st_uid, status.st_gid) == (1234, 4321)

    def test_links_are_followed_and_stay(self, tmp_path):
        (tmp_path / "there").mkdir()
        (tmp_path / "link").symlink_to("there/file")  # it leads to nothing yet
        write(str(tmp_path / "link"))
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "there" / "file").read_text() == "text"
        write(str(tmp_path / "link"), "more")
        assert (tmp_path / "there" / "file").read_text() == "more"

    def test_nothing_is_seen_before_it_is_whole(self, tmp_path):
        (tmp_path / "old").write_text("old")

        def parts():
            yield "half"
            assert (tmp_path / "old").read_text() == "old"
            raise MemoryError

        with pytest.raises(MemoryError):
            write_parts(str(tmp_path / "old"), parts())
        assert (tmp_path / "old").read_text() == "old"
        assert [one.name for one in tmp_path.iterdir()] == ["old"]

    def test_a_file_that_appears_meanwhile_is_replaced(self, tmp_path):
        target = tmp_path / "new"
        with Outputs() as outputs:
            outputs.open(str(target))
            target.write_text("by another")
            outputs.write(str(target), ["ours"])
        assert target.read_text() == "ours"
        assert [one.name for one in tmp_path.iterdir()] == ["new"]

    def test_a_device_that_appears_meanwhile_is_not(self, tmp_path):
        node, target = block_node(tmp_path), tmp_path / "out"
        with Outputs() as outputs:
            outputs.open(str(target))
            target.symlink_to(node)
            with pytest.raises(UsageProblem, match=r"is a block device|is not written to"):
                outputs.write(str(target), ["ours"])
        assert target.is_symlink()

    def test_an_input_that_appears_meanwhile_is_not(self, tmp_path):
        (tmp_path / "image").write_text("image")
        with watching() as inputs, Outputs(inputs) as outputs:
            outputs.open(str(tmp_path / "out"))
            os.close(open_input(str(tmp_path / "image")))
            (tmp_path / "image").rename(tmp_path / "out")
            with pytest.raises(UsageProblem, match=r"out: is the input .*image by another name"):
                outputs.write(str(tmp_path / "out"), ["ours"])
        assert (tmp_path / "out").read_text() == "image"

    @pytest.mark.parametrize("name", ["absent/new", "file/new", ".", "x" * 300, "a\0b"])
    def test_where_no_file_can_be(self, tmp_path, name):
        (tmp_path / "file").touch()
        with pytest.raises(InputProblem, match="cannot be written: "):
            write(f"{tmp_path}/{name}")
        assert [one.name for one in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_file_that_is_write_protected(tmp_path):
    (tmp_path / "old").write_text("old")
    (tmp_path / "old").chmod(0o444)
    with pytest.raises(InputProblem, match="Permission denied"):
        write(str(tmp_path / "old"))


def test_a_link_of_another_in_a_directory_for_all_is_not_followed(tmp_path):
    """The kernel's protected_symlinks holds for what is asked by name; resolving by hand would pass it by."""
    if os.geteuid() != 0 or (open("/proc/sys/fs/protected_symlinks").read().strip() != "1"):  # noqa: PTH123, SIM115
        pytest.skip("not root, or the system does not protect links")
    public = tmp_path / "public"
    public.mkdir()
    public.chmod(0o1777)
    os.chown(public, 1000, 1000)
    (tmp_path / "victim").write_text("victim")
    (public / "report").symlink_to(tmp_path / "victim")
    os.chown(public / "report", 1234, 1234, follow_symlinks=False)
    with pytest.raises(InputProblem, match="Permission denied"):
        write(str(public / "report"))
    assert (tmp_path / "victim").read_text() == "victim"


def test_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    read = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "fifo").read_text()))
    with Outputs() as outputs:
        outputs.open(str(tmp_path / "fifo"))
        reader.start()
        outputs.write(str(tmp_path / "fifo"), ["through ", "a pipe"])
        reader.join()
    assert read == ["through a pipe"]


def test_a_pipe_that_becomes_something_else(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").write_text("keep")
    with Outputs() as outputs:
        outputs.open(str(tmp_path / "fifo"))
        (tmp_path / "file").rename(tmp_path / "fifo")
        with pytest.raises(UsageProblem, match="is a regular file"):
            outputs.write(str(tmp_path / "fifo"), ["text"])
    assert (tmp_path / "fifo").read_text() == "keep"


def test_a_terminal_and_null():
    master, slave = pty.openpty()
    write(os.ttyname(slave), "text\n")
    assert os.read(master, 100).startswith(b"text")
    os.close(master), os.close(slave)
    with Outputs() as outputs:
        outputs.open("/dev/null")
        outputs.write("/dev/null", ["text"])


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/random", "/dev/ptmx", "/dev/mem", "/dev/kmsg", "/dev/watchdog"])
def test_other_devices_are_not_written_to(device):
    if not os.path.exists(device):  # noqa: PTH110
        pytest.skip(f"no {device}")
    with pytest.raises(UsageProblem, match=f"{device}: is a character device and is not written to; an output is"):
        write(device)


def test_descriptors_are_written_as_they_are(tmp_path):
    """Opened again, a file would be written from its start, and a socket could not be opened at all."""
    with (tmp_path / "log").open("w+") as log:
        log.write("before ")
        log.flush()
        write(f"/dev/fd/{log.fileno()}", "text")
        assert (tmp_path / "log").read_text() == "before text"
    ours, theirs = socket.socketpair()
    with ours, theirs:
        write(f"/proc/self/fd/{ours.fileno()}", "to a socket")
        assert theirs.recv(100) == b"to a socket"


def test_a_descriptor_that_is_not_there_or_not_for_writing(tmp_path):
    with pytest.raises(InputProblem, match="/dev/fd/999: cannot be written: Bad file descriptor"):
        write("/dev/fd/999")
    (tmp_path / "file").touch()
    with (tmp_path / "file").open() as file, pytest.raises(InputProblem, match="it is open for reading only"):
        write(f"/dev/fd/{file.fileno()}")


def test_a_pipe_that_does_not_wait(tmp_path):
    """As a parent that uses non-blocking pipes leaves it; more is written than a pipe holds."""
    read, written = os.pipe()
    os.set_blocking(written, False)
    got = []
    reader = threading.Thread(target=lambda: got.append(sum(len(p) for p in iter(lambda: os.read(read, 1 << 16), b""))))
    reader.start()
    write(f"/dev/fd/{written}", "x" * (1 << 20))
    os.close(written)
    reader.join()
    os.close(read)
    assert got == [1 << 20]


@pytest.mark.parametrize(
    ("path", "number"),
    [("/dev/stdout", 1), ("/dev/stderr", 2), ("/dev/fd/7", 7), ("/proc/self/fd/12", 12), ("/dev/../dev/fd/3", 3),
     ("/proc/thread-self/fd/4", 4), ("/dev/null", None), ("/dev/fd/x", None), ("out", None), ("/dev/fd/-1", None)],
)  # fmt: skip
def test_names_of_descriptors(path, number):
    assert descriptor_named(path) == number


def test_a_link_to_standard_output(tmp_path):
    (tmp_path / "out").symlink_to("/dev/stdout")
    assert descriptor_named(str(tmp_path / "out")) == 1


def test_two_outputs_in_one_place(tmp_path):
    (tmp_path / "file").touch()
    os.link(tmp_path / "file", tmp_path / "same")
    (tmp_path / "link").symlink_to("new")
    os.mkfifo(tmp_path / "fifo")
    for one, other in (("file", "./file"), ("file", "same"), ("new", "link"), ("new", "new"), ("fifo", "./fifo")):
        with Outputs() as outputs:
            outputs.open(f"{tmp_path}/{one}")
            with pytest.raises(UsageProblem, match=r"is the same output as|is named for two outputs"):
                outputs.open(f"{tmp_path}/{other}")
    with Outputs() as outputs:
        outputs.open("/dev/stdout")
        with pytest.raises(UsageProblem, match="same output"):
            outputs.open("/proc/self/fd/1")
    with Outputs() as outputs:
        for path in ("/dev/null", "/dev/null", f"{tmp_path}/file"):
            outputs.open(path)


@pytest.mark.parametrize("order", ["input first", "output first"])
def test_what_was_opened_is_not_written(tmp_path, order):
    (tmp_path / "image").write_text("image")
    os.link(tmp_path / "image", tmp_path / "same")
    (tmp_path / "link").symlink_to("image")
    with (tmp_path / "image").open("a") as appending:
        for name in ("image", "./image", "same", "link", f"/dev/fd/{appending.fileno()}"):
            path = name if name.startswith("/") else f"{tmp_path}/{name}"
            with watching() as inputs, Outputs(inputs) as outputs:
                if order == "output first":
                    outputs.open(path)
                else:
                    os.close(open_input(str(tmp_path / "image")))
                with pytest.raises(UsageProblem, match="would be overwritten; give another output"):
                    outputs.open(path) if order == "input first" else open_input(str(tmp_path / "image"))
    assert (tmp_path / "image").read_text() == "image"


def test_what_was_opened_elsewhere_counts(tmp_path):
    (tmp_path / "kernel").touch()
    with watching() as theirs:
        os.close(open_input(str(tmp_path / "kernel"), "6.1.0"))
    with watching() as inputs:
        note(theirs.opened)
        with pytest.raises(UsageProblem, match=r"kernel: is the input 6\.1\.0 by another name"):
            Outputs(inputs).open(str(tmp_path / "kernel"))


def test_nobody_watches_callers_of_the_interface(tmp_path):
    (tmp_path / "image").touch()
    os.close(open_input(str(tmp_path / "image")))
    note({(1, 2): "x"})
    write(str(tmp_path / "image"))


def test_devices_by_all_their_names(tmp_path):
    node = block_node(tmp_path)
    names = names_of(node, tmp_path / "names")
    try:
        for kind, name in names.items():
            with pytest.raises(UsageProblem) as told:
                write(name)
            said = str(told.value)
            assert re.search(r": is a block device( \(/.*\))? and is not written to; an output is a file", said), kind
    finally:
        close_descriptors(names)


def test_the_file_behind_a_loop_device(tmp_path):
    backing = tmp_path / "disk"
    backing.write_bytes(bytes(1 << 20))
    os.link(backing, tmp_path / "same")
    with loop_device(backing) as device:
        if device is None:
            pytest.skip("no loop devices may be made here")
        status = backing.stat()
        assert backing_files(device.stat().st_rdev) == {(status.st_dev, status.st_ino)}
        for opened in (True, False):
            for name in ("disk", "same"):
                with watching() as inputs, Outputs(inputs) as outputs:
                    if opened:
                        os.close(open_input(str(device)))
                    else:
                        note_named(str(device))
                    with pytest.raises(UsageProblem, match=f"{name}: is the input {device} by another name"):
                        outputs.open(str(tmp_path / name))
    assert backing.stat().st_mtime_ns == status.st_mtime_ns


def test_backing_files_of_what_has_none(tmp_path):
    assert backing_files(block_node(tmp_path).lstat().st_rdev) == set()
    with (tmp_path / "file").open("w+") as file:
        assert backing_files(os.makedev(240, 99), file.fileno()) == set()


def test_a_file_output_tells_where_it_will_be(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there/file")
    place = FileOutput(str(tmp_path / "link"), Inputs())
    assert place.directory == str(tmp_path / "there")
