"""The lab's pure parts: protocols, formats, parsing, grading."""

from __future__ import annotations

import io
import json
import lzma
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lab import cst, gdb, guest, initramfs, machine, truth
from tests.lab.__main__ import main
from tests.lab.chance import draw
from tests.lab.compare import Row, grade, summary
from tests.lab.corpus import corpus
from tests.lab.errors import ImpossibleError, LabError
from tests.lab.experiment import Experiment, Side
from tests.lab.families import FAMILIES, every
from tests.lab.kernels import Kernels
from tests.lab.pack import compress, pack, unpack
from tests.lab.record import Record
from tests.lab.run import Lab, retry

REGISTERS = """CPU#0
RAX=0000000000000000 RBX=0000000000000001 RCX=0000000000000080 RDX=0000000000310000
RSI=ffff888000000000 RDI=00000000003506b0 RBP=ffffc90000013dc0 RSP=ffffc90000013d80
RIP=ffffffff812c20e0 RFL=00000046 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=0
GS =0000 ffff888007a00000 00000000 00000000
GDT=     fffffe0000001000 0000007f
IDT=     fffffe0000000000 00000fff
CR0=80050033 CR2=0000000000000000 CR3=0000000000689000 CR4=003506b0
EFER=0000000000000d01

CPU#1
EAX=00000000 EBX=00000000 ECX=00000000 EDX=000506e3
ESI=00000000 EDI=00000000 EBP=00000000 ESP=00000000
EIP=0000fff0 EFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=1
GS =0000 00000000 0000ffff 00009300
GDT=     00000000 0000ffff
IDT=     00000000 0000ffff
CR0=60000010 CR2=00000000 CR3=00000000 CR4=00000000
EFER=0000000000000000
"""
LOG = """check_exception old: 0xffffffff new 0xe
     0: v=0e e=0000 i=0 cpl=0 IP=0010:ffffffff81000142 pc=ffffffff81000142 SP=0018:ffffc9000006bf40 CR2=fffffe000003c010
RAX=0000000000000000
check_exception old: 0xe new 0xe
     1: v=08 e=0000 i=0 cpl=0 IP=0010:ffffffff81000142 pc=ffffffff81000142 SP=0018:ffffc9000006bf40 env->regs[R_EAX]=0
Servicing hardware INT=0xec
     2: v=ec e=0000 i=0 cpl=0 IP=0010:ffffffff813c66f3 pc=ffffffff813c66f3 SP=0018:ffffffff81a03ea0 env->regs[R_EAX]=1
check_exception old: 0x8 new 0xe
Triple fault
"""


def test_packets_carry_their_checksum():
    assert gdb.encode("g") == b"$g#67"
    assert gdb.decode(b"+$OK#9a$rest") == ("OK", b"$rest")
    assert gdb.decode(b"+$O") == (None, b"$O")
    assert gdb.decode(b"++") == (None, b"")


@given(st.text(st.characters(min_codepoint=0x25, max_codepoint=0x7E), max_size=80))
def test_packets_survive_the_line(payload):
    assert gdb.decode(b"+" + gdb.encode(payload) + b"$x") == (payload, b"$x")


def test_registers_of_a_running_and_of_a_waiting_cpu():
    first, second = (machine.parse_registers(part) for part in machine.split_cpus(REGISTERS))
    assert (first["rip"], first["rsp"], first["rbx"]) == ("0xffffffff812c20e0", "0xffffc90000013d80", "0x1")
    assert (first["cr3"], first["cr4"], first["efer"], first["rflags"]) == ("0x689000", "0x3506b0", "0xd01", "0x46")
    assert (first["gdt_base"], first["gs_base"], first["halted"]) == ("0xfffffe0000001000", "0xffff888007a00000", False)
    assert (second["rip"], second["cr0"], second["halted"], second["gdt_base"]) == ("0xfff0", "0x60000010", True, None)


