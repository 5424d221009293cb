"""The collecting script in every shell there is, on made-up roots; and the command around it."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from hibercheck.cli import collect
from hibercheck.handoff.facts.cpufacts import MonitorLeaf
from hibercheck.handoff.facts.resumer_facts import parse_facts

SHELLS = [shell for shell in (["busybox", "sh"], ["dash"], ["bash", "--posix"]) if shutil.which(shell[0])]
CMDLINE = 'root=/dev/sda1 a="b c" d=e\\f nosmt'


@pytest.fixture
def root(tmp_path):
    files = {
        "proc/version": "Linux version 6.1.0 (a@b) (gcc) #1 SMP\n",
        "proc/cmdline": f"{CMDLINE}\n",
        "proc/iomem": "00001000-0009fbff : System RAM\n  01000000-01e00d2f : Kernel code\nb0000000-bfffffff : PCI\n",
        "proc/kallsyms": "ffffffff81000000 T _text\nffffffff81000010 T other_text\nffffffff82000000 D linux_banner\n",
        "proc/cpuinfo": "".join(
            f"processor\t: {cpu}\nvendor_id\t: GenuineIntel\nmodel name\t: X\napicid\t\t: {cpu * 2}\n"
            "cpuid level\t: 13\nflags\t\t: monitor clflush nx\nbugs\t\t: l1tf\n"
            "address sizes\t: 39 bits physical, 48 bits virtual\n\n"
            for cpu in (0, 1)
        ),
        "sys/devices/system/cpu/present": "0-1\n",
        "sys/devices/system/cpu/online": "0-1\n",
        "sys/devices/system/cpu/smt/control": "off\n",
        "sys/power/disk": "[disabled]\n",
        "sys/kernel/security/lockdown": "none [integrity] confidentiality\n",
        "sys/firmware/acpi/tables/FACS": "FACS@\0\0\0\x21\x43\x65\x07" + "\0" * 52,
        "proc/zoneinfo": "Node 0, zone      DMA\n  pages free     3840\n        present  3998\n"
        "Node 0, zone    DMA32\n        present  28631\n",
        "proc/meminfo": "MemTotal:         110000 kB\nMemFree:           80000 kB\nCached:  5 kB\n",
        "proc/crypto": "name         : lzo\ndriver       : lzo-scomp\nmodule       : kernel\n\n"
        "name         : lzo-rle\n",
        "proc/sys/kernel/osrelease": "6.1.0\n",
        "proc/sys/kernel/modprobe": "/sbin/modprobe\n",
        "sbin/modprobe": "",
        "lib/modules/6.1.0/kernel/crypto/lz4.ko.xz": "",
        "var/log/dmesg": "[    0.000000] Linux version\n[    0.000000] BIOS-provided physical RAM map:\n"
        "[    0.000000] BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff] usable\n"
        "[    0.000000] BIOS-e820: [mem 0x00000000000f0000-0x00000000000fffff] reserved\n"
        "[    0.000000] PM: hibernation: Registered nosave memory: [mem 0x00000000-0x00000fff]\n",
        "sys/devices/system/cpu/cpuidle/current_driver": "acpi_idle\n",
        "sys/devices/system/cpu/cpu0/cpuidle/state0/name": "POLL\n",
        "sys/devices/system/cpu/cpu0/cpuidle/state0/desc": "CPUIDLE CORE POLL IDLE\n",
        "sys/devices/system/cpu/cpu0/cpuidle/state1/name": "C1\n",
        "sys/devices/system/cpu/cpu0/cpuidle/state1/desc": "ACPI FFH MWAIT 0x0\n",
        "sys/devices/system/cpu/cpu0/cpuidle/state1/latency": "133\n",
        "sys/devices/system/cpu/cpu0/topology/core_id": "0\n",
        "sys/devices/system/cpu/cpu0/topology/physical_package_id": "0\n",
        "sys/devices/system/cpu/cpu1/topology/core_id": "1\n",
        "sys/devices/system/cpu/cpu1/topology/physical_package_id": "0\n",
        "sys/firmware/memmap/0/start": "0x0\n",
        "sys/firmware/memmap/0/end": "0x9fbff\n",
        "sys/firmware/memmap/0/type": "System RAM\n",
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (tmp_path / "sbin/modprobe").chmod(0o755)
    return tmp_path


@pytest.fixture(scope="module")
def script():
    return str(Path(collect.__file__).with_name("collect.sh"))


def run(shell, script, root, path=None):
    environment = {"ROOT": str(root), "PATH": path or "/usr/bin:/bin"}
    program = [shutil.which(shell[0]), *shell[1:]]
    done = subprocess.run([*program, script], capture_output=True, text=True, env=environment, check=True)
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
@pytest.mark.parametrize("path", [None, "/nonexistent"], ids=["with grep", "builtins only"])
def test_every_shell_writes_the_same_facts(shell, path, script, root):
    text = run(shell, script, root, path)
    assert json.loads(text)["cmdline"] == CMDLINE
    facts = parse_facts(text, "x")
    assert facts.command_line == CMDLINE
    assert facts.banner.startswith("Linux version 6.1.0")
    assert (facts.load_address, facts.text_address) == (0x1000000, 0xFFFFFFFF81000000)
    assert facts.online == {0, 1}
    assert (facts.idle.entry_method, facts.exit_latency) == ("mwait", 133)
    assert facts.topology.apic_ids == {0: 0, 1: 2}
    assert facts.topology.smt_shift == 0
    assert facts.features.flags == {"mwait", "clflush", "nx"}
    assert [(one.address, one.size, one.kind) for one in facts.e820] == [(0, 0x9FC00, 1), (0xF0000, 0x10000, 2)]
    assert facts.firmware.source == "log"
    assert (facts.hibernation, facts.lockdown) == (False, "integrity")
    # the firmware's signature is a binary number, which a shell without od cannot read; busybox has one built in
    assert facts.hw_signature == 0x07654321 or (path is not None and facts.hw_signature is None)
    assert (facts.pages, facts.free_pages) == (32629, 20000)
    assert facts.compressors == {"lzo": True, "lz4": False}
    assert [line for line in json.loads(text)["iomem"] if "PCI" in line] == []


def leaves(*registers, last=0x16):
    """What the cpuid device gives for leaves 0 to 5."""
    return struct.pack("<24I", last, 0x756E6547, 0x6C65746E, 0x49656E69, *[7] * 16, *registers)


@pytest.fixture
def device(root):
    """Return a function that makes a file in place of the cpuid device."""
    place = root / "dev/cpu/0/cpuid"
    place.parent.mkdir(parents=True)
    return place.write_bytes


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_leaf_5_is_what_the_cpuid_device_says(shell, script, root, device):
    device(leaves(0x40, 0x10080, 3, 0x10002120))
    facts = parse_facts(run(shell, script, root), "x")
    assert facts.monitor == MonitorLeaf(128, (0, 2, 1, 2, 0, 0, 0, 1), extended=True)


@pytest.mark.parametrize(("content", "expected"), [
    (leaves(0, 0, 0, 0), MonitorLeaf(None, (0,) * 8, extended=False)),
    (leaves(64, 96, 1, 0x20), MonitorLeaf(None, (0, 2, 0, 0, 0, 0, 0, 0), extended=False)),
    (leaves(64, 64, 3, 0x20, last=4), None),  # such a CPU answers with its last leaf
    (leaves(64, 64, 3, 0x20)[:-4], None),
    (b"", None),
])  # fmt: skip
def test_what_the_device_does_not_say_of_leaf_5_is_not_known(script, root, device, content, expected):
    device(content)
    assert parse_facts(run(SHELLS[0], script, root), "x").monitor == expected


def test_where_there_is_no_cpuid_device_leaf_5_is_not_known(script, root):
    assert parse_facts(run(SHELLS[0], script, root), "x").monitor is None
    (root / "dev/cpu/0/cpuid").mkdir(parents=True)
    assert parse_facts(run(SHELLS[0], script, root), "x").monitor is None


def test_a_log_that_has_lost_its_first_lines_tells_no_map(script, root):
    log = root / "var/log/dmesg"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[2:]))
    facts = parse_facts(run(SHELLS[0], script, root), "x")
    assert (facts.firmware.source, facts.e820[0].size) == ("sysfs", 0x9FC00)
    assert len(facts.e820) == 1


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_where_nothing_can_be_read_nothing_is_known(shell, script, tmp_path):
    facts = parse_facts(run(shell, script, tmp_path), "x")
    assert (facts.banner, facts.command_line, facts.online, facts.idle, facts.e820) == (None,) * 5
    assert (facts.hibernation, facts.lockdown, facts.hw_signature, facts.pages, facts.free_pages) == (None,) * 5


def test_the_command_writes_what_can_be_read_again(root, tmp_path, hibercheck):
    target = tmp_path / "facts.json"
    done = hibercheck("collect", "--root", str(root), "-o", str(target))
    assert (done.status, done.out) == (0, "")
    assert "there is no" in done.err
    assert done.err.count("\n") == 1
    assert parse_facts(target.read_text(), "x").online == {0, 1}


def test_the_script_it_prints_is_the_one_it_runs(script, hibercheck):
    done = hibercheck("collect", "--script")
    assert done.status == 0
    assert done.out == Path(script).read_text(encoding="utf-8")
    subprocess.run(["/bin/sh", "-n"], input=done.out, text=True, check=True)


def test_it_says_why_the_page_tables_are_missing(root, hibercheck):
    kcore = root / "proc/kcore"
    kcore.write_bytes(b"not an ELF core")
    done = hibercheck("collect", "--root", str(root))
    assert done.status == 0
    assert "without the kernel's page tables" in done.err
    assert "neither an ELF core" in done.err
    assert "lockdown" in done.err
    assert "frames" not in json.loads(done.out)


@pytest.mark.parametrize("hidden", [("iomem",), ("kallsyms",), ("iomem", "kallsyms"), ()])
def test_addresses_that_are_hidden_from_who_is_not_root_are_told(root, hibercheck, hidden):
    """The kernel shows zeros then; they were written down without a word."""
    for name in hidden:
        file = root / "proc" / name
        file.write_text(re.sub(r"^( *)[0-9a-f]+(-[0-9a-f]+)? ", r"\g<1>00000000\g<2> ", file.read_text(), flags=re.M))
        if name == "iomem":
            file.write_text(re.sub(r"-[0-9a-f]{8}", "-00000000", file.read_text()))
    done = hibercheck("collect", "--root", str(root))
    assert done.status == 0
    said = [line for line in done.err.splitlines() if "zeros" in line]
    files = " and ".join(f"{root}/proc/{name}" for name in hidden)
    zeros = f"hibercheck: {files} show zeros for all addresses, which count as not known: run it as root"
    assert said == ([zeros] if hidden else [])
    facts = parse_facts(done.out, "x")
    assert (facts.load_address is None, facts.text_address is None) == ("iomem" in hidden, "kallsyms" in hidden)


@pytest.mark.parametrize("how", ["the script", "the command"])
def test_programs_come_from_the_system(root, tmp_path, monkeypatch, hibercheck, how):
    """Root collects, with whatever PATH, functions and startup files he came to."""
    planted = tmp_path / "planted"
    planted.mkdir()
    for name in ("grep", "dmesg", "od", "cat", "sed", "printf"):
        (planted / name).write_text(f"#!/bin/sh\n: > {tmp_path}/victim\n")
        (planted / name).chmod(0o755)
    (planted / "startup").write_text(f": > {tmp_path}/victim\n")
    monkeypatch.setenv("PATH", str(planted))
    monkeypatch.setenv("ENV", str(planted / "startup"))
    monkeypatch.setenv("BASH_ENV", str(planted / "startup"))
    monkeypatch.setenv("BASH_FUNC_grep%%", f"() {{ : > {tmp_path}/victim; }}")
    if how == "the command":
        assert hibercheck("collect", "--root", root).status == 0
    else:
        monkeypatch.delenv("BASH_ENV")  # whoever starts bash with it has run that file before the script
        monkeypatch.delenv("BASH_FUNC_grep%%")
        script = Path(collect.__file__).with_name("collect.sh")
        command = ["/bin/sh", str(script)]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "ROOT": str(root)})
    assert not (tmp_path / "victim").exists()


def test_files_that_never_begin_or_end(root, hibercheck):
    """A directory that is given as a system may hold anything."""
    files = [one for one in root.rglob("*") if one.is_file()]
    for one in files:
        one.unlink()
        os.mkfifo(one)
    (root / "proc" / "kcore").write_bytes(b"\x7fELF")
    ran = hibercheck("collect", "--root", root)
    assert ran.status == 0, ran.err
    assert "kallsyms: is neither a file nor a block device" in ran.err
    for one in files:
        one.unlink()
        one.symlink_to("/dev/zero")
    assert hibercheck("collect", "--root", root).status == 0
