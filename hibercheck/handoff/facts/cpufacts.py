"""The machine's CPUs as a kernel's memory describes them: vendor, features, topology, masks.

Structure members are placed by the kernel's BTF where it has one.  A kernel without BTF is read by what stands
beside the member in the structure, and the place is checked by the values found there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from hibercheck.cpulist import MAX_CPUS
from hibercheck.data import dataclass
from hibercheck.errors import MissingFact
from hibercheck.handoff.facts.cmdline import CommandLine
from hibercheck.handoff.facts.space import KernelSpace

VENDORS = {b"GenuineIntel": "intel", b"AuthenticAMD": "amd", b"HygonGenuine": "hygon", b"  Shanghai  ": "zhaoxin"}

# X86_FEATURE_* as (word, bit), arch/x86/include/asm/cpufeatures.h; these words have not moved since 4.x.
FEATURES = {
    "mwait": (4, 3),
    "clflush": (0, 19),
    "la57": (16, 16),
    "nx": (1, 20),
    "gbpages": (1, 26),
    "smep": (9, 7),
    "smap": (9, 20),
    "pcid": (4, 17),
    "xsave": (4, 26),
    "fsgsbase": (9, 0),
    "hypervisor": (4, 31),
    "fred": (12, 17),
    "lkgs": (12, 18),
}

FRED_FLAGS = frozenset({"fred", "lkgs"})
"""What says that a CPU has FRED.  Kernels hide its own flag unless they use it; LKGS, which comes with it (Intel's
"Flexible Return and Event Delivery" specification), they leave."""

FLAG_NAMES = {"monitor": "mwait", "pdpe1gb": "gbpages"}
"""/proc/cpuinfo's names of features where they differ from ours."""


def cleared_by(line: CommandLine) -> frozenset[str]:
    """Return those of `FEATURES` that a command line hides from its kernel: a choice of that boot."""
    shown = {ours: theirs for theirs, ours in FLAG_NAMES.items()}
    return frozenset(
        name for name, (word, bit) in FEATURES.items() if line.clears(shown.get(name, name), 32 * word + bit)
    )


# X86_BUG(n): bit numbers in the word after the NCAPINTS capability words; unchanged since each was added.
BUGS = {"meltdown": 14, "l1tf": 18, "mds": 19, "taa": 22, "mmio_stale_data": 25, "retbleed": 27}

_BOOT_CPU_DATA_SIZE = 512
_LAST_MEMBER = _BOOT_CPU_DATA_SIZE - 16
"""What is read there has at most as many bytes."""
_LONG_MODE_EDX = 0x79  # FPU, PSE, TSC, MSR and PAE: a 64-bit kernel runs on no CPU without them
_LOWEST_EXTENDED_LEAF = 0x8000_0004


@dataclass(frozen=True, slots=True)
class CpuFeatures:
    """What ``boot_cpu_data`` says.

    Attributes:
        vendor: ``intel``, ``amd``, ``hygon``, ``zhaoxin`` or the CPUID vendor string itself.
        cpuid_level: Highest basic CPUID leaf.
        flags: Names of `FEATURES` that are set.
        bugs: Names of `BUGS` that are set; None where the place of the bug words is not known.
        virtual_bits: Linear address bits by CPUID 80000008H: 57 on a CPU with LA57, whatever the kernel uses.
        physical_bits: MAXPHYADDR.
        family: As /proc/cpuinfo has it; None where it was not found.
        model: The same.
    """

    vendor: str
    cpuid_level: int
    flags: frozenset[str]
    bugs: frozenset[str] | None
    virtual_bits: int | None
    physical_bits: int | None
    family: int | None = None
    model: int | None = None


@dataclass(frozen=True, slots=True)
class MonitorLeaf:
    """What CPUID leaf 5 says of MONITOR and MWAIT (Intel SDM, volume 2A, "CPUID", leaf 05H).

    Attributes:
        line: Bytes of the largest line that is monitored; None if there is none, as on a CPU without MONITOR.
        sub_states: How many sub-states MWAIT has of C0, C1 and so on, eight numbers; all are 0 where none is counted.
        extended: Whether MWAIT has its extensions: hints that the leaf counts, and an end by an interrupt that is off.
    """

    line: int | None
    sub_states: tuple[int, ...]
    extended: bool