def test_last_exceptions_leave_out_interrupts():
    found = truth.last_exceptions(LOG)
    assert [row[0] for row in found] == ["0e", "08"]
    assert found[0] == ["0e", "0000", "ffffffff81000142", "ffffc9000006bf40", "fffffe000003c010"]
    assert truth.was_triple_fault(LOG)
    assert truth.fault_of(LOG)["chain"] == [["ffffffff", "e"], ["e", "e"], ["8", "e"]]
    assert truth.fault_of("") is None


def test_a_cpu_that_faults_on_its_parking_stack_has_run_away():
    parked = [{"cpu": 1, "rsp": "0xffffc9000006bee8", "rip": "0x0", "gdt_base": "0x1"}]
    assert truth.runaway(LOG, parked)[0] == "0e"
    elsewhere = [{"cpu": 1, "rsp": "0xffffc9000007bee8", "rip": "0x0", "gdt_base": "0x1"}]
    assert truth.runaway(LOG, elsewhere) is None
    assert truth.runaway(LOG.replace("v=0e", "v=02").replace("v=08", "v=12"), parked) is None
    assert truth.runaway("CPU Reset (CPU 1)\n" + LOG, parked) is None  # the resumee has it: its exceptions are its own
    assert truth.runaway("CPU Reset (CPU 2)\n" + LOG, parked)[0] == "0e"


def test_a_cpu_outside_its_loop_has_strayed():
    result = truth.Truth("resumes", parked=[{"cpu": 1, "rip": "0x1000"}, {"cpu": 2, "rip": "0x2000"}])
    assert result.strayed() == []
    result.after_copy = [{"cpu": 1, "rip": "0x1030"}, {"cpu": 2, "rip": "0x2400"}]
    assert result.strayed() == [2]
    result.after_copy = [
        {"cpu": 1, "rip": "0x1000", "loop_changed": True},
        {"cpu": 2, "rip": "0x2000", "loop_changed": False},
    ]
    assert result.strayed() == [1]
    result.after_copy = [{"cpu": 2, "rip": "0xfff0"}]
    assert result.strayed() == []


def test_the_kernels_own_error_is_read():
    assert truth.errno_of("PM: resume failed (-14)\nLAB done 0\n") == -14
    assert truth.errno_of("nothing") is None


def test_the_initramfs_is_a_cpio_archive_and_the_same_every_time(tmp_path):
    busybox = tmp_path / "busybox"
    busybox.write_bytes(b"\x7fELF" + bytes(999))
    first = initramfs.build(tmp_path / "a", busybox).read_bytes()
    assert initramfs.build(tmp_path / "b", busybox).read_bytes() == first
    listing = subprocess.run(
        ["cpio", "-t", "--quiet"], input=__import__("gzip").decompress(first), capture_output=True, check=False
    )
    assert listing.stdout.decode().split() == ["bin", "dev", "bin/busybox", "bin/sh", "dev/console", "init"]


def test_no_busybox_is_said(tmp_path):
    with pytest.raises(LabError, match="busybox-static"):
        initramfs.build(tmp_path / "x", tmp_path / "none")


def test_trim_keeps_the_last_used_mib(tmp_path):
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(64 << 20)
        file.seek((5 << 20) + 17)
        file.write(b"x")
    guest.trim(disk, tmp_path / "image")
    assert (tmp_path / "image").stat().st_size == 6 << 20
    assert (tmp_path / "image").read_bytes()[(5 << 20) + 17 : (5 << 20) + 18] == b"x"


@pytest.mark.parametrize(("at", "signature", "expected"), [
    (4076, b"SWAPSPACE2S1SUSPEND\0", True),
    ((3 << 20) + 8172, b"SWAPSPACE2S1SUSPEND\0", True),
    (4070, b"SWAPSPACE2S1SUSPEND\0", False),
    (4086, b"SWAPSPACE2", False),
])  # fmt: skip
def test_a_disk_without_an_image_is_none(tmp_path, at, signature, expected):
    """A resumee that died before it had written one was once taken for a resumer that refused it."""
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(4 << 20)
        file.seek(at)
        file.write(signature)
    assert guest.is_marked(disk) is expected


def test_orders_to_the_guest():
    plain = Experiment("x", Side("a"), Side("b"))
    assert "swapon /dev/nvme0n1" in guest.swap_on(plain)
    assert guest.fill(Experiment("x", Side("a"), Side("b"), fill_mib=24, fill_byte=0xCC)).count("\\314") == 1


