"""What a kernel keeps of its CPUs: masks in place or behind a pointer, features with types or without."""

from __future__ import annotations

import struct
from types import SimpleNamespace

import pytest

from hibercheck.errors import MissingFact
from hibercheck.handoff.facts.cmdline import parse_command_line
from hibercheck.handoff.facts.cpufacts import (
    CpuFeatures,
    MonitorLeaf,
    Topology,
    cleared_by,
    cpu_count,
    hidden_apic_ids,
    may_count_slots,
    mp_table_has_all,
    read_features,
    read_mask,
    read_mask_variable,
    read_monitor_leaf,
    read_topology,
    under_known_hypervisor,
)

AT = 0xFFFF_FFFF_8200_0000


class Space:
    """Memory by address."""

    def __init__(self, words):
        self.words = words

    def address(self, _symbol):
        return AT

    def variable(self, _symbol):
        return self.words[AT]

    def number(self, address, size):
        words = [self.words[address + at] for at in range(0, size, 8)]
        return sum(word << (64 * place) for place, word in enumerate(words))


@pytest.mark.parametrize(
    "pointer",
    [0xFFFF_8880_0134_A3A0, 0xFFFF_FFFF_81B0_0000, 0xFF11_0000_0478_56C0, 0xFF47_7AFC_C134_A3A0],
    ids=["direct map", "image", "direct map, 5 levels", "direct map, 5 levels, random"],
)
def test_a_mask_behind_a_pointer(pointer):
    assert read_mask_variable(Space({AT: pointer, pointer: 0b1110}), "frozen_cpus", 4, frozenset(range(4))) == {1, 2, 3}


@pytest.mark.parametrize("cpus", [4, 64])
def test_a_mask_in_place(cpus):
    everyone = frozenset(range(cpus))
    bits = sum(1 << cpu for cpu in everyone)
    assert read_mask_variable(Space({AT: bits}), "frozen_cpus", cpus, everyone) == everyone


@pytest.mark.parametrize(("bits", "present"), [
    (0xFF << 56 | 0b0110, frozenset(range(64)) - {3}),  # the CPU that is absent is not in the mask
    (0xFF << 56, frozenset(range(56, 64))),
    (0b1110, frozenset({0, 1})),  # of CPUs that were taken out since: no address of a kernel begins so
    (1 << 55 | 1, frozenset({0})),
])  # fmt: skip
def test_a_mask_that_no_pointer_can_be_lies_in_place(bits, present):
    found = read_mask_variable(Space({AT: bits}), "frozen_cpus", 64, present)
    assert found == {cpu for cpu in range(64) if bits >> cpu & 1}


