"""What a value of the Python interface may be; anything else is named, and never taken for "not given"."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

import hibercheck
from hibercheck.errors import UsageProblem
from hibercheck.handoff.scenario.options import CheckOptions

WRONG = [
    *({"resumer_idle": value} for value in ("foo", "", 1, ["mwait"], True)),
    *({"tlb": value} for value in ("hot", 1)),
    *({"suppose": value} for value in (["nmy"], "nmi", "", {"nmi": 1}, [["nmi"]], [1], None, frozenset({"nmi", "x"}))),
    *({"spurious_mwait": value} for value in ("no", 1, 0, None, "")),
    {"mwait_spins": "yes"},
    *({name: value} for name in ("verify", "timeline", "execute", "what_if") for value in ("false", 1, None)),
    *({"resumer_offline": value} for value in ("2", 2, ["2"], [-1], [8192], [True], [1.0], [[1]], None)),
    *({name: value} for name in ("resumee_online", "resumee_offline") for value in ("2", [8192])),
    *({"resumer_phys_base": value} for value in ("16M", -0x200000, 0x100000, 1 << 52, True, 1.5)),
    *({"resume_offset": value} for value in ("1", -1, True)),
    *({"wake_latency": value} for value in ("1", -1, 1.0)),
    *({"resumer_cmdline": value} for value in (1, b"nosmt", ["nosmt"])),
    *({"resumer_cmdline_add": value} for value in (1, ["nosmt"])),
    *({"resumer_memory": value} for value in (1, b"dump")),
    *({"facts": value} for value in ("cpus=2", [("cpus",)], [("cpus", 2)], {"cpus": "2"}, None)),
    {"resumer_registers": "registers.txt"},
]


@pytest.mark.parametrize("given", WRONG, ids=[f"{place}-{next(iter(one))}" for place, one in enumerate(WRONG)])
def test_a_value_that_none_can_be(given):
    with pytest.raises(UsageProblem) as caught:
        hibercheck.check("i", "r", "e", **given)
    (name,) = given
    assert name in str(caught.value) or name == "resumer_registers"
    assert caught.value.advice


def test_every_field_is_checked():
    assert {field.name for field in fields(CheckOptions)} <= {name for given in WRONG for name in given} | {
        *("resume", "resumer_facts", "resumer_log", "resumer_initramfs", "resumer_symbols", "resumee_symbols", "park"),
    }
    for name in (
        "resume",
        "resumer_facts",
        "resumer_log",
        "resumer_initramfs",
        "resumer_symbols",
        "resumee_symbols",
        "park",
    ):
        with pytest.raises(UsageProblem):
            CheckOptions(**{name: 7})


def test_collections_and_paths_of_any_kind():
    given = CheckOptions(
        suppose=["nmi"], resumer_offline=(1, 2), resumer_memory=Path("d"), resumer_registers=Path("r"), resume_offset=0
    )
    assert given == CheckOptions(
        suppose=frozenset({"nmi"}), resumer_offline={2, 1}, resumer_memory="d", resumer_registers="r", resume_offset=0
    )
    assert isinstance(given.resumer_offline, frozenset)


@pytest.mark.parametrize("wrong", [(1, "r", "e"), ("i", None, "e"), ("i", "r", 3)])
def test_inputs_are_paths(wrong):
    with pytest.raises(TypeError):
        hibercheck.check(*wrong)


def test_options_are_options():
    with pytest.raises(TypeError, match="options are CheckOptions, not dict"):
        hibercheck.check("i", "r", "e", {"verify": True})


def test_a_design_that_there_is_not(committed):
    case = committed("safe")
    with pytest.raises(UsageProblem):
        hibercheck.check(case["image"], case["resumer"], case["resumee"], park="none-such")
