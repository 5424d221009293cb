"""Modules that are loaded late: a run does without them, and who uses one gets all of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

IMAGE = ROOT / "fixtures" / "images" / "9c031ac5a1.bin.xz"
KERNEL = ROOT / "fixtures" / "kernels" / "small-hlt.vmlinux.xz"
OWN = ROOT / "fixtures" / "kernels" / "mid-current.vmlinux.xz"


def ran(code: str, cwd: Path = ROOT, **environment: str) -> list[str]:
    environment = {**os.environ, **environment}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=environment)
    assert done.returncode in {0, 1}, done.stderr
    return done.stdout.splitlines()


def test_a_quiet_check_loads_nothing_that_it_does_not_use(tmp_path: Path) -> None:
    words = ["hibercheck", str(IMAGE), "--resumer", str(KERNEL), "--resumee", str(OWN), "-q"]
    code = f"import sys; sys.argv = {words!r}; before = set(sys.modules)\n"  # Python 3.13 has linecache for -c
    code += "from hibercheck.cli.main import main\n"
    code += "try: main()\nfinally: print(*set(sys.modules) - before, sep='\\n')"
    rare = {"ast", "dis", "tokenize", "linecache", "rich", "tomllib", "subprocess", "traceback"}
    rare |= {"click", "gettext", "difflib", "platform", "_datetime"}  # platform is what uuid loads
    decoding = {"iced_x86", "hibercheck.x86.follow", "hibercheck.kernel.code.disasm"}
    for unused in (rare, rare | decoding):  # kernels that were never read, and the same again
        loaded = set(ran(code, tmp_path, XDG_CACHE_HOME=str(tmp_path / "cache")))
        assert "hibercheck.handoff.verdict.check" in loaded
        assert loaded & unused == set()


def test_a_module_is_whole_for_who_uses_it() -> None:
    code = """
from hibercheck.cli.late import load_late
load_late()
import inspect, ipaddress
import inspect as again
from importlib import import_module
assert again is inspect and import_module('inspect') is inspect
print(inspect.cleandoc(' a\\n   b'), ipaddress.ip_address('::1'), inspect.signature(load_late), hasattr(inspect, 'no'))
from inspect import *
print(isfunction(load_late), inspect.__name__, inspect.__file__.endswith('inspect.py'), inspect)
import iced_x86
print(iced_x86.Code.NOPD)
"""
    lines = ran(code)
    assert lines[0] == "a"
    assert lines[1] == "b ::1 () -> 'None' False"
    assert lines[2].startswith("True inspect True <module 'inspect' from ")
    assert int(lines[3]) > 0


def test_two_threads_that_use_one_first_get_it_both() -> None:
    code = """
from threading import Barrier, Thread
from hibercheck.cli.late import load_late
load_late()
import inspect
ready, found = Barrier(8), []
def use():
    ready.wait()
    found.append(inspect.isfunction(use))
threads = [Thread(target=use) for _ in range(8)]
for one in threads: one.start()
for one in threads: one.join()
print(found)
"""
    assert ran(code) == [str([True] * 8)]
