"""This package's own modules are found without a search: the same ones, and never older than their source."""

from __future__ import annotations

import importlib.util
import os
import py_compile
import subprocess
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

import pytest

from hibercheck.cli.ours import Finder
from tests.conftest import ROOT

PACKAGE = ROOT / "hibercheck"
SOURCES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_module_is_where_the_import_system_finds_it(path: Path) -> None:
    name = name_of(path)
    place = [str(path.parent.parent if path.name == "__init__.py" else path.parent)]
    ours, theirs = Finder("hibercheck").find_spec(name, place), PathFinder.find_spec(name, place)
    assert ours is not None
    assert theirs is not None
    assert isinstance(ours.loader, type(theirs.loader))
    for what in ("name", "parent", "origin", "cached", "has_location", "submodule_search_locations"):
        assert getattr(ours, what) == getattr(theirs, what)


def test_nothing_else_is_found(tmp_path: Path) -> None:
    finder = Finder("hibercheck")
    assert finder.find_spec("hibercheck", None) is None
    assert finder.find_spec("hibercheck.cli.no_such", [str(PACKAGE / "cli")]) is None
    assert finder.find_spec("hibercheckers.cli", [str(PACKAGE)]) is None
    assert finder.find_spec("hibercheck.cli", [str(tmp_path / "archive.zip" / "hibercheck")]) is None


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "made" / "module.py"
    path.parent.mkdir()
    path.write_text("def answer(): return 1\n")
    return path


def loaded(source: Path) -> ModuleType:
    spec = Finder("made").find_spec("made.module", [str(source.parent)])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.answer.__code__.co_filename == str(source)
    return module


def byte_code_of_another(source: Path, **how: object) -> None:
    """Leave byte code that says 2 where the source says 1, and that has its size and time."""
    status = source.stat()
    text = source.read_text()
    source.write_text(text.replace("1", "2"))
    os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))
    py_compile.compile(str(source), **how)  # type: ignore[arg-type]
    source.write_text(text)
    os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_byte_code_is_read(source: Path) -> None:
    byte_code_of_another(source)
    assert loaded(source).answer() == 2


@pytest.mark.parametrize("what", ["later", "longer"])
def test_a_source_that_changed_counts(source: Path, what: str) -> None:
    byte_code_of_another(source)
    if what == "longer":
        status = source.stat()
        source.write_text(source.read_text() + "\n")
        os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))
    else:
        os.utime(source, (1, 1))
    assert loaded(source).answer() == 1


def test_byte_code_that_is_checked_otherwise_is_checked(source: Path) -> None:
    byte_code_of_another(source, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)
    assert loaded(source).answer() == 1


def test_without_byte_code_the_source_is_compiled(source: Path) -> None:
    assert loaded(source).answer() == 1


def test_byte_code_that_was_made_elsewhere_names_its_place(source: Path) -> None:
    byte_code_of_another(source, dfile="elsewhere.py")
    assert loaded(source).answer() == 2  # `loaded` compares the file's name


@pytest.mark.parametrize(("environment", "ours"), [({}, True), ({"PYTHONPYCACHEPREFIX": "/nowhere"}, False)])
def test_a_command_loads_its_modules_so(environment: dict[str, str], ours: bool) -> None:
    code = "import sys; sys.argv = ['hibercheck', 'rules']\nfrom hibercheck.cli.main import main\n"
    code += "try: main()\nfinally: print(type(sys.modules['hibercheck.cli.rules'].__spec__.loader).__module__)"
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT, env=os.environ | environment)
    assert (done.stdout.splitlines()[-1] == "hibercheck.cli.ours") is ours
