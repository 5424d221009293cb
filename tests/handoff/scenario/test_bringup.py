import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibercheck.errors import MissingFact, UsageProblem
from hibercheck.handoff.facts.cmdline import parse_command_line
from hibercheck.handoff.facts.cpufacts import CpuFeatures, Topology, hidden_apic_ids
from hibercheck.handoff.facts.resumee import leaves_cpus_out
from hibercheck.handoff.scenario.bringup import (
    Order,
    bring_up,
    found_by,
    limited_to,
    order_of,
    rescued_cpus,
    smt_is_off,
)
from tests.support.made_traits import made_traits


def machine(cores=2, threads=2):
    count = cores * threads
    shift = (threads - 1).bit_length()
    return frozenset(range(count)), Topology(
        {cpu: cpu for cpu in range(count)}, shift, frozenset(range(0, count, threads))
    )


def up(text="", by_hand=(), cores=2, threads=2):
    present, topology = machine(cores, threads)
    cmdline = parse_command_line(text)
    return bring_up(present, topology, cmdline, smt_off=cmdline.nosmt, by_hand=frozenset(by_hand)), topology


def test_all_cpus_come_up():
    bringup, _ = up()
    assert bringup.online == {0, 1, 2, 3}
    assert not bringup.never_booted


def test_nosmt_starts_each_sibling_once_and_takes_it_down():
    bringup, _ = up("nosmt")
    assert (bringup.online, bringup.booted, bringup.siblings_down) == ({0, 2}, {0, 1, 2, 3}, {1, 3})


def test_maxcpus_leaves_the_rest_never_started():
    bringup, _ = up("maxcpus=2")
    assert (bringup.online, bringup.never_booted) == ({0, 1}, {2, 3})


def test_siblings_do_not_count_towards_maxcpus():
    bringup, _ = up("nosmt maxcpus=2")
    assert (bringup.online, bringup.booted) == ({0, 2}, {0, 1, 2})


def test_nosmp_starts_nobody():
    assert up("nosmp")[0].online == {0}


def test_nr_cpus_hides_the_rest():
    assert up("nr_cpus=2")[0].present == {0, 1}


@pytest.mark.parametrize(("by_hand", "what"), [({0}, "the CPU that resumes"), ({9}, "CPUs 0-3")])
def test_impossible_offline_sets_are_refused(by_hand, what):
    with pytest.raises(UsageProblem, match=what):
        up(by_hand=by_hand)


@pytest.mark.parametrize(
    ("by_hand", "needs_primary", "rescued"),
    [({2}, True, set()), ({3}, True, {3}), ({2, 3}, True, set()), ({2}, False, {2}), ({2, 3}, False, {2, 3})],
)
def test_whom_the_rescue_reaches(by_hand, needs_primary, rescued):
    bringup, topology = up(by_hand=by_hand)
    assert rescued_cpus(bringup, topology, rescues=True, needs_primary=needs_primary) == rescued
    assert rescued_cpus(bringup, topology, rescues=False, needs_primary=needs_primary) == frozenset()


def test_without_smt_every_cpu_is_its_own_primary_and_is_passed_by():
    bringup, topology = up(by_hand={1}, cores=4, threads=1)
    assert not rescued_cpus(bringup, topology, rescues=True, needs_primary=True)


@given(st.sets(st.integers(1, 7)), st.booleans())
def test_the_stricter_rescue_reaches_a_subset(by_hand, nosmt):
    bringup, topology = up("nosmt" if nosmt else "", by_hand, cores=4)
    strict = rescued_cpus(bringup, topology, rescues=True, needs_primary=True)
    assert strict <= rescued_cpus(bringup, topology, rescues=True, needs_primary=False)
    assert not strict & bringup.online


def features(bugs):
    return CpuFeatures("intel", 13, frozenset(), bugs, 48, 39)