_LINES = frozenset(1 << power for power in range(3, 13))


def read_monitor_leaf(_eax: int, ebx: int, ecx: int, edx: int) -> MonitorLeaf:
    """Read the registers of CPUID leaf 5."""
    line = ebx & 0xFFFF
    states = tuple(edx >> shift & 0xF for shift in range(0, 32, 4))
    return MonitorLeaf(line if line in _LINES else None, states, ecx & 3 == 3)


def read_features(space: KernelSpace, address: int | None = None) -> CpuFeatures:
    """Read ``boot_cpu_data`` (struct cpuinfo_x86, arch/x86/include/asm/processor.h).

    Args:
        space: The kernel's memory.
        address: Where another such structure is, to read that instead.

    Raises:
        MissingFact: The structure cannot be read or made sense of.
    """
    data = space.read(space.address("boot_cpu_data") if address is None else address, _BOOT_CPU_DATA_SIZE)
    vendor_at = _vendor_offset(space, data)
    levels_at, capability_at = _capability_offset(space, data)
    raw_vendor = data[vendor_at : vendor_at + 12]
    words = struct.unpack_from(f"<{max(vendor_at - capability_at, 0) // 4}I", data, capability_at)
    flags = frozenset(name for name, (word, bit) in FEATURES.items() if word < len(words) and words[word] >> bit & 1)
    level_at = _member(space, "cpuid_level", levels_at + 4)
    return CpuFeatures(
        vendor=VENDORS.get(raw_vendor, raw_vendor.decode("ascii", "replace").strip("\0 ")),
        cpuid_level=struct.unpack_from("<i", data, level_at)[0],
        flags=flags,
        bugs=_bugs(space, words),
        virtual_bits=_bits(data, _member(space, "x86_virt_bits", levels_at - 4), {48, 57}),
        physical_bits=_bits(data, _member(space, "x86_phys_bits", levels_at - 3), set(range(32, 53))),
        **_family_and_model(space, data, VENDORS.get(raw_vendor)),
    )


def mp_table_has_all(space: KernelSpace) -> bool:
    """Tell whether a kernel found an MP table, and no CPU can be missing there.

    Of each package it lists the first CPU alone (default_get_smp_config(), arch/x86/kernel/mpparse.c; so SeaBIOS makes
    it): all are there if a package has one, HTT of CPUID leaf 1 being clear (Intel SDM, volume 2A, "CPUID", leaf 01H,
    EDX bit 28).  That there is none says nothing: other firmware lists CPUs for ACPI only.

    Raises:
        MissingFact: ``smp_found_config`` or ``boot_cpu_data`` cannot be read or made sense of.
    """
    if not space.variable("smp_found_config", 4):
        return False
    data = space.read(space.address("boot_cpu_data"), _BOOT_CPU_DATA_SIZE)
    return not struct.unpack_from("<I", data, _capability_offset(space, data)[1])[0] >> 28 & 1


_VENDOR_NUMBERS = {"intel": 0, "amd": 2, "hygon": 9, "zhaoxin": 10}
"""X86_VENDOR_*, arch/x86/include/asm/processor.h."""


def _family_and_model(space: KernelSpace, data: bytes, vendor: str | None) -> dict[str, int]:
    """Read family and model; without types by the vendor's number, which stands beside them.

    The structure begins with family, vendor and model; since a9d0adce6907 ("x86/cpu/vfm: Add/initialize x86_vfm field
    to struct cpuinfo_x86", in v6.10) with model, family and vendor.  No 64-bit CPU has a family below 5.
    """
    family_at, model_at = (_placed_by_btf(space, name) for name in ("x86", "x86_model"))
    if family_at is None or model_at is None:
        number = _VENDOR_NUMBERS.get(vendor or "")
        places = ((0, 1, 2), (1, 2, 0))
        found = [one for one in places if data[one[1]] == number and data[one[0]] >= 5]
        if len(found) != 1:
            return {}
        family_at, _, model_at = found[0]
    return {"family": data[family_at], "model": data[model_at]}


def _member(space: KernelSpace, name: str, otherwise: int) -> int:
    """Return a member's offset in struct cpuinfo_x86 from BTF, else the place where it stands without."""
    placed = _placed_by_btf(space, name)
    return otherwise if placed is None else placed


