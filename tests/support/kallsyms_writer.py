"""Make the tables that scripts/kallsyms.c makes, in every order and encoding that kernels have had."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

TOKENS = {0x80: b"cpu_", 0x81: b"__", 0x82: b"_init", 0x83: b"play_dead", 0x01: b"hib", 0x02: b"st"}
MASK = (1 << 64) - 1


class Layout(NamedTuple):
    """One way of arranging the tables."""

    name: str
    reordered: bool
    """``offsets`` after the token index, as since 6.4."""
    addresses: str
    """``absolute``, ``base``, ``percpu`` (base, but absolute where not negative) or ``place``."""
    marker: int
    """Bytes of a marker."""
    count: int
    """Bytes of ``num_syms``."""
    sequences: bool
    """Whether there is ``seqs_of_names``."""


LAYOUTS = (
    Layout("4.4", reordered=False, addresses="absolute", marker=8, count=8, sequences=False),
    Layout("4.15", reordered=False, addresses="percpu", marker=8, count=8, sequences=False),
    Layout("5.10", reordered=False, addresses="percpu", marker=4, count=4, sequences=False),
    Layout("5.10-up", reordered=False, addresses="base", marker=4, count=4, sequences=False),
    Layout("6.2", reordered=False, addresses="percpu", marker=4, count=4, sequences=True),
    Layout("6.12", reordered=True, addresses="percpu", marker=4, count=4, sequences=True),
    Layout("6.15", reordered=True, addresses="base", marker=4, count=4, sequences=True),
    Layout("7.3", reordered=True, addresses="place", marker=4, count=4, sequences=True),
)


def _compress(text: bytes) -> bytes:
    for code, token in TOKENS.items():
        text = text.replace(token, bytes([code]))
    length = len(text)
    head = bytes([length]) if length < 0x80 else bytes([length & 0x7F | 0x80, length >> 7])
    return head + text


def write_kallsyms(symbols: Sequence[tuple[int, str, str]], layout: Layout, address: int, *, align: int = 8) -> bytes:
    """The tables for (address, letter, name), to be placed at ``address``, a multiple of 8.

    The symbols must ascend by address.  With ``align`` 4 they are packed as in 7.x.
    """
    out = bytearray()

    def pad(to: int = align) -> None:
        out.extend(bytes(-len(out) % to))

    values = [value for value, _, _ in symbols]
    base = min((value for value in values if value >> 63), default=0)

    def put_addresses() -> None:
        if layout.addresses == "absolute":
            out.extend(struct.pack(f"<{len(values)}Q", *values))
            return
        here = address + len(out)
        for number, value in enumerate(values):
            offset = {
                "base": value - base,
                "percpu": value if not value >> 63 else base - 1 - value,
                "place": value - (here + 4 * number),
            }[layout.addresses]
            out.extend(struct.pack("<I", offset & 0xFFFFFFFF))
        if layout.addresses != "place":
            pad()
            out.extend(struct.pack("<Q", base))

    def put_sequences() -> None:
        pad()
        out.extend(b"".join(number.to_bytes(3, "big") for number in range(len(values))))
        pad()

    if not layout.reordered:
        put_addresses()
        pad()
    out.extend(len(values).to_bytes(layout.count, "little"))
    pad()
    markers, start = [], len(out)
    for number, (_, letter, name) in enumerate(symbols):
        if not number % 256:
            markers.append(len(out) - start)
        out.extend(_compress((letter + name).encode()))
    pad()
    for marker in markers:
        out.extend(marker.to_bytes(layout.marker, "little"))
    pad()
    if layout.sequences and not layout.reordered:
        put_sequences()
    index, table = [], bytearray()
    for code in range(256):
        index.append(len(table))
        table += TOKENS.get(code, bytes([code]) if 0x21 <= code < 0x7F else b"") + b"\0"
    out.extend(table)
    pad()
    out.extend(struct.pack("<256H", *index))
    if layout.reordered:
        pad()
        put_addresses()
        put_sequences()
    return bytes(out)
