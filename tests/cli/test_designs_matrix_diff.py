"""``hibercheck designs``, ``matrix`` and ``diff`` from the command line, on the committed kernels and images."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hibercheck.cli.run import run
from hibercheck.cli.shared import DESIGNS
from hibercheck.handoff.designs.catalogue import NAMES
from tests.conftest import ROOT
from tests.support.unpacked import plain_path

KERNELS = ROOT / "fixtures" / "kernels"
CURRENT, HLT, MID, STOCK = (
    plain_path(f"kernels/{name}.vmlinux.xz") for name in ("small-current", "small-hlt", "mid-current", "v73-stock")
)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, kept):
    monkeypatch.setenv("XDG_CACHE_HOME", str(kept))


@pytest.fixture(scope="module")
def image():
    """The image of the committed case in which the machine resets."""
    return plain_path("images/9c031ac5a1.bin.xz")


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
    shown = [
        [
            row["name"], "new" if row["resumee_knows_design"] else "old", row["outcome"],
            row["verdict"] + "+" * bool(row["conditions"]),
        ]
        for row in document["designs"]
    ]  # fmt: skip
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
    whole = capsys.readouterr().out
    assert (json.loads(whole)["shards"], json.loads(whole)["missing_rows"]) == ([], [])
    assert len(json.loads(whole)["rows"]) == 3
    parts = []
    for number in (1, 2):
        parts.append(str(tmp_path / f"part{number}.json"))
        assert run([*arguments, "--shard", f"{number}/2", "-o", parts[-1]]) in {0, 1}
    for order in (parts, parts[::-1]):
        assert run(["matrix", "merge", *order, "--format", "json"]) == 1
        assert capsys.readouterr() == (whole, "")
    assert run(["matrix", "merge", parts[0], parts[0]]) == 2
    assert run(["matrix", "merge", HLT]) == 3
    assert run(["matrix", "merge"]) == 2


def test_a_missing_shard_is_no_pass(capsys, tmp_path):
    arguments = ["matrix", CURRENT, HLT, MID, "--fail-on", "never", "--format", "json"]
    parts = {number: str(tmp_path / f"part{number}.json") for number in (1, 2, 3)}
    for number, path in parts.items():
        assert run([*arguments, "--shard", f"{number}/3", "-o", path]) == 0
    some = str(tmp_path / "some.json")
    releases = [one["release"] for one in json.loads(Path(parts[1]).read_text())["kernels"]]
    for form in ("text", "html", "csv", "json"):
        status = run(["matrix", "merge", parts[3], parts[1], "--fail-on", "never", "--format", form])
        captured = capsys.readouterr()
        assert (status, captured.err) == (
            4,
            f"hibercheck: the matrix is incomplete: it lacks the row of {releases[1]} (shard 2/3)\n",
        )
        assert form == "csv" or "missing_rows" in captured.out or "ncomplete: without the row of" in captured.out
    assert run(["matrix", "merge", parts[3], parts[1], "--fail-on", "never", "--format", "json", "-o", some]) == 4
    assert json.loads(Path(some).read_text())["shards"] == ["1/3", "3/3"]
    assert run(["matrix", "merge", some, "--fail-on", "never"]) == 4
    assert run(["matrix", "merge", some, parts[2], "--fail-on", "never", "--format", "json"]) == 0
    assert run(["matrix", "merge", parts[1], "--fail-on", "safe"]) == 1  # what fails is there already
    capsys.readouterr()


@pytest.mark.parametrize("option", [("--cpus", "8"), ("--scenario", "nosmt"), ("--shard", "1/2"), ("--no-cache",)])
def test_a_merge_takes_no_option_that_it_ignores(option, capsys):
    assert run(["matrix", "merge", "x.json", *option]) == 2
    assert f"matrix merge takes no {option[0]}" in capsys.readouterr().err


def test_a_file_that_lost_a_row_is_no_shard(capsys, tmp_path):
    path = tmp_path / "part.json"
    for shard in ("1/2", "1/1"):
        run(["matrix", CURRENT, HLT, MID, "--format", "json", "--shard", shard, "-o", str(path)])
        document = json.loads(path.read_text())
        del document["rows"][1]
        path.write_text(json.dumps(document))
        assert run(["matrix", "merge", str(path)]) == 3
        assert "it is cut: the row of resumer" in capsys.readouterr().err


def test_another_kernel_with_the_same_build_id_counts(capsys, tmp_path):
    copies = [tmp_path / "a.facts.json", tmp_path / "b.facts.json"]
    for copy in copies:
        assert run(["kernel", HLT, "--format", "json", "-o", str(copy)]) == 0
    assert run(["matrix", *map(str, copies), "--format", "json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["kernels"]) == 1
    document = json.loads(copies[1].read_text())
    document["release"] = document["release"] + "-other"
    document["banner"] = document["banner"].replace("Linux version ", "Linux version 9")
    copies[1].write_text(json.dumps(document))
    assert run(["matrix", *map(str, copies), "--format", "json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["kernels"]) == 2


def test_a_cache_that_is_not_used_is_told_where_somebody_named_it(capsys, tmp_path):
    place = tmp_path / "cache"
    assert run(["matrix", CURRENT, HLT, "--cache-dir", str(place)]) == 0
    assert capsys.readouterr().err == ""
    assert len(list(place.iterdir())) == 2
    place.chmod(0o777)
    assert run(["matrix", CURRENT, HLT, "--cache-dir", str(place)]) == 0
    assert capsys.readouterr().err == f"hibercheck: {place}: is not used as a cache: it may be written to by others\n"
    assert run(["matrix", CURRENT, HLT, "--cache-dir", str(place), "--no-cache"]) == 2


def test_a_matrix_writes_all_its_formats_at_once(capsys, tmp_path):
    outputs = [f"{name}={tmp_path / name}" for name in ("json", "csv", "html")]
    flags = [part for output in outputs for part in ("--format", output)]
    assert run(["matrix", CURRENT, HLT, *flags, "--format", "text", "--fail-on", "never", "--progress"]) == 0
    captured = capsys.readouterr()
    assert "R \\ E" in captured.out
    assert (tmp_path / "html").read_text().startswith("<!DOCTYPE html>")
    assert len((tmp_path / "csv").read_text().splitlines()) == 1 + 4


@pytest.mark.parametrize("command", ["matrix", "diff"])
def test_what_was_not_judged_for_want_of_time_is_told(command, capsys):
    kernels = [str(KERNELS / "v73-stock.bzImage"), str(KERNELS / "bare-prepended.bzImage")]
    assert run([command, *kernels, "--cpus", "1024", "--scenario", "offline-core", "-q"]) == 0
    err = capsys.readouterr().err
    assert "hibercheck: warning: offline-core: 1 alternative was not judged: there are too many CPUs" in err
    assert run([command, *kernels, "--scenario", "offline-core", "-q"]) == 0
    assert capsys.readouterr().err == ""


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


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_bad_file_in_a_directory_is_named_and_left_out(jobs, tmp_path, capsys):
    """Nobody named it; what it would have said is missing, which is no pass."""
    place = tmp_path / "kernels"
    place.mkdir()
    for kernel in (CURRENT, HLT):
        (place / Path(kernel).name).symlink_to(kernel)
    (place / "vmlinuz-broken").write_bytes(b"\x7fELF" + bytes(100))
    assert run(["matrix", str(place), "--jobs", jobs, "--no-cache", "-q"]) == 4
    told = capsys.readouterr()
    assert told.err.startswith(f"hibercheck: left out: {place / 'vmlinuz-broken'}: ")
    assert told.err.count("\n") == 1
    assert "4 pairs" in told.out
    alone = tmp_path / "alone"
    (alone / "x").mkdir(parents=True)
    (alone / "vmlinuz-broken").write_bytes(b"\x7fELF" + bytes(100))
    assert run(["matrix", str(alone), "--jobs", jobs, "--no-cache"]) == 3


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
    assert "brings offline CPUs up first: yes -> no  [ec527c318036 (v5.2)]" in out
    assert out.index("safe -> risk (40%) WORSE") < out.index("brings offline CPUs up first")  # pairs come first
    assert "as before:" in out
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
    run(["diff", HLT, CURRENT, "-v"])
    assert max(map(len, capsys.readouterr().out.splitlines())) > 100  # a pipe's lines stay whole


IDLE = """[[suppress]]
condition = "idle-driver"
resumer = "%s"
reason = "our machines have no cpuidle driver"
"""


@pytest.mark.parametrize("command", ["matrix", "diff"])
def test_strict_judges_by_the_worst_condition_unless_it_is_suppressed(command, capsys, tmp_path):
    """Offline with its core, 7.3 parks a CPU as its cpuidle driver has it, which no kernel file tells."""
    arguments = [command, *((STOCK,) if command == "matrix" else (STOCK, STOCK)), "--scenario", "offline-core"]
    if command == "diff":
        arguments[1] = HLT  # from what is a risk in any case to what is one on a condition
        arguments[2:3] = [STOCK, "--allow-refused", "--fail-on", "fatal"]
    assert run([*arguments, "--strict"]) == (1 if command == "matrix" else 0)
    assert "idle-driver" in capsys.readouterr().out
    assert run(arguments) == 0
    capsys.readouterr()
    listed = tmp_path / "known.toml"
    listed.write_text(IDLE % "7.3*")
    assert run([*arguments, "--strict", "--suppressions", str(listed)]) == 0
    captured = capsys.readouterr()
    assert "(suppressed)" in captured.out
    assert "suppresses" not in captured.err
    listed.write_text(IDLE % "6.12*")
    assert run([*arguments, "--strict", "--suppressions", str(listed)]) == (1 if command == "matrix" else 0)
    assert "suppresses nothing (idle-driver)" in capsys.readouterr().err


def test_conditions_of_designs_are_proved_by_their_arguments(image, tmp_path, capsys):
    """7.3 parks offline cores as its cpuidle driver has it; under most designs that makes no difference."""
    # A resumee that was told to do without cpuidle says nothing of the resumer's driver.
    idle_off = tmp_path / "cpuidle.bin"
    idle_off.write_bytes(Path(image).read_bytes().replace(b"console=ttyS0", b"cpuidle.off=1"))
    arguments = [str(idle_off), "--resumer", STOCK, "--resumee", MID, "--fact", "cpus=0-3", "--resumer-offline", "2,3"]
    line = ["--resumer-cmdline", "nokaslr"]
    assert run(["designs", *arguments, *line, "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    own = document["own"]
    assert "idle-driver" in {one["id"] for one in own["conditions"]}
    worst = own["conditions"][0]
    assert run(["designs", *arguments, *line, *worst["arguments"], "--format", "json", "--design", "init"]) == 0
    proved = json.loads(capsys.readouterr().out)["own"]
    assert (proved["outcome"], proved["verdict"]) == (worst["outcome"], worst["verdict"])
    rows = {(row["name"], row["resumee_knows_design"]): row for row in document["designs"]}
    for one in rows["hlt", False]["conditions"]:
        command = ["designs", *arguments, *line, *one["arguments"], "--format", "json", "--design", "hlt"]
        assert run(command) == 0
        again = {row["resumee_knows_design"]: row for row in json.loads(capsys.readouterr().out)["designs"]}
        assert again[False]["verdict"] == one["verdict"]
    assert rows["init", False]["conditions"] == []
    assert run(["designs", *arguments, *line]) == 0
    text = capsys.readouterr().out
    assert "condition: how the resumer's cpuidle driver parks a dead CPU" in text


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_designs_with_strict_show_the_verdict_of_the_worst_condition(image, capsys, width):
    arguments = ["designs", image, "--resumer", HLT, "--resumee", MID, "--resumer-cmdline", "nokaslr nosmt nox2apic"]
    assert run([*arguments, "--design", "init", "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    row = document["designs"][0]
    assert (row["verdict"], row["strict"]) == ("safe", "undetermined")
    assert (document["own"]["verdict"], document["own"]["strict"]) == ("risk", "fatal")
    assert [one["arguments"] for one in row["conditions"]] == [["--fact", "modes=other"]]
    shown = []
    for strict in ([], ["--strict"]):
        assert run([*arguments, *strict, "--width", str(width), "--no-details"]) == 0
        text = capsys.readouterr().out
        assert "…" not in text
        assert max(map(len, text.splitlines())) <= width
        shown.append(next(line.split() for line in text.splitlines() if line.startswith("init ")))
    assert "safe+" in shown[0]
    assert ("undetermined!" if width == 200 else "unknown!") in shown[1]


@pytest.mark.parametrize(("more", "said"), [
    (["--resumer-cmdline", "nokaslr", "--resumer-offline", "3"], "names CPU 3, which the resumee did not have"),
    (["--resumer-cmdline", "nokaslr nosmt", "--resumer-offline", "1"], "names CPU 1, down already"),
    (["--resumer-cmdline", "nokaslr"], None),
])  # fmt: skip
def test_designs_tell_what_a_check_tells_of_what_was_given(image, capsys, more, said):
    arguments = ["designs", image, "--resumer", HLT, "--resumee", MID, "--design", "hlt", *more]
    assert run([*arguments, "--format", "json"]) == 0
    out, err = capsys.readouterr()
    warnings = json.loads(out)["warnings"]
    assert [said in one for one in warnings] == ([] if said is None else [True])
    assert err == "".join(f"hibercheck: warning: {one}\n" for one in warnings)
    assert run(arguments) == 0
    shown = capsys.readouterr().out
    assert [line for line in shown.splitlines() if line.startswith("warning: ")] == [
        f"warning: {one}" for one in warnings
    ]


def test_a_suppressed_condition_of_designs_does_not_count_with_strict(image, capsys, tmp_path):
    arguments = ["designs", image, "--resumer", HLT, "--resumee", MID, "--resumer-cmdline", "nokaslr nosmt nox2apic"]
    arguments += ["--strict", "--design", "init"]
    listed = tmp_path / "known.toml"
    command = [*arguments, "--suppressions", str(listed), "--format", "json"]

    def judged(**entry: str) -> dict[str, str]:
        lines = [f'{key} = "{value}"' for key, value in {**entry, "reason": "same firmware settings"}.items()]
        listed.write_text("\n".join(["[[suppress]]", *lines]))
        assert run(command) == 0
        document = json.loads(capsys.readouterr().out)
        (row,) = document["designs"][:1]
        assert len({one["suppressed"] for one in row["conditions"]}) == 1
        return {"verdict": row["verdict"], "strict": row["strict"], "own": document["own"]["strict"]}

    counts = {"verdict": "safe", "strict": "undetermined", "own": "fatal"}
    assert judged(condition="modes") == {**counts, "strict": "safe"}
    assert judged(condition="modes", resumer="6.1.*-lab-small-hlt") == {**counts, "strict": "safe"}
    assert judged(condition="modes", resumer="6.12.*") == counts
    assert judged(condition="mwait-exits") == {**counts, "own": "undetermined"}
    assert run([*arguments, "--suppressions", str(listed)]) == 0
    captured = capsys.readouterr()
    assert "(suppressed)" in captured.out
    assert "suppresses" not in captured.err
    assert judged(condition="modes", expires="2020-01-01") == counts
    run(command)
    assert "expired on 2020-01-01, modes counts again" in capsys.readouterr().err
    listed.write_text('[[suppress]]\ncondition = "modes"\n')
    assert run(command) == 2
    assert "reason is missing or empty" in capsys.readouterr().err


@pytest.mark.parametrize(("command", "failing"), [
    (["matrix", HLT, CURRENT, "--jobs", "1"], 2), (["diff", CURRENT, HLT], 2),
])  # fmt: skip
def test_a_baseline_of_pairs_and_what_ci_reads(command, failing, capsys, tmp_path):
    known, sarif, gitlab = (str(tmp_path / name) for name in ("known.json", "pairs.sarif", "gl.json"))
    command = [*command, "--scenario", "nosmt", "-q"]
    formats = ["--format", f"sarif={sarif}", "--format", f"gitlab={gitlab}", "--format", "text"]
    assert run([*command, *formats]) == 1
    assert f"{failing} of " in capsys.readouterr().out
    results = json.loads(Path(sarif).read_text())["runs"][0]["results"]
    assert [one["ruleId"] for one in results] == ["pair-risk"] * failing
    assert len(json.loads(Path(gitlab).read_text())) == failing
    assert run([*command, "--write-baseline", known]) == 0
    assert run([*command, "--baseline", known, *formats]) == 0
    assert f"{failing} pairs that would fail are known" in capsys.readouterr().out
    assert json.loads(Path(gitlab).read_text()) == []
    Path(known).write_text('{"hibercheck_pairs_baseline": 1, "pairs": {}}')
    assert run([*command, "--baseline", known]) == 1
    Path(known).write_text("{}")
    assert run([*command, "--baseline", known]) == 2


def test_a_baseline_holds_for_merged_shards_too(capsys, tmp_path):
    shards = [str(tmp_path / f"{number}.json") for number in (1, 2)]
    for number, place in enumerate(shards, 1):
        words = ["matrix", HLT, CURRENT, "--jobs", "1", "--scenario", "nosmt", "--shard", f"{number}/2"]
        run([*words, "--format", f"json={place}"])
    known = str(tmp_path / "known.json")
    assert run(["matrix", "merge", *shards, "-q"]) == 1
    assert run(["matrix", "merge", *shards, "-q", "--write-baseline", known]) == 0
    assert run(["matrix", "merge", *shards, "-q", "--baseline", known]) == 0
    assert run(["matrix", "merge", shards[0], "-q", "--baseline", known]) == 4  # what is not there is no pass
    capsys.readouterr()


@pytest.mark.parametrize(("more", "last"), [
    ([], "2 of 4 pairs fail."), (["--fail-on", "fatal"], "4 pairs, none fails."),
    (["--scenario", "a=nokaslr iommu=off;resumee=nokaslr", "--strict"], "2 of 8 pairs fail, 4 are undetermined."),
])  # fmt: skip
def test_the_last_line_of_a_matrix_says_what_it_means(more, last, capsys):
    status = run(["matrix", HLT, CURRENT, "--jobs", "1", "--scenario", "nosmt", *more])
    assert capsys.readouterr().out.splitlines()[-1] == last
    assert status == (0 if last.endswith("none fails.") else 1)
