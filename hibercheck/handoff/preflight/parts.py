"""Two names of partitions of a system that does not run, held together by the table of the disk that it is on."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from hibercheck.errors import HibercheckError, InputProblem, UsageProblem
from hibercheck.files.disk import Partition
from hibercheck.files.source import Source, open_unpacked
from hibercheck.host.devices import disk_of
from hibercheck.swsusp.which import choose_partition

_BY_TABLE = re.compile(r"(?:PART)?(?:UUID|LABEL)=", re.IGNORECASE)
_NUMBERED = re.compile(r"/dev/(?:(?:[hsv]d|xvd)[a-z]+|(?:nvme\d+n|mmcblk|loop)\d+p)\d+$")


def same_partition(name: str, names: Iterable[str], root: Path) -> tuple[bool | None, str]:
    """Tell whether a name means the partition that others mean, and why; None where that cannot be told.

    A partition's number tells it from the others of any disk, but which disk ``/dev/sda`` is shows only on its machine.

    Args:
        name: What ``resume=`` says.
        names: What /etc/fstab calls the swap.
        root: Where the system is mounted.
    """
    disk = disk_of(root) if os.path.ismount(root) else None
    if disk is None:
        return None, ": the system does not run"
    try:
        with open_unpacked(disk, InputProblem) as source:
            ours = _partition(source, name)
            theirs = next((found for one in sorted(names) if (found := _partition(source, one)) is not None), None)
    except HibercheckError as problem:
        return None, f": the system does not run, and {problem}"
    if ours is None or theirs is None:
        return None, ": the system does not run"
    if ours.number != theirs.number:
        return False, f", which is a partition {ours.number}"
    if _BY_TABLE.match(name):
        return True, ""
    return None, ": which disk that is only the running system shows"


def _partition(disk: Source, name: str) -> Partition | None:
    if not _BY_TABLE.match(name) and not _NUMBERED.match(name):
        return None
    try:
        return choose_partition(disk, name)
    except UsageProblem:
        return None
