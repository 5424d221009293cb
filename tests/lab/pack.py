"""Pack measured cases into a directory that can be kept: everything under xz, described by its own cases.json."""

from __future__ import annotations

import hashlib
import json
import lzma
import shutil
import threading
from pathlib import Path
from typing import Any

FILTERS = {
    "memory": [
        {"id": lzma.FILTER_X86},
        {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 192 << 20},
    ]
}
"""How a dump is compressed: with the preset alone it becomes larger by a third, since kernels lie in it more than once,
and far apart.  Readers here give a decoder 256 MiB."""


def pack(cases: list[dict[str, Any]], work: Path, target: Path, *, boot_files: bool = True) -> list[dict[str, Any]]:
    """Write cases and all they need.

    Args:
        cases: As they stand in the lab's cases.json.
        work: Where their files are.
        target: Directory to write to; files that are there already are kept.
        boot_files: Also the bzImage of each kernel, so that the case can be run again.

    Returns:
        The cases as written to ``target/cases.json``.
    """
    out = []
    for case in cases:
        packed = dict(case)
        for key in ("image", "resumer", "resumee", "memory"):
            if key in case:
                packed[key] = compress(work / case[key], target / f"{case[key]}.xz").relative_to(target).as_posix()
        if boot_files:
            for key in ("resumer", "resumee"):
                boot = (work / case[key]).with_suffix(".bzImage")
                if boot.exists() and not (target / "kernels" / boot.name).exists():
                    shutil.copyfile(boot, target / "kernels" / boot.name)
        packed["sha256"] = {
            packed[key]: digest(work / case[key]) for key in ("image", "resumer", "resumee") if key in case
        }
        out.append(packed)
    (target / "cases.json").write_text(json.dumps({"cases": out}, indent=1) + "\n")
    return out


def compress(source: Path, target: Path) -> Path:
    """Compress a file unless that has been done."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_suffix(".part")
        filters = FILTERS.get(target.parent.name, [{"id": lzma.FILTER_LZMA2, "preset": 9}])
        with source.open("rb") as plain, lzma.open(part, "wb", filters=filters) as packed:
            shutil.copyfileobj(plain, packed, 1 << 20)
        part.rename(target)
    return target


def unpack(source: Path, target: Path) -> Path:
    """Undo :func:`compress`, leaving holes where the content is zero."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_suffix(f"{target.suffix}.{threading.get_ident()}.part")  # experiments run side by side
        with lzma.open(source) as packed, part.open("wb") as plain:
            while piece := packed.read(1 << 20):
                if piece.count(0) == len(piece):
                    plain.seek(len(piece), 1)
                else:
                    plain.write(piece)
            plain.truncate()
        part.rename(target)
    return target


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
