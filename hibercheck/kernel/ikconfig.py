"""The configuration that a kernel may carry in itself (CONFIG_IKCONFIG, kernel/configs.c), or that lies beside it."""

from __future__ import annotations

import re
import zlib
from contextlib import suppress
from pathlib import Path

from hibercheck.errors import HibercheckError
from hibercheck.files.binary import Bytes
from hibercheck.files.text import read_whole
from hibercheck.files.trust import distrust
from hibercheck.patterns import pattern

_START = b"IKCFG_ST\x1f\x8b\x08"
_MAX_PACKED, _MAX_PLAIN = 1 << 20, 8 << 20
_HEADING = pattern(r"^# Linux/x86(?:_64)? (\S+) Kernel Configuration$", re.MULTILINE)


def find(data: Bytes, start: int, end: int) -> dict[str, str] | None:
    """Return the options set in the configuration after ``IKCFG_ST``, or None where there is none to be read.

    Values are as in .config, without quotes; an option that is not set is absent.
    """
    at = data.find(_START, start, end)
    if at < 0:
        return None
    packed = data[at + 8 : min(at + 8 + _MAX_PACKED, end)]
    try:
        text = zlib.decompressobj(31).decompress(packed, _MAX_PLAIN).decode("utf-8", "replace")
    except zlib.error:
        return None
    return _options(text)


def beside(kernel: str, release: str) -> tuple[str, dict[str, str]] | None:
    """Return the configuration beside a kernel, with its path: ``config-RELEASE``, or ``.config`` where it was built.

    It must say that it is of the version that the release begins with (scripts/kconfig writes that at its head), be the
    caller's or root's, and a ``.config`` must not have been written after the kernel: then the next build has it.
    """
    own = Path(kernel)
    for path in (own.parent / f"config-{Path(release).name}", own.parent / ".config"):
        with suppress(OSError, HibercheckError):
            if not path.is_file() or distrust(str(path)) is not None:
                continue
            if path.name == ".config" and path.stat().st_mtime_ns > own.stat().st_mtime_ns:
                continue
            text = read_whole(str(path), _MAX_PLAIN, "a kernel's configuration").decode("utf-8", "replace")
            written = _HEADING.search(text[:1024])
            if written is not None and re.match(rf"{re.escape(written[1])}(?![0-9.])", release):
                return str(path), _options(text)
    return None


def _options(text: str) -> dict[str, str]:
    pairs = (line.split("=", 1) for line in text.splitlines() if line.startswith("CONFIG_") and "=" in line)
    return {name: value.strip('"') for name, value in pairs}
