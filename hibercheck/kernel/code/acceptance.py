"""Which images a kernel accepts: traits of its snapshot, swap and arch-header code."""

from __future__ import annotations

from collections.abc import Iterable

from hibercheck.kernel.code import commits
from hibercheck.kernel.code.disasm import Decoded
from hibercheck.kernel.code.model import Evidence, Trait
from hibercheck.kernel.code.program import Function, Program
from hibercheck.kernel.code.values import absent, calls_to, quote, quote_call

_PFN_MASK = (1 << 63) - 1
"""ENCODED_PFN_MASK of kernel/power/snapshot.c."""

# RESTORE_MAGIC of arch/x86/power/hibernate*.c, oldest first, and what the record then says of the memory map.
_MAGICS = {
    0x0123456789ABCDEF: "none",
    0x123456789ABCDEF0: "none",
    0x23456789ABCDEF01: "md5",
    0x23456789ABCDEF02: "crc32",
}
_CRC = ("crc32_le", "crc32_le_base", "crc32_le_arch", "compute_e820_crc32")
_MD5 = ("get_e820_md5", "crypto_alloc_shash", "crypto_shash_digest")


class AcceptanceReader:
    """Reads which images a kernel takes.

    Args:
        program: The kernel's code.
    """

    def __init__(self, program: Program) -> None:
        self.program = program

    def data_symbols(self) -> bool:
        """Whether absence of a data symbol means anything (kallsyms without KALLSYMS_ALL lists only functions)."""
        return self.program.find("init_task") is not None or self.program.find("smp_ops") is not None

    def zero_pages(self) -> Trait[bool]:
        """Whether bit 63 of a PFN in the image marks a page of zeros that is not stored."""
        name = "zero_pages"
        functions = self._functions(("snapshot_write_next", "unpack_orig_pfns"))
        if not functions:
            return Trait(name, None, (absent("snapshot_write_next"),), reason="the code that reads PFNs was not found")
        for function in functions:
            for node in function:
                if _masks_bit_63(node):
                    return Trait(name, True, (quote(function, node, "PFN without bit 63"),), commits.ZERO_PAGES)
        if self.program.find("zero_bm") is not None:
            where = self.program.address("zero_bm")
            return Trait(name, True, (Evidence("zero_bm", where, "the bitmap of zero pages"),), commits.ZERO_PAGES)
        broken = next((function for function in functions if function.truncated), None)
        if broken is not None:
            return Trait(name, None, reason=f"{broken.name} could not be read to its end: {broken.truncated}")
        evidence = absent(functions[0].name, "PFNs are used as they are: no instruction clears or tests bit 63")
        return Trait(name, False, (evidence,), commits.ZERO_PAGES)

    def _functions(self, wanted: Iterable[str]) -> list[Function]:
        return [function for name in wanted if (function := self.program.function_of(name)) is not None]

    def hw_sig(self) -> Trait[bool]:
        """Whether the header's hardware signature is compared with the firmware's (where the image has one)."""
        name = "hw_sig"
        symbol = self.program.find("swsusp_hardware_signature")
        if symbol is not None:
            evidence = Evidence(symbol.name, symbol.address, "the machine's signature")
            return Trait(name, True, (evidence,), commits.HW_SIG)
        if not self.data_symbols():
            return Trait(name, None, reason="the kernel's symbols lack data, so absence of the variable says nothing")
        return Trait(name, False, (absent("swsusp_hardware_signature"),), commits.HW_SIG)

    def compressors(self) -> Trait[tuple[str, ...]]:
        """Compressors whose images it reads without a module; ``none`` is always readable."""
        name = "compressors"
        symbols = self.program
        lzo = symbols.find("lzo1x_decompress_safe")
        direct = self._functions(("lzo_decompress_threadfn", "load_image_lzo", "decompress_threadfn"))
        for function in direct:
            found = calls_to(function, [symbols.address("lzo1x_decompress_safe")])
            if found:
                return Trait(name, ("lzo",), (quote_call(symbols, function, found[0]),), commits.LZ4)
        chosen = symbols.find("hib_comp_algo")
        if chosen is None and symbols.find("load_compressed_image") is None:
            return Trait(name, None, reason="the code that decompresses an image was not found")
        built = [
            (label, symbol)
            for label, one in (("lzo", "lzo_mod_init"), ("lz4", "lz4_mod_init"))
            if (symbol := symbols.find(one)) is not None
        ]
        if not built and lzo is None:
            return Trait(name, None, reason="whether the lzo and lz4 crypto modules are at hand is not known")
        evidence = tuple(Evidence(symbol.name, symbol.address, f"{label} is built in") for label, symbol in built)
        missing = [label for label in ("lzo", "lz4") if label not in [one for one, _ in built]]
        reason = f"{' and '.join(missing)} would have to be loaded as a module before the resume" if missing else None
        return Trait(name, tuple(label for label, _ in built), evidence, commits.LZ4, reason)

    def record_magic(self) -> Trait[int]:
        """The magic number that the arch record in the header must have: its layout's version."""
        name = "arch_record_magic"
        function = self.program.function_of("arch_hibernation_header_restore")
        if function is None:
            return Trait(name, None, (absent("arch_hibernation_header_restore"),), reason="the function was not found")
        for node in function:
            if node.immediate in _MAGICS:
                commit = {"md5": commits.E820_MD5, "crc32": commits.E820_CRC32}.get(_MAGICS[node.immediate])
                return Trait(name, node.immediate, (quote(function, node),), commit or commits.JUMP_PHYS)
        other = [node for node in function if node.mnemonic == "mov" and _wide(node.immediate)]
        if len(other) == 1:
            reason = "a magic number that no mainline kernel up to 7.3 uses"
            return Trait(name, other[0].immediate, (quote(function, other[0]),), reason=reason)
        return Trait(name, None, reason="no magic number was recognised in arch_hibernation_header_restore")

    def e820_check(self, magic: Trait[int]) -> Trait[str]:
        """How it checks that the memory map is still the one the image was made under: crc32, md5 or none."""
        name = "e820_check"
        function = self.program.function_of("arch_hibernation_header_restore")
        if function is not None:
            for label, callees, commit in (("crc32", _CRC, commits.E820_CRC32), ("md5", _MD5, commits.E820_MD5)):
                found = calls_to(function, [self.program.address(one) for one in callees])
                if found:
                    return Trait(name, label, (quote_call(self.program, function, found[0]),), commit)
        if magic.value in _MAGICS:
            reason = "by the version of its record; the comparison itself was not found in the code"
            return Trait(name, _MAGICS[magic.value], magic.evidence, magic.commit, reason)
        return Trait(name, None, reason="neither the comparison nor a known version of the record was found")


def _masks_bit_63(node: Decoded) -> bool:
    """Whether an instruction isolates or clears bit 63 of a word."""
    if node.immediate is None:
        return False
    return node.immediate == _PFN_MASK or (node.mnemonic in ("bt", "btr") and node.immediate == 63)


def _wide(immediate: int | None) -> bool:
    return immediate is not None and (1 << 32) < immediate < (1 << 64) - (1 << 31)
