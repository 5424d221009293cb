"""The kernel's messages: each is in a real kernel, and each line of a log is taken for what it is."""

from __future__ import annotations

import json
import re

import pytest

from hibercheck.host.log import MESSAGES, conclusion, read_log

LINES = {
    "found": "[    1.7] PM: Image signature found, resuming",
    "not-found": "[    1.7] PM: Image not found (code -22)",
    "mismatch": "[    1.9] PM: hibernation: Image mismatch: architecture specific data",
    "memory-map": "[    1.9] Hibernate inconsistent memory map detected!",
    "hardware-signature": "[ 1.9] PM: Suspend image hardware signature mismatch (deadbeef now 1); aborting resume.",
    "checksum": "Nov 28 10:00:00 tulip kernel: PM: Invalid image CRC32!",
    "decompression": "[    3.0] PM: LZO decompression failed",
    "read-error": "[    3.0] Read-error on swap-device (8:2:1234)",
    "loading": "[    2.0] PM: Loading and decompressing image data (11411 pages)...",
    "loaded": "[    5.0] PM: Image loading done",
    "device": "[    5.1] nvme 0000:01:00.0: PM: failed to quiesce async: error -5",
    "failed": "[    5.2] PM: hibernation: resume failed (-14)",
    "given-up": "[    5.2] PM: hibernation: Failed to load image, recovering.",
    "lockdown": "[   20.] Lockdown: systemd-sleep: hibernation is restricted; see man kernel_lockdown.7",
    "no-room": "[   30.] PM: Not enough free swap",
    "not-made": "[   30.] PM: hibernation: Error -12 creating image",
    "not-powered-down": "[   30.] PM: hibernation: Some devices failed to power down, aborting",
    "saved": "[   34.] PM: Image saving done",
    "no-device": "[   30.] PM: Cannot find swap device, try swapon -a",
}


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.name)
def test_each_line_is_taken_for_what_it_is(message):
    (found,) = read_log(f"noise\n{LINES[message.name]}\nmore noise\n")
    assert (found.message, found.line) == (message, 2)


@pytest.mark.parametrize("kernel", ["debian-6.1.176", "debian-6.12.94", "debian-7.3.4"])
def test_each_is_in_real_kernels(unpacked, kernel):
    data = unpacked(f"kernels/{kernel}.vmlinux.xz").read_bytes()
    missing = [message.name for message in MESSAGES if message.part.encode() not in data]
    assert missing == []


def test_errors_and_conclusions():
    found = read_log("\n".join(LINES[name] for name in ("found", "mismatch", "failed")))
    assert [one.errno for one in found] == [None, None, -14]
    assert "given up" in conclusion(found)
    assert "no line is about an image" in conclusion(read_log("hello\n" * 9))
    assert "reset in the handoff" in conclusion(read_log(LINES["found"] + "\n" + LINES["loaded"]))
    assert "reset in the handoff" in conclusion(read_log(LINES["loading"]))
    assert read_log("PM: hibernation: Loading image data pages (11411 pages)...")[0].message.name == "loading"
    assert "no image was written" in conclusion(read_log(LINES["no-room"]))
    assert "no image was written" in conclusion(read_log(LINES["not-made"]))
    assert read_log("x" * 9000 + LINES["failed"]) == ()


def test_the_command(hibercheck_log):
    ran = hibercheck_log("\n".join(LINES.values()))
    assert ran.status == 0
    assert "line 3: [    1.9] PM: hibernation: Image mismatch" in ran.out
    document = json.loads(hibercheck_log("\n".join(LINES.values()), "--format", "json").out)
    assert [row["message"] for row in document["lines"]] == list(LINES)
    assert re.search("No line is about an image", hibercheck_log("").out)


@pytest.fixture
def hibercheck_log(capsys, tmp_path):
    from types import SimpleNamespace  # noqa: PLC0415

    from hibercheck.cli.run import run  # noqa: PLC0415

    def call(text, *options):
        (tmp_path / "log").write_text(text)
        status = run(["log", str(tmp_path / "log"), "--width", "200", *options])
        return SimpleNamespace(status=status, out=capsys.readouterr().out)

    return call


@pytest.fixture
def journalctl(tmp_path, monkeypatch):
    """Return a function that puts a program in journalctl's place."""

    def put(body):
        program = tmp_path / "bin/journalctl"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")

    return put


def ran(capsys, *words):
    from hibercheck.cli.run import run  # noqa: PLC0415

    status = run(list(words))
    return status, *capsys.readouterr()


def test_the_log_of_a_boot_by_journalctl(journalctl, capsys):
    journalctl(f'case "$*" in *"-k --boot=-1 "*) echo "{LINES["mismatch"]}" ;; *) exit 1 ;; esac')
    status, out, _ = ran(capsys, "log", "--boot", "-1", "--width", "200")
    assert status == 0
    assert "Image mismatch: architecture specific data" in out


@pytest.mark.parametrize(
    ("boot", "body", "status", "why"),
    [
        ("-1", "echo 'No such boot ID in journal' >&2; exit 1", 3, "No such boot ID"),
        ("-1", "exit 0", 3, "has no kernel log"),
        ("x; reboot", "exit 0", 2, "--boot cannot be"),
        ("--all", "exit 0", 2, "--boot cannot be"),
    ],
)
def test_a_boot_that_there_is_not(journalctl, capsys, boot, body, status, why):
    journalctl(body)
    got, _, err = ran(capsys, "log", f"--boot={boot}")
    assert got == status
    assert why in err
    assert len(err.splitlines()) == 1


def test_a_log_or_a_boot(capsys):
    assert ran(capsys, "log")[0] == 2
    assert ran(capsys, "log", "file", "--boot", "0")[0] == 2


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.name)
def test_each_message_is_explained(capsys, message):
    status, out, _ = ran(capsys, "explain", LINES[message.name])
    assert status == 0
    assert message.code.split(",")[0] in " ".join(out.split())


def test_a_rule_a_message_and_neither(capsys):
    status, out, _ = ran(capsys, "explain", "hc101", "resume failed", LINES["failed"])
    assert (status, out) == (2, "")
    status, out, _ = ran(capsys, "explain", "hc101", LINES["failed"])
    assert status == 0
    assert "HC101" in out
    assert "-14: Bad address" in out
