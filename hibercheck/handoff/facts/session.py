"""Which session is in an image: when it was frozen, on which machine, since which boot.

All of it is read out of the resumee's memory: the time-keeper stands still while the image is made.
"""

from __future__ import annotations

import datetime
import struct

from hibercheck.data import dataclass
from hibercheck.errors import HibercheckError, MalformedImage, MissingFact
from hibercheck.files.binary import uuid_text
from hibercheck.handoff.facts.space import KernelSpace
from hibercheck.swsusp.image import Image

TIMEKEEPERS = ("tk_core", "timekeeper_data")
"""The time-keeper of the system's clock; the second name since it is one of several
(kernel/time/timekeeping.c: ``timekeeper_data[TIMEKEEPERS_MAX]``)."""
_TIMEKEEPER_SIZE = 256
_SECOND = 1_000_000_000
_EARLIEST, _LATEST = 1_000_000_000, 1 << 33
"""2001, and 2242: seconds between which a clock is believed."""
_UTS_FIELD = 65
_UTS_SIZE = 512


@dataclass(frozen=True, slots=True)
class Session:
    """The session.

    Attributes:
        written: When it was frozen for the image, in seconds since 1970 by its own clock; None where that is not known.
        node: The machine's name, or None where it has none.
        boot_id: Its /proc/sys/kernel/random/boot_id; None if nobody ever asked for it, or it is not known.
    """

    written: int | None = None
    node: str | None = None
    boot_id: str | None = None


NO_SESSION = Session()


def read_session(space: KernelSpace) -> Session:
    """Read what the resumee's memory says; what it does not say is None."""
    return Session(written_by(space), _node(space), boot_id_of(space))


def session_of(image: Image) -> Session:
    """Read the session with the image's own kernel; what cannot be read so is None."""
    from hibercheck.handoff.facts.embedded import own_space  # noqa: PLC0415 - a check has the kernel at hand

    with own_space(image) as space:
        return session_in(space)


def session_in(space: KernelSpace | None) -> Session:
    """Read the session out of an address space; what cannot be read so is None."""
    try:
        return NO_SESSION if space is None else read_session(space)
    except HibercheckError:
        return NO_SESSION


def shown_time(seconds: int) -> str:
    """Return a time as ``2026-11-22 18:03:12 UTC``."""
    moment = datetime.datetime.fromtimestamp(seconds, tz=datetime.UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def rfc3339(seconds: int) -> str:
    """Return a time as ``2026-11-22T18:03:12Z``."""
    return datetime.datetime.fromtimestamp(seconds, tz=datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _read(space: KernelSpace, symbol: str, size: int) -> bytes:
    try:
        return space.read(space.address(symbol), size)
    except (MissingFact, MalformedImage):
        return b""


def written_by(space: KernelSpace) -> int | None:
    """Read ``xtime_sec``: what a kernel's clock says, in seconds since 1970; None where that cannot be read.

    Where it is has changed (64 bytes after the start since v6.13, 120 before, more with lock debugging), and a kernel
    without types does not say.  It is the number that the clock's own base, in nanoseconds (``tkr_mono.base_real``), is
    a second time: that one ends in nine zeros and stands before it.
    """
    for name in TIMEKEEPERS:
        if space.kernel.symbol(name) is None:
            continue
        data = _read(space, name, _TIMEKEEPER_SIZE)
        words: tuple[int, ...] = struct.unpack(f"<{len(data) // 8}Q", data[: len(data) // 8 * 8])
        for place, word in enumerate(words):
            seconds, rest = divmod(word, _SECOND)
            if not rest and _EARLIEST < seconds < _LATEST and seconds in words[place + 1 :]:
                return seconds
    return None


def _node(space: KernelSpace) -> str | None:
    """Read ``nodename`` of struct new_utsname in init_uts_ns: the second of its fields, the first being ``Linux``."""
    data = _read(space, "init_uts_ns", _UTS_SIZE)
    start = data.find(b"Linux\0")
    if start < 0:
        return None
    name = data[start + _UTS_FIELD : start + 2 * _UTS_FIELD].split(b"\0")[0].decode("utf-8", "replace")
    return None if name in {"", "(none)"} else "".join(c for c in name if c.isprintable())


def boot_id_of(space: KernelSpace) -> str | None:
    """Read ``sysctl_bootid`` (drivers/char/random.c), which is made when it is first asked for, or return None."""
    data = _read(space, "sysctl_bootid", 16) if space.kernel.symbol("sysctl_bootid") is not None else b""
    return uuid_text(data) if any(data) else None
