"""Targets that are whole commands on damaged files: those whose inputs no other target has, and what they write."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from hibercheck.cli.collect import collect
from hibercheck.cli.run import run as run_command
from hibercheck.dump.dump import open_dump
from hibercheck.handoff.facts.resumer_facts import parse_facts
from hibercheck.kernel.code.facts import facts_of
from hibercheck.kernel.kernel import open_kernel
from hibercheck.swsusp.image import open_image
from tests.fuzz.draw import Draw
from tests.fuzz.mutate import Region, mutate_bytes, mutate_json, mutate_text, patch_fields
from tests.fuzz.poison import RAW
from tests.fuzz.seeds import Copy, cases, unpack
from tests.fuzz.soundness import Measured, damageable
from tests.fuzz.targets_text import CONFIGURATION, write
from tests.support.image_writer import ImageWriter

Target = Callable[[Draw], None]
PAGE = 4096
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def ended_well(words: Sequence[str], *, coloured: bool = False) -> tuple[int, str]:
    """Run a command in this process, see that it ends as commands end, and return its status and what it printed.

    Args:
        words: Its command line.
        coloured: Whether colours may be asked for.
    """
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = run_command(list(words))
    said = err.getvalue()
    assert status in {0, 1, 2, 3, 4}, (status, words, said)
    assert "internal error" not in said, (words, said)
    # of warnings there is a line each
    beside = ("hibercheck: gate:", "hibercheck: warning:")
    told = [line for line in said.strip().splitlines() if not line.startswith(beside)]
    assert len(told) <= 1, (words, said)
    assert said or status not in {2, 3}, (status, words)
    shown = _COLOURS.sub("", out.getvalue()) if coloured else out.getvalue()
    assert not RAW.search(shown + said), (words, RAW.search(shown + said))
    return status, out.getvalue()


def _kernel_facts() -> list[dict]:
    """Facts of the fixtures' kernels, without most of their memory: small enough to be changed a thousand times."""
    found = []
    for name in ("small-hlt", "mid-current"):
        with open_kernel(str(unpack(f"kernels/{name}.vmlinux.xz"))) as kernel:
            found.append(facts_of(kernel))
    return found


def matrices(directory: Path) -> Target:
    """A matrix of kernels known by facts, damaged; the cache it keeps; and the result, damaged and merged again."""
    facts = _kernel_facts()
    names = [*(str(directory / f"{number}.json") for number in range(2)), str(unpack("kernels/small-hlt.vmlinux.xz"))]
    result, cache = directory / "matrix.json", directory / "cache"
    options = ["--jobs", "1", "--cache-dir", str(cache), "--cpus", "2"]
    for name, document in zip(names, facts, strict=False):
        Path(name).write_text(json.dumps(document), encoding="utf-8")
    ended_well(["matrix", *names, *options, "--format", "json", "-o", str(result)])
    whole = json.loads(result.read_text(encoding="utf-8"))

    def run(draw: Draw) -> None:
        kind = draw.below(4)
        if kind == 0:
            write(result, draw, json.dumps(mutate_json(draw, whole)))
            ended_well(["matrix", "merge", str(result), "--format", draw.choice(("text", "json", "csv", "html"))])
            return
        number = draw.below(2)
        if kind == 1:
            for kept in sorted(path for path in cache.rglob("*") if path.is_file()):
                kept.write_bytes(mutate_bytes(draw, kept.read_bytes()))
        else:
            write(Path(names[number]), draw, json.dumps(mutate_json(draw, facts[number])))
        form = draw.choice(("text", "json", "csv", "html"))
        ended_well(
            ["matrix", *names, *options, "--format", form, "--scenario", draw.choice(("nosmt", "default", "x y=1"))]
        )
        Path(names[number]).write_text(json.dumps(facts[number]), encoding="utf-8")

    return run


def differences(directory: Path) -> Target:
    """Two builds of a kernel, of which one is damaged."""
    facts = _kernel_facts()
    names = [str(directory / f"{number}.json") for number in range(2)]

    def run(draw: Draw) -> None:
        damaged = draw.below(2)
        for number, name in enumerate(names):
            document = mutate_json(draw, facts[number]) if number == damaged else facts[number]
            Path(name).write_text(json.dumps(document), encoding="utf-8", errors="surrogatepass")
        ended_well(["diff", *names, "--format", draw.choice(("text", "json"))])

    return run


def parking_designs(directory: Path) -> Target:
    """The designs over a measured handoff, with one input damaged where a check reads it."""
    measured = Measured("fatal", directory)
    places = [(copy, damageable(measured)[name]) for name, copy in measured.copies.items()]
    case = next(case for case in cases() if case["name"] == "fatal")
    image, resumer, resumee = measured.paths
    words = ["designs", image, "--resumer", resumer, "--resumee", resumee, *case["args"]]

    def run(draw: Draw) -> None:
        copy, regions = draw.choice(places)
        assert isinstance(copy, Copy)
        with copy.damaged(patch_fields(draw, regions, copy.read)):
            ended_well([*words, "--format", draw.choice(("text", "json"))])

    return run