def test_arguments_say_what_is_known_of_the_resumer():
    side = Side("b", "nokaslr nosmt", offline=(1, 2, 3), online=(2,))
    item = Experiment("x", Side("a"), side, event="nmi", arguments=("--resumer-idle", "mwait"))
    assert item.hibercheck_arguments() == [
        *("--resumer-cmdline", "nokaslr nosmt", "--resumer-offline", "1,3", "--spurious-mwait"),
        *("--suppose", "nmi", "--resumer-idle", "mwait"),
    ]
    assert not item.may_abstain
    assert Experiment("x", Side("a"), Side("b", "nosmt")).may_abstain


def test_a_virtio_disk_brings_its_modules(tmp_path):
    (tmp_path / "a.modules").mkdir()
    for name in ("virtio_blk", "virtio"):
        (tmp_path / "a.modules" / f"{name}.ko").write_bytes(name.encode())
    found = Kernels((tmp_path,), tmp_path).modules("a")
    assert [path.stem for path in found] == ["virtio", "virtio_blk"]
    busybox = tmp_path / "busybox"
    busybox.write_bytes(b"")
    plain = __import__("gzip").decompress(initramfs.build(tmp_path / "i", busybox, "vda", found).read_bytes())
    orders = plain[plain.index(b"insmod") :]
    assert orders.startswith(b"insmod /modules/virtio.ko\ninsmod /modules/virtio_blk.ko\nwhile [ ! -b /dev/vda ]")
    with pytest.raises(LabError, match=r"b\.modules"):
        Kernels((tmp_path,), tmp_path).modules("b")
    virtio = machine.Machine(disk="virtio")
    assert "virtio-blk-pci,drive=d" in virtio.arguments()
    assert "swapon /dev/vda" in guest.swap_on(Experiment("x", Side("a"), Side("b"), machine=virtio))


def test_the_guests_list_of_cpus():
    assert guest.cpu_list("0-1,3") == {0, 1, 3}
    assert guest.cpu_list("") == set()


def test_one_hibernation_serves_many_resumes():
    first = Experiment("x", Side("a"), Side("b"), event="nmi")
    assert first.image_key() == Experiment("y", Side("a"), Side("c", "nosmt"), dump=False).image_key()
    assert first.image_key() != Experiment("x", Side("a", "nokaslr nosmt"), Side("b")).image_key()
    assert first.image_key() != Experiment("x", Side("a"), Side("b"), fill_mib=1).image_key()


def test_families_have_at_least_forty_experiments_with_names_of_their_own():
    assert len(every()) >= 40
    assert set(FAMILIES) >= {"committed", "parks", "events", "paging", "formats", "refusals", "idle"}


@given(st.integers(0, 1000), st.integers(0, 50), st.sampled_from([(), ("debian-9.9",), ("debian-9.9", "small-hlt")]))
def test_draws_repeat_and_make_sense(seed, number, only):
    item = draw(seed, number, only)
    assert item == draw(seed, number, only)
    assert not only or {item.resumee.kernel, item.resumer.kernel} <= set(only)
    assert all(0 < cpu < item.machine.cpus for cpu in (*item.resumee.offline, *item.resumer.offline))


@pytest.mark.parametrize(
    ("want", "got", "verdict", "abstain", "memory", "expected"),
    [
        ("resets", "resets", "fatal", False, False, "right"),
        ("resets", "resumes", "safe", False, False, "MISS"),
        ("resumes", "resets", "fatal", False, False, "FALSE ALARM"),
        ("hangs", "resets", "fatal", False, False, "right"),
        ("survives", "resumes", "safe", False, False, "MISS"),
        ("refused", "resumes", "safe", False, False, "WRONG"),
        ("resumes", "resumes", "risk", True, False, "abstained"),
        ("resumes", "resumes", "risk", True, True, "right"),
        ("resumes", "undetermined", "undetermined", False, False, "WRONG"),
    ],
)
def test_grades(want, got, verdict, abstain, memory, expected):
    if memory and verdict == "risk":
        verdict = "benign"
    assert grade(want, got, verdict, may_abstain=abstain, memory=memory) == expected


