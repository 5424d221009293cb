"""Compressed inputs, unpacked once for all runs of the tests on this machine."""

from __future__ import annotations

import lzma
import os
import shutil
from pathlib import Path

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
CACHE = Path(os.environ.get("HIBERCHECK_CASES_CACHE", Path.home() / ".cache" / "hibercheck-cases"))


def unpack(source: Path, directory: Path) -> Path:
    """Unpack a file (``x.bin.xz``) into a directory unless it is there, and give its path."""
    target = directory / source.name.removesuffix(".xz")
    if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
        directory.mkdir(parents=True, exist_ok=True)
        part = target.with_suffix(f"{target.suffix}.{os.getpid()}")
        with lzma.open(source) as packed, part.open("wb") as plain:
            shutil.copyfileobj(packed, plain, 1 << 20)
        part.rename(target)  # whole, for whoever else is looking for it
    return target


def plain_path(name: str | Path) -> str:
    """Return the path of a committed input (``kernels/x.vmlinux.xz``), unpacked if it is compressed by xz."""
    source = FIXTURES / name
    return str(unpack(source, CACHE / "fixtures") if source.suffix == ".xz" else source)
