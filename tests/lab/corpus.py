"""A corpus of hibernation images: each case a directory that says all about itself."""

from __future__ import annotations

import json
import mmap
import os
import re
import shutil
from pathlib import Path
from typing import Any

from tests.lab.pack import compress, digest, unpack

BANNER = re.compile(rb"Linux version [^\n\0]{10,400}\n")
LIMIT = 10 << 20
"""A case larger than this is not packed: image and built kernels, compressed, in bytes."""
NOTICE = """These are images of the memory of virtual machines that ran Linux (GPL-2.0 with the syscall note) and
busybox (GPL-2.0) and nothing else; no user's data is in them.  Kernels called debian-* are Debian's packages, named in
case.json by their banner and the SHA-256 of the vmlinux in the -dbg package after `objcopy --strip-debug`; they are not
copied here.  The others were built from Debian's linux-source package by tests/lab/kernels/build.sh of hibercheck and
lie beside the image.  Complete source: <https://deb.debian.org/debian/pool/main/l/linux/>,
<https://deb.debian.org/debian/pool/main/b/busybox/>, and for superseded versions <https://snapshot.debian.org/>.
"""


LICENCES = {
    "image": "memory of a machine that ran Linux (GPL-2.0-only WITH Linux-syscall-note) and busybox (GPL-2.0-only)",
    "kernels": "GPL-2.0-only WITH Linux-syscall-note",
    "case.json": "MIT, as hibercheck",
    "source": "https://deb.debian.org/debian/pool/main/ l/linux/ and b/busybox/; superseded: https://snapshot.debian.org/",
}
"""What each case says of itself."""


def corpus(cases: list[dict[str, Any]], work: Path, target: Path) -> tuple[list[str], list[str]]:
    """Write cases, each into ``target/NAME``; images and kernels shared by several are hard links.

    Returns:
        The names of the cases written, and of those left out as too large.
    """
    store = target / ".store"
    kept, left = [], []
    for case in cases:
        files = {"image.bin.xz": packed(work / case["image"], store / "images")}
        described = dict(case) | {"licences": LICENCES}
        described["image"] = "image.bin.xz"
        described["kernels"] = {}
        for role in ("resumer", "resumee"):
            path = plain(work / case[role], store)
            described["kernels"][role] = {"name": path.stem, "banner": banner(path), "sha256": digest(path)}
            described.pop(role)
            if not path.stem.startswith("debian-"):
                files[f"{role}.vmlinux.xz"] = packed(work / case[role], store / "kernels")
                described[role] = f"{role}.vmlinux.xz"
        described.pop("memory", None)
        described.pop("sha256", None)
        if sum(path.stat().st_size for path in files.values()) > LIMIT:
            left.append(case["name"])
            continue
        write_case(target / case["name"], described, files)
        kept.append(case["name"])
    target.mkdir(parents=True, exist_ok=True)
    (target / "NOTICE").write_text(NOTICE)
    shutil.rmtree(store, ignore_errors=True)
    return kept, left


def packed(path: Path, store: Path) -> Path:
    """The file under xz, in a place where it can be linked to."""
    if path.suffix != ".xz":
        return compress(path, store / f"{path.name}.xz")
    store.mkdir(parents=True, exist_ok=True)
    target = store / path.name
    if not target.exists():
        shutil.copyfile(path, target)
    return target


def plain(path: Path, store: Path) -> Path:
    """The file itself, where it is kept under xz (as in fixtures/)."""
    return unpack(path, store / "plain" / path.stem) if path.suffix == ".xz" else path


def write_case(place: Path, case: dict[str, Any], files: dict[str, Path]) -> None:
    """Write one case's directory."""
    place.mkdir(parents=True, exist_ok=True)
    for name, source in files.items():
        (place / name).unlink(missing_ok=True)
        os.link(source, place / name)
    (place / "case.json").write_text(json.dumps(case, indent=1) + "\n")


def banner(vmlinux: Path) -> str | None:
    """A kernel's own name for itself."""
    with vmlinux.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        found = BANNER.search(data)
        return found[0].decode("latin-1").strip() if found else None
