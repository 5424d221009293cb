"""Taking away the right to write, tried for real in children of this process."""

from __future__ import annotations

import errno
import json
import os

import pytest

from hibercheck.children import in_child
from hibercheck.files import landlock
from hibercheck.files.outputs import Outputs
from tests.support.file_systems import without_nameless_files

needs_landlock = pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock, or it is not enabled")


def attempts(directory):
    """What a process may try: name and the trial, each on a file of its own."""
    for name in ("opened", "truncated", "removed", "renamed", "linked"):
        (directory / name).write_text("keep")
    return {
        "open": lambda: os.close(os.open(directory / "opened", os.O_WRONLY)),
        "open and truncate": lambda: os.close(os.open(directory / "opened", os.O_WRONLY | os.O_TRUNC)),
        "truncate": lambda: os.truncate(directory / "truncated", 0),
        "create": lambda: os.close(os.open(directory / "created", os.O_WRONLY | os.O_CREAT)),
        "remove": (directory / "removed").unlink,
        "rename": lambda: (directory / "renamed").rename(directory / "moved"),
        "link": lambda: os.link(directory / "linked", directory / "link"),
        "symlink": lambda: (directory / "symlink").symlink_to("x"),
        "mkdir": (directory / "subdirectory").mkdir,
        "mkfifo": lambda: os.mkfifo(directory / "fifo"),
    }


def tried(trials, allowed):
    """Restrict a child, try everything in it, and return what it was refused."""

    def work():
        assert landlock.restrict(allowed)
        refused = []
        for name, trial in trials.items():
            try:
                trial()
            except OSError as error:
                if error.errno not in {errno.EACCES, errno.EXDEV}:
                    raise
                refused.append(name)
        return refused

    return set(in_fork(work))


def in_fork(work):
    """Like `in_child`, which restricts its child already."""
    read, written = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.write(written, json.dumps(work()).encode())
        except BaseException as error:  # noqa: BLE001 - told to the parent
            os.write(written, json.dumps(repr(error)).encode())
        finally:
            os._exit(0)
    os.close(written)
    os.waitpid(pid, 0)
    with os.fdopen(read) as answer:
        return json.loads(answer.read())


@needs_landlock
def test_nothing_may_be_changed(tmp_path):
    trials = attempts(tmp_path)
    assert tried(trials, []) == set(trials)
    assert all(one.read_text() == "keep" for one in tmp_path.iterdir())


@needs_landlock
@pytest.mark.parametrize(("abi", "more"), [(1, {"truncate"}), (2, {"truncate"}), (3, set())])
def test_older_kernels_take_away_less(tmp_path, monkeypatch, abi, more):
    """6.1, for one, does not know of truncation."""
    monkeypatch.setattr(landlock, "version", lambda: abi)
    trials = attempts(tmp_path)
    assert tried(trials, []) == set(trials) - more


@needs_landlock
def test_what_is_allowed_may_be_changed(tmp_path):
    for name in ("work", "file", "replace", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "file" / "one").write_text("keep")
    allowed = [
        (str(tmp_path / "work"), landlock.WORK),
        (str(tmp_path / "file" / "one"), landlock.FILE),
        (str(tmp_path / "replace"), landlock.REPLACE),
        (str(tmp_path / "absent"), landlock.WORK),
    ]
    trials = attempts(tmp_path / "work")
    assert tried(trials, allowed) <= {"symlink", "mkfifo"}
    trials = {"one": lambda: os.truncate(tmp_path / "file" / "one", 1)}
    assert tried(trials, allowed) == set()
    trials = attempts(tmp_path / "replace")
    assert {"open", "truncate", "open and truncate", "symlink", "mkdir"} <= tried(trials, allowed)
    trials = attempts(tmp_path / "other")
    assert tried(trials, allowed) == set(trials)


@needs_landlock
@pytest.mark.parametrize("abi", [1, 2, 3, 7])
@pytest.mark.parametrize("nameless", [True, False])
@pytest.mark.parametrize("old", [True, False])
def test_outputs_are_written_all_the_same(tmp_path, monkeypatch, abi, nameless, old):
    monkeypatch.setattr(landlock, "version", lambda: abi)
    if not nameless:
        monkeypatch.setattr(os, "open", without_nameless_files(os.open))
    target = tmp_path / "out"
    if old:
        target.write_text("old")

    def work():
        with Outputs() as outputs:
            outputs.open(str(target))
            assert landlock.restrict(outputs.allowed())
            outputs.write(str(target), ["new"])
        return "done"

    assert in_fork(work) == "done"
    assert target.read_text() == "new"
    assert [one.name for one in tmp_path.iterdir()] == ["out"]


@needs_landlock
def test_what_is_given_up_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "open", without_nameless_files(os.open))

    def work():
        with Outputs() as outputs:
            outputs.open(str(tmp_path / "out"))
            assert landlock.restrict(outputs.allowed())
        return "done"

    assert in_fork(work) == "done"
    assert list(tmp_path.iterdir()) == []


@needs_landlock
def test_what_is_open_stays_open(tmp_path):
    with (tmp_path / "open").open("w") as file:
        assert tried({"write": lambda: os.write(file.fileno(), b"text")}, []) == set()
    assert (tmp_path / "open").read_text() == "text"


def test_a_kernel_without_it_is_no_failure(monkeypatch, tmp_path):
    monkeypatch.setattr(landlock, "version", lambda: 0)
    assert not landlock.restrict([])
    (tmp_path / "file").write_text("not restricted")


@needs_landlock
def test_a_child_for_hostile_bytes_can_write_nowhere(tmp_path):
    def work():
        try:
            (tmp_path / "file").write_text("written")
        except PermissionError:
            return "refused"
        return "written"

    assert in_child(work) == "refused"
    (tmp_path / "file").write_text("this process is as it was")
