"""A kernel's log as facts of its run: what dmesg and journalctl print, and what a check makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hibercheck.errors import MalformedDump, Mismatch
from hibercheck.handoff.facts.e820 import E820Entry
from hibercheck.handoff.facts.idle import IdleDriver
from hibercheck.handoff.facts.logged import parse_log_facts
from hibercheck.handoff.facts.standing import Standing
from hibercheck.handoff.scenario.known_cpus import IDLE
from hibercheck.handoff.verdict.findings import Verdict
from tests.support.made_inputs import asking

BANNER = "Linux version 6.1.192-lab-small-current (lab@hibercheck) (gcc 12.2.0) #1 SMP 2026-11-22 00:00:00 +0000"
DMESG = f"""\
[    0.000000] {BANNER}
[    0.000000] Command line: BOOT_IMAGE=/vmlinuz nokaslr nosmt quiet
[    0.000000] BIOS-provided physical RAM map:
[    0.000000] BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff] usable
[    0.000000] BIOS-e820: [mem 0x0000000000100000-0x0000000007ffffff] usable
[    0.000000] secureboot: Secure boot enabled
[    0.010000] smpboot: Allowing 4 CPUs, 2 hotplug CPUs
[    0.020000] Kernel command line: BOOT_IMAGE=/vmlinuz nokaslr nosmt quiet
"""
JOURNAL = DMESG.replace("[    0.0", "Nov 28 10:00:00 tulip kernel: [    0.0")
SHORT = "\n".join(f"Nov 28 10:00:00 tulip kernel: {line.partition('] ')[2]}" for line in DMESG.splitlines())


@pytest.mark.parametrize(
    "text", [DMESG, JOURNAL, SHORT, DMESG.replace("\n", "\r\n")], ids=["dmesg", "both", "journal", "crlf"]
)
def test_what_a_log_says(text):
    found = parse_log_facts(text, "log")
    assert found.banner == BANNER
    assert found.command_line == "BOOT_IMAGE=/vmlinuz nokaslr nosmt quiet"
    assert found.present == frozenset({0, 1})
    assert found.secure_boot is True
    assert found.lockdown is None
    assert found.firmware.entries == (E820Entry(0, 0x9FC00, 1), E820Entry(0x100000, 0x7F00000, 1))
    assert found.firmware.source == "log"


def test_the_words_of_newer_kernels():
    text = (
        "CPU topo: Allowing 6 present CPUs plus 2 hotplug CPUs\nKernel command line: a b\n"
        "Kernel is locked down from EFI Secure Boot mode; see man kernel_lockdown.7\nsecureboot: Secure boot disabled\n"
    )
    found = parse_log_facts(text, "log")
    assert (found.present, found.lockdown, found.secure_boot) == (frozenset(range(6)), "integrity", False)
    cut = parse_log_facts("Command line: a long one \\\nKernel command line: b\n", "log")
    assert cut.command_line == "b"


@pytest.mark.parametrize(("line", "count"), [
    ("[    0.200000] smp: Brought up 1 node, 4 CPUs", 4), ("smp: Brought up 2 nodes, 128 CPUs", 128),
    ("Nov 28 10:00:00 tulip kernel: smp: Brought up 1 node, 1 CPU", 1), ("Brought up 4 CPUs", None),
    ("tulip app: has Brought up 1 node, 3 CPUs", None), ("", None),
])  # fmt: skip
def test_how_many_cpus_came_up(line, count):
    assert parse_log_facts(f"{DMESG}{line}\n", "log").brought_up == count


def test_the_whole_line_counts_and_not_what_the_boot_loader_passed():
    """With what is built in, and what a bootconfig adds."""
    text = "Command line: quiet\nKernel command line: hibernate=no nosmt quiet\n"
    assert parse_log_facts(text, "log").command_line == "hibernate=no nosmt quiet"
    assert parse_log_facts("Command line: quiet\n", "log").command_line == "quiet"


INTEL = "intel_idle: v0.5.1 model 0x5E"


@pytest.mark.parametrize(
    ("line", "smt_off", "kaslr_off", "idle"),
    [
        ("[    0.010000] SMT: disabled", True, None, None),
        ("[    0.010000] SMT: Force disabled", True, None, None),
        ("[    0.010000] x86 SMT: disabled", None, None, None),
        ("KASLR disabled: 'nokaslr' on cmdline.", None, True, None),
        ("Physical KASLR disabled: no suitable memory region!", None, None, None),
        (f"[    0.5] {INTEL}", None, None, IdleDriver("intel_idle")),
        (f"[    0.5] {INTEL}\n[    0.6] intel_idle: intel_idle yielding to acpi_idle", None, None, None),
        ("[    0.5] intel_idle: does not run on family 6 model 94", None, None, None),
        ("", None, None, None),
    ],
)
def test_choices_that_a_kernel_tells_of(line, smt_off, kaslr_off, idle):
    found = parse_log_facts(f"{line}\n{DMESG}{line}\n", "log")
    assert (found.smt_off, found.kaslr_off, found.idle) == (smt_off, kaslr_off, idle)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "says nothing"),
        ("PM: Image not found (code -22)\n", "says nothing"),
        (f"{DMESG}[    0.000000] Linux version 6.9 (x) #2\n", "several boots"),
        (DMESG + DMESG, "several boots"),  # of one kernel, as /var/log/kern.log has them
        ("Command line: nosmt\nCommand line: quiet\n", "several boots"),
        ("Kernel command line: nosmt\nKernel command line: quiet\n", "several boots"),
        (DMESG.replace("0x0000000007ffffff", "0x0000000000000001"), "contradicts itself"),
    ],
)
def test_what_is_no_log_of_one_boot(text, why):
    with pytest.raises(MalformedDump, match=why):
        parse_log_facts(text, "log")


@pytest.fixture
def log(tmp_path):
    """Return a function that writes a log and gives its path."""

    def write(*lines):
        path = tmp_path / "log"
        path.write_text("".join(f"[    0.000000] {line}\n" for line in lines))
        return str(path)

    return write


def test_it_takes_the_place_of_what_is_assumed(predict, log):
    path = log("Command line: nokaslr nosmt", "smpboot: Allowing 2 CPUs, 0 hotplug CPUs")
    report = predict("same-build", resumer_cmdline=None, resumer_log=path)
    found = {one.name: one for one in report.assumptions}
    for name, value in (("command-line", "nokaslr nosmt"), ("cpus", "0-1")):
        assert (found[name].value, found[name].standing, found[name].source) == (
            value,
            Standing.MEASURED,
            "its kernel's log",
        )


def test_choices_take_the_place_of_what_is_assumed(predict, log):
    path = Path(log("Command line: quiet", "SMT: disabled"))
    path.write_text(f"KASLR disabled: 'nokaslr' on cmdline.\n{path.read_text()}")  # before there is a clock
    report = predict("same-build", resumer_cmdline=None, resumer_log=str(path))
    found = {one.name: one for one in report.assumptions}
    assert (found["smt-off"].value, found["smt-off"].source) == ("yes", "its kernel's log")
    assert found["kaslr-offset"].value == "0x0"
    assert found["load-address"].value != "random"
    report = predict("same-build", resumer_cmdline=None, resumer_log=log("Command line: quiet"))
    found = {one.name: one for one in report.assumptions}
    assert (found["smt-off"].value, found["load-address"].value) == ("no", "random")


def test_a_driver_for_idle_cpus():
    told = parse_log_facts(f"Command line: nokaslr\n{INTEL}\n", "log")
    for traits, idle in (({"enter_dead": ("intel_idle:mwait",)}, "mwait"), ({"enter_dead": ()}, "none")):
        asked = asking(traits=traits, logged=told)
        assert (asked.need(IDLE).value, asked.need(IDLE).source) == (idle, "its kernel's log")


def test_another_memory_map_refuses(predict, log):
    ranges = "BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff] usable"
    path = log("Command line: nokaslr nosmt", "BIOS-provided physical RAM map:", ranges)
    report = predict("same-build", resumer_cmdline=None, resumer_log=path)
    assert report.verdict is Verdict.REFUSED
    assert report.refusal.test == "memory-map"


def test_what_is_said_otherwise_contradicts_it(predict, log):
    path = log("Command line: nokaslr nosmt")
    with pytest.raises(Mismatch, match="its kernel's log"):
        predict("same-build", resumer_cmdline="maxcpus=1", resumer_log=path)
    report = predict("same-build", resumer_cmdline="maxcpus=1 nokaslr", resumer_log=path, what_if=True)
    assert {one.name: one.value for one in report.assumptions}["command-line"] == "maxcpus=1 nokaslr"


def test_a_log_of_another_kernel(predict, log):
    with pytest.raises(Mismatch, match="is of 'Linux version 5"):
        predict("same-build", resumer_cmdline=None, resumer_log=log("Linux version 5.10.0 (x@y) #1 SMP"))
