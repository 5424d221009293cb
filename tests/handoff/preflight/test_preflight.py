"""Made systems, hostile ones included, and what a preflight says of each of their boot entries."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
from typing import NamedTuple

import pytest

from hibercheck.cli.run import run
from hibercheck.host.initramfs import MOST_OPENS, read_initramfs
from tests.support import made_system as made
from tests.support.effort import told

SAME, OTHER, NEW = "6.1.192-lab-small-current", "6.1.192-lab-small-hlt", "7.3.4-lab-v73-stock"
FILES = {SAME: "small-current", OTHER: "small-hlt", NEW: "v73-stock"}
LINE = "nokaslr"
HERE = "resume=/dev/sda2"


@pytest.fixture
def system(tmp_path, fixtures_dir):
    """Return a function that makes a system with entries (release, command line[, initramfs]); one runs."""

    def make(*entries, runs=SAME, line=LINE, **more):
        root = tmp_path / "root"
        kernels = fixtures_dir / "kernels"
        for release in {*(entry[0] for entry in entries), *([runs] if runs else ())}:
            made.kernel(root, kernels / f"{FILES[release]}.bzImage", release)
        rows = []
        for number, (release, command_line, *initramfs) in enumerate(entries):
            name = ""
            if initramfs:
                name = f"/boot/initrd.{number}"
                made.write(root, name[1:], initramfs[0])
            rows.append((f"entry {number}", f"/boot/vmlinuz-{release}", command_line, name))
        made.grub(root, rows)
        if runs:
            made.running(root, kernels / f"{FILES[runs]}.bzImage", line, **more)
        return root

    return make


class Ran(NamedTuple):
    """How a command line ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Where facts of kernels are kept for all of these tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def in_time():
    """End a test that hangs."""
    signal.alarm(100)
    yield
    signal.alarm(0)


@pytest.fixture
def asked(capsys, kept):
    """Return a function that runs the command."""

    def run_it(root, *arguments):
        status = run(["preflight", "--root", str(root), "--cache-dir", str(kept), *arguments])
        return Ran(status, *capsys.readouterr())

    return run_it


@pytest.fixture
def rows(asked):
    """Return a function that runs the command and gives status, document and entries."""

    def read(root, *arguments):
        ran = asked(root, "--format", "json", *arguments)
        assert told(ran.stderr) == ""
        document = json.loads(ran.stdout)
        return ran.returncode, document, document["entries"]

    return read


def verdicts(found):
    return [one["verdict"] for one in found]


def test_the_same_kernel_resumes_itself(system, rows):
    status, document, found = rows(system((SAME, f"{LINE} {HERE}")))
    assert (status, verdicts(found)) == (0, ["safe"])
    assert [found[0][step]["answer"] for step in ("find", "load", "survive")] == ["yes"] * 3
    assert document["resumee"]["release"] == SAME
    assert (document["running"], document["image"]["where"]) == (True, "/dev/sda2")


def test_a_system_without_boot_entries_cannot_be_read(asked, tmp_path):
    ran = asked(tmp_path)
    assert (ran.returncode, ran.stdout) == (3, "")
    assert "has no boot entries that are known" in ran.stderr
    assert ("--root DIR" if os.geteuid() == 0 else "run it as root") in ran.stderr


def test_each_entry_has_a_row_and_the_default_decides(system, rows, asked):
    root = system((OTHER, f"{LINE} {HERE} nohibernate"), (SAME, f"{LINE} {HERE}"), (SAME, LINE), (NEW, HERE), runs=NEW)
    status, _, found = rows(root)
    assert (status, verdicts(found)) == (1, ["refused", "refused", "not-found", "safe"])
    assert "nohibernate" in found[0]["load"]["text"]
    assert found[1]["load"]["errno"] == 14  # 6.1 does not know the zero-page flag
    assert "resume failed (-14)" in found[1]["load"]["log"][-1]
    assert [one["proved"] for one in found] == [True, True, True, False]
    made.grub(root, [("x", f"/boot/vmlinuz-{NEW}", HERE, "")])
    assert rows(root)[0] == 0
    assert asked(root, "--fail-on", "never").returncode == 0


# Would it find the image