def _placed_by_btf(space: KernelSpace, name: str) -> int | None:
    """Return a member's offset in struct cpuinfo_x86, or None where the kernel has no types or no such member."""
    try:
        place = space.kernel.offset_of("cpuinfo_x86", name)
    except MissingFact:
        return None
    if place > _LAST_MEMBER:
        raise MissingFact(
            f"the kernel's BTF places {name} {place} bytes into struct cpuinfo_x86, which has no such size"
        )
    return place


def _vendor_offset(space: KernelSpace, data: bytes) -> int:
    placed = _placed_by_btf(space, "x86_vendor_id")
    if placed is not None:
        return placed
    places = [data.find(vendor) for vendor in VENDORS]
    found = min((place for place in places if place > 0), default=None)
    if found is None:
        raise MissingFact("the CPU vendor cannot be found in boot_cpu_data, and the kernel carries no BTF")
    return found


def _capability_offset(space: KernelSpace, data: bytes) -> tuple[int, int]:
    """Find ``u32 extended_cpuid_level; int cpuid_level`` and, behind them, x86_capability[].

    Where x86_capability[] is aligned to 8 bytes (union with ``unsigned long x86_capability_alignment``) there may be
    padding between, as in 7.3; older kernels, such as 4.19, have none, wherever it lies.
    """
    placed = _placed_by_btf(space, "x86_capability")
    if placed is not None:
        return placed - 8, placed
    for place in range(0, 64, 4):
        extended, basic = struct.unpack_from("<Ii", data, place)
        if not (_LOWEST_EXTENDED_LEAF <= extended <= 0x8000_0FFF and 0 < basic <= 0xFF):
            continue
        for capability in (place + 8, place + 12):
            edx, extended_edx = struct.unpack_from("<II", data, capability)
            if edx & _LONG_MODE_EDX == _LONG_MODE_EDX and extended_edx >> 29 & 1:
                return place, capability
    raise MissingFact("x86_capability cannot be found in boot_cpu_data, and the kernel carries no BTF")


def _bits(data: bytes, place: int, plausible: set[int]) -> int | None:
    return data[place] if place >= 0 and data[place] in plausible else None


