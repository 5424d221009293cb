"""What a check could not look at, on the measured cases: known from a dump, or said not to be known."""

from __future__ import annotations

import pytest

from hibercheck.report import formats
from hibercheck.report.gate import judge


def rules(report, cpu=1):
    return {rule for note in report.unexamined if cpu in note.cpus for rule in note.rules}


def test_a_line_that_nobody_knows_is_not_examined(predict):
    report = predict("fatal", spurious_mwait=False)
    assert rules(report) & {"HC101", "HC102"} == {"HC101"}  # the resumee's INIT takes the CPU out of its loop
    assert not {"HC101", "HC102"} & {finding.rule for finding in report.findings}
    ktap = formats.renderer("ktap")(judge(report))
    assert "ok 2 HC101 monitored line overwritten # SKIP CPU 1: where the monitored line lies" in ktap


def test_a_dump_examines_all_of_it(predict):
    report = predict("fatal", memory=True, spurious_mwait=False)
    assert rules(report) == set()
    assert "HC101" in {finding.rule for finding in report.findings}


def test_data_without_a_place_are_not_examined(predict):
    assert rules(predict("same-build")) == {"HC204"}
    assert rules(predict("no-overlap")) == {"HC202", "HC204"}


def test_places_that_are_judged_together_are_not_examined_one_by_one(predict):
    assert rules(predict("random-address")) >= {"HC101", "HC201", "HC202", "HC204"}
    assert rules(predict("random-address", memory=True)) == set()


def test_an_image_that_was_not_decoded_is_not_examined(predict):
    assert [note.supply for note in predict("safe").unexamined if "HC404" in note.rules] == ["--verify"]
    assert not any("HC404" in note.rules for note in predict("safe", verify=True).unexamined)


def test_an_image_without_a_checksum_cannot_be(predict):
    """The image of ``latent`` is not compressed."""
    (note,) = (note for note in predict("latent", verify=True).unexamined if "HC404" in note.rules)
    assert "has no checksum" in note.why


def test_a_refused_image_has_nothing_else_to_examine(predict):
    assert [note.rules for note in predict("refused").unexamined] == [("HC404",)]


@pytest.mark.parametrize("name", ["fatal", "safe", "benign", "latent", "random-address"])
def test_a_rule_is_not_both_found_and_not_examined_for_one_cpu(predict, name):
    report = predict(name)
    for note in report.unexamined:
        for cpu in note.cpus:
            assert not {finding.rule for finding in report.findings if finding.cpu == cpu} & set(note.rules)
