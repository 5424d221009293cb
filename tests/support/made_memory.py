"""Physical memory that is made as it is written to, and page tables in it."""

from __future__ import annotations

import struct

NO_EXECUTE = 1 << 63


class Memory(dict):
    """Frames by number; page tables map virtual pages to them."""

    def __init__(self, levels=4, root=0x100):
        super().__init__()
        self.levels, self.root, self.following = levels, root, root
        self[root] = bytearray(4096)

    def frame(self, pfn):
        return bytes(self[pfn]) if pfn in self else None

    def map(self, address, physical, flags=3):
        """Let a virtual page lie there."""
        table = self.root
        for level in range(self.levels, 0, -1):
            at = 8 * (address >> (3 + 9 * level) & 511)
            entry = struct.unpack_from("<Q", self[table], at)[0]
            if level == 1:
                entry = physical & -4096 | flags
                self.setdefault(physical >> 12, bytearray(4096))
            elif not entry:
                self.following += 1
                self[self.following] = bytearray(4096)
                entry = self.following << 12 | 3
            struct.pack_into("<Q", self[table], at, entry)
            table = entry >> 12 & (1 << 40) - 1

    def put(self, physical, content):
        """Write physical memory."""
        for place, byte in enumerate(content, physical):
            self.setdefault(place >> 12, bytearray(4096))[place & 0xFFF] = byte
