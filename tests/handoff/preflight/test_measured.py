"""The measured cases as the machines that they were before they hibernated: preflight foretells what happened."""

from __future__ import annotations

import json
import signal

import pytest

from hibercheck.cli.run import run
from hibercheck.dump.dump import open_dump
from hibercheck.handoff.facts.kernels import open_resumee
from hibercheck.handoff.facts.resumee import read_resumee
from hibercheck.swsusp.image import open_image
from tests.support import made_system as made

KINDS = {1: "System RAM", 2: "Reserved", 3: "ACPI Tables", 4: "ACPI Non-volatile Storage"}
FORESEEN = {
    "resets": {"fatal", "risk"},
    "resumes": {"safe", "benign", "latent", "risk"},
    "refused": {"refused"},
}
"""What a preflight may say before there is an image; a place that is covered by chance is a risk either way."""
CERTAIN = {
    "la57-mismatch-small": "fatal",
    "nosmt-hlt-deb61": "fatal",
    "nosmt-mwait-deb61": "fatal",
    "nosmt-current-deb61": "safe",
    "nosmt-init-deb61": "safe",
    "nosmt-hlt-same-build": "benign",
    "stock61-refuses-612-image": "refused",
    "stock612-resumes-61-offline-nmi": "fatal",
}
"""Where what is certain of both kernels decides."""


def cases(shared):
    found = json.loads((shared / "cases.json").read_text())
    rows = found["cases"] if isinstance(found, dict) else found
    # CPUs that the resumer's initramfs takes offline are not known before it runs
    return [one for one in rows if "--resumer-offline" not in one["args"]]


def as_it_was(root, image, kernel):
    """Write the proc and sys of the machine that wrote an image, and return its command line."""
    with open_image(str(image)) as opened, open_resumee(str(kernel), None) as resumee:
        found = read_resumee(opened, resumee)
        pages = opened.info.num_physpages
    online = found.frozen | {min(found.present)}
    made.running(
        root,
        kernel,
        found.command_line,
        cpus=len(found.present),
        threads=1 << found.topology.smt_shift,
        offline=tuple(found.present - online),
        smt={"enabled": "on", "disabled": "off", "not supported": "notsupported"}[found.smt_control],
        flags=" ".join(sorted({{"mwait": "monitor"}.get(flag, flag) for flag in found.features.flags} | {"lm"})),
        pages=pages,
    )
    made.madt(root, tuple(found.topology.apic_ids[cpu] for cpu in sorted(found.topology.apic_ids)))
    for number, one in enumerate(found.e820):
        for name, value in (("start", hex(one.address)), ("end", hex(one.end - 1)), ("type", KINDS[one.kind])):
            made.write(root, f"sys/firmware/memmap/{number}/{name}", f"{value}\n")
    return found.command_line


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Where facts of kernels are kept for all of these tests."""
    return tmp_path_factory.mktemp("cache")


def test_it_foretells_what_happened(shared_cases, unpacked, kept, tmp_path, capsys):
    signal.alarm(900)
    said = {}
    for number, case in enumerate(cases(shared_cases)):
        root = tmp_path / f"{number}"
        image, resumer, resumee = (unpacked(case[name]) for name in ("image", "resumer", "resumee"))
        as_it_was(root, image, resumee)
        given = dict(zip(case["args"], case["args"][1:], strict=False))
        made.kernel(root, resumer, "resumer")
        made.grub(root, [("entry", "/boot/vmlinuz-resumer", f"{given['--resumer-cmdline']} resume=/dev/sda2", "")])
        more = ["--suppose", given["--suppose"]] if "--suppose" in given else []
        more += ["--spurious-mwait"] if "--spurious-mwait" in case["args"] else []
        words = [
            "preflight",
            "--root",
            str(root),
            "--resumee",
            str(resumee),
            "--cache-dir",
            str(kept),
            "--format",
            "json",
        ]
        run([*words, *more])
        row = json.loads(capsys.readouterr().out)["entries"][0]
        said[case["name"]] = (row["verdict"], case["truth"]["outcome"], row["survive"]["text"] or row["load"]["text"])
    signal.alarm(0)
    wrong = {name: one for name, one in said.items() if one[0] not in FORESEEN[one[1]]}
    assert wrong == {}
    assert {name: said[name][0] for name in CERTAIN} == CERTAIN


def test_a_kernel_whose_file_is_gone_is_read_out_of_its_memory(shared_cases, unpacked, kept, tmp_path, capsys):
    """An image is what /proc/kcore shows, less what is free: as a core it stands for the running kernel's memory."""
    case = {one["name"]: one for one in cases(shared_cases)}["nosmt-hlt-deb61"]
    image, resumer, resumee = (unpacked(case[name]) for name in ("image", "resumer", "resumee"))
    as_it_was(tmp_path, image, resumee)
    made.kernel(tmp_path, resumer, "resumer")
    made.grub(tmp_path, [("entry", "/boot/vmlinuz-resumer", "nokaslr nosmt resume=/dev/sda2", "")])
    words = ["preflight", "--root", str(tmp_path), "--cache-dir", str(kept), "--format", "json", "--spurious-mwait"]
    assert run(words) == 4
    assert "not installed any more" in capsys.readouterr().out
    assert run(["export", str(image), str(tmp_path / "proc/kcore"), "--no-progress"]) == 0
    with open_dump(str(tmp_path / "proc/kcore")) as core:
        assert core.vmcoreinfo
    with open_resumee(str(resumee), None) as kernel:
        names = ("restore_registers", "linux_banner", "_text")
        lines = [f"{kernel.require(name).address:016x} T {name}\n" for name in names]
    made.write(tmp_path, "proc/kallsyms", "".join(lines))
    capsys.readouterr()
    assert run(words) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["entries"][0]["verdict"] == "fatal"
    assert any("out of its own memory" in one for one in document["warnings"])
