"""The configuration that a kernel may carry in itself (CONFIG_IKCONFIG, kernel/configs.c)."""

from __future__ import annotations

import zlib

from hibercheck.kernel.binary import Bytes

_START = b"IKCFG_ST\x1f\x8b\x08"
_MAX_PACKED, _MAX_PLAIN = 1 << 20, 8 << 20


def find(data: Bytes, start: int, end: int) -> dict[str, str] | None:
    """The options set in the configuration after ``IKCFG_ST``, or None where there is none to be read.

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
    pairs = (line.split("=", 1) for line in text.splitlines() if line.startswith("CONFIG_") and "=" in line)
    return {name: value.strip('"') for name, value in pairs}
