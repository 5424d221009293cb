"""File systems that cannot do what most can."""

from __future__ import annotations

import errno
import os


def without_nameless_files(opening):
    """`os.open` as on a file system without O_TMPFILE, such as NFS or vfat."""

    def open_(path, flags, *more, **options):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), path)
        return opening(path, flags, *more, **options)

    return open_
