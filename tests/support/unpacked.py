"""Compressed inputs, unpacked once for all runs of the tests on this machine."""

from __future__ import annotations

import lzma
import os
from pathlib import Path
from typing import IO

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
CACHE = Path(os.environ.get("HIBERCHECK_CASES_CACHE", Path.home() / ".cache" / "hibercheck-cases"))

_BLOCK = 1 << 16


def unpack(source: Path, directory: Path) -> Path:
    """Unpack a file (``x.bin.xz``) into a directory unless it is there, and give its path."""
    target = directory / source.name.removesuffix(".xz")
    if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
        directory.mkdir(parents=True, exist_ok=True)
        part = target.with_suffix(f"{target.suffix}.{os.getpid()}")
        with lzma.open(source) as packed, part.open("wb") as plain:
            write_sparse(packed, plain)
        part.rename(target)  # whole, for whoever else is looking for it
    return target


def write_sparse(source: IO[bytes], target: IO[bytes]) -> None:
    """Write what is read, zeros as holes: an image of 300 MB holds 10."""
    while block := source.read(_BLOCK):
        if block.count(0) == len(block):
            target.seek(len(block), os.SEEK_CUR)
        else:
            target.write(block)
    target.truncate()


def plain_path(name: str | Path) -> str:
    """Return the path of a committed input (``kernels/x.vmlinux.xz``), unpacked if it is compressed by xz."""
    source = FIXTURES / name
    return str(unpack(source, CACHE / "fixtures") if source.suffix == ".xz" else source)


def copied(source: str | Path, target: Path) -> Path:
    """Copy a file of which most is holes, and give the copy's path."""
    with Path(source).open("rb") as plain, target.open("wb") as copy:
        copy.truncate(os.fstat(plain.fileno()).st_size)
        at = 0
        while (at := _data_from(plain.fileno(), at)) is not None:
            end = os.lseek(plain.fileno(), at, os.SEEK_HOLE)
            plain.seek(at)
            copy.seek(at)
            copy.write(plain.read(end - at))
            at = end
    return target


def _data_from(file: int, at: int) -> int | None:
    try:
        return os.lseek(file, at, os.SEEK_DATA)
    except OSError:  # only a hole is left
        return None