def test_the_table_counts():
    rows = [
        Row("a", False, "resumes", "resumes", "safe", "right", 1.0),
        Row("b", True, "resets", "resumes", "safe", "MISS", 1),
    ]
    assert summary(rows) == "1 right, 0 abstained, 1 MISS, 0 FALSE ALARM, 0 WRONG"


def test_record_keeps_the_last_truth_and_sets_chance_apart(tmp_path):
    record = Record(tmp_path)
    item = Experiment("x", Side("a"), Side("b"))
    record.add(item, truth.Truth("resumes"), with_memory=True)
    record.add(item, truth.Truth("resets"), with_memory=False)
    assert [case["truth"]["outcome"] for case in record.cases()] == ["resets"]
    assert "memory" not in record.cases()[0]
    record.add(item, truth.Truth("hangs"), with_memory=False)
    assert record.cases() == []
    assert record.has("x")


def test_further_runs_are_counted_and_the_worst_is_the_truth(tmp_path):
    record = Record(tmp_path)
    item = Experiment("x", Side("a"), Side("b"))
    assert record.runs("x") == 0
    record.add(item, truth.Truth("hangs"), with_memory=True)
    assert record.count(item, truth.Truth("hangs")) == {"hangs": 2}
    assert record.count(item, truth.Truth("resets", triple_fault=True)) == {"hangs": 2, "resets": 1}
    assert record.runs("x") == 3
    assert record.cases()[0]["truth"]["triple_fault"]
    assert record.cases()[0]["memory"] == "memory/x.elf"
    assert record.count(item, truth.Truth("survives"))["survives"] == 1
    assert [case["truth"]["outcome"] for case in record.everything()] == ["resets"]
    record.add(item, truth.Truth("resumes"), with_memory=True)
    assert record.runs("x") == 1


def test_packed_cases_unpack_to_what_they_were(tmp_path):
    work = tmp_path / "work"
    for name in ("images/i.bin", "kernels/r.vmlinux", "kernels/e.vmlinux"):
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_bytes(bytes(3 << 20) + os.urandom(100) + bytes(2 << 20))
    (work / "kernels/r.bzImage").write_bytes(b"boot")
    case = {"name": "x", "image": "images/i.bin", "resumer": "kernels/r.vmlinux", "resumee": "kernels/e.vmlinux"}
    target = tmp_path / "packed"
    pack([case], work, target)
    written = json.loads((target / "cases.json").read_text())["cases"][0]
    assert written["image"] == "images/i.bin.xz"
    assert (target / "kernels/r.bzImage").read_bytes() == b"boot"
    plain = unpack(target / written["image"], tmp_path / "again")
    assert plain.read_bytes() == (work / "images/i.bin").read_bytes()
    assert plain.stat().st_blocks * 512 < 2 << 20


def test_kernels_are_found_packed_too(tmp_path):
    (tmp_path / "k").mkdir()
    plain = tmp_path / "x"
    plain.write_bytes(b"elf")
    compress(plain, tmp_path / "k" / "a.vmlinux.xz")
    kernels = Kernels((tmp_path / "none", tmp_path / "k"), tmp_path / "cache")
    assert kernels.vmlinux("a").read_bytes() == b"elf"
    assert not kernels.has("a")
    with pytest.raises(LabError, match=r"no a\.bzImage"):
        kernels.boot_file("a")
    (tmp_path / "k" / "b.bzImage").write_bytes(b"boot")
    assert kernels.vmlinux("b").read_bytes() == b"boot"


def test_retry_gives_up_and_says_why():
    calls: list[int] = []

    def action():
        calls.append(1)
        raise LabError(f"try {len(calls)}")

    with pytest.raises(LabError, match="try 1 / try 2 / try 3"):
        retry(action, "x")


def test_what_fails_each_time_is_not_run_again():
    calls: list[int] = []

    def action():
        calls.append(1)
        raise ImpossibleError("no memory")

    with pytest.raises(ImpossibleError):
        retry(action, "x")
    assert calls == [1]


