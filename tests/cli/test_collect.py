"""The collecting script in every shell there is, on made-up roots; and the command around it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from hibercheck.cli import collect
from hibercheck.handoff.facts import parse_facts

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
        "sys/devices/system/cpu/cpuidle/current_driver": "acpi_idle\n",
        "sys/devices/system/cpu/cpu0/cpuidle/state0/name": "POLL\n",
        "sys/devices/system/cpu/cpu0/cpuidle/state0/desc": "CPUIDLE CORE POLL IDLE\n",
        "sys/devices/system/cpu/cpu0/cpuidle/state1/name": "C1\n",
        "sys/devices/system/cpu/cpu0/cpuidle/state1/desc": "ACPI FFH MWAIT 0x0\n",
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
    assert facts.idle.entry_method == "mwait"
    assert facts.topology.apic_ids == {0: 0, 1: 2}
    assert facts.topology.smt_shift == 0
    assert facts.features.flags == {"mwait", "clflush", "nx"}
    assert facts.e820[0].size == 0x9FC00
    assert [line for line in json.loads(text)["iomem"] if "PCI" in line] == []


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_where_nothing_can_be_read_nothing_is_known(shell, script, tmp_path):
    facts = parse_facts(run(shell, script, tmp_path), "x")
    assert (facts.banner, facts.command_line, facts.online, facts.idle, facts.e820) == (None,) * 5


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
