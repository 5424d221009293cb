"""Every rule has an input that triggers it and one that does not."""

from __future__ import annotations

import struct
from dataclasses import replace
from types import SimpleNamespace

import pytest

from hibercheck.errors import MalformedImage, Mismatch
from hibercheck.handoff.memory.owner import Owner, Use, Writes
from hibercheck.handoff.replay.fate import Suppositions
from hibercheck.handoff.replay.judge import judge_cpu
from hibercheck.handoff.scenario.options import CheckOptions
from hibercheck.handoff.verdict.check import check
from hibercheck.handoff.verdict.explain import Explainer
from hibercheck.handoff.verdict.findings import Level
from hibercheck.handoff.verdict.rules import RULES
from tests.support.made_states import (
    CODE,
    DEAD,
    GS_FRAME,
    KICK,
    LINE_AT,
    LINE_FRAME,
    NUMBER,
    OTHER,
    TEXT_FRAME,
    made,
    namer_of,
    page,
)

COMMITTED = {
    "HC101": ("fatal", {"memory": True}),
    "HC201": ("fatal", {}),
    "HC202": ("fatal", {}),
    "HC203": ("latent", {}),
    "HC301": ("fatal", {}),
    "HC302": ("latent", {"suppose": frozenset()}),
    "HC401": ("paging-mode", {}),
    "HC406": ("safe", {"facts": (("cpu-flags", "-smap"),)}),
    "HC502": ("latent", {"suppose": frozenset()}),
    "HC601": ("fatal", {"park": "fixmap"}),
    "HC701": ("no-overlap", {}),
}
"""A committed case and further options, for each rule that one of them triggers."""

SHARED = {
    "HC402": ("images/5cfca45430.bin.xz", "debian-6.1.176", "debian-6.12.94", {"resumer_cmdline": "nokaslr nosmt"}),
    "HC501": ("images/89d55f5182.bin.xz", "park-init", "debian-6.1.176", {"resumer_cmdline": "nokaslr"}),
}
"""Image, resumer, resumee and options out of the measured cases."""

OTHERS = {
    "HC102": "test_a_line_of_the_resumee",
    "HC204": "test_data_that_lead_a_cpu_out_of_its_loop",
    "HC303": "test_a_store_into_the_resumee",
    "HC403": "test_the_wrong_resumee",
    "HC404": "test_a_damaged_image",
    "HC405": "test_a_file_system_that_was_used_since",
}
"""Rules with a test of their own below."""


def rules_of(report) -> set[str]:
    return {finding.rule for finding in report.findings}


def test_no_rule_is_without_a_trigger():
    named = [*COMMITTED, *SHARED, *OTHERS]
    assert sorted(named) == sorted(RULES)
    assert all(name in globals() for name in OTHERS.values())


@pytest.mark.parametrize("rule", COMMITTED)
def test_a_committed_case_triggers_it(predict, rule):
    name, more = COMMITTED[rule]
    assert rule in rules_of(predict(name, **more))


@pytest.mark.parametrize("rule", COMMITTED)
def test_a_committed_case_does_not(predict, rule):
    assert rule not in rules_of(predict("same-build"))


@pytest.mark.parametrize("rule", SHARED)
def test_a_measured_case_triggers_it(unpacked, rule):
    image, resumer, resumee, options = SHARED[rule]
    kernels = [str(unpacked(f"kernels/{kernel}.vmlinux.xz")) for kernel in (resumer, resumee)]
    report = check(str(unpacked(image)), *kernels, CheckOptions(**options))
    assert rule in rules_of(report)


@pytest.mark.parametrize("rule", SHARED)
def test_no_committed_case_does(predict, rule):
    assert rule not in rules_of(predict("safe"))


@pytest.mark.parametrize(("reinitialised", "covered", "found"), [
    (False, True, ["HC102"]),
    (True, True, []),
    (False, False, []),
])  # fmt: skip
def test_a_line_of_the_resumee(reinitialised, covered, found):
    memory, cpu = made({LINE_FRAME: page(LINE_AT & 0xFFF, DEAD)} if covered else {OTHER: bytes(4096)})
    result = judge_cpu(memory, cpu, Suppositions(), reinitialised=reinitialised)
    told = [finding.rule for finding in Explainer(namer_of(memory)).findings(result)]
    assert [rule for rule in told if rule == "HC102"] == found


@pytest.mark.parametrize(("reinitialised", "writes", "level", "text"), [
    (True, Writes.BEFORE_INIT, Level.ERROR, "jiffies of the resumee, where it certainly writes as it resumes (tick())"),
    (False, Writes.BEFORE_INIT, Level.ERROR, "where it certainly writes"),
    (False, Writes.ORDINARY, Level.WARNING, "jiffies of the resumee, where it writes as it runs"),
    (False, Writes.NEVER, Level.WARNING, "jiffies of the resumee, which it leaves alone"),
    (True, Writes.ORDINARY, None, ""),
])  # fmt: skip
@pytest.mark.parametrize("covered", [True, False])
def test_whose_the_line_is(reinitialised, writes, level, text, covered):
    """A line that the image does not hold is told of if what the resumee writes there may kill."""
    line = LINE_AT & 0xFFF
    memory, cpu = made({TEXT_FRAME: b"\xcc" * 4096} | ({LINE_FRAME: page(line, DEAD)} if covered else {}))
    level = {Writes.ORDINARY: level and Level.ERROR, Writes.NEVER: None}.get(writes, level) if not covered else level
    owner = Owner(LINE_FRAME << 12 | line, 64, Use.DATA, ("jiffies",), None, writes, "tick()")
    memory = replace(
        memory, owners=SimpleNamespace(line_size=64, of_line=lambda _, cpu: owner, handed_out=lambda _: False)
    )
    result = judge_cpu(memory, cpu, Suppositions(), reinitialised=reinitialised)
    told = Explainer(namer_of(memory)).findings(result)
    found = [one for one in told if one.rule == "HC102"]
    assert [one.level for one in found] == ([] if level is None else [level])
    assert not found or text in found[0].message
    assert covered or "HC101" not in rules_of(SimpleNamespace(findings=told))