def test_the_substate_test_is_found_in_a_listing():
    listing = (
        "ffffffff81312241:\t40 f6 c5 0f          \ttest   $0xf,%bpl\n"
        "ffffffff81312245:\t0f 84 12 4c ef ff    \tje     ffffffff81206e5d <x>\n"
    )
    assert cst.branch_after_test(listing) == (0xFFFFFFFF81312245, 6)
    short = listing.replace("0f 84 12 4c ef ff", "74 5a            ")
    assert cst.branch_after_test(short) == (0xFFFFFFFF81312245, 2)
    with pytest.raises(LabError):
        cst.branch_after_test(listing.replace("$0xf", "$0x7"))


def test_the_ssdt_names_every_cpu():
    text = cst.source("mwait", 4)
    assert all(f"\\_SB.CPUS.C00{cpu}" in text for cpu in range(4))
    assert "SystemIO" in cst.source("port", 1)


def test_a_corpus_can_be_made_of_a_clean_clone(tmp_path, capsys):
    assert main(["--work", str(tmp_path / "none"), "pack", "--corpus", str(tmp_path / "c")]) == 0
    assert "cases of fixtures/" in capsys.readouterr().out
    found = sorted(path.parent.name for path in tmp_path.glob("c/*/case.json"))
    assert {"fatal", "latent", "safe"} <= set(found)
    case = json.loads((tmp_path / "c/fatal/case.json").read_text())
    for name in (case["image"], case["resumer"], case["resumee"]):
        with lzma.open(tmp_path / "c/fatal" / name) as file:
            assert len(file.read(16)) == 16
    assert case["kernels"]["resumer"]["name"] == "small-hlt"
    assert "6.1.192" in case["kernels"]["resumer"]["banner"]


def test_committed_cases_are_whole(fixtures_dir: Path):
    cases = json.loads((fixtures_dir / "cases.json").read_text())["cases"]
    assert {case["truth"]["outcome"] for case in cases} >= {"resumes", "resets"}
    for case in cases:
        for key in ("image", "resumer", "resumee", "memory"):
            if key in case:
                with lzma.open(fixtures_dir / case[key]) as file:
                    assert isinstance(file, io.BufferedIOBase)
                    assert len(file.read(4096)) == 4096


def test_a_corpus_case_says_all_about_itself(tmp_path):
    work = tmp_path / "work"
    for name in ("images/i.bin", "kernels/small.vmlinux", "kernels/debian-1.vmlinux"):
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_bytes(bytes(100) + b"Linux version 6.1.0-lab (a@b) #1\n" + name.encode())
    case = {"image": "images/i.bin", "resumer": "kernels/small.vmlinux", "resumee": "kernels/debian-1.vmlinux"}
    kept, left = corpus([{"name": "x", **case, "memory": "m"}, {"name": "y", **case}], work, tmp_path / "c")
    assert (kept, left) == (["x", "y"], [])
    described = json.loads((tmp_path / "c/x/case.json").read_text())
    assert described["kernels"]["resumee"]["banner"] == "Linux version 6.1.0-lab (a@b) #1"
    assert described["resumer"] == "resumer.vmlinux.xz"
    assert "resumee" not in described
    assert "memory" not in described
    assert (tmp_path / "c/x/image.bin.xz").samefile(tmp_path / "c/y/image.bin.xz")
    assert "GPL-2.0-only" in described["licences"]["image"]
    assert "GPL-2.0" in (tmp_path / "c/NOTICE").read_text()


LOOP = bytes.fromhex("0fae38 0faef0 0f01c8 0f01c9 ebf2")  # clflush; mfence; monitor; mwait


@pytest.mark.parametrize(
    ("registers", "code", "state"),
    [
        ({"rip": "0xfff0", "halted": True}, b"", "wait-for-sipi"),
        ({"rip": "0xffffffff81000000", "halted": True}, LOOP, "hlt"),
        ({"rip": "0xffffffff81000000", "halted": False}, LOOP, "mwait"),
        ({"rip": "0x1000", "halted": False}, bytes.fromhex("f390 ebfc"), "pause"),
        ({"rip": "0x1000", "halted": False}, bytes.fromhex("ebfe"), "active"),
        ({"rip": "0x1000", "halted": False}, b"", "active"),
    ],
)
def test_the_state_of_a_cpu_by_its_registers_and_the_loop_that_it_is_in(registers, code, state):
    assert truth.state_of(registers, code) == state


