"""Walks with values worked out by hand, to be read against the manual: an entry for each level, and what must come out.

The rows re-express the kinds of libkdumpfile's addrxlat fixtures (tests/addrxlat-x86_64-4l, -5l, -sme and -invalid-*):
every page size at every level, the edges of the canonical halves, the C-bit, absent and malformed entries.  Unlike
there an entry with a reserved bit is a fault (SDM 3A 4.7), as the CPU has it.
"""

from __future__ import annotations

import struct

import pytest

from hibercheck.x86.memory import MappedFrames
from hibercheck.x86.paging import Access, PagingMode, walk

# tables lie at 0x1000 (the root), 0x2000, 0x3000 ...; "-": the level is not reached
#  levels  address            entries from the root down                                   access  expected
TABLE = """
# 4 KiB pages
   4       0000000000000000   2063 3063 4063 0000000005000063                               read    5000000
   4       0000000000000fff   2063 3063 4063 0000000005000063                               read    5000fff
   4       00007fffffffffff   2063 3063 4063 0000000005000063                               read    5000fff
   4       ffff800000000000   2063 3063 4063 0000000005000063                               read    5000000
   4       ffffffffffffffff   2063 3063 4063 0000000005000063                               read    5000fff
   5       00ffffffffffffff   2063 3063 4063 5063 0000000006000063                          read    6000fff
   5       ff00000000000000   2063 3063 4063 5063 0000000006000063                          read    6000000
   5       ff11000000001234   2063 3063 4063 5063 0000000006000063                          read    6000234
# 2 MiB and 1 GiB pages: the address takes 21 or 30 bits of the offset
   4       ffffffff81012345   2063 3063 00000000010001e3 -                                  fetch   1012345
   4       ffff888012345678   2063 00000000400001e3 - -                                     read    52345678
   5       ff11000012345678   2063 3063 00000000400001e3 - -                                read    52345678
   4       ffffffff81012345   2063 3063 00000000010011e3 -                                  fetch   1012345
# the highest physical address
   4       0000000000000abc   2063 3063 4063 000ffffffffff063                               read    ffffffffffabc
   4       0000000000000abc   2063 3063 4063 800ffffffffff063                               read    ffffffffffabc
# not canonical
   4       0000800000000000   - - - -                                                       read    #13 0
   4       ffff7fffffffffff   - - - -                                                       read    #13 0
   5       0100000000000000   - - - - -                                                     read    #13 0
   5       feffffffffffffff   - - - - -                                                     read    #13 0
# absent, at each level; the error code says only what was asked
   4       0000000000000000   0 - - -                                                       read    #14 0
   4       0000000000000000   2063 0 - -                                                    write   #14 2
   4       0000000000000000   2063 3063 2 -                                                 fetch   #14 10
   4       0000000000000000   2063 3063 4063 fffffffffffffffe                               read    #14 0
   5       0000000000000000   0 - - - -                                                     read    #14 0
# reserved bits: PS in a PML4 entry or above, low address bits of a large page
   4       0000000000000000   20e3 - - -                                                    read    #14 9
   5       0000000000000000   c0e7 - - - -                                                  read    #14 9
   5       0000000000000000   2063 c0e7 - - -                                               read    #14 9
   4       0000000000000000   2063 00000000400021e3 - -                                     read    #14 9
   4       0000000000000000   2063 3063 00000000002021e3 -                                  write   #14 b
   4       0000000000000000   2063 3063 00000000002fe1e3 -                                  fetch   #14 19
# rights: the least of all levels
   4       0000000000000000   2061 3063 4063 5063                                           write   #14 3
   4       0000000000000000   2063 3063 4063 5061                                           write   #14 3
   4       0000000000000000   8000000000002063 3063 4063 5063                               fetch   #14 11
   4       0000000000000000   2063 3063 4063 8000000000005063                               fetch   #14 11
   4       0000000000000000   2063 3063 4063 8000000000005063                               write   5000
"""

# the C-bit, 47, in a machine of 43 physical bits (SME): it is not an address bit, in CR3 or in any entry
ENCRYPTED = """
   4       ffffffff81012345   800000002063 800000003063 00008000010001e3 -                  read    1012345
   4       0000000000000000   2063 800000003063 4063 0000800005000063                       read    5000000
   4       0000000000000000   2063 3063 4063 0000400005000063                               read    #14 9
"""


def rows(text):
    return [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def check(row, mode_of, root):
    levels, address, *entries, access, expected = row if row[-2][0] != "#" else [*row[:-2], f"{row[-2]} {row[-1]}"]
    levels, address = int(levels), int(address, 16)
    frames = {}
    for depth, entry in enumerate(entries):
        table = bytearray(4096)
        if entry != "-":
            struct.pack_into("<Q", table, 8 * (address >> (3 + 9 * (levels - depth)) & 511), int(entry, 16))
        frames[depth + 1] = bytes(table)
    done = walk(MappedFrames(frames), mode_of(levels), root, address, Access(access))
    if expected.startswith("#"):
        vector, code = expected[1:].split()
        assert (done.fault.vector, done.fault.error_code) == (int(vector), int(code, 16))
    else:
        assert done.physical == int(expected, 16)
    reached = sum(entry != "-" for entry in entries)
    assert len(done.steps) == reached


@pytest.mark.parametrize("row", rows(TABLE), ids=" ".join)
def test_by_hand(row):
    check(row, lambda levels: PagingMode(levels=levels), 0x1000)


@pytest.mark.parametrize("row", rows(ENCRYPTED), ids=" ".join)
def test_by_hand_with_memory_encryption(row):
    def mode(levels):
        return PagingMode(levels=levels, max_phys_bits=43, encryption_mask=1 << 47)

    check(row, mode, 0x1000 | 1 << 47)