def configurations(directory: Path) -> Target:
    """Configuration files of every kind, on a command that shows what it made of them."""
    os.chdir(directory)
    (directory / ".git").mkdir(exist_ok=True)
    words = (
        "[check]",
        "[matrix]",
        "[tool.hibercheck]",
        "'''",
        "1979-05-27",
        "[[image]]",
        "inf",
        "true",
        "-1",
        '"\\u001b"',
    )

    def run(draw: Draw) -> None:
        write(directory / "hibercheck.toml", draw, mutate_text(draw, CONFIGURATION, words))
        command = draw.choice((["check", "x"], ["image", "x"], ["kernel", "x"], ["matrix", "x"], ["export", "x", "y"]))
        ended_well([*command, "--show-config"] if draw.chance(2) else command)

    return run


def exports(directory: Path) -> Target:
    """Damaged images, exported; what was written is read back, and holds the image's frames."""
    path, out = directory / "image.bin", directory / "vmcore"

    def run(draw: Draw) -> None:
        frames = {0x100 + n * draw.choice((1, 1, 3)): bytes([n & 255]) * PAGE for n in range(draw.choice((1, 40, 300)))}
        data = ImageWriter(frames=frames, compressor=draw.choice(("lzo", "lz4", "none"))).encode()
        regions = [Region("page", PAGE * n, PAGE) for n in range(min(len(data) // PAGE, 8))]
        path.write_bytes(mutate_bytes(draw, data, regions) if draw.chance(2) else data)
        out.unlink(missing_ok=True)
        status, _ = ended_well(["export", str(path), str(out)])
        assert out.exists() == (status == 0)
        assert sorted(one.name for one in directory.iterdir() if one.name.startswith(".")) == []
        if status:
            return
        with open_image(str(path)) as image, open_dump(str(out)) as dump:
            for first, length in image.pfns.runs():
                for pfn in {first, first + length // 2, first + length - 1}:
                    assert dump.frame(pfn) == image.frame(pfn), hex(pfn)

    return run


PROC = {
    "proc/version": "Linux version 6.1.0 (a@b) (gcc) #1 SMP\n",
    "proc/cmdline": 'root=/dev/sda1 a="b c" d=e\\f nosmt\n',
    "proc/iomem": "00001000-0009fbff : System RAM\n  01000000-01e00d2f : Kernel code\n",
    "proc/kallsyms": "ffffffff81000000 T _text\nffffffff82000000 D linux_banner\n",
    "proc/cpuinfo": "processor\t: 0\nvendor_id\t: GenuineIntel\napicid\t\t: 0\ncpuid level\t: 13\nflags\t\t: nx\n\n"
    "processor\t: 1\nvendor_id\t: GenuineIntel\napicid\t\t: 1\n",
    "sys/devices/system/cpu/present": "0-1\n",
    "sys/devices/system/cpu/online": "0-1\n",
    "sys/devices/system/cpu/smt/control": "off\n",
    "sys/devices/system/cpu/cpuidle/current_driver": "acpi_idle\n",
    "sys/devices/system/cpu/cpu0/cpuidle/state0/name": "C1\n",
    "sys/devices/system/cpu/cpu0/cpuidle/state0/desc": "ACPI FFH MWAIT 0x0\n",
    "sys/devices/system/cpu/cpu0/topology/core_id": "0\n",
    "sys/devices/system/cpu/cpu0/topology/physical_package_id": "0\n",
    "sys/firmware/memmap/0/start": "0x0\n",
    "sys/firmware/memmap/0/end": "0x9fbff\n",
    "sys/firmware/memmap/0/type": "System RAM\n",
}
"""What the collecting script reads."""


def collections(directory: Path) -> Target:
    """`hibercheck collect` on a made-up /proc and /sys: what it writes can be read again, or it says why not."""
    for name, content in PROC.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    script = Path(collect.__code__.co_filename).with_name("collect.sh").read_text(encoding="utf-8")

    def run(draw: Draw) -> None:
        name = draw.choice(sorted(PROC))
        path = directory / name
        write(path, draw, mutate_text(draw, PROC[name], ('"', "\\", "\t", "0-65535", "\x1b[31m", "ACPI HLT")))
        try:
            written = collect(script, str(directory))
            parse_facts(written, "what was collected")
            assert not RAW.search(written)
        finally:
            path.write_text(PROC[name], encoding="utf-8")

    return run
