"""Taking away from this process, for good, the right to write anywhere but where it is to.

Landlock is the kernel's own means for that, without privileges and since 5.13: whatever a reader of hostile bytes could
be made to do, it then cannot open the swap device for writing.  Files that are open stay so.  Where the kernel does not
have it, or has less of it, nothing fails: it is a second wall, and the first is `hibercheck.files.outputs`.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from enum import IntFlag

# include/uapi/linux/landlock.h
#   struct landlock_ruleset_attr { __u64 handled_access_fs; ... };              the rest is about networks and scopes
#   struct landlock_path_beneath_attr { __u64 allowed_access; __s32 parent_fd; } __attribute__((packed));
# System calls have the same numbers on all machines that have them (include/uapi/asm-generic/unistd.h).
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38


class Access(IntFlag):
    """Rights that change something: LANDLOCK_ACCESS_FS_*."""

    WRITE_FILE = 1 << 1
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14


FILE = Access.WRITE_FILE | Access.TRUNCATE
"""To write to a file that is there."""
REPLACE = Access.MAKE_REG | Access.REMOVE_FILE
"""To put a file that is open already in its place, in a directory."""
WORK = FILE | REPLACE | Access.MAKE_DIR | Access.REMOVE_DIR | Access.MAKE_SOCK
"""To work in a directory of temporary files or a cache."""
_SINCE = {Access.REFER: 2, Access.TRUNCATE: 3}
"""ABI versions.  REFER: b91c3e4ea756 ("landlock: Add support for file reparenting with LANDLOCK_ACCESS_FS_REFER", in
v5.19); TRUNCATE: b9f5ce27c8f8 ("landlock: Support file truncation", in v6.2); the others are in the first."""


class _Ruleset(ctypes.Structure):
    _fields_ = (("handled_access_fs", ctypes.c_uint64),)


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def version() -> int:
    """Return the version of the kernel's interface; 0 where it has none or does not let us use it."""
    return max(0, _syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_CREATE_RULESET_VERSION)))


def restrict(allowed: Iterable[tuple[str, Access]]) -> bool:
    """Allow this thread, and what it starts from now on, to change only what lies at or below these paths.

    Args:
        allowed: Paths with what may be done there; a path that does not exist allows nothing.

    Returns:
        Whether the kernel enforces it.
    """
    abi = version()
    if not abi:
        return False
    handled = Access(0)
    for one in Access:
        if _SINCE.get(one, 1) <= abi:
            handled |= one
    attributes = _Ruleset(handled)
    ruleset = _syscall(_CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(8), ctypes.c_uint32(0))
    if ruleset < 0:
        return False
    try:
        for path, access in allowed:
            if not _allow(ruleset, path, access & handled):
                return False  # rather than that what the user asked for cannot be written
        libc = ctypes.CDLL(None)
        if libc.prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), *(ctypes.c_ulong(0) for _ in range(3))) != 0:
            return False
        return _syscall(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0)) == 0
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, access: Access) -> bool:
    """Add a rule; True also for a path that does not exist, of which there is nothing to allow."""
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        rule = _PathBeneath(access, place)
        kind, flags = ctypes.c_int(_RULE_PATH_BENEATH), ctypes.c_uint32(0)
        return _syscall(_ADD_RULE, ctypes.c_int(ruleset), kind, ctypes.byref(rule), flags) == 0
    finally:
        os.close(place)


def _syscall(number: int, *arguments: object) -> int:
    """Make a system call; -1 where it fails, is unknown (ENOSYS), or is filtered by a container (EPERM)."""
    call = ctypes.CDLL(None).syscall
    call.restype = ctypes.c_long
    return int(call(ctypes.c_long(number), *arguments))