@pytest.mark.parametrize(
    ("given", "verdict", "why"),
    [
        ("resume=/dev/sda2", "safe", "where the image will be"),
        ("resume=8:2", "safe", "where the image will be"),
        ("resume=PARTUUID=77-02", "safe", "where the image will be"),
        ("resume=/dev/sda3", "not-found", "it looks at /dev/sda3"),
        ("resume=/dev/sdz9", "not-found", "names no device"),
        ("resume=PARTUUID=99-02", "not-found", "names no device"),
        ("resume=/dev/sda2 resume_offset=4", "not-found", "page 4"),
        ("resume=UUID=22222222-bbbb", "not-found", "no initramfs"),
        ("resume=/dev/disk/by-uuid/22222222-bbbb", "not-found", "no initramfs"),
        ("", "not-found", "nothing tells the kernel where to look"),
        ("resume=/dev/sda2 noresume", "refused", "noresume"),
    ],
)
def test_without_an_initramfs_the_kernel_looks_by_itself(system, given, verdict, why, rows):
    root = system((SAME, f"{LINE} {given}"))
    made.link(root, "dev/disk/by-partuuid/77-02", "../../sda2")
    _, _, found = rows(root)
    assert verdicts(found) == [verdict]
    text = found[0]["find"]["text"] or found[0]["load"]["text"]
    assert why in text


TOOLS = {"scripts/local-premount/resume": b"", "conf/conf.d/zz-resume-auto": b"RESUME=UUID=22222222-bbbb\n"}
SYSTEMD = {"usr/lib/systemd/system-generators/systemd-hibernate-resume-generator": b""}
DRACUT = {"usr/lib/dracut/hooks/cmdline/10-parse-resume.sh": b""}


@pytest.mark.parametrize(
    ("files", "given", "efi", "verdict"),
    [
        (TOOLS, "", False, "safe"),
        (TOOLS, "resume=UUID=22222222-BBBB", False, "safe"),
        (TOOLS, "resume=UUID=33333333-cccc", False, "not-found"),
        ({**TOOLS, "conf/conf.d/zz-resume-auto": b"RESUME=UUID=33333333-cccc\n"}, "", False, "not-found"),
        ({**TOOLS, "conf/conf.d/zz-resume-auto": b"RESUME=none\n"}, "", False, "not-found"),
        (SYSTEMD, "", True, "safe"),
        (SYSTEMD, "", False, "not-found"),
        (SYSTEMD, "resume_offset=8", True, "not-found"),
        (SYSTEMD, "resume=UUID=22222222-bbbb", False, "safe"),
        (DRACUT, "", True, "not-found"),
        (DRACUT, "resume=LABEL=my\\x20swap", True, "not-found"),
        (DRACUT, 'resume="LABEL=my swap"', True, "safe"),
        ({"init": b""}, "resume=UUID=22222222-bbbb", False, "undetermined"),
        ({"init": b""}, "", False, "undetermined"),
    ],
)
def test_an_initramfs_looks_by_its_own_rules(system, files, given, efi, verdict, rows):
    root = system((SAME, f"{LINE} {given}", made.cpio(files)))
    made.link(root, "dev/disk/by-label/my\\x20swap", "../../sda2")
    made.write(root, "sys/firmware/acpi/x")
    if efi:
        (root / "sys/firmware/efi/efivars").mkdir(parents=True)
    status, _, found = rows(root)
    assert verdicts(found) == [verdict]
    assert status == {"safe": 0, "not-found": 1, "undetermined": 4}[verdict]


def test_no_more_is_kept_of_an_initramfs_than_a_bound(tmp_path):
    files = {f"etc/cmdline.d/{number}.conf": b"x" * 65536 for number in range(100)}
    path = made.write(tmp_path, "initrd", made.cpio(files))
    assert MOST_OPENS <= len(read_initramfs((path,), tmp_path).opens) < MOST_OPENS + 2 * 65536


