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
MEMORY = 300 << 20
# ru_maxrss counts the parent as it was before exec, which may be a large pytest; VmHWM does not
RUN = """
import sys
from hibercheck.cli.run import run
status = run(sys.argv[1:])
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")), file=sys.stderr)
sys.exit(status)
"""
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
        "-c",
        RUN,
        case["image"],
        "--resumer",
        case["resumer"],
        "--resumee",
        case["resumee"],
    ]
    command += [*case["args"], "--resumer-memory", str(dump), "--timeline", "-q"]
    start = time.monotonic()
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    elapsed = time.monotonic() - start
    assert process.returncode == 1
    assert process.stdout.startswith("RESETS (fatal)")
    peak = int(process.stderr.split()[-1])
    print(f"{elapsed:.2f} s, {peak >> 10} MiB")
    assert peak << 10 < MEMORY
