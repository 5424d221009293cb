"""What a check takes for granted is said."""

import pytest


@pytest.mark.parametrize(
    ("name", "source", "option"),
    [
        ("fatal", "its checksum was not compared", "hibercheck image --verify"),
        ("latent", "it has no checksum to tell", None),  # not compressed
    ],
)
def test_the_image_is_taken_to_be_undamaged(predict, name, source, option):
    (found,) = (one for one in predict(name).assumptions if one.fact == "the image's data")
    assert (found.source, found.option) == (source, option)