def test_systemd_boot_is_started_by_uefi(system, rows):
    root = system((SAME, LINE, made.cpio(SYSTEMD)), runs=None)
    made.write(root, "etc/fstab", "/dev/sda2 none swap sw 0 0\n")
    assert rows(root)[2][0]["find"]["answer"] == "unknown"
    made.write(root, "boot/efi/EFI/systemd/systemd-bootx64.efi", b"MZ")
    made.write(root, "boot/efi/loader/entries/a.conf", f"linux /vmlinuz-{SAME}\noptions {LINE}\ninitrd /initrd.0\n")
    for name in (f"vmlinuz-{SAME}", "initrd.0"):
        shutil.copyfile(root / "boot" / name, root / "boot/efi" / name)
    (row,) = rows(root)[2]
    assert (row["name"], row["find"]["answer"], row["verdict"]) == ("a.conf", "yes", "safe")


OF_LINK = {"etc/os-release": b"initrd-release", "etc/initrd-release": b"../usr/lib/initrd-release"}


@pytest.mark.parametrize(("release", "given", "runs", "found", "why"), [
    (b"ID=dracut\n", "", SAME, "no", "it has dracut (os-release), and the system debian"),
    (b"ID=dracut\n", "", None, "no", "it has dracut (os-release), and the system debian"),
    (b"ID=dracut\n", "resume=/dev/sda2", SAME, "yes", ""), (b"NAME=x\nID='debian'\n", "", SAME, "yes", ""),
    (b"ID=debian\nIMAGE_ID=vm\n", "", SAME, "no", "of its own IMAGE_ID: it has vm (os-release), and the system none"),
    (b"NAME=x\n", "", SAME, "yes", ""),
])  # fmt: skip
def test_systemd_obeys_only_its_own_system(system, rows, release, given, runs, found, why):
    """Measured: what dracut 106 makes on Debian 13 says ID=dracut, and systemd let the image lie."""
    archive = made.cpio({**SYSTEMD, **OF_LINK, "usr/lib/initrd-release": release})
    root = system((SAME, f"{LINE} {given}", archive), runs=runs)
    made.write(root, "etc/os-release", 'PRETTY_NAME="x"\nID=debian\nVERSION_ID="13"\n')
    made.write(root, "etc/fstab", "/dev/sda2 none swap sw 0 0\n")
    if runs:
        (root / "sys/firmware/efi/efivars").mkdir(parents=True)
    _, _, (row,) = rows(root)
    assert row["find"]["answer"] == found, row["find"]["text"]
    assert why in row["find"]["text"]


@pytest.mark.parametrize("pack", [lambda data: data, gzip.compress])
def test_microcode_before_a_compressed_archive(system, pack, rows):
    early = made.cpio({"kernel/x86/microcode/GenuineIntel.bin": b"x" * 999})
    root = system((SAME, LINE, early + bytes(512) + pack(made.cpio(TOOLS))))
    assert verdicts(rows(root)[2]) == ["safe"]


def swap_file(root, kib=1 << 21):
    file = made.write(root, "swapfile", os.urandom(1 << 16))
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
    made.swaps(root, [("/swapfile", "file", kib, 0, -2)])
    made.write(root, "proc/self/mountinfo", "30 1 8:1 / / rw - ext4 /dev/sda1 rw\n")
    if shutil.which("filefrag") is None:
        pytest.skip("no filefrag here")
    ran = subprocess.run(["filefrag", "-v", file], capture_output=True, text=True, check=False)
    first = next((line.split() for line in ran.stdout.splitlines() if line.strip().startswith("0:")), None)
    if first is None or "unknown" in ran.stdout:
        pytest.skip("this file system does not tell where files are")
    return int(first[3].rstrip(".:"))


def test_a_swap_file_needs_its_offset_and_its_file_systems_device(system, rows):
    root = system((SAME, f"{LINE} resume=/dev/sda1"))
    page = swap_file(root)
    _, document, found = rows(root)
    assert verdicts(found) == ["not-found"]
    assert f"resume_offset={page}" in found[0]["find"]["advice"]
    assert document["image"]["where"] == f"/swapfile at page {page}"
    for line, verdict in (
        (f"resume=/dev/sda1 resume_offset={page}", "safe"),
        (f"resume=/dev/sda1 resume_offset={page + 1}", "not-found"),
        (f"resume=/dev/sda2 resume_offset={page}", "not-found"),
    ):
        made.grub(root, [("x", f"/boot/vmlinuz-{SAME}", f"{LINE} {line}", "")])
        assert verdicts(rows(root)[2]) == [verdict], line


