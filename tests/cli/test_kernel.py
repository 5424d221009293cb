"""``hibercheck kernel`` on a kernel of the cases."""

from __future__ import annotations

import json

import pytest

from tests.fuzz.seeds import unpack

KERNEL = str(unpack("kernels/small-hlt.vmlinux.xz"))


@pytest.fixture
def vmlinux(unpacked):
    return str(unpacked("kernels/park-init.vmlinux.xz"))


def test_text(hibercheck, vmlinux):
    ran = hibercheck("kernel", vmlinux)
    assert (ran.status, ran.err) == (0, "")
    assert "Linux 6.1.176-park-init" in ran.out.splitlines()[0]
    assert "sends them an INIT then                               yes" in ran.out
    assert "but skips cores whose primary thread is offline" not in ran.out  # nothing is rescued
    assert "  > ffffffff810323ce  hlt" in ran.out
    assert '406f992e4a37 ("x86 / hibernate: Use hlt_play_dead() when resuming from hibernation", in v4.8)' in ran.out


def test_a_loop_is_shown_with_all_that_can_be_fetched_of_it(hibercheck):
    """A compiler puts parts of it elsewhere, or peels the first wait off."""
    ran, told = hibercheck("kernel", KERNEL), json.loads(hibercheck("kernel", KERNEL, "--format", "json").out)
    several = [loop for loop in told["park_loops"] if len(loop["ranges"]) > 1]
    assert several
    for loop in several:
        places = ", ".join(f"{start}-{int(end, 16) - 1:#x}" for start, end in loop["ranges"])
        assert f"  {loop['kind']} in {loop['symbol']}, {places}" in ran.out


def test_without_evidence(hibercheck, vmlinux):
    ran = hibercheck("kernel", vmlinux, "--no-evidence")
    assert ran.status == 0
    assert "406f992e4a37" not in ran.out


def test_facts_go_in_where_they_came_out(hibercheck, vmlinux, tmp_path):
    assert hibercheck("kernel", vmlinux, "--format", "json", "-o", "facts.json").status == 0
    again = hibercheck("kernel", "facts.json", "--format", "json")
    assert (again.status, again.err) == (0, "")
    assert json.loads((tmp_path / "facts.json").read_text()) == json.loads(again.out)
    facts = hibercheck("kernel", "facts.json", "--no-evidence").out.splitlines()
    plain = hibercheck("kernel", vmlinux, "--no-evidence").out.splitlines()
    assert facts[1:] == [line for line in plain[1:] if "symbols from" not in line]


def test_an_input_is_not_overwritten(hibercheck, vmlinux):
    assert hibercheck("kernel", vmlinux, "-o", vmlinux).status == 2


def test_a_missing_file(hibercheck):
    ran = hibercheck("kernel", "nowhere")
    assert (ran.status, ran.out) == (3, "")
    assert len(ran.err.splitlines()) == 1
    assert "nowhere" in ran.err


def test_what_does_not_fit_beside_its_name_goes_on_below_itself(hibercheck):
    """In a pipe lines are whole; a terminal that leaves no room beside the names has the values below them."""
    shown = {width: hibercheck("kernel", KERNEL, "--no-evidence", "--width", width).out for width in (60, 80, 300)}
    lines = shown[80].splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("  cpuidle drivers park it by"))
    column = lines[at].index("acpi_idle:")
    assert lines[at + 1] == " " * column + "acpi_idle:hlt"
    narrow = shown[60].splitlines()
    at = next(number for number, line in enumerate(narrow) if line == "  cpuidle drivers park it by")
    assert narrow[at + 1].strip() == "acpi_idle:port_io, acpi_idle:hlt"
    assert max(map(len, narrow)) <= 60
    words = [text.split() for text in shown.values()]
    assert words[0] == words[1] == words[2]
