"""A check gives the same answer with facts in place of the kernels."""

from __future__ import annotations

import json

import pytest

from hibercheck.cli.run import run
from hibercheck.handoff.facts.running import physical_pages
from hibercheck.handoff.replay.judge import judge
from hibercheck.handoff.verdict.check import open_inputs
from hibercheck.kernel.code.facts import facts_of
from hibercheck.kernel.code.needed import MEMBERS, SIZES, SYMBOLS
from hibercheck.kernel.code.traits import WANTED
from hibercheck.kernel.kernel import Kernel, open_kernel
from tests.support.cases import options_of


@pytest.mark.parametrize("name", ["stock73-primary-offline", "nosmt-current-deb61", "la57-mismatch-small"])
def test_the_same_verdict(capsys, shared_cases, unpacked, tmp_path, name):
    cases = json.loads((shared_cases / "cases.json").read_text())["cases"]
    (case,) = [one for one in cases if one["name"] == name]
    kernels, facts = {}, {}
    for role in ("resumer", "resumee"):
        kernels[role] = str(unpacked(case[role]))
        facts[role] = str(tmp_path / f"{role}.json")
        with open_kernel(kernels[role]) as kernel, open(facts[role], "w", encoding="utf-8") as file:  # noqa: PTH123
            json.dump(facts_of(kernel), file)
    answers = []
    for given in (kernels, facts):
        arguments = ["--resumer", given["resumer"], "--resumee", given["resumee"], "--format", "json", *case["args"]]
        run([str(unpacked(case["image"])), *arguments])
        report = json.loads(capsys.readouterr().out)
        findings = [(one["rule"], one["cpu"], one["level"]) for one in report["findings"]]
        answers.append((report["outcome"], report["verdict"], findings))
    assert answers[0] == answers[1]
    assert answers[0][0] == case["truth"]["outcome"]


def case_of(shared_cases, name):
    (case,) = [one for one in json.loads((shared_cases / "cases.json").read_text())["cases"] if one["name"] == name]
    return case


@pytest.fixture
def written(tmp_path, unpacked):
    """Return a function that writes the facts of a kernel of the cases and gives the file's path."""

    def write(name):
        path = tmp_path / f"{name.replace('/', '-')}.json"
        with open_kernel(str(unpacked(name))) as kernel:
            path.write_text(json.dumps(facts_of(kernel)))
        return str(path)

    return write


def test_a_dump_has_as_many_pages_with_facts_as_with_the_kernel(shared_cases, unpacked, written):
    case = case_of(shared_cases, "stock612-resumes-61-offline-nmi")
    image, memory = (str(unpacked(case[key])) for key in ("image", "memory"))
    counts = []
    for give in (lambda name: str(unpacked(name)), written):
        resumer, resumee = (give(case[role]) for role in ("resumer", "resumee"))
        with open_inputs(image, resumer, resumee, options_of(case["args"], resumer_memory=memory)) as (plan, _, dump):
            counts.append((physical_pages(judge(plan, dump).memory.resumer.space), plan.image.info.num_physpages))
    assert counts[0] == counts[1] == (65397, 65397)


def test_a_check_asks_for_nothing_that_facts_do_not_keep(monkeypatch, shared_cases, unpacked):
    symbols, types = set(), set()
    look_up, of_type = Kernel.symbols, {name: getattr(Kernel, name) for name in ("offset_of", "size_of")}

    def recording(kernel, names):
        wanted = list(names)
        symbols.update(wanted)
        return look_up(kernel, wanted)

    monkeypatch.setattr(Kernel, "symbols", recording)
    for name, ask in of_type.items():
        monkeypatch.setattr(Kernel, name, lambda *a, name=name, ask=ask: types.add((name, *a[1:])) or ask(*a))
    case = case_of(shared_cases, "stock612-resumes-61-offline-nmi")
    image, resumer, resumee, memory = (str(unpacked(case[key])) for key in ("image", "resumer", "resumee", "memory"))
    given = [image, "--resumer", resumer, "--resumee", resumee, *case["args"], "-q"]
    for more in ([], ["--resumer-memory", memory, "--timeline"], ["--suppose", "mce"], ["--park", "mwait-flags"]):
        run([*given, *more])
    # the resumee's identity is compared with the image's own bytes where its file has notes
    assert symbols - {"__start_notes", "__stop_notes"} <= WANTED.candidates | SYMBOLS.keys()
    of_traits = {("cpuidle_state", "enter"), ("cpuidle_state", "exit_latency"), ("idle_cpu", "use_acpi")}
    assert types <= {("offset_of", *one) for one in MEMBERS | of_traits} | {("size_of", one) for one in SIZES}
