"""``hibercheck designs``, ``matrix`` and ``diff`` from the command line, on the committed kernels and images."""

from __future__ import annotations

import json
import lzma
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from hibercheck.cli.run import run
from hibercheck.cli.shared import DESIGNS
from hibercheck.handoff.designs.catalogue import NAMES
from tests.conftest import ROOT

KERNELS = ROOT / "fixtures" / "kernels"
CURRENT, HLT, MID = (str(KERNELS / f"{name}.vmlinux.xz") for name in ("small-current", "small-hlt", "mid-current"))


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """The image of the committed case in which the machine resets."""
    target = tmp_path_factory.mktemp("image") / "image.bin"
    with lzma.open(ROOT / "fixtures" / "images" / "9c031ac5a1.bin.xz") as packed, target.open("wb") as plain:
        shutil.copyfileobj(packed, plain)
    return str(target)


def test_the_command_knows_every_design():
    assert DESIGNS == NAMES


def test_designs_side_by_side(image, capsys):
    arguments = ["designs", image, "--resumer", HLT, "--resumee", MID, "--resumer-cmdline", "nokaslr nosmt"]
    assert run([*arguments, "--spurious-mwait", "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["own"]["outcome"] == "resets"
    rows = {(row["name"], row["resumee_knows_design"]): row for row in document["designs"]}
    assert rows["hlt", False]["outcome"] == "resets"
    assert rows["hlt-rescued", False]["outcome"] == "resumes"
    assert rows["self-contained", True]["verdict"] == "safe"
    assert len(rows["self-contained", True]["frames"]) == 6
    assert set(rows["init", False]["exposure"]) == {"MWAIT", "NMI", "SMI", "#MC"}
    assert run([*arguments, "--spurious-mwait", "--no-details", "--width", "120"]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = [line.split()[:4] for line in lines if line.startswith(tuple(NAMES))]
    shown = [[row["name"], "new" if row["resumee_knows_design"] else "old", row["outcome"], row["verdict"]]
             for row in document["designs"]]  # fmt: skip
    assert table == shown


def test_one_design_judges_the_main_command(image, capsys):
    arguments = [image, "--resumer", HLT, "--resumee", MID, "--resumer-cmdline", "nokaslr nosmt", "--spurious-mwait"]
    assert run([*arguments, "--quiet"]) == 1
    assert run([*arguments, "--quiet", "--park", "hlt-rescued"]) == 0
    assert run([*arguments, "--quiet", "--park", "hlt"]) == 1
    assert run([*arguments, "--format", "json", "--park", "self-contained"]) == 0
    captured = capsys.readouterr().out
    report = json.loads(captured[captured.index("{") :])
    assert any(row["fact"] == "how CPUs are parked" for row in report["assumptions"])


def test_a_matrix_in_shards_is_the_whole(capsys, tmp_path):
    arguments = ["matrix", CURRENT, HLT, MID, "--scenario", "nosmt", "--scenario", "fixed=nokaslr nosmt"]
    arguments += ["--spurious-mwait", "--format", "json"]
    assert run(arguments) == 1
    whole = json.loads(capsys.readouterr().out)
    parts = []
    for number in (1, 2):
        parts.append(str(tmp_path / f"part{number}.json"))
        assert run([*arguments, "--shard", f"{number}/2", "-o", parts[-1]]) in {0, 1}
    assert run(["matrix", "merge", *parts, "--format", "json"]) == 1
    merged = json.loads(capsys.readouterr().out)

    def verdicts(document):
        cells = document["cells"]
        return [[[cells[number]["verdict"] for number in row] for row in one["cells"]] for one in document["rows"]]

    assert verdicts(merged) == verdicts(whole)
    assert len(verdicts(whole)) == 3
    assert run(["matrix", "merge", parts[0], parts[0]]) == 2
    assert run(["matrix", "merge", HLT]) == 3
    assert run(["matrix", "merge"]) == 2


def test_a_matrix_writes_all_its_formats_at_once(capsys, tmp_path):
    outputs = [f"{name}={tmp_path / name}" for name in ("json", "csv", "html")]
    flags = [part for output in outputs for part in ("--format", output)]
    assert run(["matrix", CURRENT, HLT, *flags, "--format", "text", "--fail-on", "never", "--progress"]) == 0
    captured = capsys.readouterr()
    assert "R \\ E" in captured.out
    assert (tmp_path / "html").read_text().startswith("<!DOCTYPE html>")
    assert len((tmp_path / "csv").read_text().splitlines()) == 1 + 4


def test_one_kernel_twice_counts_once(capsys):
    assert run(["matrix", CURRENT, str(KERNELS / "small-current.bzImage"), HLT, "--format", "json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["kernels"]) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["--shard", "3/2"], ["--shard", "0/2"], ["--shard", "x"], ["--scenario", "none"], ["--image", "a"],
        ["--image", "other=image.bin"], ["--image-share", "1.5"], ["--scenario", "nosmt", "--scenario", "nosmt=quiet"],
        ["--format", "json", "--format", "csv"],
    ],
)  # fmt: skip
def test_nonsense_is_a_usage_error(arguments, capsys):
    assert run(["matrix", CURRENT, HLT, *arguments]) == 2
    assert capsys.readouterr().err.startswith("hibercheck: ")


def test_an_unreadable_kernel_is_named(tmp_path, capsys):
    broken = tmp_path / "vmlinux"
    broken.write_bytes(b"\x7fELF" + bytes(100))
    assert run(["matrix", CURRENT, str(broken)]) == 3
    assert str(broken) in capsys.readouterr().err


def test_an_error_in_a_worker_process_is_one_line(tmp_path, capsys):
    broken = tmp_path / "vmlinux"
    broken.write_bytes(b"\x7fELF" + bytes(100))
    assert run(["matrix", CURRENT, HLT, str(broken), "--jobs", "2", "--no-cache"]) == 3
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.err.startswith(f"hibercheck: {broken}: ")


def test_processes_find_what_one_finds(capsys):
    outputs = []
    for jobs in ("1", "2"):
        assert run(["matrix", CURRENT, HLT, MID, "--jobs", jobs, "--no-cache", "--format", "json"]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]


def test_an_interrupt_ends_the_workers_silently(tmp_path):
    facts = tmp_path / "facts"
    facts.mkdir()
    assert run(["kernel", CURRENT, "--format", "json", "-o", str(facts / "0.json")]) == 0
    document = json.loads((facts / "0.json").read_text())
    for number in range(300):
        (facts / f"{number}.json").write_text(json.dumps(document | {"build_id": f"{number:040x}"}))
    scenarios = [part for number in range(40) for part in ("--scenario", f"s{number}=nokaslr")]
    command = [sys.executable, "-m", "hibercheck", "matrix", str(facts), *scenarios, "--jobs", "2", "--no-cache"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as process:
        time.sleep(2.5)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, b"")


def test_diff_fails_on_a_broken_pair_only(capsys):
    scenario = ["--scenario", "fixed=nokaslr nosmt", "--spurious-mwait"]
    assert run(["diff", CURRENT, HLT, "--against", MID, *scenario]) == 1
    out = capsys.readouterr().out
    assert "rescues_offline" in out
    assert "safe -> risk" in out
    assert run(["diff", HLT, CURRENT, "--against", MID, *scenario, "--fail-on", "latent"]) == 0
    assert run(["diff", CURRENT, HLT, *scenario, "--fail-on", "benign", "--format", "json"]) == 1
    document = json.loads(capsys.readouterr().out.partition("{")[2].join(["{", ""]))
    assert document["exit_status"] == 1
    assert {pair["worse"] for pair in document["pairs"]} == {True, False}


def test_designs_and_diff_fit_eighty_columns(image, capsys):
    arguments = ["designs", image, "--resumer", HLT, "--resumee", MID, "--resumer-cmdline", "nokaslr nosmt"]
    assert run([*arguments, "--spurious-mwait", "--width", "80"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    assert "ok: survives" in shown
    run(["diff", HLT, CURRENT, "--width", "60"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 60
    run(["diff", HLT, CURRENT])
    assert max(map(len, capsys.readouterr().out.splitlines())) > 100  # a pipe's lines stay whole
