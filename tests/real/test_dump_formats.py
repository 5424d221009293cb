"""One running machine, dumped by QEMU in every format that it can write: they must say the same."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import time

import pytest

from hibercheck.dump.dump import open_dump

pytestmark = [pytest.mark.lab, pytest.mark.slow]
MEMORY = 128 << 20


@pytest.fixture(scope="module")
def dumps(tmp_path_factory, unpacked):
    """A directory with the same memory as ELF, kdump-compressed with zlib (flattened), raw, and the registers."""
    qemu = shutil.which("qemu-system-x86_64")
    if qemu is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    kernel = unpacked("kernels/debian-6.1.176.vmlinux.xz")
    place = tmp_path_factory.mktemp("dumps")
    command = [qemu, "-nodefaults", "-display", "none", "-machine", "q35,accel=tcg", "-m", str(MEMORY >> 20)]
    command += ["-smp", "2", "-cpu", "Skylake-Client", "-kernel", str(kernel), "-monitor", "stdio"]
    with (place / "registers").open("wb") as out:
        machine = subprocess.Popen(command, cwd=place, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.DEVNULL)
        try:
            time.sleep(6)  # into the kernel: QEMU writes a 32-bit dump of a machine that is not yet in long mode
            wanted = ["stop", "dump-guest-memory -z zlib", "dump-guest-memory elf", f"pmemsave 0 {MEMORY:#x} raw"]
            machine.communicate("\n".join([*wanted, "info registers -a", "quit", ""]).encode(), timeout=60)
        finally:
            machine.kill()
    return place


def test_all_formats_agree(dumps):
    with (
        open_dump(str(dumps / "elf")) as elf,
        open_dump(str(dumps / "zlib")) as zlib,
        open_dump(str(dumps / "raw"), registers=str(dumps / "registers")) as raw,
    ):
        assert list(elf.runs()) == list(zlib.runs())
        for first, number in elf.runs():
            for pfn in range(first, first + number):
                content = elf.frame(pfn)
                assert zlib.frame(pfn) == content
                assert pfn >= MEMORY >> 12 or raw.frame(pfn) == content
        assert elf.cpus == zlib.cpus
        for noted, listed in zip(elf.cpus, raw.cpus, strict=True):
            assert (listed.efer, listed.halted in (True, False)) == (0xD01, True)
            extra = {"source": noted.source, "kernel_gs_base": noted.kernel_gs_base, "efer": None, "halted": None}
            assert dataclasses.replace(listed, **extra) == noted
