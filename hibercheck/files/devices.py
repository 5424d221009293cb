"""Which devices may be written to: terminals, and those that keep nothing.

Apart from the other rules for outputs because every start of the command asks this of its standard streams, which must
cost nothing.
"""

from __future__ import annotations

import os
import stat

# Documentation/admin-guide/devices.txt: 1 char 3 is /dev/null, 7 /dev/full, by which full disks are tried
_KEEP_NOTHING = frozenset({os.makedev(1, 3), os.makedev(1, 7)})
_UNIX98_PTY_SLAVES = range(136, 144)  # include/uapi/linux/major.h
_PTMX = os.makedev(5, 2)
"""It belongs to the terminals, but to open it makes one."""


def kind_of(status: os.stat_result) -> str:
    """Say what a file is, with its article."""
    kinds = {
        stat.S_IFBLK: "a block device",
        stat.S_IFCHR: "a character device",
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(status.st_mode), "a regular file")


def keeps_nothing(status: os.stat_result) -> bool:
    """Whether it is a device that forgets what is written to it."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev in _KEEP_NOTHING


def is_stream(status: os.stat_result, descriptor: int | None = None) -> bool:
    """Whether it is a pipe, a terminal, or a device that keeps nothing.

    Args:
        status: Of the file.
        descriptor: The file, if it is open.
    """
    if stat.S_ISFIFO(status.st_mode) or keeps_nothing(status):
        return True
    if not stat.S_ISCHR(status.st_mode):
        return False
    return _is_terminal(status.st_rdev) if descriptor is None else os.isatty(descriptor)


def _is_terminal(device: int) -> bool:
    """Whether a character device is a terminal, found out without opening it: that may start a watchdog."""
    if os.major(device) in _UNIX98_PTY_SLAVES:  # sysfs does not have these
        return True
    kind = os.path.realpath(f"/sys/dev/char/{os.major(device)}:{os.minor(device)}/subsystem")
    return os.path.basename(kind) == "tty" and device != _PTMX


def may_be_written(status: os.stat_result, descriptor: int) -> bool:
    """Whether an open descriptor may be written to: anything but a device or a directory, and some devices."""
    mode = status.st_mode
    device = stat.S_ISBLK(mode) or stat.S_ISCHR(mode) or stat.S_ISDIR(mode)
    return not device or is_stream(status, descriptor)
