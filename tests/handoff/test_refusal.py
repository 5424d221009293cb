"""The resumer's tests of the image, as far as they need no image."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from hibercheck.handoff.cmdline import parse_command_line
from hibercheck.handoff.refusal import _memory_size
from hibercheck.handoff.resumee import E820_RAM, E820Entry

MIB = 1 << 20
RAM = (E820Entry(0, 640 << 10, E820_RAM), E820Entry(MIB, 255 * MIB, E820_RAM), E820Entry(3 << 30, MIB, 2))


@pytest.mark.parametrize(
    ("resumee", "resumer", "said"),
    [
        ("", "", None),
        ("", "mem=100M", "by mem= on its command line"),
        ("", "mem=256M", None),
        ("mem=120M", "", "than the resumee, which was booted with mem="),  # measured: errno -1
        ("mem=120M", "mem=100M", "than the resumee"),
        ("mem=120M", "mem=120M", None),
        ("iomem=relaxed", "mem=100M", "by mem= on its command line"),  # measured: not the resumee's mem=
        ("mem=256M", "", None),  # no RAM is beyond it
        ("mem=256M", "mem=1G", None),
    ],
)
def test_a_limit_of_memory_on_one_side_refuses_the_image(resumee, resumer, said):
    theirs, ours = parse_command_line(resumee), parse_command_line(resumer)
    refusal = _memory_size(SimpleNamespace(e820=RAM, parameters=theirs), ours)
    assert (refusal is None) == (said is None)
    assert refusal is None or said in refusal.reason
    assert _memory_size(SimpleNamespace(e820=None, parameters=theirs), ours) is None