@pytest.mark.parametrize("count", [1, 63, 64, 65, 128, 129])
def test_a_mask_has_as_many_words_as_its_cpus_need(count):
    words = {AT + 8 * place: (1 << 64) - 1 for place in range((count + 63) // 64)}
    assert read_mask(Space(words), AT, count) == frozenset(range(count))


@pytest.mark.parametrize(("registers", "leaf"), [
    ((0x40, 0x40, 0x3, 0x11142120), MonitorLeaf(64, (0, 2, 1, 2, 4, 1, 1, 1), extended=True)),  # Skylake
    ((0x40, 0x40, 0x1, 0), MonitorLeaf(64, (0,) * 8, extended=False)),
    ((0x40, 0x40, 0x2, 0), MonitorLeaf(64, (0,) * 8, extended=False)),
    ((0x40, 0x40, 0xFFFF_FFFC, 0xF000_000F), MonitorLeaf(64, (15, 0, 0, 0, 0, 0, 0, 15), extended=False)),
    ((0, 0xABCD_0080, 0x7, 0), MonitorLeaf(128, (0,) * 8, extended=True)),  # bits 31 to 16 are reserved
    ((0, 0, 0, 0), MonitorLeaf(None, (0,) * 8, extended=False)),  # without MONITOR, as Linux's guests mostly are
    ((0, 65, 0, 0), MonitorLeaf(None, (0,) * 8, extended=False)),  # no line has such a size
    *((((0, 1 << power, 0, 0)), MonitorLeaf(1 << power if 3 <= power <= 12 else None, (0,) * 8, extended=False))
      for power in range(16)),
])  # fmt: skip
def test_leaf_5_says_what_is_monitored(registers, leaf):
    """SDM 2A, "CPUID", table 3-8: EBX[15:0] the largest line, ECX[0] extensions, ECX[1] interrupts, EDX sub-states."""
    assert read_monitor_leaf(*registers) == leaf


@pytest.mark.parametrize(("kind", "known"), [(0, False), (1, True), (5, True)])
def test_a_kernel_keeps_the_hypervisor_that_it_found(kind, known):
    assert under_known_hypervisor(Variables(x86_hyper_type=kind)) is known


class WithoutTypes:
    """A kernel whose boot_cpu_data is known byte by byte, and no more."""

    def __init__(self, data):
        def offset_of(_structure, member):
            raise MissingFact(f"no {member}")

        self.data = {AT: data}
        self.kernel = SimpleNamespace(symbol=lambda _name: None, offset_of=offset_of)

    def address(self, symbol):
        return {"boot_cpu_data": AT}[symbol]

    def read(self, address, size):
        return self.data[address].ljust(size, b"\0")


# The start of struct cpuinfo_x86 as it was in memory: 7.3 on a Skylake-Server with LA57, booted with no5lvl, where
# padding stands before x86_capability[], and the same without it, as in 6.1.
SKYLAKE = (
    bytes.fromhex(
        "550600000400000000000000000000000000000000000000000000000000000039280000080000800d00000000000000fdfb8b170008102c"
        "00000000008075020b32d8fe0000000021000000002808a000000000a9039801050000002050000800000000000000000400000000000000"
        "18000000000000000000000000000000040000000021000000c0af4aa8000000"
    )
    + b"GenuineIntel\0\0\0\0"
)
LEVELS = 0x20


FOLLOWING = SKYLAKE[LEVELS : LEVELS + 12] + SKYLAKE[LEVELS + 16 :]
"""From x86_virt_bits on, without padding."""


@pytest.mark.parametrize(
    "data", [SKYLAKE, SKYLAKE[4:LEVELS] + FOLLOWING, SKYLAKE[:8] + FOLLOWING], ids=["padded", "6.1", "4.19"]
)
def test_features_of_a_kernel_without_types(data):
    features = read_features(WithoutTypes(data))
    assert (features.vendor, features.cpuid_level) == ("intel", 0xD)
    assert (features.virtual_bits, features.physical_bits) == (57, 40)
    assert {"mwait", "clflush", "nx", "hypervisor"} <= features.flags
    assert "la57" not in features.flags  # the kernel cleared it; the width of addresses tells


CAPABILITY = LEVELS + 12
LONG_MODE = (0x178BFBFD, 0x2C100800)
"""What the Skylake has in the words of CPUID.1:EDX and CPUID.80000001H:EDX."""


def levels(extended, basic, edx, extended_edx):
    """Return the Skylake's structure with these levels and capabilities."""
    words = struct.pack("<Ii4xII", extended, basic, edx, extended_edx)
    return SKYLAKE[:LEVELS] + words + SKYLAKE[LEVELS + len(words) :]


@pytest.mark.parametrize(("extended", "basic", "edx", "extended_edx", "found"), [
    (0x80000008, 0xD, *LONG_MODE, True), (0x80000004, 0xD, *LONG_MODE, True), (0x80000FFF, 0xD, *LONG_MODE, True),
    (0x80000003, 0xD, *LONG_MODE, False),  # without the brand string, which every 64-bit processor has
    (0x80001000, 0xD, *LONG_MODE, False), (0x00000008, 0xD, *LONG_MODE, False),
    (0x80000008, 1, *LONG_MODE, True), (0x80000008, 0xFF, *LONG_MODE, True),
    (0x80000008, 0, *LONG_MODE, False), (0x80000008, 0x100, *LONG_MODE, False), (0x80000008, -1, *LONG_MODE, False),
    # CPUID.80000001H:EDX[29] is long mode, which without FPU, PSE, TSC, MSR and PAE there is not
    (0x80000008, 0xD, 0x79, 1 << 29, True), (0x80000008, 0xD, LONG_MODE[0], 0, False),
    (0x80000008, 0xD, LONG_MODE[0], ~(1 << 29) & 0xFFFFFFFF, False),
    *((0x80000008, 0xD, 0x79 & ~(1 << bit), 1 << 29, False) for bit in (0, 3, 4, 5, 6)),
])  # fmt: skip
def test_without_types_capabilities_are_known_by_what_stands_there(extended, basic, edx, extended_edx, found):
    space = WithoutTypes(levels(extended, basic, edx, extended_edx))
    if found:
        assert read_features(space).cpuid_level == basic
    else:
        with pytest.raises(MissingFact, match="x86_capability"):
            read_features(space)


def test_another_structure_is_read_where_it_is():
    space = WithoutTypes(SKYLAKE)
    space.data[AT + 0x1000] = SKYLAKE.replace(b"GenuineIntel", b"AuthenticAMD")
    assert [read_features(space, at).vendor for at in (None, AT, AT + 0x1000)] == ["intel", "intel", "amd"]


@pytest.mark.parametrize(("found", "edx", "all_listed"), [
    (1, LONG_MODE[0] & ~(1 << 28), True),
    (1, LONG_MODE[0] | 1 << 28, False),  # of packages with several it lists the first CPU alone
    (0, LONG_MODE[0] & ~(1 << 28), False), (0, LONG_MODE[0] | 1 << 28, False),
])  # fmt: skip
def test_an_mp_table_has_all_cpus_where_a_package_has_one(found, edx, all_listed):
    space = WithoutTypes(levels(0x80000008, 0xD, edx, LONG_MODE[1]))
    space.variable = lambda name, size: {("smp_found_config", 4): found}[name, size]
    assert mp_table_has_all(space) is all_listed


def test_cpus_of_a_core_among_some():
    topology = Topology({}, 1, frozenset()).extended({0: 0, 1: 2, 2: 1, 3: 3, 4: 4})
    assert topology.among({0, 1, 2, 3, 4}) == [[0, 2], [1, 3], [4]]
    assert topology.among(iter([3, 2, 0])) == [[0, 2], [3]]
    assert topology.among(()) == []


def test_cores_and_primaries_follow_from_apic_ids():
    late = Topology({}, 1, frozenset()).extended({0: 0, 1: 2, 2: 1, 3: 3})  # second threads are numbered last
    assert late.primaries == {0, 1}
    assert late.cores() == [[0, 2], [1, 3]]
    assert [late.primary_of(cpu) for cpu in range(4)] == [0, 1, 0, 1]
    assert Topology({5: 3}, 1, frozenset()).primary_of(5) is None
    four = Topology({}, 2, frozenset()).extended(dict(enumerate(range(8))))
    assert (four.primaries, four.cores()) == ({0, 4}, [[0, 1, 2, 3], [4, 5, 6, 7]])


@pytest.mark.parametrize(("shift", "apic_ids", "more", "follow"), [
    (1, {0: 0, 1: 1}, {2, 3}, {2: 2, 3: 3}), (1, {0: 0, 1: 2}, {7}, {7: 4}), (1, {0: 0, 1: 1, 2: 2}, {3}, {3: 4}),
    (0, {0: 0, 1: 5}, {2, 3}, {2: 6, 3: 7}), (2, {0: 0}, {1, 2}, {1: 4, 2: 5}), (1, {}, {0, 1}, {0: 0, 1: 1}),
    (0, {}, {0, 1}, {0: 0, 1: 1}),
])  # fmt: skip
def test_cpus_of_which_only_the_numbers_are_known_follow_the_last_core(shift, apic_ids, more, follow):
    found = Topology(apic_ids, shift, frozenset()).continued(frozenset(more))
    assert found.apic_ids == apic_ids | follow


class Variables:
    """A kernel's memory in which these variables are, and these per-CPU ones."""

    def __init__(self, percpu=(), width=2, **values):
        self.values, self.percpu, self.width = values, percpu, width
        self.kernel = self
        self.one_cpu = False

    def symbol(self, name):
        return SimpleNamespace(size=self.width) if name in self.values or name == "x86_cpu_to_apicid" else None

    def require(self, name):
        return self.symbol(name)

    def address(self, name):
        if self.symbol(name) is None:
            raise MissingFact(f"has no symbol {name}")
        return name

    def variable(self, name, size):
        assert size == 4
        return self.values[self.address(name)]

    def percpu_address(self, name, cpu):
        assert name == "x86_cpu_to_apicid"
        return (name, cpu)

    def number(self, address, size):
        if isinstance(address, tuple):
            assert size == (self.width if self.width in {2, 4} else 2)
            return self.percpu[address[1]]
        return self.values[address]


COUNTED = {"phys_cpu_present_map": 0b10011, "topo_info": 0}
"""As a kernel since v6.9 counts the CPUs with APIC ids 0, 1 and 4."""


@pytest.mark.parametrize(("values", "limited", "apic_ids", "shift"), [
    ({"smp_num_siblings": 2}, False, {0: 0, 1: 1, 2: 4}, 1), ({"smp_num_siblings": 1}, False, {0: 0, 1: 1, 2: 4}, 0),
    ({"smp_num_siblings": 0}, False, {0: 0, 1: 1, 2: 4}, 0), ({"smp_num_siblings": 4}, False, {0: 0, 1: 1, 2: 4}, 2),
    ({"smp_num_siblings": 3}, False, {0: 0, 1: 1, 2: 4}, 2),
    ({"x86_topo_system": 1, **COUNTED}, False, {0: 0, 1: 1, 2: 4}, 1),
    ({"smp_num_siblings": 16}, False, {0: 0, 1: 1, 2: 4}, 4),
    # two more than it had numbers for, after those that it knows
    ({"smp_num_siblings": 2, "num_processors": 3, "disabled_cpus": 2}, True, {0: 0, 1: 1, 2: 4, 3: 5, 4: 6}, 1),
    ({"smp_num_siblings": 2, "num_processors": 4, "disabled_cpus": 0}, True, {0: 0, 1: 1, 2: 4, 3: 5}, 1),
    ({"smp_num_siblings": 2, "num_processors": 2, "disabled_cpus": 1}, True, {0: 0, 1: 1, 2: 4, 3: 5}, 1),
    ({"smp_num_siblings": 2, "num_processors": 3, "disabled_cpus": 2}, False, {0: 0, 1: 1, 2: 4}, 1),
])  # fmt: skip
@pytest.mark.parametrize("width", [2, 4, None])
def test_the_topology_of_a_kernel(values, limited, apic_ids, shift, width):
    space = Variables(percpu={0: 0, 1: 1, 2: 4}, width=width, **values)
    found = read_topology(space, frozenset({0, 1, 2}), limited=limited)
    assert (found.apic_ids, found.smt_shift) == (apic_ids, shift)
    assert found.primaries == {cpu for cpu, apic in apic_ids.items() if apic % (1 << shift) == 0}


@pytest.mark.parametrize(("values", "limited", "lacks"), [
    ({"x86_topo_system": 1, "phys_cpu_present_map": 0b10011}, True, "topo_info"),
    ({"x86_topo_system": 1, "topo_info": 0}, False, "phys_cpu_present_map"),
    ({"smp_num_siblings": 2, "disabled_cpus": 2}, True, "num_processors"),
    ({"smp_num_siblings": 2, "num_processors": 3}, True, "disabled_cpus"), (COUNTED, False, "smp_num_siblings"),
])  # fmt: skip
def test_what_a_kernel_counts_in_a_place_that_it_does_not_list_is_not_nothing(values, limited, lacks):
    with pytest.raises(MissingFact, match=lacks):
        read_topology(Variables(percpu={0: 0, 1: 1, 2: 4}, **values), frozenset({0, 1, 2}), limited=limited)


@pytest.mark.parametrize(("width", "none"), [(2, 0xFFFF), (4, 0xFFFF), (4, 0xFFFF_FFFF)])
def test_a_lone_cpu_of_which_no_table_told_has_the_apic_id_that_is_listed(width, none):
    """As measured of 6.1 with acpi=off where it has no code for an MP table: it was a contradiction."""
    values = {"smp_num_siblings": 1, "phys_cpu_present_map": 1 << 3}
    assert read_topology(Variables({0: none}, width, **values), frozenset({0}), limited=False).apic_ids == {0: 3}
    for listed in (0, 0b11):
        with pytest.raises(MissingFact, match="never learned"):
            read_topology(
                Variables({0: none}, width, **values | {"phys_cpu_present_map": listed}), frozenset({0}), limited=False
            )
    two = read_topology(Variables({0: none, 1: 1}, width, **values), frozenset({0, 1}), limited=False)
    assert two.apic_ids == {0: none, 1: 1}  # which nobody has: consistency.py says so


@pytest.mark.parametrize("values", [{"smp_num_siblings": 17}, {"x86_topo_system": 5, **COUNTED}])
def test_a_core_of_more_than_16_threads_is_none(values):
    with pytest.raises(MissingFact, match="threads of a core"):
        read_topology(Variables(percpu={0: 0}, **values), frozenset({0}), limited=False)


@pytest.mark.parametrize(("count", "known"), [(1, True), (8192, True), (0, False), (8193, False), (1 << 31, False)])
def test_a_count_of_cpus_that_no_kernel_has(count, known):
    space = Variables(nr_cpu_ids=count)
    if known:
        assert cpu_count(space) == count
    else:
        with pytest.raises(MissingFact, match="nr_cpu_ids"):
            cpu_count(space)


class WithTypes(WithoutTypes):
    """A kernel whose boot_cpu_data has its members where its types say, and names of its capabilities."""

    def __init__(self, data, members, words=None):
        super().__init__(data)

        def offset_of(structure, member):
            if structure != "cpuinfo_x86" or member not in members:
                raise MissingFact(f"no {member}")
            return members[member]

        names = None if words is None else SimpleNamespace(size=words * 32 * 8)
        self.kernel = SimpleNamespace(
            symbol=lambda name: names if name == "x86_cap_flags" else None, offset_of=offset_of
        )


def boot_cpu(words, vendor=b"AuthenticAMD", **members):
    """Return a structure with its members in an order of their own, and where each is."""
    at = {"x86": 1, "x86_model": 2, "x86_phys_bits": 4, "x86_virt_bits": 0, "cpuid_level": 8, "x86_capability": 24}
    data = bytearray(24 + 4 * len(words))
    values = {"x86": 0x19, "x86_model": 0x21, "x86_phys_bits": 48, "x86_virt_bits": 48, "cpuid_level": 0x10} | members
    for name, value in values.items():
        data[at[name]] = value
    for index, word in enumerate(words):
        data[24 + 4 * index : 28 + 4 * index] = word.to_bytes(4, "little")
    return bytes(data) + vendor, at | {"x86_vendor_id": len(data)}


CAPABLE = [1 << 19, 0, 0, 0, 1 << 3] + [0] * 17
"""CLFLUSH (CPUID.1:EDX[19]) and MONITOR (CPUID.1:ECX[3]) in words 0 and 4 (arch/x86/include/asm/cpufeatures.h)."""


def test_features_of_a_kernel_with_types():
    data, at = boot_cpu(CAPABLE)
    found = read_features(WithTypes(data, at))
    assert found == CpuFeatures("amd", 0x10, frozenset({"clflush", "mwait"}), None, 48, 48, 0x19, 0x21)
    hygon, at = boot_cpu(CAPABLE, b"HygonGenuine", x86_phys_bits=31, x86_virt_bits=47)
    found = read_features(WithTypes(hygon, at))
    assert (found.vendor, found.physical_bits, found.virtual_bits) == ("hygon", None, None)  # neither is a width
    other, at = boot_cpu(CAPABLE, b"MysteryCPU\0\0")
    assert read_features(WithTypes(other, at)).vendor == "MysteryCPU"
    other, at = boot_cpu(CAPABLE, b"Mystery\xffCPU\0")
    assert read_features(WithTypes(other, at)).vendor == "Mystery\ufffdCPU"


@pytest.mark.parametrize(("bits", "known"), [(31, False), (32, True), (36, True), (52, True), (53, False)])
def test_physical_addresses_have_at_most_52_bits(bits, known):
    data, at = boot_cpu(CAPABLE, x86_phys_bits=bits)
    assert read_features(WithTypes(data, at)).physical_bits == (bits if known else None)


def test_a_member_that_types_lack_is_found_by_those_beside_it():
    """Of x86_capability alone the place is known: before it stand the levels and, before these, the widths."""
    words = [LONG_MODE[0], LONG_MODE[1]] + [0] * 20
    data = bytes([0x19, 2, 0x21, 0]) + bytes([57, 46, 0, 0]) + struct.pack("<Ii22I", 0x80000008, 0x10, *words)
    found = read_features(WithTypes(data + b"AuthenticAMD", {"x86_capability": 16, "x86_vendor_id": len(data)}))
    assert (found.virtual_bits, found.physical_bits, found.cpuid_level) == (57, 46, 0x10)
    assert (found.family, found.model) == (0x19, 0x21)
    half = {"x86_capability": 16, "x86_vendor_id": len(data), "x86": 2}  # without x86_model that tells nothing
    assert read_features(WithTypes(data + b"AuthenticAMD", half)).family == 0x19
    half = {"x86_capability": 16, "x86_vendor_id": len(data), "x86_model": 0}
    assert read_features(WithTypes(data + b"AuthenticAMD", half)).model == 0x21
    first = {"x86_capability": 8, "x86_vendor_id": len(data), "x86_virt_bits": 0}  # no room before the levels
    assert read_features(WithTypes(data[8:] + bytes(8) + b"AuthenticAMD", first)).physical_bits is None


@pytest.mark.parametrize(
    "member", ["x86", "x86_model", "x86_phys_bits", "cpuid_level", "x86_capability", "x86_vendor_id"]
)
@pytest.mark.parametrize("place", [497, 512, 1 << 20])
def test_types_that_place_a_member_where_it_cannot_be_are_refused(member, place):
    data, at = boot_cpu(CAPABLE)
    with pytest.raises(MissingFact, match=f"places {member} {place} bytes into"):
        read_features(WithTypes(data, at | {member: place}))


def test_a_vendor_before_the_capabilities_leaves_no_words():
    data, at = boot_cpu(CAPABLE)
    assert read_features(WithTypes(data, at | {"x86_capability": at["x86_vendor_id"] + 4})).flags == frozenset()


@pytest.mark.parametrize(("bit", "bug"), [
    (14, "meltdown"), (18, "l1tf"), (19, "mds"), (22, "taa"), (25, "mmio_stale_data"), (27, "retbleed"), (13, None),
])  # fmt: skip
def test_bugs_follow_the_capability_words(bit, bug):
    data, at = boot_cpu([*CAPABLE[:20], 1 << bit, 0])
    assert read_features(WithTypes(data, at, words=20)).bugs == ({bug} if bug else frozenset())
    assert read_features(WithTypes(data, at, words=19)).bugs == frozenset()
    assert read_features(WithTypes(data, at)).bugs is None
    assert read_features(WithTypes(data, at, words=0)).bugs is None  # the symbol's size is not known


@pytest.mark.parametrize(("line", "hidden"), [
    ("", set()), ("clearcpuid=131", {"mwait"}), ("clearcpuid=monitor", {"mwait"}), ("clearcpuid=mwait", set()),
    ("nosmep nosmap", {"smep", "smap"}), ("clearcpuid=pdpe1gb,19", {"gbpages", "clflush"}),
])  # fmt: skip
def test_what_a_command_line_hides(line, hidden):
    assert cleared_by(parse_command_line(line)) == hidden


CPUFEATURES = {
    "clflush": 19, "nx": 32 + 20, "gbpages": 32 + 26, "mwait": 4 * 32 + 3, "pcid": 4 * 32 + 17, "xsave": 4 * 32 + 26,
    "hypervisor": 4 * 32 + 31, "fsgsbase": 9 * 32, "smep": 9 * 32 + 7, "smap": 9 * 32 + 20, "fred": 12 * 32 + 17,
    "lkgs": 12 * 32 + 18, "la57": 16 * 32 + 16,
}  # fmt: skip
"""arch/x86/include/asm/cpufeatures.h."""


@pytest.mark.parametrize("name", CPUFEATURES)
def test_each_feature_is_one_bit(name):
    words = [0] * 22
    words[CPUFEATURES[name] // 32] = 1 << CPUFEATURES[name] % 32
    data, at = boot_cpu(words)
    assert read_features(WithTypes(data, at)).flags == {name}
    data, at = boot_cpu(words[: CPUFEATURES[name] // 32])  # of a kernel that has no such word
    assert read_features(WithTypes(data, at)).flags == frozenset()


@pytest.mark.parametrize(("vendor", "number"), [
    (b"GenuineIntel", 0), (b"AuthenticAMD", 2), (b"HygonGenuine", 9), (b"  Shanghai  ", 10),
])  # fmt: skip
@pytest.mark.parametrize("order", ["new", "old"])
def test_family_and_model_stand_beside_the_vendor_s_number(vendor, number, order):
    start = bytes([0x21, 0x19, number]) if order == "new" else bytes([0x19, number, 0x21])
    data = start + SKYLAKE[3:].replace(b"GenuineIntel", vendor)
    found = read_features(WithoutTypes(data))
    assert (found.family, found.model) == (0x19, 0x21)
    other = bytes([start[0], start[1], start[2]]).replace(bytes([number]), b"\x63") + data[3:]
    assert (read_features(WithoutTypes(other)).family, read_features(WithoutTypes(other)).model) == (None, None)


def test_without_a_known_vendor_or_in_two_ways_there_is_no_family():
    unknown = SKYLAKE.replace(b"GenuineIntel", b"SomebodyElse")
    with pytest.raises(MissingFact, match="vendor"):
        read_features(WithoutTypes(unknown))
    both = bytes([6, 0, 0]) + SKYLAKE[3:]  # family 6, vendor 0, model 0; model 6, family 0, vendor 0: no family is 0
    assert (read_features(WithoutTypes(both)).family, read_features(WithoutTypes(both)).model) == (6, 0)
    either = bytes([0x0A, 0x0A, 0x0A]) + SKYLAKE[3:].replace(
        b"GenuineIntel", b"  Shanghai  "
    )  # family, vendor and model in both orders
    assert read_features(WithoutTypes(either)).family is None


@pytest.mark.parametrize(("family", "found"), [(4, None), (5, 5), (6, 6)])
def test_no_64_bit_processor_has_a_family_below_5(family, found):
    data = bytes([0x30, family, 0]) + SKYLAKE[3:]
    assert read_features(WithoutTypes(data)).family == found


@pytest.mark.parametrize("first", [1, 4, 8])
def test_the_first_vendor_is_it(first):
    """Behind the structure another CPU's may follow."""
    data = bytes(first) + b"GenuineIntel" + bytes(60) + b"AuthenticAMD"
    types = {"x86_capability": 100, "cpuid_level": 96}
    assert read_features(WithTypes(data, types)).vendor == "intel"


@pytest.mark.parametrize(("listed", "rejected", "limited", "known", "ids"), [
    (0b1111, 0, False, {0, 1}, (2, 3)), (0b0011, 2, True, {0, 1}, (2, 3)), (0b1011, 1, True, {0, 1}, (3, 4)),
    (0b0011, 2, False, {0, 1}, ()), (0b0011, 1, True, {0, 6}, (1, 7)), (0, 2, True, set(), (0, 1)),
])  # fmt: skip
def test_cpus_without_a_number_are_listed_or_counted(listed, rejected, limited, known, ids):
    class Counted(Variables):
        def symbol(self, name):
            return SimpleNamespace() if name == "topo_info" else None

        def address(self, name):
            return 0x1000 if name == "topo_info" else name

        def number(self, address, size):
            assert (address, size) in {("phys_cpu_present_map", 1024), (0x1008, 4)}
            return rejected if address == 0x1008 else listed

    assert hidden_apic_ids(Counted(), frozenset(known), limited=limited) == ids


@pytest.mark.parametrize(("values", "may"), [
    ({"num_processors": 1, "disabled_cpus": 1, "total_cpus": 2}, True),  # nr_cpus=1 as measured, or without _STA
    ({"num_processors": 2, "disabled_cpus": 2, "total_cpus": 8}, True),
    ({"num_processors": 1, "disabled_cpus": 2, "total_cpus": 2}, False),  # counted again
    ({"num_processors": 4, "disabled_cpus": 0, "total_cpus": 4}, False),
    ({"num_processors": 1, "disabled_cpus": 1, "total_cpus": 2, "x86_topo_system": 0}, False),
])  # fmt: skip
def test_what_was_counted_only_once_may_be_slots(values, may):
    assert may_count_slots(Variables(**values)) is may


def test_more_cpus_than_any_machine_has_are_none():
    space = Variables(num_processors=0, disabled_cpus=8193)
    with pytest.raises(MissingFact, match="8193 CPUs"):
        hidden_apic_ids(space, frozenset(), limited=True)
    found = hidden_apic_ids(Variables(num_processors=0, disabled_cpus=8192), frozenset(), limited=True)
    assert found == tuple(range(8192))


@pytest.mark.parametrize(("rejected", "known"), [(8192, True), (8193, False), (0xFFFF_FFFF, False)])
def test_more_cpus_rejected_than_any_machine_has_are_none(rejected, known):
    space = SimpleNamespace(
        kernel=SimpleNamespace(symbol=lambda name: name == "topo_info" or None),
        address=lambda name: {"topo_info": 0x1000, "phys_cpu_present_map": 0x2000}[name],
        number=lambda address, size: {(0x1008, 4): rejected, (0x2000, 1024): 0}[address, size],
    )
    if known:
        assert hidden_apic_ids(space, frozenset(), limited=True) == tuple(range(8192))
    else:
        with pytest.raises(MissingFact, match="8193 CPUs"):
            hidden_apic_ids(space, frozenset(), limited=True)


def test_a_kernel_that_was_not_told_to_ignore_cpus_hides_none():
    assert hidden_apic_ids(Variables(), frozenset({0, 1}), limited=False) == ()


def test_a_vendor_that_is_not_where_one_can_be_is_none():
    with pytest.raises(MissingFact, match="vendor"):
        read_features(WithoutTypes(b"GenuineIntel" + bytes(64)))
