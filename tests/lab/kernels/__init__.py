"""The kernels that the lab boots: bzImage for QEMU, vmlinux for hibercheck."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from hibercheck.kernel.kernel import open_kernel
from tests.lab.errors import LabError
from tests.lab.pack import unpack

ROOT = Path(__file__).resolve().parents[3]
WANTED = (
    "_text",
    "restore_image",
    "restore_jump_address",
    "acpi_processor_ffh_cstate_probe_cpu",
    "acpi_processor_ffh_cstate_enter",
)
"""The symbols that the lab itself uses."""
VIRTIO = ("virtio", "virtio_ring", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk")


@dataclass(frozen=True, slots=True)
class Kernels:
    """Finds NAME.bzImage and NAME.vmlinux in some directories.

    Args:
        places: Directories, the first that has the file wins.
        cache: Where a file that is kept under xz is unpacked.
    """

    places: tuple[Path, ...]
    cache: Path

    def boot_file(self, name: str) -> Path:
        """What QEMU boots."""
        return self._find(f"{name}.bzImage")

    def vmlinux(self, name: str) -> Path:
        """What hibercheck reads: the vmlinux, or the vmlinuz where there is none."""
        try:
            return self._find(f"{name}.vmlinux")
        except LabError:
            return self._find(f"{name}.bzImage")

    def modules(self, name: str) -> tuple[Path, ...]:
        """The modules of virtio's disk that a kernel has not built in, in the order in which they are loaded.

        Raises:
            LabError: They are not there.
        """
        for place in self.places:
            found = tuple(path for part in VIRTIO if (path := place / f"{name}.modules" / f"{part}.ko").exists())
            if found:
                return found
        raise LabError(f"no {name}.modules with virtio_blk.ko (tests/lab/README.md says how to get it)")

    def named_modules(self, name: str, wanted: tuple[str, ...]) -> tuple[Path, ...]:
        """Some modules of a kernel.

        Raises:
            LabError: One is not there.
        """
        out = []
        for module in wanted:
            found = [path for place in self.places if (path := place / f"{name}.modules" / f"{module}.ko").exists()]
            if not found:
                raise LabError(f"no {name}.modules/{module}.ko (tests/lab/README.md says how to get it)")
            out.append(found[0])
        return tuple(out)

    def has(self, name: str) -> bool:
        """Whether both files are there."""
        try:
            self.boot_file(name)
            self.vmlinux(name)
        except LabError:
            return False
        return True

    def symbols(self, name: str) -> dict[str, int]:
        """Link-time addresses of all symbols."""
        return symbols_of(self.vmlinux(name))

    def _find(self, file: str) -> Path:
        for place in self.places:
            if (place / file).exists():
                return place / file
            if (place / f"{file}.xz").exists():
                return unpack(place / f"{file}.xz", self.cache / file)
        looked = ", ".join(str(place) for place in self.places)
        raise LabError(f"no {file} in {looked} (tests/lab/README.md says how to get it)")


@lru_cache(maxsize=64)
def symbols_of(kernel: Path) -> dict[str, int]:
    """Addresses of symbols: by ``nm``, or out of a vmlinuz (kallsyms), by hibercheck's reader, those the lab needs."""
    run = subprocess.run(["nm", kernel], capture_output=True, text=True, check=False)
    rows = (line.split() for line in run.stdout.splitlines())
    found = {row[2]: int(row[0], 16) for row in rows if len(row) == 3}
    if found:
        return found
    with open_kernel(str(kernel)) as opened:
        return {name: symbol.address for name, symbol in opened.symbols(WANTED).items()}


def code_of(kernel: Path, address: int, size: int) -> bytes:
    """Bytes of a kernel at a link-time address."""
    with open_kernel(str(kernel)) as opened:
        return opened.read(address, size)


def default_places(work: Path, root: Path) -> tuple[Path, ...]:
    """The work directory's kernels, then the committed ones unpacked, then $LAB_KERNELS."""
    extra = os.environ.get("LAB_KERNELS")
    return (work / "kernels", *((Path(extra),) if extra else ()), root / "fixtures" / "kernels")


def kernels_of(case: dict[str, Any], place: Path) -> tuple[str, str]:
    """Return the resumer's and the resumee's file for hibercheck, of a case measured under ``place``.

    The record names both by a path under ``place``; where that is absent (a kernel committed as a bzImage alone), the
    lab's own places are asked.

    Raises:
        LabError: One is not there.
    """
    kernels = Kernels(default_places(place, ROOT), place / "kernels")
    named = (place / case["resumer"], place / case["resumee"])
    resumer, resumee = (str(path if path.exists() else kernels.vmlinux(path.stem)) for path in named)
    return resumer, resumee
