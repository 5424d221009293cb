"""Kernels by release, as installed or in an unpacked tree: the places where drgn, perf and crash look too."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from hibercheck.errors import InputProblem, UsageProblem

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
    "boot/kernel-{release}",
)
_PLACES = _WITH_SYMBOLS + _COMPRESSED
_SUFFIXES = ("", ".gz", ".xz", ".zst")
_RELEASE = re.compile(r"[0-9]+\.[0-9]+[^/\s]*")
_BUILD_TREE = ("vmlinux", "arch/x86/boot/bzImage", "vmlinuz")
_MAX_LISTED = 5


def locate(name: str, root: Path = Path("/")) -> Path:
    """Find the kernel that a path, a tree or a release means.

    Args:
        name: A file, a directory, or a release such as ``6.12.94+deb13-cloud-amd64``.
        root: Where the installed system is.

    Raises:
        InputProblem: There is no such thing.
        UsageProblem: A tree holds several releases.
    """
    path = Path(name)
    try:
        if path.is_dir():
            return _in_tree(path)
        if path.exists() or not _RELEASE.fullmatch(name):
            return path
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputProblem(f"cannot be read: {reason}", path=name) from error
    found = next(_of_release(root, name), None)
    if found is None:
        advice = "give its vmlinuz or vmlinux, or install its debug package"
        where = "/boot, /lib/modules and /usr/lib/debug"
        raise InputProblem(f"is neither a file nor a kernel found in {where}", path=name, advice=advice)
    return found


def _of_release(root: Path, release: str) -> Iterator[Path]:
    """Kernels of a release, those with symbols first."""
    for place in _PLACES:
        for suffix in _SUFFIXES:
            path = root / (place.format(release=release) + suffix)
            if path.is_file():
                yield path


def _in_tree(tree: Path) -> Path:
    """The kernel of a build tree or of an unpacked package."""
    for place in _BUILD_TREE:
        if (tree / place).is_file():
            return tree / place
    releases = sorted(_releases(tree))
    if len(releases) > 1:
        listed = ", ".join(releases[:_MAX_LISTED]) + (", ..." if len(releases) > _MAX_LISTED else "")
        raise UsageProblem(f"holds several kernels ({listed})", path=str(tree), advice="name one file in it")
    if not releases:
        raise InputProblem("is a directory without a kernel in it", path=str(tree), advice="give the kernel's file")
    return next(_of_release(tree, releases[0]))


def _without_suffix(name: str) -> str:
    """A file's name without what compression added to it."""
    return next((name.removesuffix(suffix) for suffix in _SUFFIXES if suffix and name.endswith(suffix)), name)


def _releases(tree: Path) -> set[str]:
    """Releases of the kernels in the places where kernels are."""
    releases = set()
    for place in _PLACES:
        before, after = place.split("{release}")
        directory, start = [*before.rsplit("/", 1), ""][:2]
        parent = tree / directory
        if not parent.is_dir():
            continue
        for entry in parent.iterdir():
            if not entry.name.startswith(start) or entry.name == start:
                continue
            release = entry.name.removeprefix(start)
            if not after:
                release = _without_suffix(release)
            if any((tree / (place.format(release=release) + suffix)).is_file() for suffix in _SUFFIXES):
                releases.add(release)
    return releases
