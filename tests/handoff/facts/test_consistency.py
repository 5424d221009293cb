"""What the resumee's memory says twice of its CPUs must be the same twice."""

from __future__ import annotations

import pytest

from hibercheck.errors import MissingFact
from hibercheck.handoff.facts import consistency
from hibercheck.handoff.facts.consistency import agreed_features, agreed_topology
from hibercheck.handoff.facts.cpufacts import CpuFeatures, Topology

OLD = {"phys_cpu_present_map": 0b1111, "num_processors": 4}
NEW = {"phys_cpu_present_map": 0b1111, "x86_topo_system": 1, "cpu_smt_max_threads": 2}
FEATURES = CpuFeatures("intel", 22, frozenset({"mwait", "clflush"}), frozenset(), 48, 39)


class Space:
    """A kernel's memory that holds numbers by name."""

    def __init__(self, numbers):
        self.numbers, self.kernel = numbers, self

    def symbol(self, name):
        return name if name in self.numbers else None

    def address(self, name):
        return name

    def number(self, name, _size):
        return self.numbers[name]

    variable = number

    def percpu_address(self, name, cpu):
        return f"{name}.{cpu}"


def topology(*ids, shift=1):
    return Topology(
        dict(enumerate(ids)), shift, frozenset(n for n, apic in enumerate(ids) if not apic & (1 << shift) - 1)
    )


@pytest.mark.parametrize("numbers", [OLD, NEW, {}])
@pytest.mark.parametrize("control", ["enabled", "disabled", "force-disabled", None])
def test_what_agrees_is_believed(numbers, control):
    found = topology(0, 1, 2, 3)
    assert agreed_topology(Space(numbers), frozenset(range(4)), found, control, limited=False) is found


@pytest.mark.parametrize(
    ("numbers", "found", "control", "why"),
    [
        (OLD, topology(0, 0, 2, 3), "enabled", "the same APIC id"),
        (OLD, topology(0, 4, 2, 3), "enabled", "phys_cpu_present_map lacks"),
        (NEW, topology(0, 4, 2, 3), "enabled", "phys_cpu_present_map lacks"),
        (OLD, topology(0, 1, 2, 3, shift=0), "disabled", "one thread, and cpu_smt_control is disabled"),
        (NEW, topology(0, 1, 2, 3, shift=0), "enabled", "one thread, and cpu_smt_control is enabled"),
        (OLD, topology(0, 1, 2, 3), "not supported", "SMT is not supported"),
        (NEW, topology(0, 1, 2, 3, shift=2), "enabled", "cpu_smt_max_threads is 2"),
        ({**NEW, "cpu_smt_max_threads": 4}, topology(0, 1, 2, 3), "enabled", "cpu_smt_max_threads is 4"),
        ({**OLD, "num_processors": 5}, topology(0, 1, 2, 3), "enabled", "num_processors is 5"),
    ],
)
def test_what_contradicts_itself_is_not(numbers, found, control, why):
    with pytest.raises(MissingFact, match=why):
        agreed_topology(Space(numbers), frozenset(range(4)), found, control, limited=False)


def test_what_machines_really_have():
    # Threads that the firmware keeps off, as kernels since v6.9 see them.
    off = topology(0, 2, shift=1)
    numbers = {"phys_cpu_present_map": 0b101, "x86_topo_system": 1, "cpu_smt_max_threads": 1}
    assert agreed_topology(Space(numbers), frozenset({0, 1}), off, "not supported", limited=False) is off
    # nr_cpus= hides CPUs that num_processors may count.
    hidden = Space({**OLD, "num_processors": 8})
    assert agreed_topology(hidden, frozenset(range(4)), topology(0, 1, 2, 3), "enabled", limited=True)
    # A kernel without HOTPLUG_SMT says nothing.
    one = topology(0, 1, 2, 3, shift=0)
    assert agreed_topology(Space(OLD), frozenset(range(4)), one, "not implemented", limited=False) is one


def test_features_of_the_boot_cpu(monkeypatch):
    other = CpuFeatures("intel", 22, frozenset({"clflush"}), None, 48, 39)
    same = CpuFeatures("intel", 22, frozenset({"mwait", "clflush"}), None, 48, 39)
    monkeypatch.setattr(consistency, "read_features", lambda _space, at: {"cpu_info.0": same, "cpu_info.1": other}[at])
    assert agreed_features(Space({"cpu_info": 0}), FEATURES, 0) is FEATURES
    with pytest.raises(MissingFact, match="boot_cpu_data and cpu_info"):
        agreed_features(Space({"cpu_info": 0}), FEATURES, 1)
    assert agreed_features(Space({}), FEATURES, 1) is FEATURES
