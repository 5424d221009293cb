"""Which files are obeyed although nobody named them: the caller's own, root's, and those of who became root by sudo.

A setting that lies about in a directory may be another's: it could turn a failing gate into a passing one.
"""

from __future__ import annotations

import os
import stat


def distrust(path: str) -> str | None:
    """Say why a file is not to be obeyed unless it is named; None where it is, or where there is nothing.

    Both the file and the name that leads to it count, if that is a link.
    """
    trusted = {0, os.geteuid()}
    became_root_from = os.environ.get("SUDO_UID", "")
    if os.geteuid() == 0 and became_root_from.isascii() and became_root_from.isdigit():
        trusted.add(int(became_root_from))
    try:
        named, status = os.lstat(path), os.stat(path)
    except OSError:
        return None
    for owner in (named.st_uid, status.st_uid):
        if owner not in trusted:
            return f"belongs to another user (uid {owner})"
    return "may be written by everyone" if status.st_mode & stat.S_IWOTH else None