class Answers:
    """A machine that answers from tables."""

    machine = machine.Machine(smp="4,sockets=1,cores=4,threads=1")

    def __init__(self, rows, code):
        self.rows, self.codes = rows, code

    def registers(self):
        return self.rows

    def code(self, cpu, _registers):
        return self.codes[cpu]

    def shell(self, line):
        assert "online" in line
        return "0,2"


def test_cpus_at_rest_are_those_that_the_guest_has_offline():
    halted, spinning = {"rip": "0x5000", "halted": True}, {"rip": "0x5000", "halted": False}
    vm = Answers([spinning, halted, halted, spinning], {3: LOOP})
    assert guest.resting(vm, [3]) == [[1, "hlt", "resumer"], [3, "mwait", "resumee"]]
    vm.rows[1] = {"rip": "0xfff0", "halted": True}
    assert guest.resting(vm, [1]) == [[1, "wait-for-sipi"], [3, "mwait", "resumer"]]


CPUINFO = """processor\t: 0
model name\t: Intel
apicid\t\t: {0}
initial apicid\t: {0}

processor\t: 1
initial apicid\t: {1}
"""


class Monitor:
    """A monitor that knows one answer, and keeps what it was asked."""

    def __init__(self, answer):
        self.answer, self.asked = answer, []

    def human(self, line, cpu=0):
        self.asked.append((line, cpu))
        return self.answer


@pytest.fixture
def second(tmp_path):
    """A machine whose kernel runs on CPU 1, and calls it CPU 0."""
    two = machine.Machine(smp="2,sockets=1,cores=2,threads=1")
    vm = machine.Vm(two, None, None, "", tmp_path / "disk", tmp_path)
    vm.numbers, vm.monitor = (1, 0), Monitor(REGISTERS)
    return vm


def test_a_kernel_that_kexec_started_on_another_cpu_numbers_them_otherwise(second, monkeypatch):
    second.numbers = (0, 1)
    monkeypatch.setattr(machine.Vm, "shell", lambda *_: CPUINFO.format(1, 0))
    assert guest.numbered(second) == (1, 0)
    monkeypatch.setattr(machine.Vm, "shell", lambda *_: CPUINFO.format(0, 1))
    assert guest.numbered(second) == (0, 1)
    monkeypatch.setattr(machine.Vm, "shell", lambda *_: CPUINFO.format(1, 0).partition("\n\n")[0])
    with pytest.raises(LabError, match="APIC ids"):
        guest.numbered(second)


def test_all_that_is_said_of_cpus_has_the_guests_numbers(second):
    assert [row["halted"] for row in second.registers()] == [True, False]  # the machine's CPU 1 is the guest's CPU 0
    assert second.apic_id(0) == 1
    second.monitor.answer = "0x1000: 0xf3 0x90"
    second.code(1, {"rip": "0x1000"})
    assert second.monitor.asked[-1][1] == 0
    (second.directory / "log").write_text("CPU Reset (CPU 0)\nCPU Reset (CPU 7) is not a line of QEMU\n")
    assert truth.init_taken(second.log(), 1) == 0
    assert truth.init_taken(second.log(), 0) == len(second.log())


def test_an_image_of_a_kernel_that_kexec_started_is_another():
    one = Experiment("a", Side("small-current"), Side("small-hlt"))
    kexec = Experiment("a", Side("small-current", kexec_from="small-hlt"), Side("small-hlt"))
    second = Experiment("a", Side("small-current", kexec_from="small-hlt", kexec_cpu=1), Side("small-hlt"))
    assert len({one.image_key(), kexec.image_key(), second.image_key()}) == 3
    with pytest.raises(ImpossibleError, match="other numbers"):
        Lab(Path(), Kernels((), Path())).run(second)
