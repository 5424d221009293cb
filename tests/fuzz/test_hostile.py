"""No input of under ten megabytes takes more than ten seconds or 512 MiB, but those that say so, with a reason."""

import pytest

from tests.fuzz import hostile
from tests.support import elf_writer


@pytest.mark.parametrize("name", [name for name in hostile.INPUTS if name not in hostile.LONG])
def test_what_an_input_that_is_made_to_be_expensive_costs(name, tmp_path):
    took = hostile.cost(name, tmp_path)
    assert hostile.wrong(name, took) is None, took


def test_what_is_too_much_is_noticed():
    name = next(iter(hostile.LONG))
    assert hostile.wrong(name, hostile.Cost(11, 100, 3, "hibercheck: still x (after 10 s)\nhibercheck: no\n")) is None
    for seconds, mebibytes, status, said in (
        (11, 100, 3, "hibercheck: no\n"),
        (1, 600, 3, "hibercheck: no\n"),
        (1, 100, 3, "hibercheck: no\nhibercheck: no\n"),
        (1, 100, 1, "Traceback (most recent call last)"),
        (1, 100, -9, ""),
    ):
        assert hostile.wrong(name, hostile.Cost(seconds, mebibytes, status, said)) is not None
    assert hostile.wrong("jumps", hostile.Cost(11, 100, 0, "hibercheck: still x (after 10 s)\n")) is not None


def test_a_list_of_two_million_symbols(tmp_path):
    """More than ten megabytes, and still no reason for more memory than any other input may take."""
    (tmp_path / "vmlinux").write_bytes(elf_writer.write_kernel(elf_writer.SYMBOLS))
    with (tmp_path / "System.map").open("w") as file:
        file.write("ffffffff81000000 T _text\n")
        file.writelines(f"{0xFFFFFFFF81000000 + n:x} T f{n}\n" for n in range(1, 2_000_000))
    took = hostile.measured(["kernel", str(tmp_path / "vmlinux"), "--symbols", str(tmp_path / "System.map")], tmp_path)
    assert took.status == 0, took.said
    assert took.mebibytes < hostile.MEBIBYTES
