"""Hostile inputs of under ten megabytes, made so as to cost as much as possible, and what each may cost.

Each is given to a command as a user would give it.  It must end within `SECONDS` of processor time and `MEBIBYTES`;
what takes longer says that it still goes on, and is in `LONG` with the reason, which hibercheck(1) has too.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.seeds import cases, unpack
from tests.support import btf_writer, elf_writer, image_format, kallsyms_writer, wrappers
from tests.support.image_writer import ImageWriter

SIZE = 10_000_000
SECONDS = 10.0
MEBIBYTES = 512
LONG = {
    "zeros in bzip2": "bzip2 gives 350 MB of zeros in a second, and sixteen gigabytes are read before it is given up",
    "zeros in bzip2 as a dump": "the same",
    "zeros in xz": "xz gives 500 MB of zeros in a second, likewise",
    "zeros in gzip": "gzip gives 500 MB of zeros in a second, and eight gigabytes of them may be a disk",
}
"""What may take longer, and why."""

PAGE = 4096
_MEASURE = """
import os, sys
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=[
    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)])
_, status, used = os.wait4(child, 0)
print(used.ru_utime + used.ru_stime, used.ru_maxrss, os.waitstatus_to_exitcode(status))
"""
"""A process begins with the peak memory of the one that starts it, so that must be a small one."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a command took.

    Attributes:
        seconds: Processor time, with its children's.
        mebibytes: Peak of its memory.
        status: Its exit status.
        said: What it wrote to standard error.
    """

    seconds: float
    mebibytes: float
    status: int
    said: str

    @property
    def told(self) -> bool:
        """Whether it said that it still goes on."""
        return "hibercheck: still " in self.said


def _repeated(pack: Callable[[bytes], bytes], plain: bytes) -> bytes:
    """Members of a compressed file, as many as fit."""
    one = pack(plain)
    return one * min(SIZE // len(one), 4096)


def _headers(count: int) -> bytes:
    """A GPT of 128 partitions before so many headers that lead nowhere."""
    first = 1 << 17  # beyond where kernels with larger pages have theirs
    disk = bytearray(first + count * PAGE)
    struct.pack_into(
        "<8sIIIIQQQQ16sQIII", disk, 512, b"EFI PART", 0x10000, 92, 0, 0, 1, 0, 34, 1 << 40, b"g" * 16, 2, 128, 128, 0
    )
    for number in range(128):
        entry = struct.pack("<16s16sQQQ", b"t" * 16, bytes([number]) * 16, 34 + number * 8, 1 << 40, 0)
        disk[1024 + 128 * number : 1024 + 128 * number + len(entry)] = entry
    for number in range(count):
        at = first + number * PAGE
        disk[at : at + PAGE] = image_format.header_page(image=2 + number, flags=0, sig=b"S1SUSPEND\0")
    return bytes(disk)


def _packed_pfns() -> bytes:
    """An image that is a list of frames: runs of one each."""
    return ImageWriter(frames={256 + 2 * n: None for n in range(600_000)}, zero_flag=True, compressor="lz4").encode()


def _kernel(**more: object) -> bytes:
    return elf_writer.write_kernel(elf_writer.SYMBOLS, **more)  # type: ignore[arg-type]


def _section(name: str, data: bytes) -> bytes:
    place = elf_writer.RODATA + 0x2000000
    return _kernel(extra=[elf_writer.Section(name, place, data, elf_writer.ALLOC)])


def _code(word: bytes) -> bytes:
    """A kernel whose functions are nothing but this, over and over."""
    data = bytearray(unpack("kernels/small-hlt.vmlinux.xz").read_bytes())
    from hibercheck.kernel.kernel import open_kernel  # noqa: PLC0415 - not before it is wanted

    with open_kernel(str(unpack("kernels/small-hlt.vmlinux.xz"))) as kernel:
        text = kernel.require("native_play_dead").address & ~0xFFFF
        at, size = kernel.elf.file_range(text, 1 << 20)  # type: ignore[misc]
    data[at : at + size] = (word * (size // len(word) + 1))[:size]
    return gzip.compress(bytes(data), 6)


def _kallsyms() -> bytes:
    base = 0xFFFFFFFF81000000
    symbols = [(base + 64 * n, "T", f"cpu_hib{n}_init__st") for n in range(60_000)]
    table = bytearray(kallsyms_writer.write_kallsyms(symbols, kallsyms_writer.LAYOUTS[-1], base + 0x1000000))
    table[len(table) // 2] ^= 0x55
    return _section(".rodata.more", bytes(table))


def _nested_tar(members: int) -> bytes:
    """An archive of so many empty files: the header of one, each time with another name and its sum."""
    whole = wrappers.tar({"boot/": b""})
    head, end = bytearray(whole[:512]), whole[512:]
    heads = []
    for number in range(members):
        head[:100], head[148:156] = (b"boot/%d" % number).ljust(100, b"\0"), b" " * 8
        head[148:156] = b"%06o\0 " % sum(head)
        heads.append(bytes(head))
    return gzip.compress(b"".join([*heads, end]), 9)


def _core(segments: int) -> bytes:
    head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 4, 62, 1, 0, 64, 0, 0, 64, 56, segments, 64, 0, 0)
    start = 64 + 56 * segments
    rows = (struct.pack("<IIQQQQQQ", 1, 0, start + n, 0, n * PAGE, 1, PAGE, PAGE) for n in range(segments))
    return head + b"".join(rows) + bytes(segments)


def _qcow2() -> bytes:
    """A disk whose clusters are all the same one, 2^50 bytes of it."""
    cluster = 1 << 16
    head = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 2, 0, 0, 16, 1 << 46, 0, 1 << 17, cluster, cluster, 1, 0, 0)
    entry = struct.pack(">Q", 1 << 63 | 2 * cluster)
    return head.ljust(cluster, b"\0") + (entry * (cluster // 8)) * 20


def _facts(**more: object) -> bytes:
    return json.dumps({"hibercheck_facts": 1, "present": "0-1", "online": "0-1"} | more).encode()


def _handoff() -> list[str]:
    case = next(case for case in cases() if case["name"] == "fatal")
    image, resumer, resumee = (str(unpack(case[key])) for key in ("image", "resumer", "resumee"))
    return [image, "--resumer", resumer, "--resumee", resumee, *case["args"]]


def _with(option: str) -> Callable[[str], list[str]]:
    return lambda path: [*_handoff(), option, path]


def _first(command: str) -> Callable[[str], list[str]]:
    return lambda path: [command, path]


_image, _reads = _first("image"), _first("kernel")
_zstd = wrappers.zstd.compress

INPUTS: dict[str, tuple[Callable[[], bytes], Callable[[str], list[str]]]] = {
    "zeros in zstd": (lambda: _repeated(_zstd, bytes(64 << 20)), _image),
    "zeros in xz": (lambda: _repeated(lzma.compress, bytes(64 << 20)), _image),
    "zeros in gzip": (lambda: _repeated(gzip.compress, bytes(64 << 20)), _image),
    "zeros in bzip2": (lambda: _repeated(bz2.compress, bytes(64 << 20)), _image),
    "zeros in LZ4": (lambda: _repeated(wrappers.COMPRESS["lz4 frame"], bytes(64 << 20)), _image),
    "zeros in zstd as a kernel": (lambda: _repeated(_zstd, bytes(64 << 20)), _reads),
    "zeros in bzip2 as a dump": (lambda: _repeated(bz2.compress, bytes(64 << 20)), _with("--resumer-memory")),
    "headers behind a GPT": (lambda: _headers(2000), _image),
    "a disk of one cluster": (_qcow2, _image),
    "frames, each alone": (_packed_pfns, lambda path: ["image", path, "--map", "--verify"]),
    "an image that tells of too many pages": (
        lambda: ImageWriter(frames=dict.fromkeys(range(256, 512)), damage=["count-of-pages"]).encode(),
        _image,
    ),
    "symbols": (lambda: _section(".x", b"") + bytes(SIZE - (1 << 16)), _reads),
    "kallsyms with a byte changed": (_kallsyms, _reads),
    "nothing like kallsyms": (lambda: _section(".rodata.more", b"\1\0\0\0" * (SIZE // 5)), _reads),
    "words like kallsyms": (
        lambda: _section(".rodata.more", struct.pack("<4I", 0x100, 8, 16, 24) * (SIZE // 17)),
        _reads,
    ),
    "types": (
        lambda: _section(
            ".BTF", btf_writer.write_btf([btf_writer.Type(btf_writer.TYPEDEF, "a", n + 2) for n in range(300_000)])
        ),
        _reads,
    ),
    "a bzImage of zeros": (lambda: wrappers.bzimage(_repeated(_zstd, bytes(64 << 20)), size=0), _reads),
    "members of an archive": (lambda: _nested_tar(100_000), _reads),
    "an archive of zeros": (lambda: gzip.compress(bytes(64 << 20), 9) * 128, _reads),
    "jumps": (lambda: _code(b"\x74\x00"), _reads),
    "calls": (lambda: _code(b"\xe8\x00\x01\x00\x00"), _reads),
    "jumps backwards": (lambda: _code(b"\x75\x80"), _reads),
    "halts": (lambda: _code(b"\xf4\xeb\xfd"), _reads),
    "lines of System.map": (
        lambda: b"".join(
            b"%016x T %s%d\n" % (0xFFFFFFFF81000000 + n, b"f" if n else b"_text", n) for n in range(350_000)
        ).replace(b"_text0", b"_text"),
        _with("--resumer-symbols"),
    ),
    "one line of System.map": (lambda: b"f" * (SIZE - 1), _with("--resumer-symbols")),
    "segments": (lambda: _core(60_000), _with("--resumer-memory")),
    "facts in brackets": (
        lambda: b'{"hibercheck_facts": 1, "present": ' + b"[" * (SIZE // 2),
        _with("--resumer-facts"),
    ),
    "facts of all CPUs": (
        lambda: _facts(
            present="0-8191",
            online="0-8191",
            cpuinfo=[
                line for n in range(8192) for line in (f"processor: {n}", f"apicid: {n}", "vendor_id: GenuineIntel")
            ],
        ),
        _with("--resumer-facts"),
    ),
    "facts with a map of memory": (
        lambda: _facts(
            e820=[{"type": "System RAM", "start": hex(n << 12), "end": hex((n << 12) + 2047)} for n in range(100_000)]
        ),
        _with("--resumer-facts"),
    ),
    "suppressions": (
        lambda: b"".join(
            b'[[suppress]]\nrule = "HC101"\ncpu = "%d"\nreason = "x"\n' % (n % 8000) for n in range(60_000)
        ),
        _with("--suppressions"),
    ),
    "patterns": (
        lambda: b"".join(b'[[suppress]]\nsymbol = "%s"\nreason = "x"\n' % (b"*a" * 400) for _ in range(4_000)),
        _with("--suppressions"),
    ),
    "a configuration": (lambda: b"".join(b"[a%d]\nb = 1\n" % n for n in range(55_000)), _with("--config")),
    "dots in a configuration": (lambda: b"a" + b".a" * 500_000 + b" = 1\n", _with("--config")),
    "a baseline": (
        lambda: json.dumps(
            {"hibercheck_baseline": 2, "findings": [{"fingerprint": str(n)} for n in range(300_000)]}
        ).encode(),
        _with("--baseline"),
    ),
    "a log": (lambda: b"[    0.000000] PM: Image mismatch: architecture specific data\n" * 150_000, _first("log")),
    "a log of one line": (lambda: b"PM: hibernation: " * (SIZE // 18), _first("log")),
    "a list of kernels": (lambda: b"absent\n" * (SIZE // 8), lambda path: ["matrix", f"@{path}"]),
    "parts of a matrix": (lambda: b'{"rows": ' + b"[" * (SIZE // 2), lambda path: ["matrix", "merge", path]),
    "registers": (
        lambda: b"".join(b"CPU#%d\nRAX=0000000000000000\n" % n for n in range(SIZE // 35)),
        lambda path: [*_handoff(), "--resumer-memory", path, "--resumer-registers", path],
    ),
}
"""What is made, and the command line that reads it."""


def cost(name: str, directory: Path) -> Cost:
    """Make an input, give it to its command, and measure."""
    make, words = INPUTS[name]
    path = directory / "input"
    path.write_bytes(make())
    assert path.stat().st_size <= SIZE, (name, path.stat().st_size)
    return measured(words(str(path)), directory)


def measured(words: list[str], directory: Path) -> Cost:
    """Run a command and measure; what it says goes to a file of the directory meanwhile."""
    said = directory / "said"
    with said.open("wb") as stream:
        begun = [sys.executable, "-S", "-c", _MEASURE, *command_of(words)]
        ran = subprocess.run(begun, stdout=subprocess.PIPE, stderr=stream, text=True, timeout=600, check=True)
    seconds, peak, status = ran.stdout.split()
    text = said.read_text(encoding="utf-8", errors="replace")
    return Cost(float(seconds), int(peak) / 1024, int(status), text)


def command_of(words: list[str]) -> list[str]:
    """Return the command line of an arbitrary command."""
    return [sys.executable, "-m", "hibercheck", *words]


def wrong(name: str, took: Cost) -> str | None:
    """Say what is wrong with what it took or how it ended, or None."""
    lines = [
        line for line in took.said.splitlines() if not line.startswith(("hibercheck: still ", "hibercheck: gate:"))
    ]
    if took.status not in {0, 1, 2, 3, 4} or "Traceback" in took.said or "internal error" in took.said:
        return f"status {took.status}: {took.said[-300:]}"
    if took.status in {2, 3} and len(lines) != 1:
        return f"says {lines[:4]}"
    if took.mebibytes > MEBIBYTES:
        return f"takes {took.mebibytes:.0f} MiB"
    if took.seconds > SECONDS and not (took.told and name in LONG):
        return f"takes {took.seconds:.1f} s" + ("" if took.told else ", without a line")
    return None


def campaign(directory: Path) -> Iterator[str]:
    """Try each, and yield a line of a table for it; the last lines say what was wrong."""
    found = []
    yield "| input | processor, s | peak, MiB | status | |\n|---|--:|--:|--:|---|"
    for name in INPUTS:
        took = cost(name, directory)
        what = wrong(name, took)
        found += [f"{name}: {what}"] if what else []
        yield f"| {name} | {took.seconds:.1f} | {took.mebibytes:.0f} | {took.status} | {LONG.get(name, '')} |"
    yield from found
