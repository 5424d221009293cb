"""The programs that `tests.bench` runs as processes of their own, so that each pays for its imports."""

from __future__ import annotations

NAMES = (
    "hibernate_resume_nonboot_cpu_disable cpuhp_smt_enable smp_ops native_play_dead mwait_play_dead hlt_play_dead "
    "resume_play_dead idt_table init_top_pgt level3_kernel_pgt level2_kernel_pgt phys_base page_offset_base "
    "linux_banner saved_command_line __cpu_present_mask frozen_cpus cpu_smt_control boot_cpu_data cpuidle_curr_driver "
    "e820_table __per_cpu_offset __per_cpu_start mwait_cpu_dead restore_registers restore_image core_restore_code "
    "swsusp_arch_resume cpu_tss_rw gdt_page"
)
TRANSLATIONS = 20000

SYMBOLS = f"""
import sys
from hibercheck.kernel.kernel import open_kernel
with open_kernel(sys.argv[1]) as kernel:
    assert len(kernel.symbols({NAMES!r}.split())) > 20
"""

ELFTOOLS = f"""
import sys
from elftools.elf.elffile import ELFFile
table = ELFFile(open(sys.argv[1], "rb")).get_section_by_name(".symtab")
assert sum(bool(table.get_symbol_by_name(name)) for name in {NAMES!r}.split()) > 20
"""

LIEF = f"""
import sys, lief
config = lief.ELF.ParserConfig()
config.parse_relocations = config.parse_dyn_symbols = config.parse_symbol_versions = config.parse_notes = False
binary = lief.ELF.parse(sys.argv[1], config)
wanted = set({NAMES!r}.split())
assert sum(symbol.name in wanted for symbol in binary.symbols) > 20
"""

# The blocks are read as `verify` reads them; what is left out is the checksum and all that is checked.
BARE = """
import sys
from hibercheck.swsusp.image import open_image
with open_image(sys.argv[1]) as image:
    storage = image.stream.storage
    if image.compressor == "lzo":
        from lzallright import LZOCompressor
        decode = lambda block: LZOCompressor.decompress(block, 131072)
    else:
        from lz4.block import decompress
        decode = lambda block: decompress(block, uncompressed_size=131072)
    last = b""
    for number in range(image.stream.chunks):
        last = decode(bytes(storage.payload(number)[1]))
"""

CONTENTS = """
import sys
from hibercheck.swsusp.image import open_image
with open_image(sys.argv[1]) as image:
    for first, length in image.pfns.runs():
        for pfn in range(first, first + length):
            sys.stdout.buffer.write(image.frame(pfn))
"""

TABLES = f"""
import struct
COUNT, BASE = {TRANSLATIONS}, 0xFFFF888000000000
leaves = -(-COUNT // 512)
frames = {{1: {{273: 2}}, 2: {{0: 3}}, 3: {{n: 4 + n for n in range(leaves)}}}}
frames |= {{4 + n: {{k: 4096 + n * 512 + k for k in range(512)}} for n in range(leaves)}}
memory = {{
    pfn: struct.pack("<512Q", *((entries[k] << 12 | 0x63) if k in entries else 0 for k in range(512)))
    for pfn, entries in frames.items()
}}
addresses = range(BASE, BASE + COUNT * 4096, 4096)
"""

WALK = f"""{TABLES}
from hibercheck.x86.memory import MappedFrames
from hibercheck.x86.paging import PagingMode, walk
mapped, mode = MappedFrames(memory), PagingMode()
assert all(walk(mapped, mode, 4096, one).physical == 4096 * 4096 + one - BASE for one in addresses)
"""

VOLATILITY = f"""{TABLES}
from volatility3.framework import contexts
from volatility3.framework.layers import intel, physical
context = contexts.Context()
flat = b"".join(memory.get(pfn, bytes(4096)) for pfn in range(max(memory) + 1)) + bytes(4096 * (4096 + COUNT))
context.add_layer(physical.BufferDataLayer(context, "flat", "flat", flat))
context.config["paged.memory_layer"], context.config["paged.page_map_offset"] = "flat", 4096
layer = intel.Intel32e(context, "paged", "paged")
assert all(layer.translate(one & (1 << 48) - 1)[0] == 4096 * 4096 + one - BASE for one in addresses)
"""

DRGN = """
import sys
import drgn
program = drgn.Program()
program.set_core_dump(sys.argv[1])
program.load_debug_info([sys.argv[2]])
print(program["UTS_RELEASE"].string_().decode())
"""
