"""Carry sessions out: ask `preflight` inside and outside, hibernate, start each entry, look at what becomes of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.lab.debian.build import MIB, PARTITIONS, ROOT, UUIDS, run
from tests.lab.debian.provision import PASSPHRASE, ask, machine_of, releases, wait_end
from tests.lab.debian.sessions import Session
from tests.lab.errors import LabError
from tests.lab.machine import PATIENCE, Vm
from tests.lab.sitting import commit

RECORD = ROOT / "tests/lab/records/debian/preflight.jsonl"
GRUB_ENVIRONMENT = b"# GRUB Environment Block\n"
BACK = "LAB came back"
KEPT = "/srv/lab"
"""Where on its disk a system keeps what was said in it."""
PLACES = {"grub": "/boot/vmlinuz-{release}", "sdboot": "{release}.conf"}
MACHINE = ("--cpus", "2", "--threads", "2", "--vendor", "intel", "--mwait", "--memory", "768M")


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk at a moment, with the firmware's variables of then."""

    disk: Path
    variables: Path | None

    def copy(self, place: Path, name: str) -> Disk:
        """Return an overlay, and a copy of the variables."""
        overlay = place / f"{name}.qcow2"
        overlay.unlink(missing_ok=True)
        form = "qcow2" if self.disk.suffix == ".qcow2" else "raw"
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", self.disk, "-F", form, overlay)
        if self.variables is None:
            return Disk(overlay, None)
        own = place / f"{name}.vars"
        shutil.copy(self.variables, own)
        return Disk(overlay, own)

    def drop(self) -> None:
        """Remove its files."""
        self.disk.unlink(missing_ok=True)
        if self.variables is not None:
            self.variables.unlink(missing_ok=True)


def carry_out(place: Path, session: Session, record: Path = RECORD, only: tuple[str, ...] = ()) -> None:
    """Carry a session out, and write a line for each entry that was started; those that are recorded are left out."""
    done = {one["name"] for one in recorded(record)}
    names = {entry: f"{session.name}-{entry}" for entry in session.starts if not only or entry in only}
    wanted = [
        *names.values(),
        *([f"{session.name}-none"] if session.declines else []),
        *([f"{session.name}-one-argument"] if session.alone else []),
    ]
    if all(name in done for name in wanted):
        return
    tree = place / f"{session.kind}.tree"
    base = Disk(place / f"{session.kind}.raw", place / "sdboot.vars" if session.kind == "sdboot" else None)
    kept = place / f"{session.name}.json"
    if kept.exists():  # it hibernated, and some entries were not started yet
        found = json.loads(kept.read_text())
        asleep = Disk(place / f"{session.name}.qcow2", base.variables and place / f"{session.name}.vars")
    else:
        asleep = base.copy(place, session.name)
        found = hibernated(place, session, tree, asleep)
        found |= outside(place, session, tree, asleep)
        kept.write_text(json.dumps(found, indent=1))
    if session.declines:
        line = {"name": f"{session.name}-none", "session": session.name, "entry": "new"}
        line |= judged(session, tree, "new", found) | {"outcome": "no image", "kernel_says": [found["declined"]]}
        note(record, line)
    if session.unit and f"{session.name}-unit" not in done:
        line = {"name": f"{session.name}-unit", "session": session.name, "default": session.unit}
        note(record, line | {"stopped": found["unit"]["stopped"], "said": found["unit"]["said"][:4]})
    for entry, name in names.items():
        if name in done:
            continue
        copy = asleep.copy(place, "started")
        try:
            line = {"name": name, "session": session.name, "entry": entry} | judged(session, tree, entry, found)
            line |= started(place, session, tree, entry, copy, found["grubenv"])
        finally:
            copy.drop()
        note(record, line)
    if session.alone and f"{session.name}-one-argument" not in done:
        copy = asleep.copy(place, "started")
        try:
            note(record, alone(place, session, tree, copy, found["grubenv"]))
        finally:
            copy.drop()


def note(record: Path, line: dict[str, Any]) -> None:
    """Add a line to the record."""
    line |= {"date": datetime.now(UTC).date().isoformat(), "commit": commit()}
    with record.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps(line), flush=True)


