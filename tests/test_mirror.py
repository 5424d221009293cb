"""Tests mirror the package, and reach nothing that it keeps to itself."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.elsewhere import ACROSS, ELSEWHERE

ROOT = Path(__file__).resolve().parent.parent
PACKAGE, TESTS = ROOT / "hibercheck", ROOT / "tests"
WORK = TESTS / "lab" / "work"
"""Where the lab keeps what it makes, and the source of the kernels that it builds."""
SOURCES = sorted(path for path in TESTS.rglob("*.py") if WORK not in path.parents)


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def defined(path: Path) -> set[str]:
    """Return the private names that a file defines: functions, classes, methods, fields, attributes and constants."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
    return set(filter(private, names))


FOREIGN = {"_exit", "_repr_html_"}
"""Names of the standard library's that ours happen to have too, and one that notebooks call."""
OURS = set().union(*(defined(path) for path in PACKAGE.rglob("*.py"))) - FOREIGN - {"_"}


def reached(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the private names of the package that a test reaches: by import, attribute, or a string that names one."""
    own = defined(path)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "hibercheck":
            yield from ((node.lineno, alias.name) for alias in node.names if private(alias.name))
        elif isinstance(node, ast.Attribute) and node.attr in OURS - own:
            yield node.lineno, node.attr
        elif isinstance(node, ast.Constant) and re.fullmatch(r"hibercheck(\.\w+)*\._[a-z]\w*", str(node.value)):
            yield node.lineno, node.value
        elif isinstance(node, ast.Call) and called(node) in BY_NAME:
            words = [one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
            yield from ((node.lineno, word) for word in words if word in OURS - own)


BY_NAME = {"getattr", "hasattr", "setattr", "delattr", "patch", "object", "attrgetter"}
"""Functions that are told an attribute by its name."""


def called(node: ast.Call) -> str | None:
    """Return the last name of what is called."""
    return getattr(node.func, "attr", None) or getattr(node.func, "id", None)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(TESTS)))
def test_no_test_reaches_a_private_name(path):
    assert not [f"{path.relative_to(ROOT)}:{line} reaches {name}" for line, name in reached(path)]


@pytest.mark.parametrize("line", [
    "from hibercheck.files.spool import _SIZE", "spool._descriptor", "patch('hibercheck.cli.run._run')",
    "monkeypatch.setattr(run, '_run', None)", "getattr(spool, '_descriptor')",
])  # fmt: skip
def test_each_way_to_reach_one_is_seen(line, tmp_path):
    (tmp_path / "test.py").write_text(line)
    assert list(reached(tmp_path / "test.py"))


MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if path.stem[:2] != "__")


def mirrors(module: str) -> list[Path]:
    """Return the tests named as a module: ``test_<module>.py``, or with what aspect of it they are about behind."""
    place, _, name = f"/{module.removesuffix('.py')}".rpartition("/")
    directory = TESTS / place.lstrip("/")
    found = [path for path in directory.glob(f"test_{name}*.py") if path.stem in {f"test_{name}"} | aspects(name, path)]
    return sorted(found)


def aspects(name: str, path: Path) -> set[str]:
    """Return the test's name if it is one of an aspect of the module, and no other module's."""
    beside = {f"test_{one.stem}" for one in (PACKAGE / path.parent.relative_to(TESTS)).glob("*.py")}
    return {path.stem} - beside if path.stem.startswith(f"test_{name}_") else set()


@pytest.mark.parametrize("module", MODULES)
def test_tests_mirror_the_package(module):
    elsewhere = [entry for entry in ELSEWHERE if module in entry[1].split()]
    if mirrors(module):
        assert not elsewhere, f"{module} has tests of its own now: take it out of tests/elsewhere.py"
    else:
        assert len(elsewhere) == 1, (
            f"{module}: write tests{'/' + module}'s test, or say in tests/elsewhere.py what holds it"
        )


@pytest.mark.parametrize("entry", ELSEWHERE, ids=lambda entry: entry[0])
def test_what_holds_others_is_there(entry):
    tests, modules, reason = entry
    assert all((TESTS / test).is_file() for test in tests.split())
    assert set(modules.split()) <= set(MODULES)
    assert reason


MIRRORED = ("cli", "dump", "files", "handoff", "host", "kernel", "report", "swsusp", "x86")


@pytest.mark.parametrize(
    "path",
    [path for path in SOURCES if path.stem[:5] == "test_" and path.relative_to(TESTS).parts[0] in MIRRORED],
    ids=lambda path: str(path.relative_to(TESTS)),
)
def test_tests_are_of_a_module_or_say_of_what(path):
    name = path.relative_to(TESTS).as_posix()
    beside = (PACKAGE / name).parent.glob("*.py")
    parts = path.stem.removeprefix("test_")
    of_a_module = any(parts == one.stem or parts.startswith(f"{one.stem}_") for one in beside)
    assert of_a_module != (name in ACROSS), (
        f"{name}: name it as its module, or say in tests/elsewhere.py what it is about"
    )