def test_nosmt_by_mitigation_needs_the_bug():
    _, topology = machine()
    cmdline = parse_command_line("mitigations=auto,nosmt")
    assert smt_is_off(cmdline, topology, features(frozenset({"mds"})))
    assert not smt_is_off(cmdline, topology, features(frozenset({"meltdown"})))
    with pytest.raises(MissingFact):
        smt_is_off(cmdline, topology, features(None))


def test_of_mitigations_off_kernels_differ_whether_another_option_counts_beside_it():
    _, topology = machine()
    cmdline = parse_command_line("mitigations=off l1tf=full")
    assert not smt_is_off(cmdline, topology, features(frozenset({"mds"})))
    with pytest.raises(MissingFact, match="mitigations=off"):
        smt_is_off(cmdline, topology, features(frozenset({"l1tf"})))
    for last_counts in ("mitigations=off mitigations=auto l1tf=full", "mitigations=off mitigations=none l1tf=full"):
        asked = parse_command_line(last_counts)
        assert asked.mitigations_off is ("none" in last_counts)
    assert smt_is_off(parse_command_line("mitigations=off nosmt"), topology, features(frozenset()))


def test_nosmt_means_nothing_without_smt():
    _, topology = machine(4, 1)
    assert not smt_is_off(parse_command_line("nosmt"), topology, None)


