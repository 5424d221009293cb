"""A few hundred damages of the measured resets; ``python -m tests.fuzz --soundness N`` does thousands."""

from tests.fuzz.soundness import sample

ROUNDS = 200


def test_no_damage_makes_a_reset_look_safe(tmp_path):
    tally = sample(ROUNDS, 1, tmp_path)
    print(tally)
    assert sum(tally.counts.values()) == ROUNDS
    assert not tally.misled, str(tally)
    assert len({outcome for _, _, outcome in tally.counts}) > 1, "no damage had any effect"
