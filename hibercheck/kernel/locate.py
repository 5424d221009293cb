"""Kernels by release, as installed or in an unpacked tree: the places where drgn, perf and crash look too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hibercheck.errors import InputProblem, UsageProblem
from hibercheck.files.inputs import unopened
from hibercheck.files.kernels import SYMBOLS, kernels_in, of_release
from hibercheck.patterns import pattern

_RELEASE = pattern(r"[0-9]+\.[0-9]+[^/\s]*")
_MAX_LISTED = 5


def locate(name: str, root: Path = Path("/")) -> Path:
    """Find the kernel that a path, a tree or a release means.

    Args:
        name: A file, a directory, or a release such as ``6.12.94+deb13-cloud-amd64``.
        root: Where the installed system is.

    Raises:
        InputProblem: There is no such thing.
        UsageProblem: A tree holds several releases, or the name is empty.
    """
    if not name:  # a path that is empty is the current directory to `Path`, and that may hold a kernel
        raise UsageProblem("the name of a kernel is empty", advice="give its file; a shell's variable may not be set")
    path = Path(name)
    try:
        if path.is_dir():
            return _in_tree(path)
        if path.exists() or not _RELEASE.fullmatch(name):
            return path
    except (OSError, ValueError) as error:
        raise unopened(error, name) from error
    found = next(installed(name, root), None)
    if found is None:
        advice = "give its vmlinuz or vmlinux, or install its debug package"
        where = "/boot, /lib/modules and /usr/lib/debug"
        raise InputProblem(f"is neither a file nor a kernel found in {where}", path=name, advice=advice)
    return found


def installed(release: str, root: Path = Path("/")) -> Iterator[Path]:
    """Yield the installed kernels of a release, those with symbols first."""
    return of_release(release, root)


def symbol_files(release: str, root: Path = Path("/")) -> Iterator[Path]:
    """Yield the lists of symbols of a release's kernel."""
    for place in SYMBOLS:
        path = root / place.format(release=release)
        if path.is_file():
            yield path


def _in_tree(tree: Path) -> Path:
    """Return the kernel of a build tree, of an unpacked package, or the only one of a directory."""
    found = kernels_in(tree)
    if len(found) > 1:
        listed = ", ".join([*found][:_MAX_LISTED]) + (", ..." if len(found) > _MAX_LISTED else "")
        raise UsageProblem(f"holds several kernels ({listed})", path=str(tree), advice="name one file in it")
    if not found:
        raise InputProblem("is a directory without a kernel in it", path=str(tree), advice="give the kernel's file")
    return next(iter(found.values()))
