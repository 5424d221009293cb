"""Inputs that were found by fuzzing, each made small and with the error that it must end in."""

import json

import pytest

from hibercheck.dump.dump import open_dump
from hibercheck.errors import HibercheckError, MalformedDump, Mismatch, UsageProblem
from hibercheck.handoff.check import check
from hibercheck.handoff.cmdline import parse_command_line, parse_size
from hibercheck.handoff.facts import parse_facts
from hibercheck.handoff.findings import Outcome
from hibercheck.report import suppressions
from hibercheck.report.cpulist import parse_cpu_list
from tests.fuzz.mutate import Patch
from tests.fuzz.soundness import Measured
from tests.fuzz.targets_dump import LISTING

DIGITS = "9" * 5000
"""Python refuses to turn so many digits into a number, with a ValueError."""


def test_a_cpu_number_of_thousands_of_digits_in_a_register_listing(tmp_path):
    (tmp_path / "raw").write_bytes(bytes(4096))
    (tmp_path / "registers").write_text(LISTING.replace("CPU#0", f"CPU#{DIGITS}").partition("RAX")[0])
    with pytest.raises(MalformedDump, match="holds no registers"):
        open_dump(str(tmp_path / "raw"), registers=str(tmp_path / "registers"))


@pytest.mark.parametrize("name", ["maxcpus", "nr_cpus", "possible_cpus", "mem"])
def test_a_number_of_thousands_of_digits_on_a_kernel_command_line(name):
    assert parse_command_line(f"{name}={DIGITS}").text
    assert parse_size(f"{DIGITS}E") is not None


def test_a_number_of_thousands_of_digits_in_a_list_of_cpus():
    with pytest.raises(ValueError, match="is not a CPU"):
        parse_cpu_list(f"0-{DIGITS}")


def test_a_number_of_thousands_of_digits_in_suppressions(tmp_path):
    (tmp_path / "s.toml").write_text(f"[[suppress]]\ncpu = {DIGITS}\n")
    with pytest.raises(UsageProblem, match="not TOML"):
        suppressions.load(str(tmp_path / "s.toml"))


@pytest.mark.parametrize("end", ["0x1" + "0" * 16, "0x0", "0xffffffffffffffff"])
def test_a_memory_map_beyond_64_bits_in_collected_facts(end):
    text = json.dumps({"hibercheck_facts": 1, "e820": [{"type": "System RAM", "start": "0x1000", "end": end}]})
    with pytest.raises(MalformedDump, match="e820 has a range"):
        parse_facts(text, "facts.json")


def test_a_banner_of_two_lines_in_an_error():
    assert str(Mismatch("was collected on 'Linux \r\n6.1 \x85x'", path="facts.json")).splitlines() == [
        "facts.json: was collected on 'Linux  6.1  x'"
    ]


# Damage that made a measured reset look survivable: (case, with memory, input, offset, bytes, what it must come to).
MISLEADING = {
    "an MWAIT loop of zeros": ("fatal", False, "resumer", 0x232540, bytes(64), "undetermined"),
    "a jump over it that is none": (
        "fatal",
        False,
        "resumer",
        0x2324D0,
        bytes.fromhex("df7208ccc83b4395"),
        "undetermined",
    ),
    "a HLT before it": ("fatal", False, "resumer", 0x2324F4, b"\xf4", "undetermined"),
    "a dump with zeros for it": ("fatal", True, "memory", 0x1032000, bytes(4096), Mismatch),
}


@pytest.mark.parametrize("name", MISLEADING)
def test_damage_that_made_a_reset_look_survivable(name, tmp_path):
    case, memory, key, offset, data, expected = MISLEADING[name]
    measured = Measured(case, tmp_path, memory=memory)
    with measured.copies[key].damaged([Patch(offset, data)]):
        if isinstance(expected, str):
            assert check(*measured.paths, measured.options).outcome is Outcome(expected)
        else:
            with pytest.raises(expected) as caught:
                check(*measured.paths, measured.options)
            assert isinstance(caught.value, HibercheckError)
    assert measured.outcome() == Outcome.RESETS.value
