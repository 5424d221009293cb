"""Which images a kernel accepts: traits of its snapshot, swap and arch-header code."""

from __future__ import annotations

from collections.abc import Iterable

from hibercheck.kernel.code import commits
from hibercheck.kernel.code.disasm import Decoded
from hibercheck.kernel.code.model import Evidence, Trait
from hibercheck.kernel.code.program import Function, Program
from hibercheck.kernel.code.values import absent, calls_to, quote, quote_call, wide

_PFN_MASK = (1 << 63) - 1
"""ENCODED_PFN_MASK of kernel/power/snapshot.c."""

# RESTORE_MAGIC of arch/x86/power/hibernate*.c, oldest first, and what the record then says of the memory map.
_MAGICS = {
    0x0123456789ABCDEF: "none",
    0x123456789ABCDEF0: "none",
    0x23456789ABCDEF01: "md5",
    0x23456789ABCDEF02: "crc32",
}
# struct swsusp_header of kernel/power/swap.c, one page: ... u32 hw_sig; u32 crc32; sector_t image; unsigned int flags;
#   char orig_sig[10]; char sig[10];  hw_sig since v5.17, before which nothing reads the bytes there.
_HW_SIG_AT = 4056

_HIBERNATES = ("hibernation_restore", "swsusp_arch_resume", "swsusp_read")
_VETOES = (("locked down", "security_locked_down"), ("secretmem", "secretmem_active"), ("CXL memory", "cxl_mem_active"))
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
        return self.program.find("init_task") is not None or (
            self.program.find("smp_ops") is not None and not self.program.recovered
        )

    def zero_pages(self) -> Trait[bool]:
        """Whether bit 63 of a PFN in the image marks a page of zeros that is not stored."""
        name = "zero_pages"
        functions = self._functions(("snapshot_write_next", "unpack_orig_pfns"))
        if not functions:
            return Trait(name, None, (absent("snapshot_write_next"),), reason="the code that reads PFNs was not found")
        for function in functions:
            for node in function:
                if _masks_bit_63(node):
                    return Trait(name, True, (quote(function, node, "PFN without bit 63"),))
        if self.program.find("zero_bm") is not None:
            where = self.program.address("zero_bm")
            return Trait(name, True, (Evidence("zero_bm", where, "the bitmap of zero pages"),))
        broken = next((function for function in functions if function.truncated), None)
        if broken is not None:
            return Trait(name, None, reason=f"{broken.name} could not be read to its end: {broken.truncated}")
        evidence = absent(functions[0].name, "PFNs are used as they are: no instruction clears or tests bit 63")
        return Trait(name, False, (evidence,))

    def _functions(self, wanted: Iterable[str]) -> list[Function]:
        return [function for name in wanted if (function := self.program.function_of(name)) is not None]

    def hibernation(self) -> Trait[bool]:
        """Whether it can hibernate and resume at all (CONFIG_HIBERNATION)."""
        name = "hibernation"
        for one in _HIBERNATES:
            symbol = self.program.find(one)
            if symbol is not None:
                return Trait(name, True, (Evidence(symbol.name, symbol.address, "CONFIG_HIBERNATION"),))
        if self.program.find("native_play_dead") is None and self.program.find("start_kernel") is None:
            return Trait(name, None, reason="the kernel's symbols lack functions")
        return Trait(name, False, tuple(absent(one) for one in _HIBERNATES))

    def refuses_while(self) -> Trait[tuple[str, ...]]:
        """Read what hibernation_available() asks besides ``nohibernate``: if it says no, no image is loaded either."""
        name = "refuses_while"
        function = self.program.function_of("hibernation_available")
        if function is None:
            return Trait(name, None, (absent("hibernation_available"),), reason="the function was not found")
        found = {
            label: calls[0] for label, asked in _VETOES if (calls := calls_to(function, [self.program.address(asked)]))
        }
        if function.truncated and len(found) < len(_VETOES):
            return Trait(name, None, reason=f"{function.name} could not be read to its end: {function.truncated}")
        evidence = tuple(quote_call(self.program, function, call) for call in found.values())
        return Trait(name, tuple(found), evidence or (Evidence(function.name, function.entry, "it asks nothing else"),))

    def locked_down_by(self, refuses: Trait[tuple[str, ...]]) -> Trait[tuple[str, ...]]:
        """Return what locks the kernel down, so that it neither hibernates nor resumes.

        ``lockdown=`` is the parameter; ``Secure Boot`` what Debian and others add (efi_set_secure_boot()); ``always``
        CONFIG_LOCK_DOWN_KERNEL_FORCE_INTEGRITY or _CONFIDENTIALITY.
        """
        name = "locked_down_by"
        if refuses.value is None:
            return Trait(name, None, refuses.evidence, reason=refuses.reason)
        if "locked down" not in refuses.value:
            return Trait(name, (), refuses.evidence, reason="it does not ask security_locked_down()")
        found: dict[str, Evidence] = {}
        parameter = self.program.find("lockdown_param")
        if parameter is not None:
            found["lockdown="] = Evidence(parameter.name, parameter.address, 'early_param("lockdown")')
        lock = [self.program.address(one) for one in ("lock_kernel_down", "security_lock_kernel_down")]
        for label, caller in (("Secure Boot", "efi_set_secure_boot"), ("always", "lockdown_lsm_init")):
            function = self.program.function_of(caller)
            calls = calls_to(function, lock) if function is not None else []
            if function is not None and calls:
                found[label] = quote_call(self.program, function, calls[0])
        if not found and self.program.find("start_kernel") is None:
            return Trait(name, None, (absent("lockdown_param"),), reason="the kernel's symbols lack what starts it")
        return Trait(name, tuple(found), tuple(found.values()) or (absent("lockdown_param"),), commits.LOCKDOWN)

    def hw_sig(self) -> Trait[bool]:
        """Whether the header's hardware signature is compared with the firmware's (where the image has one).

        Read in swsusp_check(), which looks at swsusp_header.hw_sig where flag 8 (SF_HW_SIG) is set.
        """
        name = "hw_sig"
        function = self.program.function_of("swsusp_check")
        if function is not None:
            led: str | None = None  # with KASAN the place is worked out first, and asked about
            for node in function:
                for one in node.operands:
                    there = (one.base == led and not one.displacement) if led else False
                    if one.access == "read" and (one.displacement == _HW_SIG_AT or there):
                        return Trait(name, True, (quote(function, node, "swsusp_header.hw_sig"),))
                led = node.destination if _leads_to_hw_sig(node) else led
        symbol = self.program.find("swsusp_hardware_signature")
        if symbol is not None:
            evidence = Evidence(symbol.name, symbol.address, "the machine's signature")
            return Trait(name, True, (evidence,))
        if function is not None and not function.truncated:
            evidence = Evidence(function.name, function.entry, "it does not look at swsusp_header.hw_sig")
            return Trait(name, False, (evidence,))
        if not self.data_symbols():
            return Trait(name, None, reason="swsusp_check was not found, and the kernel's symbols lack data")
        return Trait(name, False, (absent("swsusp_hardware_signature"),))

    def compressors(self) -> Trait[tuple[str, ...]]:
        """Return what becomes of images compressed by LZO and LZ4; one that is not compressed is always readable.

        Of each ``builtin``, ``module?`` (only if its crypto module is at hand and loaded before the resume) or
        ``absent``, as in ``lzo:builtin``.
        """
        name = "compressors"
        symbols = self.program
        lzo = symbols.address("lzo1x_decompress_safe")
        for function in self._functions(("lzo_decompress_threadfn", "load_image_lzo", "decompress_threadfn")):
            found = calls_to(function, [lzo])
            if found:
                evidence = quote_call(symbols, function, found[0])
                return Trait(name, ("lzo:builtin", "lz4:absent"), (evidence,))
        if symbols.find("hib_comp_algo") is None and symbols.find("load_compressed_image") is None:
            return Trait(name, None, reason="the code that decompresses an image was not found")
        modules, starts = symbols.find("__request_module"), symbols.find("start_kernel")
        values, evidence_of = [], []
        for label, initialises in (("lzo", "lzo_mod_init"), ("lz4", "lz4_mod_init")):
            symbol = symbols.find(initialises)
            if symbol is not None:
                values.append(f"{label}:builtin")
                evidence_of.append(Evidence(symbol.name, symbol.address, f"crypto/{label}.c is built in"))
            elif starts is None:
                reason = f"the kernel's symbols lack what starts it, such as {initialises}"
                return Trait(name, None, (absent(initialises),), reason=reason)
            else:
                values.append(f"{label}:absent" if modules is None else f"{label}:module?")
                evidence_of.append(absent(initialises))
                if modules is not None:
                    evidence_of.append(Evidence(modules.name, modules.address, "CONFIG_MODULES"))
        return Trait(name, tuple(values), tuple(dict.fromkeys(evidence_of)))

    def record_magic(self) -> Trait[int]:
        """Return the magic number that the arch record in the header must have: its layout's version."""
        name = "arch_record_magic"
        function = self.program.function_of("arch_hibernation_header_restore")
        if function is None:
            return Trait(name, None, (absent("arch_hibernation_header_restore"),), reason="the function was not found")
        for node in function:
            if node.immediate in _MAGICS:
                commit = {"md5": commits.E820_MD5, "crc32": commits.E820_CRC32}.get(_MAGICS[node.immediate])
                return Trait(name, node.immediate, (quote(function, node),), commit or commits.JUMP_PHYS)
        other = [node for node in function if node.mnemonic == "mov" and wide(node.immediate)]
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


def _leads_to_hw_sig(node: Decoded) -> bool:
    """Whether an instruction works out where swsusp_header.hw_sig is."""
    place = node.effective if node.mnemonic == "lea" else None
    return place is not None and place.base is not None and place.displacement == _HW_SIG_AT


def _masks_bit_63(node: Decoded) -> bool:
    """Whether an instruction isolates or clears bit 63 of a word."""
    if node.immediate is None:
        return False
    return node.immediate == _PFN_MASK or (node.mnemonic in ("bt", "btr") and node.immediate == 63)
