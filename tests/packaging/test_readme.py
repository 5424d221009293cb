"""README.md's commands do what it says, and its report is the one that they print."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import hibercheck
from hibercheck.report import drawing
from tests.support.effort import told
from tests.support.unpacked import plain_path

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def command():
    """The words of README's main command, from ``hibercheck`` on."""
    line = next(line for line in README.splitlines() if "fixtures/images/" in line)
    return shlex.split(line)[1:]


@pytest.fixture(scope="module")
def example():
    """The program that writes the examples."""
    spec = importlib.util.spec_from_file_location("example_report", ROOT / "man" / "examples" / "report.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def judged(example):
    return example.judged()


@pytest.mark.parametrize(("more", "name"), [([], "report.txt"), (["-v"], "report-verbose.txt")])
def test_the_main_command_predicts_the_reset(command, more, name):
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"} | {"PYTHONUTF8": "1"}
    arguments = [sys.executable, "-m", "hibercheck", *command, *more]
    run = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert (run.returncode, told(run.stderr)) == (1, "")
    committed = (ROOT / "man" / "examples" / name).read_text(encoding="utf-8")
    assert run.stdout == committed, "python man/examples/report.py"


def test_its_lines_fit():
    assert len(README.splitlines()) < 120
    commands = [line.strip() for line in README.splitlines() if line.startswith("    ")]
    assert max(map(len, commands)) < 120


def test_it_shows_the_report(example, judged):
    shown = example.plain(judged, width=example.WIDTH)
    assert f"```text\n{shown}```\n" in README, "put it there"


def test_the_picture_is_of_the_same_report(example, judged):
    committed = (ROOT / "man" / "examples" / "report.svg").read_text(encoding="utf-8")
    assert example.picture(judged) == committed, "python man/examples/report.py writes it anew"


def test_the_drawing_is_of_the_same_report(judged):
    committed = (ROOT / "man" / "examples" / "drawing.svg").read_text(encoding="utf-8")
    assert drawing.svg(judged.report) == committed, "python man/examples/report.py writes it anew"


def test_every_file_it_names_is_there():
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / link.replace("\n", "")).exists(), link


HLT, CURRENT = (plain_path(f"kernels/small-{name}.vmlinux.xz") for name in ("hlt", "current"))
STANDS_FOR = {
    "IMAGE": [plain_path("images/9c031ac5a1.bin.xz")],
    "KERNEL": [HLT],
    "vmlinuz": ["fixtures/kernels/small-hlt.bzImage"],
    "vmlinux-released": [HLT],
    "vmlinux-new": [CURRENT],
    "vmlinux-*": [HLT, CURRENT],
}
QUESTIONS = [line.split("#")[0].split()[1:] for line in README.splitlines() if line.startswith("    hibercheck ")]


@pytest.mark.parametrize("words", QUESTIONS, ids=" ".join)
def test_each_question_is_answered(words, tmp_path):
    """Every command of the list runs, on files of the fixtures."""
    log, root = tmp_path / "dmesg.txt", tmp_path / "root"
    log.write_text("[    1.0] PM: Image not found (code -22)\n", encoding="utf-8")
    (root / "boot/grub").mkdir(parents=True)
    (root / "boot/vmlinuz-6.1").write_bytes((ROOT / "fixtures/kernels/small-hlt.bzImage").read_bytes())
    (root / "boot/grub/grub.cfg").write_text("menuentry 'Linux' {\n\tlinux /boot/vmlinuz-6.1\n}\n", encoding="utf-8")
    stands_for = STANDS_FOR | {"dmesg.txt": [str(log)], "preflight": ["preflight", "--root", str(root)]}
    arguments = [word for given in words for word in stands_for.get(given, [given])]
    run = subprocess.run(
        [sys.executable, "-m", "hibercheck", *arguments], cwd=ROOT, capture_output=True, encoding="utf-8", check=False
    )
    assert run.returncode in {0, 1, 4}, run.stderr
    assert run.stdout


def test_the_python_interface_works_as_shown(monkeypatch, command):
    monkeypatch.chdir(ROOT)
    image, resumer = (plain_path(Path(command[place]).relative_to("fixtures")) for place in (0, 2))
    report = hibercheck.check(image, resumer, spurious_mwait=True)
    assert (report.outcome, report.verdict) == ("resets", "fatal")
    with pytest.raises(TypeError):
        hibercheck.check(image, resumer, nonsense=1)
