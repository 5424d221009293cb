import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibercheck.errors import MissingFact, UsageProblem
from hibercheck.handoff.bringup import bring_up, rescued_cpus, smt_is_off
from hibercheck.handoff.cmdline import parse_command_line
from hibercheck.handoff.cpufacts import CpuFeatures, Topology, _hidden_apic_ids


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


@pytest.mark.parametrize(("by_hand", "what"), [({0}, "the one that resumes"), ({9}, "CPUs 0-3")])
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
    assert not rescued_cpus(bringup, topology, rescues=False, needs_primary=needs_primary)


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
        ({}, True, ()),
    ],
)
def test_cpus_that_the_resumee_was_told_to_ignore(variables, limited, hidden):
    assert _hidden_apic_ids(Memory(**variables), frozenset({0}), limited=limited) == hidden


def test_an_absurd_count_of_hidden_cpus_is_refused():
    for memory in (
        Memory(num_processors=1, disabled_cpus=1 << 31),
        Memory(topo_info=(1, 0, 1 << 31), phys_cpu_present_map=1),
    ):
        with pytest.raises(MissingFact, match="no machine has"):
            _hidden_apic_ids(memory, frozenset({0}), limited=True)


@pytest.mark.parametrize(("text", "limits"), [("nr_cpus=1", True), ("maxcpus=1", False), ("nosmp", True), ("", False)])
def test_which_command_lines_hide_cpus(text, limits):
    assert parse_command_line(text).limits_cpus is limits
