"""Build Bochs with the lab's hooks, from Debian's source package."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.lab.errors import LabError
from tests.lab.once import held
from tests.support.debian_kernels import SUITES, Apt

HERE = Path(__file__).resolve().parent
PATCH = HERE / "bochs-3.0.patch"
HOOKS = HERE / "hooks"
SOURCE = "bochs_3.0+dfsg.orig.tar.xz"
BINARIES = ("bochsbios", "vgabios")
VERSION = "Bochs 3.0"
OPTIONS = (
    *("--enable-smp", "--enable-x86-64", "--enable-cpu-level=6", "--enable-all-optimizations"),
    *("--enable-monitor-mwait", "--enable-avx", "--enable-evex", "--enable-vmx=2", "--enable-cet", "--enable-uintr"),
    *("--enable-protection-keys", "--enable-memtype", "--enable-pci", "--disable-plugins", "--disable-show-ips"),
    *("--disable-docbook", "--with-nogui", "--enable-instrumentation=instrument/lab"),
    *("CFLAGS=-O2 -w", "CXXFLAGS=-O2 -w -fno-strict-aliasing"),
)
"""``--disable-show-ips``: else a signal and a line of output every second."""


@dataclass(frozen=True, slots=True)
class Bochs:
    """What a run needs."""

    binary: Path
    bios: Path
    vga_bios: Path


def build(place: Path) -> Bochs:
    """Build it in a directory, unless what is there was built from the same patch and hooks.

    Raises:
        LabError: A package cannot be had, or it does not compile.
    """
    with held(place):
        place.mkdir(exist_ok=True)
        return _build(place)


def _build(place: Path) -> Bochs:
    tree = place / "bochs-3.0"
    stamp, wanted = tree / "lab.stamp", fingerprints()
    found = stamp.read_text().split() if stamp.exists() else []
    if found[:1] == wanted[:1] and found != wanted:
        shutil.copytree(HOOKS, tree / "instrument" / "lab", dirs_exist_ok=True)
        run(["make"], tree)
        stamp.write_text("\n".join(wanted))
    elif found != wanted:
        fetch(place)
        shutil.rmtree(tree, ignore_errors=True)
        run(["tar", "xf", place / SOURCE], place)
        with PATCH.open("rb") as patch:
            run(["patch", "-s", "-p1"], tree, stdin=patch)
        shutil.copytree(HOOKS, tree / "instrument" / "lab")
        run(["./configure", *OPTIONS], tree)
        run(["make", "-j", str(os.cpu_count() or 1)], tree)
        stamp.write_text("\n".join(wanted))
    share = place / "firmware" / "usr" / "share"
    return Bochs(tree / "bochs", share / "bochs" / "BIOS-bochs-latest", share / "vgabios" / "vgabios.bin")


def fingerprints() -> list[str]:
    """Digests of what all of Bochs is built from (options, patch, headers), and of what only the hooks are."""
    sources = sorted(HOOKS.glob("*.cc"))
    whole = [PATCH, *sorted(path for path in HOOKS.iterdir() if path not in sources)]
    return [digest(repr(OPTIONS).encode(), whole), digest(b"", sources)]


def digest(start: bytes, paths: list[Path]) -> str:
    """SHA-256 of bytes and files."""
    found = hashlib.sha256(start)
    for path in paths:
        found.update(path.read_bytes())
    return found.hexdigest()


def fetch(place: Path) -> None:
    """Get the source and the firmware.

    Raises:
        LabError: They cannot be had.
    """
    trixie = next(suite for suite in SUITES if suite.name == "trixie")
    apt = Apt(place / "apt", trixie, source=True)
    firmware = place / "firmware"
    try:
        if not (place / SOURCE).exists() or not firmware.exists():
            apt.run("apt-get", "update")
        if not (place / SOURCE).exists():
            try:
                apt.run("apt-get", "source", "--download-only", "bochs", cwd=place)
            except subprocess.CalledProcessError:  # a mirror may lack the .dsc: the tarball is there all the same
                if not (place / SOURCE).exists():
                    raise
        if not firmware.exists():
            apt.run("apt-get", "download", *BINARIES, cwd=place)
            for name in BINARIES:
                run(["dpkg-deb", "-x", next(place.glob(f"{name}_*.deb")), firmware], place)
    except (subprocess.CalledProcessError, StopIteration) as error:
        raise LabError(f"Bochs cannot be had from Debian: {error}") from error


def run(command: list[str | Path], place: Path, stdin: object = None) -> None:
    """Run one step of the build, its output in ``build.log`` beside the tree.

    Raises:
        LabError: It fails.
    """
    log = place.parent / "build.log" if place.name.startswith("bochs") else place / "build.log"
    with log.open("ab") as out:
        done = subprocess.run(command, cwd=place, stdin=stdin, stdout=out, stderr=out, check=False)  # type: ignore[call-overload]
    if done.returncode:
        raise LabError(f"{command[0]} failed: see {log}")
