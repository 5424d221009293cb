"""Kernels by name: where distributions, boot loaders and debug packages put them.

One list serves whoever names a release, a directory or a whole system; nothing is opened.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from hibercheck.data import dataclass
from hibercheck.patterns import pattern

_WITH_SYMBOLS = (
    "usr/lib/debug/boot/vmlinux-{release}",
    "usr/lib/debug/lib/modules/{release}/vmlinux",
    "usr/lib/debug/usr/lib/modules/{release}/vmlinux",
    "usr/lib/debug/vmlinux-{release}",
    "boot/vmlinux-{release}",
    "lib/modules/{release}/build/vmlinux",
    "lib/modules/{release}/vmlinux",
    "usr/lib/modules/{release}/vmlinux",
)
_COMPRESSED = (
    "boot/vmlinuz-{release}",
    "lib/modules/{release}/vmlinuz",
    "usr/lib/modules/{release}/vmlinuz",
    "boot/kernel-{release}",  # Gentoo
    # kernel-install(8), layout "bls": the entry's token, which is mostly the machine id, then the release
    "boot/*/{release}/linux",
    "efi/*/{release}/linux",
    "boot/efi/*/{release}/linux",
    # and layout "uki"; a count of tries left may follow the name (systemd.boot-counting)
    "boot/EFI/Linux/{release}.efi",
    "efi/EFI/Linux/{release}.efi",
    "boot/efi/EFI/Linux/{release}.efi",
    "boot/ostree/*/vmlinuz-{release}",
    "usr/lib/kernel/org.clearlinux.*.{release}",
    # NixOS: HASH-linux-RELEASE-bzImage
    "boot/EFI/nixos/{release}-bzImage.efi",
    "boot/kernels/{release}-bzImage",
    "run/booted-system/kernel",
    "run/current-system/kernel",
)
_PLACES = _WITH_SYMBOLS + _COMPRESSED
_IN_BOOT = tuple(place.removeprefix("boot/") for place in _PLACES if place.startswith("boot/"))
"""The same for somebody who names /boot itself."""
_BUILD_TREE = ("vmlinux", "arch/x86/boot/bzImage", "vmlinuz")
_OF_A_BUILD = (".config", "Makefile", "arch", "System.map")
"""What there is beside a kernel where it was built, or in its /lib/modules; there `vmlinux.o` is not another one."""
SYMBOLS = (
    "usr/lib/debug/boot/System.map-{release}",
    "boot/System.map-{release}",
    "lib/modules/{release}/System.map",
    "usr/lib/modules/{release}/System.map",
    "lib/modules/{release}/build/System.map",
)
SUFFIXES = ("", ".gz", ".xz", ".zst")
_LOOSE = ("vmlinux", "vmlinuz", "bzImage", "linux-image")
_ENDINGS = (".facts", ".json", ".vmlinux", ".vmlinuz", ".bzImage", ".deb", ".rpm")
"""What kernels that somebody has put into a directory are called, and what they end in."""
_PACKED = (".vmlinux", ".vmlinuz")
"""Endings before one of a compression."""
LOOSE_NAMES = f"files called {', '.join(_LOOSE)}... or ending in {', '.join(_ENDINGS)}, compressed or not"
_NO_KERNEL = pattern(r"\.(?:old|bak|sig|hmac|asc|sha\d+|cmd|tmp)$")

_MACHINE = pattern(r"^[0-9a-f]{32}-")
_TRIES = pattern(r"\+\d+(?:-\d+)?$")
_GENKERNEL = pattern(r"^genkernel-[a-z0-9_]+-")
_NIX = pattern(r"^[0-9a-z]{32}-linux-(?=\d)|^linux-(?=\d)")
_STORE = pattern(r"/[0-9a-z]{32}-linux-(\d[^/]*)/")


@dataclass(frozen=True, slots=True)
class KernelFile:
    """A kernel's file.

    Attributes:
        release: Its release, as far as its name or its directory says it; else its name.
        path: The file.
    """

    release: str
    path: Path


def kernel_files(tree: Path) -> list[KernelFile]:
    """Return every kernel file of an installed system, an unpacked package, a build tree, or of /boot.

    Those with symbols go first.  In a directory that is not one of these, files that are called like kernels are.

    Raises:
        OSError: The directory cannot be read.
    """
    own = [KernelFile("", tree / place) for place in _BUILD_TREE if (tree / place).is_file()]
    if own and any((tree / name).exists() for name in _OF_A_BUILD):
        return own[:1]
    found = {one.path: one for one in own[:1]}
    others = {one.path for one in own[1:]}  # the same kernel, compressed
    for place in (*_PLACES, *_IN_BOOT):
        for path, release in _matching(tree, place):
            found.setdefault(path, KernelFile(release, path))
    for path in sorted(tree.iterdir()):
        packed = path.suffix in SUFFIXES[1:] and path.with_suffix("").suffix in _PACKED
        loose = path.name.startswith(_LOOSE) or path.suffix in _ENDINGS or packed
        if path not in found and path not in others and loose and path.is_file() and not _NO_KERNEL.search(path.name):
            found[path] = KernelFile(path.name, path)
    return list(found.values())


def kernels_in(tree: Path) -> dict[str, Path]:
    """Return the best file of each kernel in a tree, by release in the order of their names; see `kernel_files`."""
    best: dict[str, Path] = {}
    for one in kernel_files(tree):
        best.setdefault(one.release, one.path)
    return dict(sorted(best.items()))


def of_release(release: str, root: Path) -> Iterator[Path]:
    """Yield the installed kernels of a release, those with symbols first."""
    for place in _PLACES:
        for path, found in _matching(root, place, release):
            if found == release:
                yield path


def _matching(tree: Path, place: str, release: str = "") -> Iterator[tuple[Path, str]]:
    """Yield the files at a place and the release that each is of; only near those of ``release``, if one is given."""
    wild = "*" if not release else f"*{_escaped(release)}*"
    behind = "*" if place.partition("{release}")[2] else ""  # what compression adds to a name
    for path in sorted(tree.glob(place.replace("{release}", wild) + behind)):
        if not path.is_file() or _NO_KERNEL.search(path.name):
            continue
        text = str(path.relative_to(tree))
        shape = re.escape(place).replace(re.escape("{release}"), "(?P<release>[^/]+?)").replace(r"\*", "[^/]+")
        found = re.fullmatch(f"{shape}(?:{'|'.join(map(re.escape, SUFFIXES[1:]))})?", text)
        if found is None:
            continue
        if "{release}" in place:
            yield path, _plain(found.group("release"))
            continue
        target = _STORE.search(os.path.realpath(path)) or _STORE.search(str(_link(path)))
        yield path, target.group(1) if target is not None else path.parent.name


def _link(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _escaped(text: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", text)


def _plain(name: str) -> str:
    """Take off a name what is not the release: machine id, tries left, Gentoo's and Nix's words."""
    for added in (_MACHINE, _TRIES, _GENKERNEL, _NIX):
        name = added.sub("", name)
    return name