def test_where_no_image_is_written(system, rows):
    root = system((SAME, f"{LINE} {HERE}"))
    for content, why in (
        ([], "no swap is active"),
        ([("/dev/zram0", "partition", 1 << 20, 0, 100)], "in memory (zram)"),
        ([("/dev/sda2", "partition", 8192, 0, -2)], "no image can be written"),
    ):
        made.swaps(root, content)
        status, _, found = rows(root)
        assert (status, verdicts(found)) == (1, ["not-found"])
        assert why in found[0]["find"]["text"]


def test_a_swap_with_a_new_key_at_each_boot(system, rows):
    root = system((SAME, f"{LINE} resume=/dev/mapper/swap", made.cpio(DRACUT)))
    made.disk(root, {"dm-0": "254:0"})
    made.link(root, "dev/mapper/swap", "../dm-0")
    made.swaps(root, [("/dev/dm-0", "partition", 1 << 21, 0, -2)])
    assert verdicts(rows(root)[2]) == ["safe"]
    made.write(root, "etc/crypttab", "# x\nswap /dev/sda2 /dev/urandom swap\n")
    _, _, found = rows(root)
    assert verdicts(found) == ["not-found"]
    assert "crypttab" in found[0]["find"]["text"]


def test_several_swaps(system, rows):
    root = system((SAME, f"{LINE} resume=/dev/sda3"))
    made.swaps(root, [("/dev/sda2", "partition", 1 << 21, 0, -2), ("/dev/sda3", "partition", 1 << 21, 0, 5)])
    _, document, found = rows(root)
    assert (verdicts(found), document["image"]["where"]) == (["safe"], "/dev/sda3")  # as systemd does it
    assert "/sys/power/state takes /dev/sda2" in document["warnings"][0]
    made.write(root, "sys/power/resume", "8:2\n")
    _, document, found = rows(root)
    assert (verdicts(found), document["image"]["where"]) == (["not-found"], "/dev/sda2")
    made.write(root, "sys/power/resume", "8:9\n")
    _, _, found = rows(root)
    assert "8:9, which is not an active swap" in found[0]["find"]["text"]


LUKS = "0a4d2f5e-6f0b-4f5c-9d1e-3a60c0de0005"
OPENS = ("", f"rd.luks.name={LUKS}=it", f"rd.luks.uuid=luks-{LUKS}", "cryptdevice=/dev/sda2:it", "rd.auto")
SCRIPT = "scripts/local-premount/resume"


@pytest.mark.parametrize("runs", [SAME, None])
@pytest.mark.parametrize(("opens", "files", "found"), [
    ("", {}, "unknown"), ("rd.luks.name=0000=other", {}, "unknown"), (OPENS[1], {}, "yes"), (OPENS[2], {}, "yes"),
    (OPENS[3], {}, "yes"), (OPENS[4], {}, "yes"), ("", {"cryptroot/crypttab": b"it UUID=x none luks\n"}, "yes"),
    ("", {"etc/crypttab": b"root UUID=x none luks\n"}, "unknown"),
    ("", {"etc/cmdline.d/90crypt.conf": f"rd.luks.uuid=luks-{LUKS}\n".encode()}, "yes"),
])  # fmt: skip
def test_an_encrypted_swap_is_opened_by_somebody(system, rows, runs, opens, files, found):
    archive = made.cpio({SCRIPT: b"", **files})
    root = system((SAME, f"{LINE} resume=/dev/mapper/it {opens}", archive), runs=runs)
    made.write(root, "etc/fstab", "/dev/mapper/it none swap sw 0 0\n")
    made.write(root, "etc/crypttab", f"it UUID={LUKS} none luks\n")
    if runs:
        made.disk(root, {"dm-0": "253:0"})
        made.write(root, "sys/class/block/dm-0/dm/name", "it\n")
        made.write(root, "sys/class/block/dm-0/dm/uuid", f"CRYPT-LUKS2-{LUKS.replace('-', '')}-it\n")
        made.link(root, "dev/mapper/it", "../dm-0")
        made.swaps(root, [("/dev/dm-0", "partition", 1 << 21, 0, -2)])
    _, _, (row,) = rows(root)
    assert row["find"]["answer"] == found, row["find"]["text"]
    if found == "unknown":
        assert (
            "it, which the image will be in, is encrypted, and nothing was found that opens it" in row["find"]["text"]
        )
        assert "rd.luks.name=" in row["find"]["advice"]


