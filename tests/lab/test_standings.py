"""The drawing of what is not known of the resumer's run."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.lab.__main__ import main
from tests.lab.records import described, experiment_of
from tests.lab.run import unfit
from tests.lab.standings import ODD, TWISTS, draw

DRAWN = [draw(5, number) for number in range(300)]


def test_draws_repeat_and_make_sense():
    assert DRAWN[:20] == [draw(5, number) for number in range(20)]
    assert len({one.name for one in DRAWN}) == len(DRAWN)
    for one in DRAWN:
        unfit(one)
        machine = one.resumer_machine or one.machine
        assert all(0 < cpu < one.machine.cpus for cpu in one.resumee.offline)
        assert all(0 < cpu < machine.cpus for cpu in one.resumer.offline)
        assert experiment_of(described(one)) == one


def test_every_dimension_is_drawn():
    words = Counter(word for one in DRAWN for word in ODD if word in one.resumer.cmdline)
    assert len(words) > len(ODD) * 0.6
    assert {one.machine.firmware for one in DRAWN} == {"seabios", "ovmf"}
    for found in (
        [one for one in DRAWN if one.resumer.kexec_from],
        [one for one in DRAWN if one.resumer_machine and one.resumer_machine.smp != one.machine.smp],
        [one for one in DRAWN if one.resumer_machine and one.resumer_machine.cpu != one.machine.cpu],
        [one for one in DRAWN if one.machine.hotplug_mib],
        [one for one in DRAWN if one.resumer.modules],
        [one for one in DRAWN if one.resumer.kernel == "cmd-hlt"],
        [one for one in DRAWN if "lockdown=" in one.resumer.cmdline],
        [one for one in DRAWN if "clearcpuid=131" in one.resumee.cmdline],
        [one for one in DRAWN if "maxcpus=" in one.resumer.cmdline and one.resumer.kernel == "debian-6.1.192"],
    ):
        assert len(found) >= 3


def test_hibercheck_is_told_only_in_a_part():
    told = sum("--spurious-mwait" in one.hibercheck_arguments() for one in DRAWN)
    assert 60 < told < 160
    assert all("--resumer-idle" not in one.hibercheck_arguments() for one in DRAWN)
    assert len(TWISTS) >= 13


def test_the_family_wants_a_seed(tmp_path):
    with pytest.raises(SystemExit, match="give --seed"):
        main(["--work", str(tmp_path), "run", "--family", "standings"])
