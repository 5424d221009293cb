"""Data symbols of a kernel that lists only its code (CONFIG_KALLSYMS without CONFIG_KALLSYMS_ALL), read from that code.

Each is where one function of the kernel is known to use it, and is held to what must lie there.  What is not found this
way stays unknown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import chain
from struct import unpack
from typing import TypeAlias

from hibercheck.addresses import ADDRESS_MASK, PAGE_SIZE, START_KERNEL_MAP
from hibercheck.errors import MissingFact
from hibercheck.kernel.code.dataless import TELLING
from hibercheck.kernel.code.disasm import Decoded, Flow
from hibercheck.kernel.code.names import Wanted
from hibercheck.kernel.code.program import Function, Program
from hibercheck.kernel.code.tables import MAX_TABLE, jump_labels
from hibercheck.kernel.code.values import argument, calls_to, previous
from hibercheck.kernel.kernel import Kernel
from hibercheck.kernel.symbols import Symbol

_Found: TypeAlias = Iterator[tuple[str, int, int | None]]
"""Symbols: name, link-time address, and size in bytes where that is known."""

_MAX_IMAGE = 1 << 30
"""KERNEL_IMAGE_SIZE with RANDOMIZE_BASE, arch/x86/include/asm/page_64_types.h."""

_MAX_ENDS = 8
"""Constants that are tried as an end of the jump table: jump_label_init() names two more than once."""
_PRESENT, _LARGE = 1, 1 << 7
"""Bits P and PS of an entry (SDM volume 3, table 5-15)."""
_FRAME = 0x000F_FFFF_FFFF_F000
_TABLES = 16
"""Pages from init_top_pgt on among which the other tables are: four, or eight with those for page-table isolation."""
_KERNEL_SLOT, _TEXT_SLOT, _FIXMAP_SLOT = 511, 510, 511
"""Where arch/x86/kernel/head_64.S links its tables: init_top_pgt[511], level3_kernel_pgt[510] and [511]."""

_INT, _POINTER = 4, 8
_APIC_ID_SIZES = (2, 4)
"""x86_cpu_to_apicid is of u16 up to v6.8, then of u32."""
_BAD_APICID = (0xFFFF, 0xFFFF_FFFF)
_REJECTED = 8
"""Offset of nr_rejected_cpus in topo_info."""
_ONLY_READ = (
    ("cpu_smt_control", _INT, "cpu_smt_possible"),
    ("smp_num_siblings", _INT, "topology_smt_supported"),
    ("saved_command_line", _POINTER, "cmdline_proc_show"),
    ("e820_table", _POINTER, "e820__get_entry_type"),
    ("cpuidle_curr_driver", _POINTER, "cpuidle_get_driver"),
    ("apic", _POINTER, "native_send_call_func_single_ipi"),
)
"""A variable, its size, and the function that reads it."""

_IDT_DATA = 24
"""sizeof(struct idt_data)."""
_IDT_MEMBERS = (0, 4, 8, 16)
_VECTORS, _KERNEL_CS = 256, 0x10
_IDT_TABLES = (
    ("early_idts", "idt_setup_early_traps"),
    ("early_pf_idts", "idt_setup_early_pf"),
    ("def_idts", "idt_setup_traps"),
    ("ist_idts", "idt_setup_ist_traps"),
)
_WANTED = Wanted(
    (
        *TELLING,
        "_text",
        "arch_cpu_idle_dead",
        "set_cpu_online",
        "mwait_play_dead*",
        "identify_boot_cpu",
        "arch_cpu_finalize_init",
        "check_bugs",
        "identify_cpu",
        "intel_idle_init",
        "x86_match_cpu",
        "jump_label_init",
        "cpuhp_smt_enable",
        "_find_next_bit",
        "find_next_bit",
        "cpumask_next",
        "cond_wakeup_cpu0",
        "wakeup_cpu0",
        "__x64_sys_getcpu",
        "default_cpu_present_to_apicid",
        "default_send_IPI_single_phys",
        "native_kick_ap",
        "default_check_phys_apicid_present",
        "topology_unit_count",
        "topology_get_logical_id",
        "topo_register_apic",
        "topology_register_apic",
        "freeze_secondary_cpus",
        "boot_params_data_read",
        "software_resume",
        "xbc_get_embedded_bootconfig",
        "crypto_has_acomp",
        "crypto_has_alg",
        "idt_setup_from_table*",
        *(function for _, function in _IDT_TABLES),
        *(function for *_, function in _ONLY_READ),
        "secondary_startup_64_no_verify",
        "secondary_startup_64",
        "load_direct_gdt",
    )
)


def recovered(kernel: Kernel) -> dict[str, Symbol]:
    """Return the data symbols that a kernel's code shows, by name."""
    return _Recovery(kernel).found()


