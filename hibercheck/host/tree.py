"""The files of a system below a directory, read as that system itself would read them.

A mounted system may be damaged or hostile: its links are followed inside it, only regular files are opened (a
FIFO would never end), and no more than a bound is taken of any.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from hibercheck.files.inputs import note_opened

MAX_TEXT = 1 << 20
_MOST_LINKS = 40
"""MAXSYMLINKS, include/linux/namei.h."""


def inside(path: Path, root: Path) -> Path:
    """Return where a path of a system leads, with absolute links taken to begin at its root.

    Args:
        path: The path, below ``root``.
        root: ``/``, or where the system is mounted.

    Raises:
        OSError: There are too many links (ELOOP).
    """
    if root == Path("/"):
        return Path(os.path.realpath(path))
    todo = list(reversed(path.relative_to(root).parts))
    here, links = root, 0
    while todo:
        part = todo.pop()
        if part == "..":
            here = here if here == root else here.parent
            continue
        try:
            target = str((here / part).readlink())
        except OSError:  # it is not a link, or not there
            here = here / part
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        here = root if target.startswith("/") else here
        todo.extend(part for part in reversed(target.split("/")) if part not in {"", "."})
    return here


def opened(path: Path, root: Path) -> int | None:
    """Open a regular file for reading; None where there is none that can be read.  Arguments as for `inside`.

    Raises:
        UsageProblem: It is one of the outputs.
    """
    try:
        place = inside(path, root)
        if not stat.S_ISREG(place.lstat().st_mode):  # before it is opened: a device may act
            return None
        descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError):
        return None
    try:
        if stat.S_ISREG((status := os.fstat(descriptor)).st_mode):
            note_opened(str(place), status, descriptor)
            return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def data_of(path: Path, root: Path, limit: int = MAX_TEXT) -> bytes | None:
    """Return the beginning of a regular file; None where there is none that can be read.

    Args:
        path: The file, below ``root``.
        root: ``/``, or where the system is mounted.
        limit: The most bytes to take.
    """
    descriptor = opened(path, root)
    if descriptor is None:
        return None
    pieces: list[bytes] = []
    try:
        while limit > 0 and (piece := os.read(descriptor, limit)):
            pieces.append(piece)
            limit -= len(piece)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return b"".join(pieces)


def is_there(path: Path, root: Path) -> bool:
    """Tell whether a path of a system leads to something."""
    try:
        return os.path.lexists(inside(path, root))
    except (OSError, ValueError):
        return False


def text_of(path: Path, root: Path, limit: int = MAX_TEXT) -> str:
    """Return the beginning of a file as text; nothing where there is none.  Arguments as for `data_of`."""
    return (data_of(path, root, limit) or b"").decode("utf-8", "replace")


def line_of(path: Path, root: Path) -> str | None:
    """Return the first line of a file, without blanks around it; None where there is no file."""
    data = data_of(path, root)
    return None if data is None else data.decode("utf-8", "replace").partition("\n")[0].strip()


def listed(directory: Path, pattern: str, root: Path) -> list[Path]:
    """Return what of a directory matches a pattern, in order; nothing where it cannot be read."""
    try:
        return sorted(inside(directory, root).glob(pattern))
    except OSError:
        return []
