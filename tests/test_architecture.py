"""The shape of the code: imports point one way, nothing heavy is imported early."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "hibercheck"
FILES = sorted(PACKAGE.rglob("*.py"))

MAY_IMPORT = {
    "cli": {"cli", "report", "handoff", "swsusp", "kernel", "x86", "dump", "host", "files", "errors"},
    "report": {"report", "handoff", "swsusp", "kernel", "x86", "dump", "host", "files", "errors"},
    "handoff": {"handoff", "swsusp", "kernel", "x86", "dump", "host", "files", "errors"},
    "swsusp": {"swsusp", "files", "errors"},
    "kernel": {"kernel", "files", "errors"},
    "x86": {"x86", "errors"},
    "dump": {"dump", "files", "errors"},
    "host": {"host", "files", "errors"},
    "files": {"files", "errors"},
    "errors": set(),
}
"""What each part may import.  Image, kernel, machine and dump meet in handoff and nowhere else."""

ALLOWED = {("dump", "hibercheck.x86.memory")}
"""A dump is one more physical memory, so it may name that protocol."""

HEAVY = {"rich", "click", "construct", "elftools", "iced_x86", "lz4", "lzallright", "unicorn", "backports"}


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield str(node.module), node.lineno
            if node.module in {"hibercheck", *(f"hibercheck.{part}" for part in MAY_IMPORT)}:
                yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    part = part_of(path)
    if part not in MAY_IMPORT:
        return  # hibercheck/__init__.py and __main__.py stand above all
    wrong = []
    for name, line in imports(path):
        head, _, rest = name.partition(".")
        target = rest.partition(".")[0]
        if head != "hibercheck" or target not in MAY_IMPORT or (part, name) in ALLOWED:
            continue
        if any((part, name.rpartition(".")[0]) == pair for pair in ALLOWED):
            continue
        if target not in MAY_IMPORT[part]:
            wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert not wrong


ROOMS = ("facts", "scenario", "acceptance", "memory", "replay", "verdict")
"""The rooms of handoff/ in the order in which data flows: each imports only those before it, and itself."""


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if path.parent.parent.name == "handoff" and path.parent.name in ROOMS],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_rooms_import_only_earlier_ones(path):
    room = path.parent.name
    wrong = []
    for name, line in imports(path):
        parts = name.split(".")
        if parts[:2] != ["hibercheck", "handoff"] or len(parts) < 3:
            continue
        later = parts[2] not in ROOMS or ROOMS.index(parts[2]) > ROOMS.index(room)
        if later and (room, parts[2]) not in DOORS:
            wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert not wrong


DOORS = {("verdict", "designs")}
"""`verdict.check` asks a design where the user names one."""


@pytest.mark.parametrize("package", sorted(PACKAGE.rglob("__init__.py")), ids=lambda path: path.parent.name)
def test_packages_import_nothing_heavy(package):
    top = ast.parse(package.read_text(encoding="utf-8")).body
    names = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in top if isinstance(node, ast.ImportFrom)}
    assert not {name.partition(".")[0] for name in names} & HEAVY


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_quick_answers_import_nothing_heavy(option):
    code = f"import sys; sys.argv = ['hibercheck', {option!r}]; from hibercheck.cli.main import main\n"
    code += "try: main()\nexcept SystemExit: pass\nprint(*sys.modules, file=sys.stderr)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {name.partition(".")[0] for name in run.stderr.split()} & {*HEAVY, "typing", "dataclasses", "re"}


READS_PAGES = {
    "handoff/memory/composite.py",  # for a replay
    "handoff/replay/places.py",  # to put load addresses into classes
    "handoff/facts/embedded.py",  # the kernel that is in the image
    "swsusp/banner.py",
}


def test_pages_of_the_image_are_read_in_few_places():
    readers = {path for path in FILES if re.search(r"\bimage\.frame\(", path.read_text(encoding="utf-8"))}
    assert {path.relative_to(PACKAGE).as_posix() for path in readers} == READS_PAGES


IN_ONE_PLACE = {
    r'b"PE\\0\\0"': {"files/pe.py"},
    r'b"HdrS"': {"files/pe.py", "swsusp/foreign.py"},  # which only names what is not an image
    r"import .*\bzstd\b": {"files/compression.py"},
    r"(from|import) lzallright": {"files/compression.py"},
    r"(from|import) lz4\b": {"files/compression.py", "swsusp/codec.py"},  # which decodes into place
    r"\bclick\.echo\(|\bsys\.stdout\.write": {"cli/terminal.py", "cli/main.py", "files/places.py"},
}
"""A pattern of what is done in one place, and that place; in `cli.main` before anything is imported."""


@pytest.mark.parametrize("pattern", IN_ONE_PLACE)
def test_what_has_one_place_is_done_there(pattern):
    found = {path for path in FILES if re.search(pattern, path.read_text(encoding="utf-8"))}
    assert {path.relative_to(PACKAGE).as_posix() for path in found} == IN_ONE_PLACE[pattern]


def test_the_fixtures_are_no_larger_than_a_clone_can_bear():
    assert sum(path.stat().st_size for path in (ROOT / "fixtures").rglob("*") if path.is_file()) <= 80 << 20
