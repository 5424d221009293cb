"""The traits of real kernels: against the table, the reference, and where real CPUs were found parked."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hibercheck.kernel.code.facts import facts_of, parse_facts
from hibercheck.kernel.code.traits import read_traits
from hibercheck.kernel.kernel import open_kernel
from tests.support.kernel_traits import agreed, committed_kernels, identity, kernels_below, row, summary

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
PARK = {
    # kernel: replaces, rescues, sends INIT, parks in
    "park-mwait": (False, False, False, "mwait"),
    "park-hlt": (True, False, False, "hlt"),
    "park-current": (True, True, False, "hlt"),
    "park-init": (True, False, True, "init"),
}
DEBIAN = ("6.1.176", "6.12.94", "7.3.4")


@pytest.fixture(scope="module")
def traits_of(unpacked):
    """Read the traits of a kernel of the cases, once."""
    known = {}

    def read(name):
        if name not in known:
            with open_kernel(str(unpacked(f"kernels/{name}.vmlinux.xz"))) as kernel:
                known[name] = (kernel.build_id, read_traits(kernel))
        return known[name][1]

    read.known = known
    return read


@pytest.fixture(scope="module")
def table():
    """The committed table, by build id."""
    return {identity(one): one for one in json.loads((FIXTURES / "kernel-traits.json").read_text())}


@pytest.mark.parametrize("name", PARK)
def test_the_four_ways_to_park(traits_of, name):
    traits = traits_of(name)
    replaces, rescues, sends, parks = PARK[name]
    assert traits.hibernate_disable_hook.value is True
    assert traits.replaces_play_dead.value is replaces
    assert traits.rescues_offline.value is rescues
    assert traits.sends_init.value is sends
    assert traits.resume_park.value == parks
    assert traits.init_targets.value == ("present" if sends else None)


@pytest.mark.parametrize("version", DEBIAN)
def test_debian_kernels_are_as_in_the_table(traits_of, table, version):
    traits = traits_of(f"debian-{version}")
    build_id = traits_of.known[f"debian-{version}"][0]
    assert agreed(summary(traits), table[build_id]["traits"]) == table[build_id]["traits"]


@pytest.mark.parametrize(
    ("version", "role", "kind", "start", "last"),
    [
        ("6.1.176", "native", "mwait", 0xFFFFFFFF81062B79, 0xFFFFFFFF81062BA8),
        ("6.12.94", "native", "mwait", 0xFFFFFFFF81082B16, 0xFFFFFFFF81082B38),
        ("7.3.4", "cpuidle", "mwait", 0xFFFFFFFF81315E1D, 0xFFFFFFFF81315E3E),
        ("7.3.4", "resume", "hlt", 0xFFFFFFFF81315F85, 0xFFFFFFFF81315F8F),
    ],
)
def test_loops_are_where_the_reference_says(traits_of, version, role, kind, start, last):
    loop = traits_of(f"debian-{version}").loops(role, kind)[0]
    assert loop.start == start
    assert max(one.address for one in loop.instructions) == last


@pytest.mark.parametrize(
    ("version", "order", "primary", "zero"),
    [
        ("6.1.176", ("mwait", "cpuidle", "hlt"), False, False),
        ("6.12.94", ("mwait", "cpuidle", "hlt"), False, True),
        ("7.3.4", ("cpuidle", "hlt"), True, True),
    ],
)
def test_debian_kernels_are_as_the_reference_says(traits_of, version, order, primary, zero):
    traits = traits_of(f"debian-{version}")
    assert traits.rescues_offline.value is True
    assert traits.play_dead_order.value == order
    assert traits.rescue_needs_primary.value is primary
    assert traits.zero_pages.value is zero
    assert traits.monitored.value == "percpu:mwait_cpu_dead"
    assert all(loop.incomplete is None for loop in traits.park_loops)
    assert not any(loop.pushes for loop in traits.park_loops if loop.role != "cpuidle" or loop.kind == "mwait")


def test_two_files_of_a_kernel_may_differ_in_what_only_one_can_say(table):
    told = next(one["traits"] for one in table.values() if one["read"] == ["vmlinux", "vmlinuz"])
    silent = told | {"physical_align": None, "unknown": told["unknown"] | {"physical_align": "a vmlinux lacks it"}}
    assert agreed(silent, told) == told == agreed(told, silent)
    assert agreed(told | {"physical_align": None}, told | {"pti": False}) is None
    assert agreed(silent | {"unknown": {"la57": "not read"}}, told) is None


def test_parked_cpus_were_found_in_the_loops(shared_cases, traits_of):
    found = 0
    for case in json.loads((shared_cases / "cases.json").read_text())["cases"]:
        traits = traits_of(Path(case["resumer"]).name.removesuffix(".vmlinux.xz"))
        boot = int(case["truth"]["boot_cpu"][0]["rip"], 16) if case["truth"]["boot_cpu"] else 0
        for parked in case["truth"]["parked"] or ():
            rip = int(parked["rip"], 16)
            if rip >> 32 == 0 or not boot:
                continue  # waiting for a SIPI at the reset vector
            # KASLR moves by whole 2 MiB, so compare what is below that and demand one loop.
            loops = [
                loop
                for loop in traits.park_loops
                if any((start - rip) % (1 << 21) == 0 or start <= _near(rip, start) < end for start, end in loop.ranges)
            ]
            assert loops, f"{case['name']}: CPU {parked['cpu']} was at {rip:#x}"
            assert all(loop.kind == ("hlt" if parked["halted"] else "mwait") for loop in loops)
            found += 1
    assert found >= 10


def _near(rip, address):
    """The RIP as it would be if the kernel had not been moved by a multiple of 2 MiB."""
    return address + ((rip - address + (1 << 20)) % (1 << 21)) - (1 << 20)


@pytest.mark.parametrize("name", ["debian-7.3.4", "park-init"])
def test_facts_of_real_kernels_say_the_same(unpacked, name):
    with open_kernel(str(unpacked(f"kernels/{name}.vmlinux.xz"))) as kernel:
        content = json.dumps(facts_of(kernel)).encode()
        facts = parse_facts("facts", content)
        assert read_traits(facts) == read_traits(kernel)
        assert facts.nearest(kernel.require("_text").address + 0x123456)[0].name == "_text"
    assert len(content) < 200_000


@pytest.mark.parametrize("path", committed_kernels(FIXTURES), ids=lambda path: path.name)
def test_committed_kernels_are_as_in_the_table(table, path):
    """With their own symbol table, or stripped, with what kallsyms has."""
    with open_kernel(str(path)) as kernel:
        found = row(kernel, FIXTURES)
    told = table[identity(found)]
    assert agreed(found["traits"], told["traits"]) == told["traits"]
    assert found["config"] == told["config"]
    assert ("vmlinux" if path.suffix == ".xz" else "vmlinuz") in told["read"]


def test_vmlinuz_says_what_vmlinux_says(table):
    """Every kernel of the packages in $HIBERCHECK_KERNELS, which tests/support/debian_kernels.py fills."""
    directory = os.environ.get("HIBERCHECK_KERNELS")
    if not directory:
        pytest.skip("HIBERCHECK_KERNELS does not name a directory that tests/support/debian_kernels.py filled")
    read = 0
    for path in kernels_below(Path(directory)):
        with open_kernel(str(path)) as kernel:
            found = row(kernel, Path(directory))
            if identity(found) in table:
                told = table[identity(found)]["traits"]
                assert agreed(found["traits"], told) == told, path
                read += 1
    assert read


_OF_OTHER_CPUS = frozenset(
    {
        "rescue_needs_primary",
        "rescue_needs_node",
        "freeze_order",
        "replaces_play_dead",
        "resume_park",
        "play_dead_order",
        "mwait_vendor_check",
        "monitored",
        "kick_value",
        "parallel_bringup",
    }
)
"""What there is not to be known of a kernel that is built for one CPU."""

_OF_HIBERNATION = frozenset(
    {
        "hibernate_disable_hook",
        "rescues_offline",
        "freeze_order",
        "replaces_play_dead",
        "resume_park",
        "park_announcement",
        "kicks_offline",
        "sends_init",
        "refuses_while",
        "locked_down_by",
        "zero_pages",
        "compressors",
        "arch_record_magic",
        "e820_check",
        "hw_sig",
    }
)
"""Traits of code that a kernel without hibernation has not."""


def test_the_table_is_of_many_kernels(table):
    """At least fifty, from 5.10 to 7.3, and nothing unknown but what does not apply, each with the reason."""
    assert len(table) >= 50
    for one in table.values():
        traits = one["traits"]
        allowed = {"init_targets", "builtin_cmdline_overrides"}
        allowed |= {"fred_default", "fred_stacks"} if not traits["fred"] else set()
        allowed |= _OF_HIBERNATION if not traits["hibernation"] else set()
        allowed |= {"physical_align"} if one["read"] == ["vmlinux"] else set()
        allowed |= {"kick_value"} if one["release"].startswith("5.10.") else set()
        allowed |= _OF_OTHER_CPUS if traits["one_cpu"] else set()
        assert set(traits["unknown"]) <= allowed, one["release"]
        assert all(traits["unknown"].values()), one["release"]
        assert all(traits[name] is None for name in traits["unknown"] if name in traits)


def _how(config, option):
    return {"y": "builtin", "m": "module?"}.get(config.get(option), "absent")


def test_traits_are_those_of_the_configuration(table):
    """Debian's packages have it beside the kernel up to 6.18, in linux-base since 7.2; others have it inside."""
    configured = [(row["config"], row["traits"]) for row in table.values() if row["config"] is not None]
    assert len(configured) >= 40
    for config, traits in configured:
        assert traits["hibernation"] is ("CONFIG_HIBERNATION" in config)
        assert traits["physical_align"] == int(config["CONFIG_PHYSICAL_ALIGN"], 0)
        if not traits["one_cpu"]:
            assert traits["parallel_bringup"] is traits["parallel_switch"] is ("CONFIG_HOTPLUG_PARALLEL" in config)
        assert traits["bootconfig"] == ("if asked for" if "CONFIG_BOOT_CONFIG" in config else "no")
        assert traits["builtin_cmdline"] == config.get("CONFIG_CMDLINE", "")
        assert traits["randomize_base"] is ("CONFIG_RANDOMIZE_BASE" in config)
        assert traits["randomize_memory"] is ("CONFIG_RANDOMIZE_MEMORY" in config)
        assert traits["la57"] is (config["CONFIG_PGTABLE_LEVELS"] == "5")
        assert traits["pti"] is any(name.endswith("PAGE_TABLE_ISOLATION") for name in config)
        assert traits["fred"] is ("CONFIG_X86_FRED" in config)
        drivers = (("intel_idle", "INTEL_IDLE"), ("acpi_idle", "ACPI_PROCESSOR"), ("haltpoll", "HALTPOLL_CPUIDLE"))
        assert traits["idle_drivers"] == [f"{driver}:{_how(config, f'CONFIG_{option}')}" for driver, option in drivers]
        assert (traits["intel_idle"] != [0, 0]) is ("CONFIG_INTEL_IDLE" in config)
        assert ("secretmem" in traits["refuses_while"]) is ("CONFIG_SECRETMEM" in config)
        assert ("lockdown=" in traits["locked_down_by"]) is ("CONFIG_SECURITY_LOCKDOWN_LSM" in config)
        assert ("Secure Boot" in traits["locked_down_by"]) is ("CONFIG_LOCK_DOWN_IN_EFI_SECURE_BOOT" in config)
        if traits["compressors"] != ["lzo:builtin", "lz4:absent"]:  # which is what kernels before v6.9 have
            named = [f"{name}:{_how(config, f'CONFIG_CRYPTO_{name.upper()}')}" for name in ("lzo", "lz4")]
            assert traits["compressors"] == named
