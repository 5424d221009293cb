"""Where a kernel puts things: load address, paging modes, exception entries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hibercheck.addresses import PAGE_SIZE, START_KERNEL_MAP
from hibercheck.data import dataclass
from hibercheck.errors import MissingFact
from hibercheck.files.elf import find_note
from hibercheck.kernel.code.model import Evidence, IdtGate, Trait
from hibercheck.kernel.code.program import Program
from hibercheck.kernel.code.values import absent, quote, returned_factor
from hibercheck.kernel.view import SymbolView
from hibercheck.numbers import either

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hibercheck.kernel.code.disasm import Operand


# struct idt_data { unsigned int vector; unsigned int segment; struct idt_bits bits; const void *addr; };
# struct idt_bits { u16 ist : 3, zero : 5, type : 5, dpl : 2, p : 1; };      arch/x86/include/asm/desc_defs.h
_IDT_DATA = 24
_MAX_GATES = 64
_PHYS32_RELOC = 19
"""XEN_ELFNOTE_PHYS32_RELOC, include/xen/interface/elfnote.h."""
_MAX_NOTES = 1 << 16


@dataclass(frozen=True, slots=True)
class LayoutReader:
    """Reads where things are.

    Attributes:
        program: The kernel's code.
        data_symbols: Whether the symbols include data, so that absence means something.
    """

    program: Program
    data_symbols: bool

    def _config(self, option: str) -> str | None:
        # Finding a configuration means searching the whole file, so the symbol that marks one is asked for first.
        if self.data_symbols and self.program.find("kernel_config_data") is None:
            return None
        config = self.program.kernel.config
        return None if config is None else config.get(option)

    def _presence(self, name: str, symbol: str, what: str, *, data: bool) -> Trait[bool]:
        """Return a trait that is true if and only if a symbol exists."""
        found = self.program.find(symbol)
        if found is not None:
            return Trait(name, True, (Evidence(found.name, found.address, what),))
        if data and not self.data_symbols:
            return Trait(name, None, reason=f"the kernel's symbols lack data, so absence of {symbol} says nothing")
        if not data and self.program.find("native_play_dead") is None and self.program.find("startup_64") is None:
            return Trait(name, None, reason="the kernel's symbols lack functions")
        return Trait(name, False, (absent(symbol),))

    def la57(self) -> Trait[bool]:
        """Whether it can run with five levels of page tables (CONFIG_X86_5LEVEL, which later kernels always have).

        Where the kernel lists no data: only then it has a level to allocate that others fold away, by __p4d_alloc()
        (mm/memory.c), which stands beside __pud_alloc().
        """
        if not self.data_symbols:
            allocates, below = self.program.find("__p4d_alloc"), self.program.find("__pud_alloc")
            if allocates is not None:
                return Trait("la57", True, (Evidence(allocates.name, allocates.address, "the extra level"),))
            if below is not None:
                return Trait(
                    "la57", False, (absent("__p4d_alloc"), Evidence(below.name, below.address, "the next one"))
                )
        found = self._presence("la57", "level4_kernel_pgt", "the extra level's table", data=True)
        if found.value is False and self.program.find("pgdir_shift") is not None:  # a variable only where it can vary
            return Trait("la57", None, reason="the number of levels can vary, and yet there is no level4_kernel_pgt")
        return found

    def pti(self) -> Trait[bool]:
        """Whether page-table isolation is built in."""
        return self._presence("pti", "pti_init", "CONFIG_PAGE_TABLE_ISOLATION", data=False)

    def randomize_base(self) -> Trait[bool]:
        """Whether the load address is random (unless ``nokaslr``)."""
        name, symbol = "randomize_base", "kaslr_get_random_long"
        found = self._presence(name, symbol, "CONFIG_RANDOMIZE_BASE", data=False)
        if found.value is False and self.program.find("kernel_randomize_memory") is not None:
            # CONFIG_RANDOMIZE_MEMORY depends on it (arch/x86/Kconfig)
            return Trait(name, None, reason=f"the direct map's address is random, and yet there is no {symbol}")
        return found

    def randomize_memory(self) -> Trait[bool]:
        """Whether the direct map's address is random."""
        return self._presence("randomize_memory", "kernel_randomize_memory", "CONFIG_RANDOMIZE_MEMORY", data=False)

    def cea_random(self) -> Trait[bool]:
        """Whether each CPU's entry area (its exception stacks) has a random place.

        Where the kernel lists no data: whether get_cpu_entry_area() reads anything to work it out.
        """
        name = "cea_random"
        if self.data_symbols:
            return self._presence(name, "_cea_offset", "per-CPU slot of the area", data=True)
        function = self.program.function_of("get_cpu_entry_area")
        if function is None or function.truncated:
            return Trait(name, None, reason="get_cpu_entry_area was not found, and the kernel's symbols lack data")
        reads = [node for node in function if any(_is_data(one) for one in node.operands)]
        if reads:
            return Trait(name, True, (quote(function, reads[0], "per-CPU slot of the area"),))
        return Trait(name, False, (Evidence(function.name, function.entry, "it reads no memory"),))

    def fred(self) -> Trait[bool]:
        """Whether it can take exceptions by FRED instead of the IDT (where the CPU has it)."""
        return self._presence("fred", "asm_fred_entrypoint_kernel", "CONFIG_X86_FRED", data=False)

    def physical_start(self) -> Trait[int]:
        """Physical load address without KASLR: LOAD_PHYSICAL_ADDR, which is where the link put ``_text``."""
        name = "physical_start"
        text = self.program.find("_text") or self.program.find("startup_64") or self.program.find("_stext")
        if text is None:
            return Trait(name, None, (absent("_text"),), reason="the start of the kernel's text is not known")
        evidence = Evidence(text.name, text.address, f"link address - {START_KERNEL_MAP:#x}")
        return Trait(name, text.address - START_KERNEL_MAP, (evidence,))

    def physical_align(self) -> Trait[int]:
        """CONFIG_PHYSICAL_ALIGN: from the setup header, the note for PVH loaders, or the configuration it carries."""
        name = "physical_align"
        stated = self.program.kernel.alignment
        if stated is not None:
            return Trait(name, stated, (Evidence("setup_header.kernel_alignment", None, f"{stated:#x}"),))
        noted = self._noted_align()
        if noted is not None:
            return Trait(name, noted, (Evidence("XEN_ELFNOTE_PHYS32_RELOC", None, f"{noted:#x}"),))
        value = self._config("CONFIG_PHYSICAL_ALIGN")
        if value is None:
            reason = "it is in the vmlinuz's setup header, which a vmlinux lacks; on x86-64 it is at least 2 MiB"
            return Trait(name, None, reason=reason)
        try:
            return Trait(name, either(value), (Evidence("CONFIG_PHYSICAL_ALIGN", None, value),))
        except ValueError as error:
            return Trait(name, None, reason=f"its own configuration says CONFIG_PHYSICAL_ALIGN={value}, and {error}")

    def _noted_align(self) -> int | None:
        """arch/x86/platform/pvh/head.S: ``.long CONFIG_PHYSICAL_ALIGN; .long LOAD_PHYSICAL_ADDR; ...``, since v6.12."""
        section = self.program.kernel.section(".notes")
        if section is None:
            return None
        try:
            notes = self.program.kernel.read(section.address, min(section.size, _MAX_NOTES))
        except MissingFact:
            return None
        found = find_note(notes, b"Xen\0", _PHYS32_RELOC)
        value = int.from_bytes(found[:4], "little") if found is not None else 0
        return value if value and not value & value - 1 else None

    def cea_size(self) -> Trait[int]:
        """Size of one CPU's entry area: from BTF, or the factor by which get_cpu_entry_area() multiplies the CPU."""
        name = "cea_size"
        try:
            size = self.program.kernel.size_of("cpu_entry_area")
        except MissingFact as missing:
            return self._cea_factor(name, missing.message)
        return Trait(name, size, (Evidence("struct cpu_entry_area", None, f"{size:#x} bytes"),))

    def _cea_factor(self, name: str, reason: str) -> Trait[int]:
        """arch/x86/mm/cpu_entry_area.c: ``CPU_ENTRY_AREA_PER_CPU + cea_offset(cpu) * CPU_ENTRY_AREA_SIZE``."""
        entry = self.program.address("get_cpu_entry_area")
        if entry is None:
            return Trait(name, None, reason=reason)
        factors = {
            node.immediate: node
            for node in self.program.function(entry)
            if node.mnemonic == "imul" and node.immediate and node.immediate % PAGE_SIZE == 0
        }
        if len(factors) == 1:
            size, node = factors.popitem()
            text = node.render()
            return Trait(name, size, (Evidence("get_cpu_entry_area", text.address, text.text),))
        factor = returned_factor(self.program.function(entry))
        if factor is None or factor <= 0 or factor % PAGE_SIZE:
            return Trait(name, None, reason=f"{reason}, and get_cpu_entry_area() does not multiply by one size")
        return Trait(name, factor, (Evidence("get_cpu_entry_area", entry, f"it adds {factor:#x} for each CPU"),))

    def idt_gates(self) -> Trait[tuple[IdtGate, ...]]:
        """Gates of the exceptions, with their interrupt stacks, from the tables that the kernel fills its IDT from."""
        name = "idt_gates"
        gates: dict[int, IdtGate] = {}
        evidence = []
        # In the order in which the kernel applies them; a later one replaces an earlier gate.
        for table in ("early_idts", "early_pf_idts", "def_idts", "ist_idts"):
            symbol = self.program.find(table)
            if symbol is None:
                continue
            evidence.append(Evidence(table, symbol.address, "struct idt_data[]"))
            gates |= {gate.vector: gate for gate in self._table(symbol)}
        if not {2, 8, 14} <= gates.keys():
            missing = "the tables of IDT gates (def_idts) were not found or not understood"
            return Trait(name, None, tuple(evidence), reason=missing)
        return Trait(name, tuple(gates[vector] for vector in sorted(gates)), tuple(evidence))

    def _table(self, symbol: SymbolView) -> Iterator[IdtGate]:
        try:
            count = min(self.program.kernel.extent(symbol) // _IDT_DATA, _MAX_GATES)
            table = self.program.kernel.read(symbol.address, count * _IDT_DATA)
        except MissingFact:
            return
        for index in range(count):
            entry = table[index * _IDT_DATA :][:_IDT_DATA]
            vector, segment = int.from_bytes(entry[:4], "little"), int.from_bytes(entry[4:8], "little")
            handler = int.from_bytes(entry[16:], "little")
            # Where only the next symbol ends the table there may be padding: not __KERNEL_CS, or no code address.
            if vector > 255 or segment != 0x10 or handler < START_KERNEL_MAP:
                return
            yield IdtGate(vector, entry[8] & 7, handler, self.program.name(handler))


def _is_data(operand: Operand) -> bool:
    """Whether a memory access is to something else than the stack."""
    return operand.base not in ("rsp", "rbp") or operand.gs
