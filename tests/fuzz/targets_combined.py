"""Targets in which each input is sound, and what they say together is not; and what surrounds a command."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from hibercheck.handoff.designs.catalogue import NAMES
from tests.fuzz.draw import Draw
from tests.fuzz.mutate import NASTY
from tests.fuzz.seeds import cases, unpack
from tests.fuzz.targets_check import FACTS
from tests.fuzz.targets_commands import ended_well
from tests.support.image_writer import ImageWriter

Target = Callable[[Draw], None]

LISTS = ("0", "1", "0-1", "0-3", "2,3", "8191", "")
LINES = (
    "nokaslr nosmt",
    "nosmt=force maxcpus=1",
    "nolapic",
    "acpi=off",
    "no5lvl",
    "idle=poll",
    "fred=on",
    "hibernate=no",
    "",
)
STATED = (
    "cpus=0-7",
    "cpus=0",
    "booted=0",
    "smt=off",
    "smt=on",
    "cpu-flags=-mwait",
    "cpu-flags=+lkgs,-nx",
    "lockdown=integrity",
    "lz4=absent",
    "hw-sig=other",
    "pages=1",
    "free-pages=0",
    "load-align=16M",
    "resume=user",
)


def contradictions(directory: Path) -> Target:
    """Images, kernels, dumps and facts of different runs, and options that say something else again."""
    measured = [
        case for case in cases() if case["name"] in {"fatal", "latent", "safe", "paging-mode", "random-address"}
    ]
    kept: dict[str, list[str]] = {
        key: sorted({str(unpack(case[key])) for case in measured if case.get(key)})
        for key in ("image", "resumer", "resumee", "memory")
    }
    facts = []
    for number, one in enumerate(sorted(FACTS.glob("*.json"))):
        facts.append(str(directory / f"{number}.json"))
        document = json.loads(one.read_text(encoding="utf-8"), strict=False)
        Path(facts[-1]).write_text(json.dumps(document), encoding="utf-8")
    options: tuple[tuple[str, tuple[str, ...]], ...] = (
        ("--resumer-memory", (*kept["memory"], kept["image"][0])),
        ("--resumer-facts", tuple(facts)),
        ("--resumer-symbols", (kept["resumee"][0], facts[0])),
        ("--resumer-cmdline", LINES),
        ("--resumer-cmdline-add", LINES),
        *((name, LISTS) for name in ("--resumer-offline", "--resumee-online", "--resumee-offline")),
        ("--resumer-idle", ("mwait", "halt", "port", "none")),
        ("--resumer-phys-base", ("0x1000000", "16M", "0x200000", "1T")),
        ("--fact", STATED),
        ("--suppose", ("nmi", "mce", "smi", "store")),
        ("--wake-latency", ("0", "1", "99999999")),
        ("--tlb", ("warm", "cold")),
        ("--park", NAMES),
        ("--resume-offset", ("0", "1", "12345")),
    )

    def run(draw: Draw) -> None:
        words = [draw.choice(kept["image"]), "--resumer", draw.choice(kept["resumer"])]
        words += ["--resumee", draw.choice(kept["resumee"])] if draw.below(3) else []
        for _ in range(draw.between(0, 5)):
            name, values = draw.choice(options)
            if name not in words or name in {"--fact", "--suppose"}:
                words += [name, draw.choice(values)]
        words += [word for word in ("--what-if", "--strict", "--spurious-mwait", "-v", "-q") if draw.chance(3)]
        ended_well([*words, "--format", draw.choice(("text", "json", "sarif", "junit", "markdown"))])

    return run


def environments(directory: Path) -> Target:
    """Variables of the environment, sensible or not, around commands that read some of them."""
    os.chdir(directory)
    image = directory / "image.bin"
    image.write_bytes(ImageWriter(frames={n: bytes([n & 255]) * 4096 for n in range(0x100, 0x140)}).encode())
    names = (
        "COLUMNS",
        "LINES",
        "TERM",
        "NO_COLOR",
        "FORCE_COLOR",
        "LANG",
        "LC_ALL",
        "HOME",
        "XDG_CACHE_HOME",
        "XDG_CONFIG_HOME",
        "TMPDIR",
        "PAGER",
        "SUDO_UID",
        "HIBERCHECK_FAIL_ON",
        "HIBERCHECK_COLOR",
        "HIBERCHECK_FORMAT",
        "HIBERCHECK_WIDTH",
        "HIBERCHECK_RESUMER",
        "HIBERCHECK_MAX_MEMORY",
        "HIBERCHECK_CONFIG",
        "HIBERCHECK_QUIET",
        "PATH",
    )
    values = (
        "",
        "0",
        "1",
        "-1",
        "9" * 30,
        "²",
        "dumb",
        "xterm",
        "C",
        "tr_TR.UTF-8",
        "/nonexistent",
        ".",
        "never",
        "json",
        "true",
    )
    commands = (["rules"], ["explain", "HC101"], ["image", str(image)], ["check", str(image)], ["check", "--help"])
    before = dict(os.environ)

    def run(draw: Draw) -> None:
        try:
            for _ in range(draw.between(1, 4)):
                value = draw.choice(values) if draw.below(3) else draw.choice(NASTY)
                os.environ[draw.choice(names)] = value.replace("\0", "").replace("\ud800", "")
            ended_well(draw.choice(commands), coloured=True)
        finally:
            os.environ.clear()
            os.environ.update(before)

    return run