def recorded(record: Path) -> list[dict[str, Any]]:
    """Return the lines of a record."""
    return [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []


# Which entry


def release_of(entry: str, tree: Path) -> str | None:
    """Return the release of an entry that the boot loader's own tools made."""
    return {"old": releases(tree)[0], "new": releases(tree)[-1]}.get(entry)


def choose(tree: Path, entry: str, disk: Path, at: int) -> None:
    """Have GRUB start an entry next: what grub-reboot does, from outside.

    Args:
        tree: The system's tree.
        entry: The entry.
        disk: The overlay.
        at: Where on the disk grubenv lies.
    """
    release = release_of(entry, tree)
    root = UUIDS["grub"][1]
    kept = f"gnulinux-advanced-{root}>gnulinux-{release}-advanced-{root}"
    value = entry if release is None else kept
    block = GRUB_ENVIRONMENT + f"saved_entry=0\nnext_entry={value}\n".encode()
    block += b"#" * (1024 - len(block))
    flat = disk.with_suffix(".env")
    flat.write_bytes(block)
    run("qemu-io", "-f", "qcow2", "-c", f"write -q -s {flat} {at} 1024", disk)
    flat.unlink()


def environment_at(raw: Path) -> int:
    """Return where on a disk grubenv lies for GRUB, which takes ext4 as it is, without its journal: as debugfs does.

    Raises:
        LabError: It is not there.
    """
    start = (1 + sum(size for _, size in PARTITIONS["grub"][:2])) * MIB
    listing = run("debugfs", "-R", "bmap /boot/grub/grubenv 0", f"{raw}?offset={start}")
    block = int(listing.split()[0])
    with raw.open("rb") as file:
        file.seek(start + block * 4096)
        if file.read(len(GRUB_ENVIRONMENT)) != GRUB_ENVIRONMENT:
            raise LabError("grubenv is not where ext4 says")
    return start + block * 4096


def press(vm: Vm, place: Path, tree: Path, entry: str) -> None:
    """Choose an entry of systemd-boot by its place in the menu, in which the first is the default.

    Raises:
        LabError: It is not in the menu.
    """
    release = release_of(entry, tree)
    wanted = f"a-{entry}.conf" if release is None else f"{release}.conf"
    menu = [line.strip() for line in (place / "sdboot.menu").read_text().splitlines() if line.strip().endswith(".conf")]
    number = next((index for index, line in enumerate(menu, 1) if line.endswith(wanted)), None)
    if number is None:
        raise LabError(f"{wanted} is not in the menu: {menu}")
    vm.wait_for(r"Boot in \d+ s", 120)
    for key in "j" * (number - 1) + "\r":  # down, and start it
        vm.serial.sendall(key.encode())
        vm.listen(1)


@contextmanager
def running(
    place: Path, session: Session, tree: Path, entry: str, disk: Disk, grubenv: int | None = None
) -> Iterator[Vm]:
    """Start an entry; `grubenv` is where that lies, by default as on the disk before the session."""
    if session.kind == "grub":
        choose(tree, entry, disk.disk, environment_at(place / "grub.raw") if grubenv is None else grubenv)
    with machine_of(session.kind, disk.disk, place / "run", disk.variables) as vm:
        if session.kind == "sdboot":
            press(vm, place, tree, entry)
        yield vm


# The session


def hibernated(place: Path, session: Session, tree: Path, disk: Disk) -> dict[str, Any]:
    """Start the session, ask preflight in it, and hibernate; what was said."""
    with running(place, session, tree, session.entry, disk) as vm:
        vm.wait_for(r"^LAB ready\n", 600)
        for line in session.prepare:
            ask(vm, line, 1800)
        start = time.monotonic()
        found: dict[str, Any] = {}
        preflight_inside(vm)
        found["seconds"] = round(time.monotonic() - start)
        found["release"] = ask(vm, "uname -r").split()[-1]
        if session.unit:
            found["unit"] = unit(vm, session.unit)
        ask(vm, "sync; cat /proc/swaps; cat /sys/power/resume /sys/power/resume_offset")
        if session.declines:
            found["declined"] = ask(vm, "systemctl hibernate 2>&1", 300, may_fail=True)
            ask(vm, "sync")
            vm.order("systemctl poweroff")
            wait_end(vm, 400)
            return found
        returned = "dmesg | grep -q 'hibernation: hibernation exit'"
        vm.order(f"systemctl hibernate; until {returned}; do sleep 1; done; echo {BACK}; uname -r")
        wait_end(vm, 900)
        if "Triple fault" in vm.log():
            raise LabError("it died instead of hibernating")
    return found


def preflight_inside(vm: Vm) -> None:
    """Run preflight in the guest; what it says stays on its disk: a busy machine's serial line swallows bytes."""
    ask(
        vm,
        f"mkdir -p {KEPT}; hibercheck preflight --format json > {KEPT}/inside.json 2> {KEPT}/inside.errors",
        900,
        may_fail=True,
    )


def unit(vm: Vm, worse: str) -> dict[str, Any]:
    """Hibernate with the unit of the manual where an entry that loses the session is the default; what came of it.

    Raises:
        LabError: The unit would not have stopped it.
    """
    place = "/etc/systemd/system"
    ask(vm, f"cp /srv/hibercheck-preflight.service {place}; mkdir -p {place}/hibercheck-preflight.service.d")
    # emulated, a preflight takes half a minute, which is the script's patience
    patience = r"[Service]\nTimeoutStartSec=900\nEnvironment=HIBERCHECK_PATIENCE=800\n"
    ask(vm, f"printf '{patience}' > {place}/hibercheck-preflight.service.d/patience.conf; systemctl daemon-reload")
    ask(vm, "systemctl enable -q hibercheck-preflight.service")
    ask(vm, f"cp /boot/grub/grubenv /srv/grubenv; grub-set-default {worse}; sync")
    log = "journalctl -u hibercheck-preflight -u systemd-hibernate -n 9 --no-pager -o cat"
    if ask(vm, "systemctl start hibercheck-preflight && echo it passed", 900, may_fail=True).endswith("it passed"):
        raise LabError(f"the unit does not stop it: {ask(vm, 'hibercheck preflight -q --fail-on fatal', 300)}")
    ask(vm, "systemctl hibernate")  # which returns at once
    busy = "systemctl show -p ActiveState --value hibercheck-preflight systemd-hibernate | grep -q activating"
    ask(vm, f"sleep 2; while {busy}; do sleep 1; done; sleep 3", 900)
    said = ask(vm, log)
    ask(vm, "cat /srv/grubenv > /boot/grub/grubenv; sync; systemctl reset-failed")
    return {"worse": worse, "stopped": "not hibernating" in said, "said": said.splitlines()[-6:]}


@contextmanager
def mounted(place: Path, session: Session, disk: Disk) -> Iterator[Path]:
    """Mount a system's root file system, read-only, with what its ESP has where it is mounted."""
    raw, point = place / "outside.raw", place / "outside"
    run("qemu-img", "convert", "-O", "raw", disk.disk, raw)
    point.mkdir(exist_ok=True)
    sizes = [size for _, size in PARTITIONS[session.kind]]
    offset = (1 + sum(sizes[:2])) * MIB
    options = "ro,noload" if session.kind == "grub" else "ro,rescue=nologreplay"
    run("mount", "-o", f"loop,{options},offset={offset},sizelimit={sizes[2] * MIB}", raw, point)
    esp = place / "esp"
    try:
        if session.kind == "sdboot":
            shutil.rmtree(esp, ignore_errors=True)
            esp.mkdir()
            run("mcopy", "-s", "-i", f"{raw}@@1M", "::*", esp)
            run("mount", "--bind", esp, point / "boot/efi")
        yield point
    finally:
        subprocess.run(["umount", "-R", point], check=False)
        raw.unlink()


def outside(place: Path, session: Session, tree: Path, disk: Disk) -> dict[str, Any]:
    """Ask preflight of the system as it lies on its disk; what it said there, and what was said inside."""
    more = [*MACHINE, *(["--la57"] if session.kind == "grub" else [])]
    if session.outside == ("OLD",):
        more += ["--resumee", releases(tree)[0]]
    with mounted(place, session, disk) as point:
        words = [
            "python",
            "-m",
            "hibercheck",
            "preflight",
            "--root",
            str(point),
            "--format",
            "json",
            "--no-cache",
            *more,
        ]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        inside = (point / KEPT[1:] / "inside.json").read_text()
        at = environment_at(place / "outside.raw") if session.kind == "grub" else None
    if not done.stdout:
        raise LabError(f"preflight --root: {done.stderr}")
    return {"inside": json.loads(inside), "outside": json.loads(done.stdout), "grubenv": at}


# The entries


def row_of(session: Session, tree: Path, entry: str, document: dict[str, Any]) -> dict[str, Any]:
    """Return what preflight says of an entry.

    Raises:
        LabError: It has no such entry.
    """
    release = release_of(entry, tree)
    for row in document["entries"]:
        if session.kind == "grub":
            plain = "recovery" not in row["title"] and row["title"].startswith("Debian")
            same = row["title"] == entry if release is None else plain and row["kernel"].endswith(release)
        else:
            same = row["name"] == f"a-{entry}.conf" if release is None else row["name"].endswith(f"{release}.conf")
        if same:
            return dict(row)
    raise LabError(f"preflight has no row for {entry}")


def judged(session: Session, tree: Path, entry: str, found: dict[str, Any]) -> dict[str, Any]:
    """Return the verdicts of both, with their reasons, as the record has them."""
    out = {}
    for where in ("inside", "outside"):
        row = row_of(session, tree, entry, found[where])
        reason = next(
            (
                row[step]["text"]
                for step in ("find", "load", "survive")
                if row[step]["answer"] in {"no", "unknown", "perhaps"}
            ),
            "",
        )
        out[where] = {
            "verdict": row["verdict"],
            "why": reason,
            "conditions": [one["id"] for one in row.get("conditions", [])],
        }
    return out


def started(place: Path, session: Session, tree: Path, entry: str, disk: Disk, grubenv: int | None) -> dict[str, Any]:
    """Start an entry on a disk with an image, and say what became of it.

    Raises:
        LabError: Another entry was started.
    """
    with running(place, session, tree, entry, disk, grubenv) as vm:
        outcome = ""
        deadline = time.monotonic() + 900 * PATIENCE
        unlocked = False
        while not outcome:
            alive = vm.listen(0.5)
            if not unlocked and "passphrase for disk" in vm.text:
                unlocked = True
                vm.order(PASSPHRASE)
            outcome = next((word for pattern, word in SIGNS if re.search(pattern, vm.text, re.MULTILINE)), "")
            if not outcome and not alive and vm.process.poll() is not None:
                outcome = "resets" if "Triple fault" in vm.log() else "ends"
            elif not outcome and time.monotonic() > deadline:
                outcome = "hangs"
        vm.listen(1)
    line = re.search(r"ommand line: (.*)\n", vm.text)
    if line is None or not is_meant(entry, tree, line[1], vm.text):
        raise LabError(f"{entry} was to be started, and was not: {line and line[1]}")
    said = re.findall(r"PM: .*|Lockdown: .*hibernation.*|.*no_5lvl.*", vm.text)
    errors = re.findall(r"(?:resume failed|Image not found) \((?:code )?(-\d+)\)", "\n".join(said))
    loading = any(re.search(r"Image signature found|Image mismatch|Loading", one) for one in said)
    if outcome == "fresh" and loading:
        outcome = "refused"
    return {
        "outcome": outcome,
        "errno": int(errors[-1]) if errors else None,
        "command_line": line[1] if line else "",
        "kernel_says": [one.strip()[-160:] for one in said][-6:],
    }


def is_meant(entry: str, tree: Path, line: str, text: str) -> bool:
    """Whether what was started is an entry: by its kernel's release and what its command line has of its own."""
    release = release_of(entry, tree)
    if release is not None:
        own = any(one in line for one in ("no5lvl", "noresume", "resume=", "nosmt", "systemd.swap", "rd.luks"))
        return f"Linux version {release} " in text and not own
    words = {"file": "resume_offset=", "file-wrong": "resume_offset=", "small-nosmt": "nosmt", "small": "resumewait"}
    words |= {
        "elsewhere": "resume=/dev/nvme0n1p1",
        "inspect": "systemd.swap=0",
        "luks": "rd.luks.name",
        "host": "initrd-host",
    }
    return words.get(entry, entry) in line


SIGNS = (
    (rf"^{BACK}$", "resumes"),
    (r"Welcome to (?!.*(?:[Ii]nitramfs|initrd|dracut))", "fresh"),
    (r"^LAB ready$", "fresh"),
    (r"Kernel panic - not syncing: VFS: Unable to mount root", "fresh"),
    (r"Kernel panic", "panics"),
)
"""What the console shows of each outcome; `fresh`: the system boots, and found no image or left it alone."""


# One argument


def alone(place: Path, session: Session, tree: Path, disk: Disk, grubenv: int | None) -> dict[str, Any]:
    """Read the image in its own machine, by one argument and by the full command; where they differ."""
    device = "/dev/nvme0n1p2"
    release, default = release_of(session.entry, tree), releases(tree)[-1]
    with running(place, session, tree, "inspect", disk, grubenv) as vm:
        vm.wait_for(r"^LAB ready\n", 900)
        line = ask(vm, "grep -m1 -o 'root=UUID=.*' /boot/grub/grub.cfg").splitlines()[-1]
        full = f"--resumee /boot/vmlinuz-{release} --resumer /boot/vmlinuz-{default} --resumer-cmdline '{line}'"
        for name, words in (("alone", ""), ("full", full)):
            into = f"{KEPT}/{name}"
            ask(vm, f"hibercheck {device} {words} --format json > {into}.json 2> {into}.errors", 1800, may_fail=True)
        ask(vm, f"hibercheck image {device} > {KEPT}/image.txt 2>&1", 900, may_fail=True)
        ask(vm, "sync")
        vm.order("systemctl poweroff")
        wait_end(vm, 400)
    with mounted(place, session, disk) as point:
        kept = point / KEPT[1:]
        said = {name: json.loads((kept / f"{name}.json").read_text()) for name in ("alone", "full")}
        shutil.copytree(kept, place / f"{session.name}-one-argument", dirs_exist_ok=True)
    told = {name: {key: one.get(key) for key in ("verdict", "outcome")} for name, one in said.items()}
    same = {key for key in said["full"] if said["full"][key] != said["alone"].get(key)}
    return {"name": f"{session.name}-one-argument", "session": session.name, **told, "differs": sorted(same)}
