"""The APIC ids of all CPUs, online or not: ACPI's Multiple APIC Description Table (ACPI 6.5, 5.2.12)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from hibercheck.host.tree import data_of

_TABLE = "sys/firmware/acpi/tables/APIC"
_HEADER = 44
"""Bytes before the first structure: the ACPI header, the address of the local APICs, flags."""
_LOCAL, _X2 = 0, 9
_ENABLED = 1


def apic_ids(root: Path) -> tuple[int, ...]:
    """Return the APIC ids of the CPUs that the firmware has enabled, in its order; none where there is no table.

    Linux numbers CPUs in this order, but for the one that boots, which is CPU 0 (topology_register_apic(),
    arch/x86/kernel/cpu/topology.c; generic_processor_info(), arch/x86/kernel/apic/apic.c before v6.9).

    Args:
        root: Where sys is.
    """
    data = data_of(root / _TABLE, root) or b""
    return tuple(_ids(data)) if data[:4] == b"APIC" else ()


def _ids(data: bytes) -> Iterator[int]:
    at = _HEADER
    while at + 2 <= len(data):
        kind, size = data[at], data[at + 1]
        if size < 2 or at + size > len(data):
            return
        if kind == _LOCAL and size >= 8:
            apic, flags = data[at + 3], struct.unpack_from("<I", data, at + 4)[0]
            if flags & _ENABLED and apic != 0xFF:
                yield apic
        elif kind == _X2 and size >= 16:
            apic, flags = struct.unpack_from("<II", data, at + 4)
            if flags & _ENABLED:
                yield apic
        at += size