def test_where_systemd_itself_declines(system, rows):
    root = system((SAME, f"{LINE} {HERE}"), line=f"{LINE} noresume")
    made.write(root, "sys/power/resume_offset", "77\n")
    _, document, found = rows(root)
    assert verdicts(found) == ["safe"]
    assert ["noresume" in one or "resume_offset" in one for one in document["warnings"]][:2] == [True, True]


def test_an_image_that_was_not_resumed(system, rows):
    root = system((SAME, f"{LINE} {HERE}"))
    value = json.dumps({"uuid": "22222222-BBBB", "offset": "17", "kernelVersion": "6.1", "osReleaseId": "debian"})
    name = "sys/firmware/efi/efivars/HibernateLocation-8cf2644b-4b0b-428f-9387-6d876050dc67"
    made.write(root, name, b"\7\0\0\0" + f"{value}\0".encode("utf-16-le"))
    assert any("UUID=22222222-bbbb, page 17" in one for one in rows(root)[1]["warnings"])


# Would it load it


def test_the_running_kernel_does_not_hibernate(system, rows):
    root = system((SAME, f"{LINE} {HERE}"))
    made.write(root, "sys/power/disk", "[disabled]\n")
    made.write(root, "sys/kernel/security/lockdown", "none [integrity] confidentiality\n")
    _, _, found = rows(root)
    assert verdicts(found) == ["not-found"]
    assert "locked down (integrity)" in found[0]["find"]["text"]


def test_the_running_kernel_cannot_hibernate(system, rows):
    root = system((SAME, f"{LINE} {HERE}"))
    (root / "sys/power/disk").unlink()
    _, _, found = rows(root)
    assert verdicts(found) == ["not-found"]
    assert "built without hibernation" in found[0]["find"]["text"]


def test_less_memory_than_now(system, rows):
    root = system((SAME, f"{LINE} {HERE} mem=512M"))
    _, _, found = rows(root)
    assert verdicts(found) == ["undetermined"]  # without the firmware's map nobody can count
    ranges = (("0x0", "0x9fbff", "System RAM"), ("0x100000", "0x3fffffff", "System RAM"))
    for number, (start, end, kind) in enumerate(ranges):
        for name, value in (("start", start), ("end", end), ("type", kind)):
            made.write(root, f"sys/firmware/memmap/{number}/{name}", f"{value}\n")
    _, _, found = rows(root)
    assert verdicts(found) == ["refused"]
    assert "mem=512M" in found[0]["load"]["text"]
    assert "Image mismatch: memory size" in " ".join(found[0]["load"]["log"])


# Would it survive


def test_siblings_that_a_resumer_leaves_parked(system, rows):
    root = system((OTHER, f"{LINE} {HERE} nosmt"), (SAME, f"{LINE} {HERE} nosmt"), line=f"{LINE} nosmt", threads=2)
    # the loop lies where the resumee's own lies, and has the same bytes
    assert verdicts(rows(root)[2]) == ["benign", "safe"]
    status, _, found = rows(system((OTHER, f"{HERE} nosmt"), threads=2))
    assert (status, verdicts(found)) == (1, ["risk"])
    assert 0 < found[0]["share"] < 1
    assert found[0]["survive"]["answer"] == "perhaps"
    assert rows(system((OTHER, f"{HERE} nosmt"), threads=2), "--fail-on", "fatal")[0] == 0


def test_what_is_not_known_comes_before_what_is_chance(system, asked):
    root = system((OTHER, f"{HERE} nosmt", made.cpio({"init": b""})), threads=2)
    said = asked(root, "-q")
    assert said.returncode == 4
    assert said.stdout.startswith("undetermined: entry 0: its initramfs has nothing that is known to resume")


def test_siblings_that_are_offline_now(system, rows):
    root = system((OTHER, f"{LINE} {HERE} nosmt"), line=f"{LINE} nosmt", threads=2, smt="off", offline=(1, 3))
    assert verdicts(rows(root)[2]) == ["benign"]
    root = system((SAME, f"{LINE} {HERE}"), threads=2, offline=(3,))  # whose sibling it is nothing tells
    assert verdicts(rows(root)[2]) == ["undetermined"]
    made.madt(root, (0, 1, 2, 3))
    assert verdicts(rows(root)[2]) == ["latent"]  # it stays parked in the resumee's memory until it is brought online