class Memory:
    """Just enough of a kernel's memory to read the CPUs that it hides."""

    def __init__(self, **variables):
        self.variables = variables
        self.kernel = self

    def symbol(self, name):
        return name if name in self.variables else None

    def address(self, name):
        return list(self.variables).index(name) * 0x1000

    def variable(self, name, size):
        return self.number(self.address(name), size)

    def number(self, address, _size):
        value = list(self.variables.values())[address >> 12]
        return value[(address & 0xFFF) // 4] if isinstance(value, tuple) else value


@pytest.mark.parametrize(
    ("variables", "limited", "hidden"),
    [
        ({"topo_info": (4, 0, 0), "phys_cpu_present_map": 0b1111}, False, (1, 2, 3)),  # nosmp
        ({"topo_info": (1, 0, 0), "phys_cpu_present_map": 0b1}, True, ()),
        ({"topo_info": (1, 0, 3), "phys_cpu_present_map": 0b1}, True, (1, 2, 3)),  # nr_cpus=1
        ({"topo_info": (1, 0, 3), "phys_cpu_present_map": 0b1}, False, ()),
        ({"num_processors": 1, "disabled_cpus": 1}, True, (1,)),
        ({"num_processors": 1, "disabled_cpus": 7}, False, ()),  # empty slots of a virtual machine
        ({"num_processors": 4, "disabled_cpus": 0}, True, (1, 2, 3)),  # nosmp
        # as measured of 6.1 with nr_cpus=1 on a machine with two: at boot, and again by ACPI's processor driver
        ({"num_processors": 1, "disabled_cpus": 2, "total_cpus": 2}, True, (1,)),
        ({"num_processors": 4, "disabled_cpus": 3, "total_cpus": 4}, True, (1, 2, 3)),  # nosmp
        ({"num_processors": 2, "disabled_cpus": 0, "total_cpus": 8}, True, (1,)),  # possible_cpus=8
        ({"num_processors": 2, "disabled_cpus": 3, "total_cpus": 2}, True, (1, 2, 3)),  # nolapic, as measured
        ({"num_processors": 1, "disabled_cpus": 3, "total_cpus": 0}, True, (1, 2, 3)),  # built for one CPU
        # as measured of 6.1 in machines with empty slots for CPUs: of these the driver finds none
        ({"num_processors": 1, "disabled_cpus": 4, "total_cpus": 4}, True, (1,)),  # nr_cpus=1, two CPUs
        ({"num_processors": 2, "disabled_cpus": 0, "total_cpus": 2}, True, (1,)),  # possible_cpus=1
        # whether there is a CPU is not known: of one the firmware need not have _STA
        ({"num_processors": 1, "disabled_cpus": 1, "total_cpus": 2}, True, (1,)),
        ({"num_processors": 1, "disabled_cpus": 3, "total_cpus": 4}, True, (1, 2, 3)),
        ({}, False, ()),
    ],
)
def test_cpus_that_the_resumee_was_told_to_ignore(variables, limited, hidden):
    assert hidden_apic_ids(Memory(**variables), frozenset({0}), limited=limited) == hidden


def test_a_count_that_possible_cpus_made_tells_nothing():
    memory = Memory(num_processors=1, disabled_cpus=3, total_cpus=3)
    assert hidden_apic_ids(memory, frozenset({0}), limited=True, possible=3) == (1, 2)
    assert hidden_apic_ids(memory, frozenset({0}), limited=True, possible=2) == (1,)


def test_an_absurd_count_of_hidden_cpus_is_refused():
    for memory in (
        Memory(num_processors=1, disabled_cpus=1 << 31),
        Memory(topo_info=(1, 0, 1 << 31), phys_cpu_present_map=1),
    ):
        with pytest.raises(MissingFact, match="no machine has"):
            hidden_apic_ids(memory, frozenset({0}), limited=True)


@pytest.mark.parametrize(("line", "most", "present", "leaves_out"), [
    ("", 2, {0, 1}, True), ("", 3, {0, 1}, False), ("", 2, set(), False), ("", None, {0, 1}, False),
    ("maxcpus=2", 2, {0, 1}, False),  # that number is no more what the kernel is built for
    ("nosmp", None, {0}, True), ("nr_cpus=2", 8, {0, 1}, True),
])  # fmt: skip
def test_a_kernel_without_another_number_for_a_cpu_may_have_left_some_out(line, most, present, leaves_out):
    class WithoutOthers(Memory):
        one_cpu = False

        def address(self, name):
            if name not in self.variables:
                raise MissingFact(f"has no symbol {name}")
            return super().address(name)

    space = WithoutOthers(**({} if most is None else {"setup_max_cpus": most}))
    assert leaves_cpus_out(space, parse_command_line(line), frozenset(present)) is leaves_out


@pytest.mark.parametrize(
    ("text", "limits"), [("nr_cpus=1", True), ("maxcpus=1", False), ("nosmp", True), ("nolapic", True), ("", False)]
)
def test_which_command_lines_hide_cpus(text, limits):
    assert parse_command_line(text).limits_cpus is limits


@pytest.mark.parametrize(("parallel", "switch", "text", "order"), [
    (None, True, "", None),
    (False, None, "", Order.NUMBERS), (False, True, "cpuhp.parallel=0", Order.NUMBERS),
    (True, True, "", Order.PRIMARIES), (True, True, "cpuhp.parallel=1", Order.PRIMARIES),
    (True, True, "cpuhp.parallel=0", Order.ATTEMPTS), (True, None, "cpuhp.parallel=0", Order.ATTEMPTS),
    (True, False, "cpuhp.parallel=0", Order.PRIMARIES),  # built without the switch
])  # fmt: skip
def test_in_which_order_a_kernel_starts_cpus(parallel, switch, text, order):
    traits = made_traits(parallel_bringup=parallel, parallel_switch=switch)
    assert order_of(traits, parse_command_line(text)) is order


@pytest.mark.parametrize(("order", "text", "booted", "online"), [
    # 8 CPUs, siblings side by side: bringup_nonboot_cpus(), kernel/cpu.c
    (Order.NUMBERS, "maxcpus=3", {0, 1, 2}, {0, 1, 2}),
    (Order.NUMBERS, "maxcpus=3 nosmt", {0, 1, 2, 3, 4}, {0, 2, 4}),
    (Order.ATTEMPTS, "maxcpus=3", {0, 1, 2}, {0, 1, 2}),
    (Order.ATTEMPTS, "maxcpus=3 nosmt", {0, 1, 2}, {0, 2}),
    (Order.PRIMARIES, "maxcpus=3", {0, 2, 4}, {0, 2, 4}),
    (Order.PRIMARIES, "maxcpus=4", {0, 2, 4, 6}, {0, 2, 4, 6}),
    (Order.PRIMARIES, "maxcpus=6", {0, 2, 4, 6, 1, 3}, {0, 2, 4, 6, 1, 3}),
    (Order.PRIMARIES, "maxcpus=3 nosmt", {0, 2, 4}, {0, 2, 4}),
    (Order.PRIMARIES, "maxcpus=5 nosmt", {0, 2, 4, 6, 1}, {0, 2, 4, 6}),
    (Order.PRIMARIES, "maxcpus=1", {0}, {0}),
    (Order.PRIMARIES, "", set(range(8)), set(range(8))),
    (Order.PRIMARIES, "nosmt", set(range(8)), {0, 2, 4, 6}),
])  # fmt: skip
def test_whom_maxcpus_lets_a_kernel_start(order, text, booted, online):
    present, topology = machine(4, 2)
    cmdline = parse_command_line(text)
    found = bring_up(present, topology, cmdline, smt_off=cmdline.nosmt, by_hand=frozenset(), order=order)
    assert (found.booted, found.online, found.siblings_down) == (booted, online, booted - online)


def test_without_smt_there_are_no_rounds():
    present, topology = machine(8, 1)
    found = bring_up(present, topology, parse_command_line("maxcpus=3"), smt_off=False, by_hand=frozenset(),
                     order=Order.PRIMARIES)  # fmt: skip
    assert found.booted == {0, 1, 2}


@pytest.mark.parametrize(("text", "left"), [
    ("", range(8)), ("nr_cpus=3", range(3)), ("possible_cpus=5", range(5)), ("nr_cpus=6 possible_cpus=2", range(2)),
    ("nr_cpus=2 possible_cpus=6", range(2)), ("nr_cpus=1", range(1)), ("maxcpus=0", range(1)), ("nosmp", range(1)),
    ("nolapic", range(1)), ("acpi=off", range(8)), ("maxcpus=2", range(8)), ("nr_cpus=0", range(8)),
    ("possible_cpus=0", range(8)), ("nr_cpus=0 possible_cpus=3", range(3)),
])  # fmt: skip
def test_of_which_cpus_a_kernel_takes_note(text, left):
    assert limited_to(frozenset(range(8)), parse_command_line(text)) == set(left)
    assert limited_to(frozenset(range(8)), parse_command_line(text), one_cpu=True) == {0}


def test_with_acpi_off_a_kernel_finds_one_cpu_of_a_machine():
    machine = frozenset(range(8))
    assert found_by(machine, parse_command_line("acpi=off")) == {0}
    assert found_by(machine, parse_command_line("nr_cpus=3")) == set(range(3))
    assert found_by(machine, parse_command_line("nr_cpus=3"), one_cpu=True) == {0}


def test_the_boot_cpu_is_the_first_there_is():
    present, topology = frozenset({2, 3}), machine(2, 2)[1]
    found = bring_up(present, topology, parse_command_line("nosmp"), smt_off=False, by_hand=frozenset())
    assert (found.boot_cpu, found.present, found.online) == (2, {2}, {2})
    none = bring_up(frozenset(), topology, parse_command_line(""), smt_off=False, by_hand=frozenset())
    assert (none.boot_cpu, none.present, none.online) == (0, set(), set())
    cut = bring_up(present - {2}, topology, parse_command_line(""), smt_off=True, by_hand=frozenset())
    assert (cut.boot_cpu, cut.online) == (3, {3})  # it stays, although it is a sibling


def test_a_sibling_that_is_down_already_is_not_taken_down_by_hand():
    bringup, _ = up("nosmt", by_hand={1, 2})
    assert (bringup.by_hand, bringup.siblings_down, bringup.online) == ({2}, {1, 3}, {0})


def test_nosmt_force_by_the_line_alone_needs_no_bugs():
    _, topology = machine()
    assert smt_is_off(parse_command_line("nosmt"), topology, None)
    assert smt_is_off(parse_command_line("nosmt mitigations=auto,nosmt"), topology, features(None))
    assert not smt_is_off(parse_command_line(""), topology, None)
    with pytest.raises(MissingFact):
        smt_is_off(parse_command_line("mitigations=auto,nosmt"), topology, None)