class _Recovery:
    """Reads the places of data in a kernel's code."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._program = Program(kernel, _WANTED)

    def found(self) -> dict[str, Symbol]:
        """Every symbol that was found, by name."""
        places = [
            *self._smp_ops(),
            *self._online_mask(),
            *self._present_mask(),
            *self._numbers(),
            *self._topology(),
            *self._topology_system(),
            *self._present_ids(),
            *self._frozen_mask(),
            *self._monitored_line(),
            *self._cpu_number(),
            *self._boot_cpu_data(),
            *self._compressor(),
            *self._embedded_bootconfig(),
            *self._jump_table(),
            *self._idle_tables(),
            *self._idt_tables(),
            *self._page_tables(),
            *self._bounds(),
            *self._gdt(),
        ]
        return {name: Symbol(name, address, size, "d") for name, address, size in places}

    def _function(self, *names: str) -> Function | None:
        return next((found for name in names if (found := self._program.function_of(name)) is not None), None)

    def _smp_ops(self) -> _Found:
        """arch_cpu_idle_dead() calls smp_ops.play_dead, which is native_play_dead() in the file.

        With clang its play_dead() may be a function of its own.
        """
        function, native = self._function("arch_cpu_idle_dead"), self._program.address("native_play_dead")
        called = function.calls().values() if function is not None else ()
        inner = [self._program.function(target) for target in called if not self._program.is_thunk(target)]
        for node in chain(function or (), *inner):
            for operand in node.operands:
                if operand.address is not None and native and self._program.pointer(operand.address) == native:
                    try:
                        member = self._kernel.offset_of("smp_ops", "play_dead")
                    except MissingFact:
                        member = 0  # then it begins with the member that matters
                    yield "smp_ops", operand.address - member, None
                    return

    def _online_mask(self) -> _Found:
        """set_cpu_online() sets and clears a bit of it, by BTS and BTR."""
        places = {
            operand.address
            for node in self._function("set_cpu_online") or ()
            for operand in node.operands
            if node.mnemonic in ("bts", "btr")
        }
        yield from _only("__cpu_online_mask", places - {None}, None)

    def _present_mask(self) -> _Found:
        """cpuhp_smt_enable() walks it: by a call, or, of one word, by AND with what is left of it."""
        function = self._function("cpuhp_smt_enable")
        for name, register in (("_find_next_bit", "rdi"), ("find_next_bit", "rdi"), ("cpumask_next", "rsi")):
            for call in self._calls(function, name):
                place = argument(function, call, register) if function is not None else None
                if place is not None:
                    yield "__cpu_present_mask", place, None
                    return
        for node in function or ():
            words = [one.address for one in node.operands if one.address is not None and one.size == 8 and not one.gs]
            if node.mnemonic == "and" and words:
                yield "__cpu_present_mask", words[0], 8
                return

    def _cpu_number(self) -> _Found:
        """Up to 6.4 a parked CPU asks whether it is CPU 0, which alone may be woken; getcpu() asks for the number."""
        for name in ("cond_wakeup_cpu0", "wakeup_cpu0", "__x64_sys_getcpu"):
            for node in self._function(name) or ():
                for operand in node.operands:
                    if operand.gs and operand.address is not None and operand.size == 4:
                        yield "cpu_number", operand.address, 4
                        return

    def _numbers(self) -> _Found:
        """Variables that a function is about: it reads one of that size, and nothing else at a fixed place."""
        for symbol, size, name in _ONLY_READ:
            places = {
                operand.address
                for node in self._function(name) or ()
                for operand in node.operands
                if not operand.gs and operand.access == "read" and operand.size == size
            }
            yield from _only(symbol, places - {None}, size)
        # arch/x86/kernel/ksysfs.c copies from there, with an offset
        for node in self._function("boot_params_data_read") or ():
            start = 0 if node.effective is None else node.effective.displacement & ADDRESS_MASK
            if start >= START_KERNEL_MAP and node.effective is not None and node.effective.base is not None:
                yield "boot_params", start, None
                return

    def _topology(self) -> _Found:
        """default_send_IPI_single_phys() reads the APIC id of a CPU in that CPU's area."""
        for node in self._function("default_cpu_present_to_apicid") or ():
            limits = [one.address for one in node.operands if one.address is not None and one.size == _INT]
            if node.mnemonic == "cmp" and limits:  # whether the CPU is one
                yield "nr_cpu_ids", limits[0], _INT
                break
        function = self._function("default_send_IPI_single_phys")
        for node in function or ():
            for operand in node.operands:
                if operand.base is None and operand.index is not None and operand.scale == operand.size == _POINTER:
                    yield "__per_cpu_offset", operand.displacement & ADDRESS_MASK, None
                elif operand.base is not None and operand.size in _APIC_ID_SIZES and function is not None:
                    parts = (argument(function, node.address, one) for one in (operand.base, operand.index))
                    place = sum(part for part in parts if part is not None) + operand.displacement & ADDRESS_MASK
                    if self._is_percpu(place):
                        yield "x86_cpu_to_apicid", place, operand.size
                        return

    def _topology_system(self) -> _Found:
        """Where CPUs and APIC ids are counted since v6.9 (arch/x86/kernel/cpu/topology.c).

        Of a domain the shift of the one below is read, too, so x86_topo_system is the last that is read in that way.
        CPUs that are rejected, topo_info's third word, are counted after those that are disabled, its second.
        """
        shifts = [
            operand.displacement & ADDRESS_MASK
            for name in ("topology_unit_count", "topology_get_logical_id")
            for node in self._function(name) or ()
            for operand in node.operands
            if operand.base is None and operand.index is not None and operand.scale == operand.size == _INT
        ]
        if shifts:
            yield "x86_topo_system", max(shifts), None
        counted = [
            operand.address
            for name in ("topo_register_apic", "topology_register_apic")
            for node in self._function(name) or ()
            for operand in node.operands
            if node.mnemonic == "inc" or (node.mnemonic == "add" and node.immediate == 1)
            if operand.address is not None and operand.size == _INT
        ]
        if counted and self._is_topo_info(max(counted) - _REJECTED):
            yield "topo_info", max(counted) - _REJECTED, None

    def _present_ids(self) -> _Found:
        """native_kick_ap() asks whether a CPU's APIC id is in it; up to v6.8 a function did only that."""
        places = {
            operand.address
            for node in self._function("default_check_phys_apicid_present", "native_kick_ap") or ()
            for operand in node.operands
            if node.mnemonic == "bt" and node.source is not None and not operand.gs
        }
        yield from _only("phys_cpu_present_map", places - {None}, None)

    def _is_topo_info(self, place: int) -> bool:
        """Whether it can begin there: in the file neither the boot CPU's APIC id nor the real one's is known."""
        try:
            assigned, disabled, rejected, boot, real = unpack("<5I", self._kernel.read(place, 5 * _INT))
        except MissingFact:
            return False
        return assigned <= 1 and not disabled | rejected and boot == real and boot in _BAD_APICID

    def _frozen_mask(self) -> _Found:
        """freeze_secondary_cpus() sets a bit of it, or of what it points to (CONFIG_CPUMASK_OFFSTACK)."""
        function = self._function("freeze_secondary_cpus")
        places: set[int | None] = set()
        for node in function or ():
            if node.mnemonic == "bts" and node.operands:
                base = node.operands[0].base
                places.add(node.operands[0].address if base is None else _loaded_from(function, node, base))
        yield from _only("frozen_cpus", places, None)

    def _compressor(self) -> _Found:
        """software_resume() asks for the compressor whose name is there, since a06c6f5d3cc9 (in v6.9)."""
        function = self._function("software_resume")
        for name in ("crypto_has_acomp", "crypto_has_alg"):
            for call in self._calls(function, name):
                place = argument(function, call, "rdi") if function is not None else None
                if place is not None:
                    yield "hib_comp_algo", place, None
                    return

    def _monitored_line(self) -> _Found:
        """Yield what is monitored: a constant with the CPU's own base, this_cpu_off, added to it.

        Older kernels monitor the idle task's flags: an address that is loaded, and at most a few bytes added to it.
        """
        for name in ("native_play_dead", "mwait_play_dead"):
            function = self._function(name)
            lines = {one.base for node in function or () if node.mnemonic == "clflush" for one in node.operands}
            for node in function or ():
                place = None
                if node.destination in lines and node.effective is not None and node.effective.base is not None:
                    place = node.effective.displacement & ADDRESS_MASK
                elif node.destination in lines and node.mnemonic == "add" and any(one.gs for one in node.operands):
                    place = argument(function, node.address, node.destination) if function is not None else None
                if place is not None and self._is_percpu(place):
                    yield "mwait_cpu_dead", place, None
                    return

    @staticmethod
    def _is_percpu(place: int) -> bool:
        """Whether a per-CPU variable can be there: behind the area's first page, or in the kernel's image."""
        return PAGE_SIZE <= place < _MAX_IMAGE or START_KERNEL_MAP <= place < START_KERNEL_MAP + _MAX_IMAGE

    def _jump_table(self) -> _Found:
        """jump_label_init() sorts it: a multiple of its entries' size from the first constant to the second."""
        named = Counter(
            node.immediate
            for node in self._function("jump_label_init") or ()
            if node.mnemonic in ("mov", "cmp", "sub") and node.immediate and node.immediate >= START_KERNEL_MAP
        )
        places = [place for place, times in named.items() if times > 1][:_MAX_ENDS]
        for start in places:
            for stop in places:
                sized = start < stop <= start + MAX_TABLE
                ends = {
                    "__start___jump_table": Symbol("__start___jump_table", start, None, "d"),
                    "__stop___jump_table": Symbol("__stop___jump_table", stop, None, "d"),
                }
                if sized and jump_labels(self._kernel, ends):
                    yield from ((name, one.address, None) for name, one in ends.items())
                    return

    def _boot_cpu_data(self) -> _Found:
        """identify_cpu() of the boot CPU is about it."""
        for name in ("identify_boot_cpu", "arch_cpu_finalize_init", "check_bugs"):
            function = self._function(name)
            for call in self._calls(function, "identify_cpu"):
                place = argument(function, call, "rdi") if function is not None else None
                if place is not None:
                    yield "boot_cpu_data", place, None
                    return

    def _embedded_bootconfig(self) -> _Found:
        """xbc_get_embedded_bootconfig() subtracts its start from its end (CONFIG_BOOT_CONFIG_EMBED)."""
        places = {
            place
            for node in self._function("xbc_get_embedded_bootconfig") or ()
            for place in (node.immediate, None if node.effective is None else node.effective.address)
            if place is not None and place >= START_KERNEL_MAP
        }
        if len(places) == 2:
            yield "embedded_bootconfig_data", min(places), None
            yield "embedded_bootconfig_data_end", max(places), None

    def _calls(self, function: Function | None, name: str) -> list[int]:
        return [] if function is None else calls_to(function, [self._program.address(name)])

    def _idle_tables(self) -> _Found:
        """intel_idle_init() asks x86_match_cpu() for its own models first."""
        function = self._function("intel_idle_init")
        calls = self._calls(function, "x86_match_cpu")
        for name, call in zip(("intel_idle_ids", "intel_mwait_ids"), calls, strict=False):
            place = argument(function, call, "rdi") if function is not None else None
            if place is None:
                return
            yield name, place, None

    def _idt_tables(self) -> _Found:
        """idt_setup_from_table() gets a table and its length, after idt_table where that was not propagated."""
        for name, caller in _IDT_TABLES:
            function = self._function(caller)
            if function is not None:
                table = next((one for one in self._given_tables(function) if self._is_idt_data(one[0])), None)
                if table is not None:
                    yield name, *table

    def _given_tables(self, function: Function) -> Iterator[tuple[int, int]]:
        """Tables and their sizes in bytes: as arguments of idt_setup_from_table(), or where it was inlined."""
        for call in self._calls(function, "idt_setup_from_table"):
            for table, count in (("rdi", "rsi"), ("rsi", "rdx")):
                place, length = argument(function, call, table), argument(function, call, count)
                if place is not None and length is not None and 0 < length < _VECTORS:
                    yield place, length * _IDT_DATA
        starts = {node.destination: node.immediate for node in function if node.mnemonic == "mov" and node.immediate}
        for node in function:
            start, end = starts.get(node.destination), node.immediate
            if node.mnemonic == "cmp" and start and end and 0 < end - start < _VECTORS * _IDT_DATA:
                yield start, end - start
        read = [one.address for node in function for one in node.operands if one.access == "read" and one.address]
        for member in _IDT_MEMBERS if read else ():  # a table of one entry, whose first member may have been folded
            yield min(read) - member, _IDT_DATA

    def _is_idt_data(self, place: int) -> bool:
        """Whether a struct idt_data can begin there: a vector, __KERNEL_CS, and code of the kernel."""
        try:
            entry = self._kernel.read(place, _IDT_DATA)
        except MissingFact:
            return False
        vector, segment, handler = (int.from_bytes(entry[a:b], "little") for a, b in ((0, 4), (4, 8), (16, 24)))
        return vector < _VECTORS and segment == _KERNEL_CS and handler >= START_KERNEL_MAP

    # -- Where the kernel and its tables are -----------------------------------------------------------------------

    def _bounds(self) -> _Found:
        """Yield the end of its segments, its banner by what it says, and the per-CPU area's start by its section."""
        text = self._program.address("_text")
        starts = [at for at, _, _ in self._kernel.elf.loaded() if text is not None and text <= at < text + _MAX_IMAGE]
        ends = [end for at in starts if (end := self._kernel.elf.span_end(at)) is not None]
        if ends:
            yield "_end", -(-max(ends) // PAGE_SIZE) * PAGE_SIZE, 0
        if self._kernel.banner_place is not None:
            yield "linux_banner", self._kernel.banner_place, None
        section = self._kernel.section(".data..percpu")
        if section is not None:
            yield "__per_cpu_start", section.address, 0

    def _entry(self, table: int, index: int) -> int | None:
        """Return the link-time address of the table that a table's entry in the file leads to; None if it is none."""
        value = self._program.pointer(table + 8 * index)
        if value is None or not value & _PRESENT or value & _LARGE:
            return None
        return (value & _FRAME) + START_KERNEL_MAP

    def _page_tables(self) -> _Found:
        """secondary_startup_64 adds where init_top_pgt is; behind it lie the other tables, leading to one another."""
        function = self._function("secondary_startup_64_no_verify", "secondary_startup_64")
        top = next((one for node in function or () if (one := _added_page(node)) is not None), None)
        if top is None:
            return
        yield "init_top_pgt", top, PAGE_SIZE
        pages = range(top, top + _TABLES * PAGE_SIZE, PAGE_SIZE)
        found = next(((page, below) for page in pages if (below := self._below_level3(page)) is not None), None)
        if found is None:
            return
        level3, (text, fixmap) = found
        yield "level3_kernel_pgt", level3, PAGE_SIZE
        yield "level2_kernel_pgt", text, PAGE_SIZE
        yield "level2_fixmap_pgt", fixmap, PAGE_SIZE
        level4 = [page for page in pages if page != top and self._entry(page, _KERNEL_SLOT) == level3]
        if len(level4) == 1:
            yield "level4_kernel_pgt", level4[0], PAGE_SIZE

    def _below_level3(self, page: int) -> tuple[int, int] | None:
        """Return the table of the kernel's large pages and the fixmap's, which is another, if a page leads to both."""
        text, fixmap = self._entry(page, _TEXT_SLOT), self._entry(page, _FIXMAP_SLOT)
        if text is None or fixmap is None or text == fixmap:
            return None
        first = self._program.pointer(text)
        return (text, fixmap) if first is not None and first & _PRESENT and first & _LARGE else None

    def _gdt(self) -> _Found:
        """load_direct_gdt() adds the CPU's base to it."""
        for node in self._function("load_direct_gdt") or ():
            place = node.immediate
            if node.mnemonic == "mov" and place is not None and place % PAGE_SIZE == 0 and not node.operands:
                yield "gdt_page", place, PAGE_SIZE
                return


def _only(name: str, places: set[int | None], size: int | None) -> _Found:
    """Yield a symbol if one place was found for it, and no other."""
    place = places.pop() if len(places) == 1 else None
    if place is not None:
        yield name, place, size


def _loaded_from(function: Function | None, node: Decoded, register: str) -> int | None:
    """Return the fixed place from which a register was loaded before an instruction; None if it was not."""
    before = None if function is None else previous(function, node.address)
    while function is not None and before is not None and before.flow is Flow.NEXT:
        if register in before.written:
            loads = before.mnemonic == "mov" and before.operands and not before.operands[0].gs
            return before.operands[0].address if loads else None
        before = previous(function, before.address)
    return None


def _added_page(node: Decoded) -> int | None:
    """Return the page of the kernel's image whose distance from __START_KERNEL_map an instruction adds; else None."""
    value = node.immediate if node.mnemonic == "add" else None
    if value is None or value % PAGE_SIZE or not 0 < value < _MAX_IMAGE:
        return None
    return value + START_KERNEL_MAP