@pytest.mark.parametrize("line", ["nr_cpus=1", "nosmp", "nolapic"])
def test_cpus_that_the_running_kernel_leaves_out_are_those_of_the_machine(system, rows, line):
    """A resumer that does not leave them out starts them, and parks them where the resumee does not look for them."""
    root = system((SAME, f"{LINE} {HERE}"), line=f"{LINE} {line}", cpus=1)
    assert verdicts(rows(root)[2]) == ["undetermined"]
    told = verdicts(rows(root, "--fact", "cpus=0")[2])
    assert told == ["undetermined" if line == "nolapic" else "safe"]  # a resumer that has a local APIC takes it away
    if line != "nolapic":
        made.madt(root, (0,))
        assert verdicts(rows(root)[2]) == ["safe"]
        made.madt(root, (0, 1))
        assert verdicts(rows(root)[2]) == ["undetermined"]


def test_a_system_that_does_not_run_starts_the_cpus_that_its_line_lets_it(system, rows):
    """The default entry is taken to hibernate; what another starts and parks stays where it is."""
    for line, then in ((LINE, "safe"), (f"{LINE} nr_cpus=1", "latent"), (f"{LINE} maxcpus=1", "latent")):
        root = system((SAME, f"{line} {HERE}"), (SAME, f"{LINE} {HERE}"), runs=None)
        made.write(root, "etc/fstab", "/dev/sda2 none swap sw 0 0\n")
        assert rows(root)[2][1]["verdict"] == then


def test_what_was_not_judged_for_want_of_time_is_told(system, rows):
    """As a check tells it: with so many CPUs two alternatives are judged, and here there are more."""
    line = f"{LINE} {HERE} nosmt mem_encrypt=on mds=full,nosmt"
    told = []
    for cpus in (4, 700):
        root = system((NEW, line), runs=NEW, line=LINE, cpus=cpus, threads=2, flags=f"{made.FLAGS} hypervisor")
        _, document, _ = rows(root, "--spurious-mwait")
        told.append([one for one in document["warnings"] if "not judged: there are too many CPUs" in one])
    assert told[0] == []
    assert [one.startswith("entry 0: ") for one in told[1]] == [True]


def test_another_number_of_levels(system, rows):
    line = f"{HERE} no5lvl"
    root = system((NEW, line), (NEW, HERE), runs=NEW, line="", flags=f"{made.FLAGS} la57")
    status, _, found = rows(root)
    assert (status, verdicts(found)[0]) == (1, "fatal")
    assert "levels" in found[0]["survive"]["text"]
    assert found[1]["verdict"] == "safe"


def test_a_build_that_took_the_running_ones_place(system, fixtures_dir, rows):
    root = system((SAME, f"{LINE} {HERE}"))
    made.running(root, fixtures_dir / "kernels/small-current.bzImage", LINE, banner="Linux version 6.1.192 #2")
    status, document, found = rows(root)
    assert (status, verdicts(found)) == (4, ["undetermined"])
    assert "not installed any more" in document["warnings"][-1]
    status, _, found = rows(root, "--resumee", str(fixtures_dir / "kernels/small-current.bzImage"))
    assert (status, verdicts(found)) == (0, ["safe"])


# A system that does not run


def test_a_mounted_system(system, rows):
    root = system((SAME, f"{LINE} resume=UUID=22222222-BBBB", made.cpio(DRACUT)), (SAME, LINE), runs=None)
    made.write(root, "etc/fstab", "UUID=11111111-aaaa / ext4 rw 0 1\nUUID=22222222-bbbb none swap sw 0 0\n")
    status, document, found = rows(root)
    assert (status, verdicts(found)) == (0, ["safe", "not-found"])
    assert not document["running"]
    assert "it is assumed that its default entry" in document["warnings"][0]
    made.write(root, "etc/fstab", "UUID=33333333-cccc none swap sw 0 0\n")
    assert verdicts(rows(root)[2])[0] == "not-found"
    made.write(root, "etc/fstab", "")
    assert verdicts(rows(root)[2])[0] == "undetermined"