@pytest.mark.parametrize(("access", "covered", "found"), [
    ("write", True, ["HC303"]),
    ("write", False, []),
    ("read", True, []),
])  # fmt: skip
def test_a_store_into_the_resumee(access, covered, found):
    """A loop that stores to its per-CPU area, in a CPU whose stack and GS base are known."""
    memory, cpu = made({GS_FRAME: page(NUMBER, b"\7\0\0\0")} if covered else {OTHER: bytes(4096)})
    loop = cpu.parked.loop
    touches = (loop.touches[0], replace(loop.touches[1], access=access))
    cpu = replace(
        cpu,
        parked=replace(cpu.parked, loop=replace(loop, touches=touches)),
        context=replace(cpu.context, registers=None),
    )
    result = judge_cpu(memory, cpu, Suppositions(), reinitialised=True)
    told = [finding.rule for finding in Explainer(namer_of(memory)).findings(result)]
    assert [rule for rule in told if rule == "HC303"] == found


@pytest.mark.parametrize(("image", "code", "text"), [
    ({GS_FRAME: bytes(4096)}, CODE, "reads 0x0 as its per-CPU data"),
    ({LINE_FRAME: page(LINE_AT & 0xFFF, KICK)}, CODE[:0x20] + b"\xf4\xeb\xfd", "then waits at 0xffffffff81000120"),
])  # fmt: skip
def test_data_that_lead_a_cpu_out_of_its_loop(image, code, text):
    memory, cpu = made(image, code=code)
    result = judge_cpu(memory, cpu, Suppositions(spurious_mwait=True), reinitialised=True)
    found = [one for one in Explainer(namer_of(memory)).findings(result) if one.rule == "HC204"]
    assert len(found) == 1
    assert text in found[0].message
    quiet_memory, quiet = made({OTHER: bytes(4096)})
    result = judge_cpu(quiet_memory, quiet, Suppositions(), reinitialised=True)
    assert not [one for one in Explainer(namer_of(quiet_memory)).findings(result) if one.rule == "HC204"]


def test_the_wrong_resumee(committed):
    case = committed("fatal")
    with pytest.raises(Mismatch, match=r"6\.1\.192-lab-mid-current") as caught:
        check(case["image"], case["resumee"], case["resumer"], CheckOptions())
    assert "6.1.192-lab-small-hlt" in str(caught.value)
    assert caught.value.exit_status == 3


@pytest.mark.parametrize(("days", "found"), [(-1, set()), (1, {"HC405"})])
def test_a_file_system_that_was_used_since(committed, tmp_path, days, found):
    """A disk with an ext4 superblock and the image of 22 November 2026, 19:25:55 UTC."""
    case, moment, block = committed("safe"), 1_795_375_555 + 86400 * days, bytearray(1 << 20)
    struct.pack_into("<II4xH", block, 1024 + 44, moment, moment, 0xEF53)
    data = open(case["image"], "rb").read()  # noqa: PTH123, SIM115
    table = bytearray(1 << 20)
    table[510:512] = b"\x55\xaa"
    for slot, (start, size) in enumerate(((2048, 2048), (4096, len(data) // 512))):
        struct.pack_into("<4xB3xII", table, 446 + 16 * slot, 0x83, start, size)
    (tmp_path / "disk").write_bytes(table + block + data)
    report = check(str(tmp_path / "disk"), case["resumer"], case["resumee"], CheckOptions(resumer_cmdline="nokaslr"))
    assert rules_of(report) & {"HC405"} == found


def test_a_damaged_image(committed, tmp_path):
    case = committed("fatal")
    with open(case["image"], "rb") as whole:  # noqa: PTH123
        (tmp_path / "cut.bin").write_bytes(whole.read(1 << 20))
    with pytest.raises(MalformedImage):
        check(str(tmp_path / "cut.bin"), case["resumer"], case["resumee"], CheckOptions())


@pytest.mark.parametrize(
    ("name", "more", "told"),
    [("fatal", {}, "without nosmt"), ("fatal", {"resumer_cmdline": "nokaslr", "resumer_offline": {1}}, "by hand")],
)
def test_advice_on_a_cpu_left_behind_fits_how_it_got_there(predict, name, more, told):
    found = predict(name, **more).findings
    assert [told in finding.advice for finding in found if finding.rule == "HC301"] == [True]


def test_an_offline_cpu_names_the_commit_that_the_resumer_lacks(predict):
    """Whose fault it is, where the resumer's code tells."""
    told = [one.advice for one in predict("fatal").findings if one.rule == "HC301"]
    assert len(told) == 1
    assert told[0].endswith("before the copy: the resumer lacks commit ec527c318036 (v5.2)")


def test_an_offline_cpu_of_a_kernel_of_which_nothing_is_known_names_none():
    memory, cpu = made({LINE_FRAME: page(LINE_AT & 0xFFF, DEAD)})
    left = replace(cpu, parked=replace(cpu.parked, left_behind=True))
    result = judge_cpu(memory, left, Suppositions(), reinitialised=True)
    for lacks, end in (("", "before the copy"), ("it lacks this", "before the copy: it lacks this")):
        (told,) = [one for one in Explainer(namer_of(memory), lacks=lacks).findings(result) if one.rule == "HC301"]
        assert told.advice.endswith(end)
