"""How fast images are read, beside the bare decompressor, and how much memory a large one takes.

Figures that count: ``python -m tests.bench``, on images of a gigabyte.  Here what measures them is run on a small one.
Memory is asserted, times are not.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from hibercheck.swsusp.image import open_image
from tests.bench.rates import rates, table
from tests.support.image_large import enlarge, free_bytes
from tests.support.unpacked import plain_path

pytestmark = pytest.mark.slow

RUNS = 5
FRAMES = 1 << 18
FEW = 1 << 14
LARGE = 16 << 20
DEBIAN = ("images/b9e5b9779f.bin.xz", "kernels/debian-6.1.176.vmlinux.xz")
RESUMER = "kernels/park-hlt.vmlinux.xz"


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    directory = tmp_path_factory.mktemp("bench")
    if free_bytes(directory) < 8 << 30:
        pytest.skip("needs 8 GiB of temporary files")
    yield directory
    for path in directory.iterdir():
        path.unlink()


@pytest.fixture(scope="module")
def small():
    """A real image that is quickly compressed again."""
    return Path(plain_path("images/b65f345bef.bin.xz"))


@pytest.fixture
def memory_disk(tmp_path):
    """Where a core is written to: memory, so that hibercheck is measured and not the disk."""
    shared = Path("/dev/shm")  # noqa: S108
    if not shared.is_dir() or free_bytes(shared) < 2 << 30:
        yield tmp_path
        return
    directory = Path(tempfile.mkdtemp(dir=shared))
    yield directory
    shutil.rmtree(directory)


@pytest.mark.parametrize("compressor", ["lzo", "lz4"])
def test_verify_and_export_beside_the_bare_decompressor(small, room, memory_disk, compressor):
    path = enlarge(small, room / "image", frames=FEW, tiny=False, checksum=True, compressor=compressor)
    volume, measured = rates(path, {"memory": memory_disk, "disk": room}, 1)
    print(f"\n{table(compressor, volume, measured)}")
    assert measured.keys() >= {"decompressor", "verify", "export to memory", "export to disk"}


@pytest.fixture(scope="module")
def large(unpacked, room):
    """The image of a machine of 64 GiB that holds all of it, in a million runs."""
    return enlarge(unpacked(DEBIAN[0]), room / "large", frames=LARGE)


def measured(*arguments):
    """Run hibercheck; return its exit status, processor seconds, wall seconds and peak memory in MiB."""
    program = (
        "import resource, subprocess, sys\n"
        "done = subprocess.run([sys.executable, '-m', 'hibercheck', *sys.argv[1:]], stdout=subprocess.DEVNULL)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(done.returncode, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)\n"
    )
    begun = time.perf_counter()
    out = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], stdout=subprocess.PIPE, check=True
    ).stdout
    wall = time.perf_counter() - begun
    status, processor, memory = out.split()
    return int(status), float(processor), wall, float(memory)


def test_verdict_on_a_machine_of_64_gib(unpacked, large):
    kernels = ("--resumer", unpacked(RESUMER), "--resumee", unpacked(DEBIAN[1]))
    small = measured(unpacked(DEBIAN[0]), *kernels)
    status, processor, wall, memory = measured(large, *kernels)
    print(f"small: {small[1]:.2f} s of processor, {small[3]:.0f} MiB")
    print(f"16 million frames: {processor:.2f} s of processor, {wall:.2f} s, {memory:.0f} MiB")
    assert status == small[0]
    assert status in {0, 1}  # a verdict, not a failure
    assert memory < 300


def test_large_image_command_in_bounded_memory(large):
    status, processor, wall, memory = measured("image", large, "--format", "json")
    print(f"image: {processor:.2f} s of processor, {wall:.2f} s, {memory:.0f} MiB")
    assert status == 0
    assert memory < 200


@pytest.fixture(scope="module")
def gigabyte(small, room):
    """An image of a gigabyte of real contents."""
    return enlarge(small, room / "gigabyte", frames=FRAMES, tiny=False, checksum=True)


def test_verify_and_export_in_bounded_memory(gigabyte, room):
    for arguments in (("image", gigabyte, "--verify"), ("export", gigabyte, room / "core")):
        status, *_, memory = measured(*arguments)
        assert status == 0
        print(f"{arguments[0]} of a gigabyte: {memory:.0f} MiB")
        assert memory < 150


def median_of(run):
    taken = []
    for _ in range(RUNS):
        begun = time.perf_counter()
        run()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def test_time_follows_the_list_and_not_the_data(small, gigabyte, room):
    """The same PFN list before much or little data: reading the list and a page costs the same."""
    seconds = {}
    for name, path in (("little", enlarge(small, room / "little", frames=FRAMES)), ("much", gigabyte)):

        def ask(path=path):
            with open_image(str(path)) as image:
                assert image.frame(image.record.cr3 >> 12) is not None

        ask()
        seconds[name] = median_of(ask)
    print({name: f"{each * 1e3:.1f} ms" for name, each in seconds.items()})
    assert seconds["much"] < 2 * seconds["little"] + 0.02
