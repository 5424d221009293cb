"""Some hundred damages of the measured cases; ``python -m tests.fuzz --soundness N`` does thousands."""

from tests.fuzz.seeds import FIXTURES
from tests.fuzz.soundness import survey

ROUNDS = 240


def test_no_damage_makes_a_reset_look_safe(tmp_path, capsys):
    tally = survey(ROUNDS, 1, tmp_path, [str(FIXTURES)])
    with capsys.disabled():
        print(tally)
    assert sum(tally.counts.values()) == ROUNDS
    assert not tally.misled, str(tally)
    assert len({after for _, _, after in tally.counts}) > 2, "no damage had any effect"
