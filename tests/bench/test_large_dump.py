"""How long a verdict takes with the dump of a large machine: what is not looked at must cost nothing."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import time

import pytest

from tests.handoff.conftest import committed  # noqa: F401 - a fixture

GIB = 1 << 30
SIZE = 64 * GIB
SECONDS, MEMORY = 3.0, 300 << 20
_HEADER_PHOFF, _HEADER_PHNUM = 32, 56  # e_phoff and e_phnum of Elf64_Ehdr
_PHDR = struct.Struct("<IIQQQQQQ")  # Elf64_Phdr: type, flags, offset, vaddr, paddr, filesz, memsz, align


def enlarge(source, target):
    """Copy an ELF core and add a hole of RAM from 4 GiB up, so that the machine has `SIZE`; the hole takes no room."""
    shutil.copyfile(source, target)
    with target.open("r+b") as file:
        header = file.read(64)
        (place,) = struct.unpack_from("<Q", header, _HEADER_PHOFF)
        (count,) = struct.unpack_from("<H", header, _HEADER_PHNUM)
        file.seek(place)
        table = file.read(count * _PHDR.size)
        end = file.seek(0, os.SEEK_END) + 0xFFF & ~0xFFF
        hole = SIZE - 4 * GIB
        file.seek(end)
        file.write(table + _PHDR.pack(1, 0, end + 0x10000, 0, 4 * GIB, hole, hole, 0))
        file.truncate(end + 0x10000 + hole)
        file.seek(_HEADER_PHOFF)
        file.write(struct.pack("<Q", end))
        file.seek(_HEADER_PHNUM)
        file.write(struct.pack("<H", count + 1))


@pytest.mark.slow
def test_a_64_gib_dump_is_judged_in_seconds(committed, tmp_path):  # noqa: F811 - the fixture
    case = committed("fatal")
    dump = tmp_path / "large.elf"
    try:
        enlarge(case["memory"], dump)
    except OSError as error:
        pytest.skip(f"no sparse file of {SIZE // GIB} GiB here: {error}")
    assert dump.stat().st_size > SIZE - 4 * GIB
    command = [
        sys.executable,
        "-m",
        "hibercheck",
        case["image"],
        "--resumer",
        case["resumer"],
        "--resumee",
        case["resumee"],
    ]
    command += [*case["args"], "--resumer-memory", str(dump), "--timeline", "-q"]
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    elapsed = time.monotonic() - start
    assert process.returncode == 1
    assert output.startswith(b"RESETS (fatal)")
    busy = usage.ru_utime + usage.ru_stime
    print(f"{elapsed:.2f} s, of which {busy:.2f} s busy; {usage.ru_maxrss >> 10} MiB")
    assert busy < SECONDS  # not elapsed time: other work on the machine is not ours
    assert usage.ru_maxrss << 10 < MEMORY
