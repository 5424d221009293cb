"""A bootconfig: parameters that a kernel finds at the end of its initramfs, or in itself.

The text, its size, the sum of its bytes and a magic end the initramfs (Documentation/admin-guide/bootconfig.rst,
get_boot_config_from_initrd() in init/main.c).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path

from hibercheck.errors import InputProblem
from hibercheck.files.inputs import open_input
from hibercheck.files.source import Source
from hibercheck.host.initramfs import archive_range, is_initramfs
from hibercheck.host.tree import opened
from hibercheck.patterns import pattern

MAGIC = b"#BOOTCONFIG\n"
MOST = (1 << 15) - 1
"""Bytes of one: XBC_DATA_MAX (include/linux/bootconfig.h)."""
_ALIGNED = 4
"""What a boot loader may fill the size of an initramfs up to."""

_KEY = pattern(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*$")
_TOKEN = pattern(r"\s*(?:#[^\n]*\n?\s*)*")
_NAME = pattern(r"[^{}=+:;\n#]*")
_BARE = pattern(r"[^,;\n#}]*")


def of_file(path: str) -> str:
    """Return the bootconfig at the end of an initramfs, or of the one in a unified kernel image; "" if it has none.

    Raises:
        InputProblem: The file cannot be read, or is not an initramfs.
    """
    descriptor = open_input(path)
    with Source(path, descriptor) as source:
        if not is_initramfs(source):
            advice = "give what the boot loader loads beside the kernel, or the unified kernel image"
            raise InputProblem("is not an initramfs", path=path, advice=advice)
        return _of(source)


def of_system(path: Path, root: Path) -> str | None:
    """Return the same of a file of a system; None where it cannot be read."""
    descriptor = opened(path, root)
    if descriptor is None:
        return None
    with Source(str(path), descriptor) as source:
        return _of(source)


def _of(source: Source) -> str:
    try:
        start, end = archive_range(source)
    except ValueError:
        return ""
    size = min(end - start, MOST + 64)
    return parse_tail(source.read(end - size, size)) or ""


def parse_tail(tail: bytes) -> str | None:
    """Return the bootconfig that ends an initramfs, or None.

    Args:
        tail: Its last bytes, `MOST` and some more.
    """
    for filled in range(_ALIGNED):
        end = len(tail) - filled - len(MAGIC)
        if end >= 8 and tail[end : end + len(MAGIC)] == MAGIC:
            size, checksum = struct.unpack_from("<2I", tail, end - 8)
            text = tail[max(end - 8 - size, 0) : end - 8]
            whole = size <= MOST and len(text) == size and sum(text) & 0xFFFFFFFF == checksum
            return text.split(b"\0")[0].decode("utf-8", "replace") if whole else None
    return None


def kernel_parameters(text: str) -> str:
    """Return the keys below ``kernel`` as a command line has them (xbc_make_cmdline(), init/main.c).

    Raises:
        ValueError: It is not a bootconfig; the kernel then takes nothing of it.
    """
    values: dict[str, list[str]] = {}
    for key, operator, found in _assignments(text):
        if operator == "=" and key in values:
            raise ValueError(f"{key} is given twice")
        values[key] = [*(values.get(key, []) if operator == "+=" else []), *found]
    words = []
    for key, found in values.items():
        name = key.removeprefix("kernel.")
        if name != key:
            words += [f'{name}="{value}"' if re.search(r"\s", value) else f"{name}={value}" for value in found] or [
                name
            ]
    return " ".join(words)


def _assignments(text: str) -> Iterator[tuple[str, str, list[str]]]:
    """Yield each key with the operator (``=``, ``+=``, ``:=``; "" for a key alone) and its values, in their order."""
    at, around = 0, [""]
    while True:
        at = _end(_TOKEN, text, at)
        if at >= len(text):
            if len(around) > 1:
                raise ValueError("a brace is not closed")
            return
        if text[at] in ";}":
            if text[at] == "}":
                if len(around) == 1:
                    raise ValueError("a brace is closed that was not opened")
                around.pop()
            at += 1
            continue
        end = _end(_NAME, text, at)
        name = text[at:end].strip()
        if not _KEY.match(name):
            raise ValueError(f"{name[:40]!r} is not a key")
        key, operator = around[-1] + name, re.match(r"[+:]?=|\{|", text[end : end + 2])
        sign = operator[0] if operator else ""
        at = end + len(sign)
        if sign == "{":
            around.append(f"{key}.")
            continue
        if not sign and text[end : end + 1] in {"+", ":"}:
            raise ValueError(f"{name[:40]!r} is followed by neither a value nor the next key")
        found: list[str] = []
        if sign:
            at = _values(text, at, found)
        yield key, sign, found


def _values(text: str, at: int, found: list[str]) -> int:
    """Take the values that follow an operator; return where they end."""
    while True:
        at = _end(re.compile(r"[^\S\n]*"), text, at)
        if text[at : at + 1] in {'"', "'"}:
            end = text.find(text[at], at + 1)
            if end < 0:
                raise ValueError("a quote is not closed")
            value, at = text[at + 1 : end], _end(re.compile(r"[^\S\n]*"), text, end + 1)
        else:
            end = _end(_BARE, text, at)
            value, at = text[at:end].strip(), end
        found.append(value)
        if text[at : at + 1] != ",":
            return at
        at = _end(_TOKEN, text, at + 1)


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    matched = pattern.match(text, at)
    return matched.end() if matched else at