def _bugs(space: KernelSpace, words: tuple[int, ...]) -> frozenset[str] | None:
    """Read the bug words: they follow the NCAPINTS capability words, which x86_cap_flags[] counts."""
    names = space.kernel.symbol("x86_cap_flags")
    if names is None or not names.size:
        return None
    bits = next(iter(words[names.size // (32 * 8) :]), 0)
    return frozenset(name for name, bit in BUGS.items() if bits >> bit & 1)


def under_known_hypervisor(space: KernelSpace) -> bool:
    """Whether a kernel runs under a hypervisor that it knows by its CPUID leaves: x86_hyper_type is not 0, NATIVE.

    The enumeration is x86_hypervisor_type, arch/x86/include/asm/hypervisor.h.  A virtual CPU (`FEATURES`) of none of
    these is an emulator's, such as QEMU's TCG.

    Raises:
        MissingFact: It is built without CONFIG_HYPERVISOR_GUEST, and looks for none.
    """
    return space.variable("x86_hyper_type", 4) != 0


def cpu_count(space: KernelSpace) -> int:
    """Return nr_cpu_ids: the number of CPU numbers in use.

    Raises:
        MissingFact: It is not in memory, or absurd.
    """
    if space.one_cpu:  # where it is a constant (include/linux/cpumask.h)
        return 1
    count = space.variable("nr_cpu_ids", 4)
    if not 0 < count <= MAX_CPUS:
        raise MissingFact(f"nr_cpu_ids is {count}, which no kernel has")
    return count


def read_mask(space: KernelSpace, address: int, count: int) -> frozenset[int]:
    """Read a cpumask of ``count`` bits."""
    bits = space.number(address, (count + 63) // 64 * 8)
    return frozenset(cpu for cpu in range(count) if bits >> cpu & 1)


def read_mask_variable(space: KernelSpace, symbol: str, count: int, present: frozenset[int]) -> frozenset[int]:
    """Read a cpumask_var_t: the mask itself, or a pointer to it with CONFIG_CPUMASK_OFFSTACK.

    A pointer into the kernel's half has bits far above any present CPU set, so the value tells which it is.  With five
    levels of page tables that half begins at 0xff00000000000000 (Documentation/arch/x86/x86_64/mm.rst).
    """
    value = space.variable(symbol)
    if value >> 56 == 0xFF and not all(value >> cpu & 1 == 0 or cpu in present for cpu in range(64)):
        return read_mask(space, value, count)
    return read_mask(space, space.address(symbol), count)


@dataclass(frozen=True, slots=True)
class Topology:
    """Which CPUs share a core.

    Attributes:
        apic_ids: APIC id by CPU number.
        smt_shift: Bits of the APIC id that number the threads of a core.
        primaries: CPUs that are their core's primary thread (lowest thread number).
    """

    apic_ids: dict[int, int]
    smt_shift: int
    primaries: frozenset[int]

    def core(self, cpu: int) -> int:
        """Return an identifier of the CPU's core."""
        return self.apic_ids[cpu] >> self.smt_shift

    def primary_of(self, cpu: int) -> int | None:
        """Return the primary thread of the CPU's core, or None when it has no CPU number."""
        core = self.core(cpu)
        return next((other for other in sorted(self.primaries) if self.core(other) == core), None)

    def cores(self) -> list[list[int]]:
        """Return the CPUs of each core, in the order of their numbers."""
        found: dict[int, list[int]] = {}
        for cpu in sorted(self.apic_ids):
            found.setdefault(self.core(cpu), []).append(cpu)
        return list(found.values())

    def among(self, cpus: Iterable[int]) -> list[list[int]]:
        """Return which of some CPUs share a core."""
        chosen = set(cpus)
        return [some for core in self.cores() if (some := [cpu for cpu in core if cpu in chosen])]

    def extended(self, apic_ids: dict[int, int]) -> Topology:
        """Return the topology with the APIC ids of more CPUs."""
        mask = (1 << self.smt_shift) - 1
        return Topology(apic_ids, self.smt_shift, frozenset(cpu for cpu, apic in apic_ids.items() if not apic & mask))

    def continued(self, cpus: frozenset[int]) -> Topology:
        """Return the topology with CPUs of which only the numbers are known: cores that follow the last one."""
        step = 1 << self.smt_shift
        following = -(-(max(self.apic_ids.values(), default=-1) + 1) // step) * step
        return self.extended(self.apic_ids | {cpu: following + place for place, cpu in enumerate(sorted(cpus))})


def read_topology(
    space: KernelSpace, present: frozenset[int], *, limited: bool, possible: int | None = None
) -> Topology:
    """Read APIC ids and the SMT shift, of CPUs that the kernel itself was told to ignore, too.

    Args:
        space: The kernel's memory.
        present: CPUs in its present mask.
        limited: Whether its command line limits that mask.
        possible: Its ``possible_cpus=``.

    Raises:
        MissingFact: The kernel keeps them in none of the known places.
    """
    symbol = space.kernel.require("x86_cpu_to_apicid")
    # u16 in 6.1, u32 in 6.12: the symbol's size says which.
    width = 4 if symbol.size == 4 else 2
    apic_ids = {cpu: space.number(space.percpu_address("x86_cpu_to_apicid", cpu), width) for cpu in sorted(present)}
    if len(apic_ids) == 1 and apic_ids.get(0) in _NO_APIC_ID:
        apic_ids = {0: _only_apic_id(space)}
    for apic in hidden_apic_ids(space, frozenset(apic_ids.values()), limited=limited, possible=possible):
        apic_ids[max(apic_ids, default=-1) + 1] = apic
    return Topology({}, _smt_shift(space), frozenset()).extended(apic_ids)


_NO_APIC_ID = {0xFFFF, 0xFFFF_FFFF}
"""BAD_APICID, arch/x86/include/asm/apicdef.h: with ``acpi=off`` and no MP table nobody registers the boot CPU."""


def _only_apic_id(space: KernelSpace) -> int:
    """Return the one in phys_cpu_present_map, where disable_smp() has put it (arch/x86/kernel/smpboot.c).

    Raises:
        MissingFact: It has another number of them.
    """
    bits = space.number(space.address("phys_cpu_present_map"), MAX_CPUS // 8)
    if bits.bit_count() != 1:
        raise MissingFact("the kernel never learned the APIC id of its only CPU")
    return bits.bit_length() - 1


def hidden_apic_ids(
    space: KernelSpace, known: frozenset[int], *, limited: bool, possible: int | None = None
) -> tuple[int, ...]:
    """Return the APIC ids of CPUs that the machine has and the kernel gave no number, as with ``nr_cpus=1``.

    Kernels with topo_info (6.12, 7.3) have those that ``nosmp`` cut off in phys_cpu_present_map; those that came after
    the limit of ``nr_cpus=`` was reached they only count, in the third word of topo_info, nr_rejected_cpus
    (topology_register_apic(), arch/x86/kernel/cpu/topology.c).  Earlier ones count them in disabled_cpus, among slots
    that are empty (arch/x86/kernel/apic/apic.c).  What is only counted counts where the command line limits the CPUs,
    and is taken to follow the last one.
    """
    ids: Sequence[int]
    if _has_topo_info(space):
        bits = space.number(space.address("phys_cpu_present_map"), MAX_CPUS // 8)
        listed = [index for index in range(bits.bit_length()) if bits >> index & 1 and index not in known]
        first = max(max(known, default=-1) + 1, bits.bit_length())
        rejected = space.number(space.address("topo_info") + 8, 4) if limited else 0
        ids = [*listed, *range(first, first + min(rejected, MAX_CPUS + 1))]
    elif limited:
        first = max(known, default=-1) + 1
        ids = range(first, first + _left_out(space, len(known), possible or 0))
    else:
        ids = ()
    if len(ids) > MAX_CPUS:
        raise MissingFact(f"the kernel counts {len(ids)} CPUs that it does not use, which no machine has")
    return tuple(ids)


def _has_topo_info(space: KernelSpace) -> bool:
    """Tell whether a kernel registers CPUs as since v6.9 (arch/x86/kernel/cpu/topology.c)."""
    return any(space.kernel.symbol(name) is not None for name in ("topo_info", "x86_topo_system"))


def _left_out(space: KernelSpace, present: int, possible: int) -> int:
    """Count the CPUs that a kernel before v6.9 left out, without the slots in which there is none.

    Both are in disabled_cpus, but ACPI's processor driver registers anew every CPU that is there and not present
    (acpi_processor_hotadd_init(), drivers/acpi/acpi_processor.c, by acpi_map_cpu()), which counts it once more.  Before
    that, total_cpus has been made of the counts (prefill_possible_map(), arch/x86/kernel/smpboot.c): what came on top
    are the CPUs.  With ``nolapic`` the first count is an MP table's.

    Where nothing came on top, and where ``possible_cpus=`` may have made total_cpus, the larger count counts: the
    driver passes by a CPU of which the firmware has no _STA, as most has of none.  A kernel for one CPU has 0 there.
    """
    assigned, disabled = space.variable("num_processors", 4), space.variable("disabled_cpus", 4)
    numbered = max(assigned, present)
    counted = numbered + disabled
    if space.kernel.symbol("total_cpus") is None:
        return counted - present
    at_boot = space.variable("total_cpus", 4)
    if not numbered <= at_boot <= counted:
        return counted - present
    again = max(counted - at_boot, numbered - present)
    return again if counted > at_boot > possible else max(again, at_boot - present)


def may_count_slots(space: KernelSpace) -> bool:
    """Tell whether some of the CPUs that a kernel before v6.9 left out may be slots in which there is none.

    That is so where nothing came on top of what it counted at boot: of the CPUs the firmware then has no _STA, or there
    are none (`_left_out`).
    """
    if _has_topo_info(space):
        return False
    disabled = space.variable("disabled_cpus", 4)
    return disabled > 0 and space.variable("num_processors", 4) + disabled <= space.variable("total_cpus", 4)


def _smt_shift(space: KernelSpace) -> int:
    """Return how many low bits of the APIC id number threads.

    struct x86_topology_system (arch/x86/include/asm/topology.h) begins with dom_shifts[], whose first is the SMT
    domain's; kernels that lack it, 6.1 for one, count threads in smp_num_siblings.
    """
    if space.kernel.symbol("x86_topo_system") is not None:
        shift = space.variable("x86_topo_system", 4)
    else:
        shift = max(space.variable("smp_num_siblings", 4) - 1, 0).bit_length()
    if shift > 4:
        raise MissingFact(f"the number of threads of a core reads as 2^{shift}, which no CPU has")
    return shift
