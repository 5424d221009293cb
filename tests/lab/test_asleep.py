"""The committed cases in which a CPU sleeps in MWAIT: what hibercheck says of them, held to what Bochs showed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hibercheck.handoff.scenario.options import CheckOptions
from hibercheck.handoff.verdict.check import check
from tests.lab import records
from tests.lab.pack import unpack
from tests.lab.predict import Inputs, arguments, ask

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "fixtures"
CASES: dict[str, dict[str, Any]] = {
    case["name"]: case for case in json.loads((FIXTURES / "cases.json").read_text())["asleep"]
}
SLEEPER = CASES["sleeper-passes"]


def of_one_handoff() -> list[records.Entry]:
    """Every record whose inputs are those of the committed cases: the same handoff, at other moments of the wake."""
    entries = records.load(records.PLACE)
    first = next(one for one in entries if one.name == SLEEPER["record"])
    as_first = {"name": first.name, "latency": first.experiment.latency, "tlb": first.experiment.tlb}
    return [one for one in entries if replace(one.experiment, **as_first) == first.experiment]  # type: ignore[arg-type]


SAME = of_one_handoff()


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dump, unpacked with its holes."""
    place = tmp_path_factory.mktemp("asleep")
    return unpack(FIXTURES / "memory" / "sleeper.memory.xz", place / "sleeper.memory")


def entry_of(case: dict[str, Any]) -> records.Entry:
    return next(one for one in records.load(records.PLACE) if one.name == case["record"])


def test_every_moment_of_the_handoff_is_among_them():
    assert {case["record"] for case in CASES.values()} <= {one.name for one in SAME}
    assert {one.outcome for one in SAME} == {"resumes", "resets"}
    assert len(SAME) >= 6


@pytest.mark.parametrize("name", CASES)
def test_a_case_is_its_record(name: str):
    case = CASES[name]
    entry = entry_of(case)
    assert (case["truth"]["outcome"], case["truth"]["events"]) == (entry.outcome, entry.events)
    assert case["args"] == entry.experiment.hibercheck_arguments(mwait_spins=False)
    assert (case["machine"]["latency"], case["machine"]["tlb"]) == (entry.experiment.latency, entry.experiment.tlb)


@pytest.mark.slow
@pytest.mark.parametrize("entry", SAME, ids=lambda entry: entry.name)
def test_the_dump_tells_what_the_machine_may_do_and_when_it_wakes(entry: records.Entry, memory: Path):
    files = Inputs(
        FIXTURES / SLEEPER["image"],
        FIXTURES / SLEEPER["resumer"],
        FIXTURES / SLEEPER["resumee"],
        memory,
        FIXTURES / SLEEPER["registers"],
    )
    said = ask(entry.experiment, entry.machine, files, dump=True)
    assert said.exit == 1, f"a pass where a CPU may die: {said} {arguments(entry.experiment, entry.machine)}"
    got = said.usual if said.verdict == "risk" else said.outcome  # risk: it rests on the moment of the wake
    assert got == entry.outcome
    report = check(
        str(files.image),
        str(files.resumer),
        str(files.resumee),
        CheckOptions(
            resumer_cmdline="nokaslr",
            resumer_offline=frozenset({2, 3}),
            resumer_memory=str(memory),
            resumer_registers=str(files.registers),
        ),
    )
    stores = {cpu.cpu: cpu.timing.store for cpu in report.cpus if cpu.timing is not None}
    late = {"store": 0, "delay": entry.experiment.latency}
    assert entry.events is not None
    woken = {cpu: copy - late[how] for cpu, how, copy, *_ in entry.events["wakes"]}
    assert woken == stores
    copies = {cpu.timing.copies for cpu in report.cpus if cpu.timing is not None}
    assert copies == {entry.events.get("copies", *copies)}  # a machine that resets leaves none to count
