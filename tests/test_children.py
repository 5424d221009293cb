"""Children answer in order, their end is not ours, and none is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hibercheck.children import ChildEnded, in_child, mapped
from hibercheck.errors import MalformedImage

FOREVER = """
import sys, time
from hibercheck.children import mapped
from hibercheck.cli.signals import ending_in_order

def tell(number):
    sys.stdout = None
    with open(sys.argv[1] + f"/{number}", "w") as file:
        import os
        file.write(str(os.getpid()))
    time.sleep(100)

with ending_in_order():
    with mapped(tell, range(3), jobs=3) as results:
        list(results)
"""


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in {"Z", "X"}


def pids(directory):
    return [int(content) for file in directory.iterdir() if (content := file.read_text(encoding="ascii"))]


def wait_for(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_results_come_in_order(chunk):
    def slowly(number):
        time.sleep(0.01 * (number % 3))
        return number * number

    with mapped(slowly, range(20), jobs=4, chunk=chunk) as results:
        assert list(results) == [number * number for number in range(20)]


def test_children_work_at_the_same_time():
    with mapped(lambda _: os.getpid() if time.sleep(0.1) is None else 0, range(8), jobs=4) as results:
        found = set(results)
    assert 2 <= len(found) <= 4
    assert os.getpid() not in found


def test_nothing_to_do():
    with mapped(abs, [], jobs=4) as results:
        assert list(results) == []


def test_an_error_keeps_where_it_was():
    def fail(number):
        if number == 2:
            raise MalformedImage("torn", path="x", offset=5, advice="copy it again")
        return number

    found = []
    with pytest.raises(MalformedImage, match=r"x: torn \(at byte 0x5\); copy it again"):  # noqa: SIM117
        with mapped(fail, range(4), jobs=2) as results:
            found.extend(results)
    assert found == [0, 1]


def test_any_other_exception_is_named():
    with pytest.raises(RuntimeError, match="in a worker process: ZeroDivisionError") as caught:
        in_child(lambda: 1 // 0)
    assert "in <lambda>" in caught.value.__notes__[0]


@pytest.mark.parametrize("end", [lambda: os._exit(0), lambda: os._exit(1), lambda: os.kill(os.getpid(), 9)])
def test_a_child_that_ends_is_not_our_end(end, capfd):
    with pytest.raises(ChildEnded):
        in_child(end)
    assert capfd.readouterr() == ("", "")


def test_what_a_child_prints_is_for_nobody(capfd):
    assert in_child(lambda: os.write(1, b"x") + os.write(2, b"y")) == 2
    assert capfd.readouterr() == ("", "")


def test_a_child_without_memory():
    def much():
        import resource  # noqa: PLC0415 - in the child only

        resource.setrlimit(resource.RLIMIT_DATA, (1 << 20, 1 << 20))
        return bytes(1 << 30)

    with pytest.raises(MemoryError):
        in_child(much)


def test_children_end_with_the_context():
    with mapped(lambda _: time.sleep(100), range(2), jobs=2):
        mine = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()
        assert len(mine) == 2
    assert not any(map(alive, mine))


@pytest.mark.parametrize("signals", [[9], [15], [2], [15, 15], [2, 15], [2, 2, 2], [1, 9]])
def test_none_is_left_however_the_parent_ends(tmp_path, signals):
    with subprocess.Popen([sys.executable, "-c", FOREVER, str(tmp_path)], stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: len(pids(tmp_path)) == 3)
        children = pids(tmp_path)
        assert all(map(alive, children))
        for number in signals:
            process.send_signal(signal.Signals(number))
            time.sleep(0.005)
        process.wait(20)
    wait_for(lambda: not any(map(alive, children)))
