"""Which modules are mutated, and whose tests are to kill the mutants: in one place."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.elsewhere import ELSEWHERE

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class Part:
    """Modules that the same tests hold.

    Attributes:
        patterns: The modules.
        tests: Files and folders of the tests that are to kill their mutants.
        held: Whether every mutant was tried and every survivor is listed in record.json.  Continuous integration draws
            from these; one that survives and is not listed fails it.
    """

    patterns: tuple[str, ...]
    tests: tuple[str, ...]
    held: bool = False


TOLD = "tests/handoff/test_told.py"
"""All that is said of the committed cases: what of any module changes an answer changes it."""

CORE = (
    Part(
        ("hibercheck/x86/paging.py",),
        tests=("tests/x86/test_paging.py", "tests/x86/test_paging_table.py", "tests/x86/test_cpu.py"),
        held=True,
    ),
    Part(("hibercheck/x86/events.py",), tests=("tests/x86/test_events.py",), held=True),
    Part(
        ("hibercheck/x86/exceptions.py",),
        tests=("tests/x86/test_exceptions.py", "tests/x86/test_exceptions_qemu.py", TOLD),
    ),
    Part(("hibercheck/x86/follow.py",), tests=("tests/x86/test_follow.py", TOLD)),
    Part(("hibercheck/x86/flags.py",), tests=("tests/x86/test_flags.py",), held=True),
    Part(
        ("hibercheck/handoff/facts/cmdline.py", "hibercheck/handoff/facts/arguments.py"),
        tests=("tests/handoff/facts/test_cmdline.py", TOLD),
    ),
    Part(("hibercheck/handoff/facts/cpufacts.py",), tests=("tests/handoff/facts", TOLD)),
    Part(("hibercheck/kernel/code/*.py",), tests=("tests/kernel", "tests/real/test_kernel_traits.py", TOLD)),
    Part(
        ("hibercheck/handoff/replay/fate.py", "hibercheck/handoff/verdict/decide.py"),
        tests=(
            "tests/handoff/replay/test_fate.py",
            "tests/handoff/verdict/test_decide.py",
            "tests/handoff/test_one_engine.py",
            TOLD,
        ),
    ),
    Part(
        (
            "hibercheck/handoff/replay/compare.py",
            "hibercheck/handoff/replay/divergence.py",
            "hibercheck/handoff/replay/judge.py",
            "hibercheck/handoff/replay/judgement.py",
            "hibercheck/handoff/replay/moments.py",
            "hibercheck/handoff/replay/places.py",
            "hibercheck/handoff/replay/touch.py",
            "hibercheck/handoff/replay/trace.py",
        ),
        tests=("tests/handoff",),
    ),
    Part(
        (
            "hibercheck/handoff/replay/boot_cpu.py",
            "hibercheck/handoff/scenario/*.py",
            "hibercheck/handoff/acceptance/*.py",
            "hibercheck/handoff/memory/*.py",
            "hibercheck/handoff/verdict/conditions.py",
            "hibercheck/handoff/verdict/findings.py",
            "hibercheck/handoff/verdict/words.py",
        ),
        tests=("tests/handoff",),
    ),
)
"""The code that decides: the machine, what is read of a kernel and its CPUs, one run of it, the replay, the verdict."""


def modules(part: Part) -> list[str]:
    """The paths of a part's modules, relative to the repository."""
    found = []
    for pattern in part.patterns:
        paths = sorted(ROOT.glob(pattern))
        assert paths, f"{pattern}: no such file"
        found += [str(path.relative_to(ROOT)) for path in paths if path.read_text(encoding="utf-8").strip()]
    return found


def parts_of(paths: Iterable[str]) -> dict[str, Part]:
    """The part of each module that is named by its path or that of a folder; of every one if none is named."""
    wanted = [str(Path(path).resolve().relative_to(ROOT)) for path in paths]
    every = {path: part for part in CORE for path in modules(part)}
    for one in wanted:
        if not any(path == one or path.startswith(f"{one}/") for path in every):
            raise SystemExit(f"{one}: not among the modules that tests/mutation/core.py lists")
    chosen = [path for path in every if not wanted or any(path == one or path.startswith(f"{one}/") for one in wanted)]
    return {path: every[path] for path in chosen}


def test_files(part: Part) -> list[str]:
    """The files of a part's tests, relative to the repository."""
    found: set[Path] = set()
    for name in part.tests:
        place = ROOT / name
        assert place.exists(), f"{name}: no such file"
        found |= {place} if place.is_file() else set(place.rglob("test_*.py"))
    return sorted(str(path.relative_to(ROOT)) for path in found)


@functools.cache
def holders(path: str) -> frozenset[str]:
    """The files of tests that a module is held by: those of its name, and what tests/elsewhere.py says."""
    module = Path(path).relative_to("hibercheck")
    mirrored = (ROOT / "tests" / module.parent).glob(f"test_{module.stem}*.py")
    elsewhere = {f"tests/{test}" for test, modules, _ in ELSEWHERE if str(module) in modules.split()}
    return frozenset({*(str(one.relative_to(ROOT)) for one in mirrored), *elsewhere})


def name_of(path: str) -> str:
    """The name under which a module is imported."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
