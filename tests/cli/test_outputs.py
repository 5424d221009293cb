"""No command writes to a device or an input, by whatever name: fourteen names, every command that writes."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import click
import pytest

from hibercheck.cli.group import root
from hibercheck.cli.run import run as run_command
from hibercheck.cli.values import OutputType
from tests.conftest import ROOT
from tests.fuzz.seeds import unpack
from tests.support import elf_writer, made_system
from tests.support.devices import block_node, close_descriptors, loop_device, names_of
from tests.support.image_writer import ImageWriter
from tests.support.unpacked import plain_path

FATAL = ("images/9c031ac5a1.bin.xz", "kernels/small-hlt.vmlinux.xz", "kernels/mid-current.vmlinux.xz")
COMMAND = [sys.executable, "-P", "-m", "hibercheck"]


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, kept):
    monkeypatch.setenv("XDG_CACHE_HOME", str(kept))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture(scope="module")
def kernels():
    return [str(unpack(name)) for name in FATAL[1:]]


@pytest.fixture(scope="module")
def backing(tmp_path_factory):
    """A disk with the image of a real session on it."""
    place = tmp_path_factory.mktemp("disk") / "disk.img"
    subprocess.run(["cp", "--sparse=always", unpack(FATAL[0]), place], check=True)
    return place


@pytest.fixture(scope="module")
def device(backing, tmp_path_factory):
    """The disk as a loop device, or where there may be none a node that leads nowhere."""
    with loop_device(backing) as made:
        yield made or block_node(tmp_path_factory.mktemp("node"))


SMALL = ROOT / "fixtures" / "kernels" / "small-current.bzImage"
RELEASE = "6.1.192-lab-small-current"


def make_system(root):
    """A system of files that runs a kernel and starts it by default."""
    made_system.kernel(root, SMALL, RELEASE)
    made_system.grub(root, [("entry", f"/boot/vmlinuz-{RELEASE}", "nokaslr resume=/dev/sda2", "")])
    made_system.running(root, SMALL, "nokaslr")
    made_system.write(root, "var/log/dmesg", "[    0.000000] Linux version\n")
    return root


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    return make_system(tmp_path_factory.mktemp("system"))


@pytest.fixture
def names(device, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = names_of(device, tmp_path / "names")
    yield made
    close_descriptors(made)


def writing(image, resumer, resumee, out, shard, system):
    """A command line of every command and option that writes, whose last word is where to."""
    handoff = [image, "--resumer", resumer, "--resumee", resumee, "--resumer-cmdline", "nokaslr nosmt"]
    check = ["check", *handoff, "--no-progress"][:-1]
    return {
        "check -o": [*check, "-o", out],
        "check --format": [*check, "--format", f"json={out}"],
        "check --write-baseline": [*check, "--write-baseline", out],
        "image -o": ["image", image, "-o", out],
        "export": ["export", image, out],
        "kernel -o": ["kernel", resumer, "--format", "json", "-o", out],
        "designs -o": ["designs", *handoff, "--design", "init", "-o", out],
        "matrix -o": ["matrix", resumer, resumee, "--jobs", "1", "-o", out],
        "matrix --format": ["matrix", resumer, resumee, "--jobs", "1", "--format", f"csv={out}"],
        "matrix --image": ["matrix", resumer, resumee, "--image", f"{resumee}={image}", "--jobs", "1", "-o", out],
        "matrix --write-baseline": ["matrix", resumer, resumee, "--jobs", "1", "--write-baseline", out],
        "diff --write-baseline": ["diff", resumer, resumee, "--write-baseline", out],
        "matrix merge": ["matrix", "merge", shard, "--format", "json", "-o", out],
        "diff -o": ["diff", resumer, resumee, "-o", out],
        "diff --format": ["diff", resumer, resumee, "--format", f"junit={out}"],
        "collect -o": ["collect", "--root", system, "-o", out],
        "collect --script": ["collect", "--script", "-o", out],
        "preflight -o": ["preflight", "--root", system, "-o", out],
    }


COMMANDS = tuple(writing("", "", "", "", "", ""))
READ_THE_IMAGE = [
    name for name in COMMANDS if name.startswith(("check", "image", "export", "designs", "matrix --image"))
]


@pytest.fixture(scope="module")
def shard(kernels, tmp_path_factory):
    place = tmp_path_factory.mktemp("shard") / "shard.json"
    assert run_command(["matrix", *kernels, "--jobs", "1", "--no-cache", "--format", "json", "-o", str(place)]) in {
        0,
        1,
    }
    return str(place)


def digest(path):
    """Of all bytes that are not zero, and where they are: most of a disk is a hole, which need not be read."""
    found, offset, step = hashlib.sha256(), 0, 1 << 20
    with Path(path).open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        while offset < size:
            try:
                offset = os.lseek(stream.fileno(), offset, os.SEEK_DATA) // step * step
            except OSError:  # only a hole is left
                break
            block = os.pread(stream.fileno(), step, offset)
            if block.strip(b"\0"):
                found.update(b"%d " % offset + block)
            offset += step
    return size, found.hexdigest()


def refused(ran, path):
    assert ran.status == 2, ran
    assert ran.out == ""
    assert ran.err.startswith(f"hibercheck: {path}: "), ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_devices_by_fourteen_names(hibercheck, backing, device, names, kernels, shard, system, command):
    assert len(names) >= 10  # not all of them where no device may be opened or made
    before = digest(backing)
    for kind, name in names.items():
        ran = hibercheck(*writing(str(device), *kernels, name, shard, str(system))[command])
        refused(ran, name)
        assert "is a block device" in ran.err, kind
    assert digest(backing) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_is_written(hibercheck, backing, device, kernels, shard, system, command, tmp_path):
    """What the refusals are worth: with a file in the device's place, each of them works, on the device."""
    image = str(device) if os.access(device, os.R_OK) and stat.S_ISBLK(device.stat().st_mode) else str(backing)
    ran = hibercheck(*writing(image, *kernels, str(tmp_path / "out"), shard, str(system))[command])
    assert ran.status in {0, 1}, ran.err
    assert [one.name for one in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out").stat().st_size


@pytest.mark.parametrize("command", READ_THE_IMAGE)
def test_the_file_behind_the_device(hibercheck, backing, device, kernels, shard, system, command, tmp_path):
    if not str(device).startswith("/dev/loop"):
        pytest.skip("no loop devices may be made here")
    os.link(backing, tmp_path / "hard")
    (tmp_path / "soft").symlink_to(backing)
    before = backing.stat()
    for name in (str(backing), str(tmp_path / "hard"), str(tmp_path / "soft")):
        refused(ran := hibercheck(*writing(str(device), *kernels, name, shard, str(system))[command]), name)
        assert f"is the input {device} by another name and would be overwritten; give another output" in ran.err
    after = backing.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("command", READ_THE_IMAGE)
def test_the_device_over_the_file(hibercheck, backing, device, kernels, shard, system, command):
    refused(hibercheck(*writing(str(backing), *kernels, str(device), shard, str(system))[command]), str(device))


@pytest.mark.parametrize(
    "arguments",
    [["rules"], ["explain", "HC101"], ["schema"], ["completion", "bash"], ["--help"], ["--version"], ["collect"],
     ["collect", "--script"], ["check"]],
)  # fmt: skip
def test_standard_output_is_no_device(backing, device, arguments):
    if not str(device).startswith("/dev/loop"):
        pytest.skip("no loop devices may be made here")
    before = digest(backing)
    with device.open("r+b") as stream:
        ran = subprocess.run([*COMMAND, *arguments], stdout=stream, stderr=subprocess.PIPE, text=True, check=False)
    assert ran.returncode == 2
    assert (
        ran.stderr
        == "hibercheck: standard output is a block device and is not written to; redirect it to a file or a pipe\n"
    )
    with device.open("r+b") as stream:
        ran = subprocess.run([*COMMAND, "nonsense"], stdout=subprocess.PIPE, stderr=stream, check=False)
    assert (ran.returncode, ran.stdout) == (2, b"")
    os.sync()  # what was written to the device is in the file then
    assert digest(backing) == before


def test_standard_output_is_no_other_device_either():
    with Path("/dev/zero").open("r+b") as stream:
        ran = subprocess.run([*COMMAND, "rules"], stdout=stream, stderr=subprocess.PIPE, text=True, check=False)
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert "is a character device" in ran.stderr


@pytest.fixture
def vmlinux(tmp_path):
    place = tmp_path / "tree" / "vmlinux"
    place.parent.mkdir()
    place.write_bytes(elf_writer.write_kernel(elf_writer.SYMBOLS))
    return place


@pytest.fixture
def inputs(tmp_path, kernels):
    """Text inputs of every kind beside two kernels in a directory."""
    directory = tmp_path / "kernels"
    directory.mkdir()
    for number, name in enumerate(("small-hlt", "small-current")):
        shutil.copy(plain_path(f"kernels/{name}.vmlinux.xz"), directory / f"vmlinux-{number}")
    (tmp_path / "list").write_text("".join(f"{one}\n" for one in sorted(directory.iterdir())))
    (tmp_path / "baseline.json").write_text('{"hibercheck_baseline": 1, "findings": []}')
    (tmp_path / "suppressions.toml").write_text("")
    (tmp_path / "c.toml").write_text("")
    (tmp_path / "System.map").write_text("ffffffff81000000 T _text\n")
    return tmp_path


IMAGE_AND_KERNELS = ("IMAGE", "--resumer", "RESUMER", "--resumee", "RESUMEE", "--resumer-cmdline", "nokaslr nosmt")


@pytest.mark.parametrize(
    ("arguments", "victim"),
    [
        (("check", *IMAGE_AND_KERNELS, "--baseline", "baseline.json"), "baseline.json"),
        (("check", *IMAGE_AND_KERNELS, "--suppressions", "suppressions.toml"), "suppressions.toml"),
        (("check", *IMAGE_AND_KERNELS, "--config", "c.toml"), "c.toml"),
        (("rules", "--config=c.toml"), None),
        (("kernel", "tree"), "tree/vmlinux"),
        (("kernel", "tree/vmlinux", "--symbols", "System.map"), "System.map"),
        (("matrix", "@list", "--jobs", "1"), "list"),
        (("matrix", "@list", "--jobs", "1"), "kernels/vmlinux-1"),
        (("matrix", "@list", "--jobs", "2"), "kernels/vmlinux-1"),
        (("matrix", "kernels", "--jobs", "1"), "kernels/vmlinux-0"),
        (("matrix", "kernels", "--jobs", "2"), "kernels/vmlinux-0"),
        (("matrix", "merge", "SHARD"), "SHARD"),
        (("diff", "kernels/vmlinux-0", "kernels/vmlinux-1", "--against", "kernels/vmlinux-0"), "kernels/vmlinux-1"),
        (("designs", *IMAGE_AND_KERNELS, "--config", "c.toml"), "c.toml"),
    ],
)  # fmt: skip
def test_inputs_that_are_not_on_the_command_line_as_such(
    hibercheck, inputs, vmlinux, backing, kernels, shard, arguments, victim
):
    given = {"IMAGE": str(backing), "RESUMER": kernels[0], "RESUMEE": kernels[1]}
    if "SHARD" in arguments:
        shutil.copy(shard, inputs / "SHARD")
    arguments = [given.get(one, one) for one in arguments]
    if victim is None:
        assert hibercheck(*arguments).status == 0
        return
    os.link(inputs / victim, inputs / "other")
    before = {one: digest(inputs / one) for one in (victim, "other")}
    for name in (victim, "other"):
        ran = hibercheck(*arguments, "-o", name)
        refused(ran, name)
        assert "input" in ran.err
        assert "would be overwritten" in ran.err
    assert {one: digest(inputs / one) for one in before} == before
    assert not list(inputs.glob(".*"))


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_kernels_out_of_the_cache_are_inputs_too(hibercheck, inputs, jobs):
    """They are not opened then: what they hold is known."""
    for _ in range(2):
        assert hibercheck("matrix", "kernels", "--jobs", jobs).status in {0, 1}
    refused(hibercheck("matrix", "kernels", "--jobs", jobs, "-o", "kernels/vmlinux-0"), "kernels/vmlinux-0")


def test_every_command_that_writes_is_tried():
    """A new command, or a new option that names an output, is entered in `writing` or this fails."""
    context = click.Context(root)
    found = {"export"}
    for name in root.list_commands(context):
        for parameter in root.get_command(context, name).params:
            place = isinstance(parameter.type, OutputType) or parameter.name in {"output", "write_baseline"}
            found |= {f"{name} {parameter.opts[0]}"} if place else set()
    assert found <= set(COMMANDS)


def printing(image, resumer, resumee, shard, system):
    """A command line of every command, and the status that it ends with, of whose text nobody reads anything."""
    handoff = [image, "--resumer", resumer, "--resumee", resumee, "--resumer-cmdline", "nokaslr nosmt"]
    return {
        "check": (["check", *handoff, "--spurious-mwait", "-v"], 1),
        "check --format json": (["check", *handoff, "--spurious-mwait", "--format", "json"], 1),
        "image": (["image", image, "--verify"], 0),
        "kernel": (["kernel", resumer], 0),
        "designs": (["designs", *handoff, "--design", "init"], 0),
        "matrix": (["matrix", resumer, resumee, "--jobs", "1", "--scenario", "nosmt", "--spurious-mwait"], 1),
        "matrix --format json": (["matrix", resumer, resumee, "--jobs", "1", "--format", "json"], 0),
        "matrix merge": (["matrix", "merge", shard], 0),
        "diff": (["diff", resumee, resumer, "--spurious-mwait"], 1),
        "preflight": (["preflight", "--root", system], 0),
        "collect": (["collect", "--root", system], 0),
        "log": (["log", f"{system}/var/log/dmesg"], 0),
        "explain": (["explain", "HC202"], 0),
        "rules": (["rules"], 0),
        "rules --format json": (["rules", "--format", "json"], 0),
        "cache": (["cache"], 0),
        "schema": (["schema"], 0),
        "completion": (["completion", "zsh"], 0),
        "check --help": (["check", "--help"], 0),
        "check --help-all": (["check", "--help-all"], 0),
        "check --show-config": (["check", "--show-config"], 0),
        "--help": (["--help"], 0),
        "--version": (["--version"], 0),
        "version of a group": (["-V", "check"], 0),
    }


PRINTING = tuple(printing("", "", "", "", ""))


@pytest.mark.parametrize("command", PRINTING)
def test_a_reader_that_has_left_does_not_change_the_status(backing, kernels, shard, system, command):
    words, status = printing(str(backing), *kernels, shard, str(system))[command]
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as gone:  # noqa: PTH123 - a descriptor
        ran = subprocess.run([*COMMAND, *words], stdout=gone, stderr=subprocess.PIPE, timeout=120, check=False)
    assert (ran.returncode, b"write" in ran.stderr, b"pipe" in ran.stderr) == (status, False, False), ran


def test_every_command_that_prints_is_tried():
    assert set(root.list_commands(click.Context(root))) - {"export"} <= {name.split()[0] for name in PRINTING}


@pytest.mark.parametrize(
    ("command", "victim"),
    [
        *(
            ("preflight", one)
            for one in ("boot/grub/grub.cfg", f"boot/vmlinuz-{RELEASE}", "proc/swaps", "proc/version")
        ),
        *(("check", one) for one in ("boot/grub/grub.cfg", f"boot/vmlinuz-{RELEASE}")),
        *(
            ("collect", one)
            for one in ("proc/version", "proc/cmdline", "var/log/dmesg", "sys/devices/system/cpu/present")
        ),
    ],
)
def test_a_system_that_is_read_is_not_written_to(hibercheck, backing, tmp_path, command, victim):
    """The boot menu was written over by a report of it."""
    system = make_system(tmp_path / "system")
    os.link(system / victim, system / "other")
    before = digest(system / victim)
    for name in (str(system / victim), str(system / "other")):
        words = [command, *([str(backing), "--quiet"] if command == "check" else []), "--root", str(system), "-o", name]
        refused(hibercheck(*words), name)
    assert digest(system / victim) == before


def test_a_release_is_the_file_that_it_was_found_in(hibercheck, vmlinux, tmp_path, monkeypatch):
    monkeypatch.setattr("hibercheck.kernel.kernel.locate", lambda _name: vmlinux)
    refused(ran := hibercheck("kernel", "6.1.0-made", "-o", "tree/vmlinux"), "tree/vmlinux")
    assert f"is the input {vmlinux} by another name" in ran.err


def test_standard_output_that_is_an_input(vmlinux):
    """As ``>> FILE`` makes it; the shell has opened it, and nothing may be appended."""
    before = digest(vmlinux)
    with vmlinux.open("ab") as stream:
        command = [*COMMAND, "kernel", str(vmlinux)]
        ran = subprocess.run(command, stdout=stream, stderr=subprocess.PIPE, text=True, check=False)
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert "standard output: is the input" in ran.stderr
    assert digest(vmlinux) == before


def test_a_matrix_is_written_in_parts(hibercheck, inputs, monkeypatch):
    """Joined, a thousand kernels as CSV took half a gigabyte."""
    from hibercheck.files.places import FileOutput  # noqa: PLC0415

    seen = []
    write = FileOutput.write
    monkeypatch.setattr(FileOutput, "write", lambda self, parts: write(self, (seen.append(p) or p for p in parts)))
    assert hibercheck("matrix", "kernels", "--jobs", "1", "--format", "csv=out.csv").status in {0, 1}
    assert len(seen) == 5
    assert (inputs / "out.csv").read_text() == "".join(seen)


def test_two_formats_in_one_place(backing, kernels):
    handoff = (backing, "--resumer", kernels[0], "--resumee", kernels[1])
    for two in (("text=/dev/stdout", "json"), ("json=a", "sarif=./a"), ("json=a", "sarif=a")):
        command = [*COMMAND, *handoff, *(word for one in two for word in ("--format", one))]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)
        assert "same output" in ran.stderr or "two outputs" in ran.stderr


def test_a_symbolic_link_to_a_made_image(hibercheck, tmp_path):
    image = ImageWriter(frames={5: None}).write(tmp_path / "image.bin")
    (tmp_path / "link").symlink_to(image)
    refused(hibercheck("export", "link", "image.bin"), "image.bin")
    assert hibercheck("export", "link", "core").status == 0
