"""What a check takes for granted is said."""

from pathlib import Path

import pytest

from hibercheck.errors import MalformedImage
from hibercheck.handoff.scenario.options import CheckOptions
from hibercheck.handoff.verdict.check import check
from hibercheck.handoff.verdict.findings import HARM, Finding, Level, Outcome, Verdict


@pytest.mark.parametrize(
    ("name", "source", "option"),
    [
        ("fatal", "its checksum was not compared", "--verify"),
        ("latent", "it has no checksum to tell", None),  # not compressed
    ],
)
def test_the_image_is_taken_to_be_undamaged(predict, name, source, option):
    (found,) = (one for one in predict(name).assumptions if one.fact == "the image's data")
    assert (found.source, found.option) == (source, option)


def test_a_verified_image_is_not_taken_for_granted(predict):
    (found,) = (one for one in predict("fatal", verify=True).assumptions if one.fact == "the image's data")
    assert (found.source, found.option) == ("its checksum is right", None)


def test_an_image_that_does_not_verify_is_damaged(committed, tmp_path):
    case = committed("fatal")
    content = bytearray(Path(case["image"]).read_bytes())
    content[-0x3000] ^= 1  # in the last block's data, of which the check itself reads nothing
    damaged = tmp_path / "image.bin"
    damaged.write_bytes(content)
    with pytest.raises(MalformedImage, match=r"copy the image again"):
        check(
            str(damaged), case["resumer"], case["resumee"], CheckOptions(resumer_cmdline="nokaslr nosmt", verify=True)
        )


def test_what_reports_call_the_answer():
    """Programs read these words: they stay."""
    assert [*Outcome] == ["resumes", "may-reset", "resets", "refused", "undetermined"]
    assert [*Verdict] == ["safe", "benign", "latent", "risk", "fatal", "refused", "undetermined"]
    assert [(one.name, one.value) for one in Level] == [("NOTE", 0), ("WARNING", 1), ("ERROR", 2)]


def test_from_harmless_to_harmful():
    """What nobody knows is worse than a risk that is known; a machine that is lost is the worst."""
    order = ("safe", "benign", "latent", "risk", "undetermined", "refused", "fatal")
    assert order == HARM
    assert {*order} == {*Verdict}


def test_a_finding_says_nothing_by_itself():
    found = Finding("HC201", Level.NOTE, None, "park loop", "it is so")
    assert (found.advice, found.evidence, found.resumer.virtual, found.resumee.symbol) == ("", (), None, None)