def test_its_links_stay_inside(system, tmp_path, rows):
    root = system((SAME, f"{LINE} resume=/dev/sda2"), runs=None)
    made.write(root, "etc/fstab", "/dev/sda2 none swap sw 0 0\n")
    (root / "boot/grub/grub.cfg").rename(root / "boot/menu")
    (root / "boot/grub/grub.cfg").symlink_to("/boot/menu")
    (root / f"boot/vmlinuz-{SAME}").rename(root / "boot/old")
    (root / f"boot/vmlinuz-{SAME}").symlink_to("/boot/old")
    _, _, found = rows(root)
    assert (verdicts(found), found[0]["kernel"]) == (["safe"], str(root / "boot/old"))
    (root / "etc/fstab").unlink()
    outside = made.write(tmp_path, "outside", "/dev/sda2 none swap sw 0 0\n")
    (root / "etc/fstab").symlink_to(outside)
    assert verdicts(rows(root)[2]) == ["undetermined"]


# Hostile systems


def fifo(path):
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def loop(path):
    path.unlink(missing_ok=True)
    path.symlink_to(path.name)


def huge(path):
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        file.truncate(1 << 40)


def rubbish(path):
    path.write_bytes(b"\xff\xfe\x00\x1b[31m\n" * 99)


def directory(path):
    path.unlink(missing_ok=True)
    path.mkdir()


@pytest.mark.parametrize("spoil", [fifo, loop, huge, rubbish, directory])
@pytest.mark.parametrize(
    "names",
    [
        *([name] for name in ("boot/grub/grub.cfg", f"boot/vmlinuz-{SAME}", "boot/initrd.0", "proc/swaps")),
        ["proc/version", "proc/meminfo"],
        ["proc/sys/kernel/osrelease"],
        [
            *("boot/grub/grubenv", "etc/fstab", "proc/self/mountinfo", "sys/power/resume", "sys/power/image_size"),
            *("sys/class/block/sda2/dev", "etc/crypttab", "sys/kernel/boot_params/data"),
        ],
    ],
    ids=lambda names: names[0],
)
def test_no_file_of_a_system_hangs_or_kills_it(system, asked, spoil, names):
    root = system((SAME, f"{LINE} {HERE}", made.cpio(DRACUT)))
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
        spoil(root / name)
    ran = asked(root)
    assert ran.returncode in {0, 1, 2, 3, 4}
    assert "Traceback" not in ran.stderr
    assert "\x1b" not in ran.stdout + ran.stderr
    if ran.returncode in {2, 3}:
        assert len(ran.stderr.strip().splitlines()) == 1


def test_a_kernel_whose_place_is_taken_by_a_pipe_is_not_waited_for(system, asked):
    """Nobody names it, so nobody writes to it; of the one that runs and of one that could be started."""
    root = system((SAME, f"{LINE} {HERE}", made.cpio(DRACUT)))
    fifo(root / f"boot/vmlinuz-{SAME}")
    ran = asked(root)
    assert f"boot/vmlinuz-{SAME}: is a pipe" in ran.stdout + ran.stderr


def test_an_archive_that_never_ends(system, rows):
    bomb = gzip.compress(made.cpio({"conf/conf.d/x": bytes(1 << 20)})[:-200] * 9)
    for data in (
        bomb,
        b"070701" + b"f" * 200,
        b"070701" + b"0" * 104,
        made.cpio(DRACUT)[:-150],
        b"\x1f\x8b\x08" + bytes(99),
    ):
        root = system((SAME, f"{LINE} resume=UUID=22222222-bbbb", data))
        _, _, found = rows(root)
        assert verdicts(found)[0] in {"undetermined", "safe"}


def test_nothing_is_written(system, tmp_path):
    root = system((SAME, f"{LINE} {HERE}"))
    before = {path: path.lstat().st_mtime_ns for path in root.rglob("*")}
    home = tmp_path / "home"
    home.mkdir()
    words = [sys.executable, "-m", "hibercheck", "preflight", "--root", str(root), "--no-cache"]
    environment = {**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    subprocess.run(words, capture_output=True, check=True, env=environment)
    assert {path: path.lstat().st_mtime_ns for path in root.rglob("*")} == before
    assert list(home.iterdir()) == []
