"""HibernateLocation beside an image: of a partition by the swap's UUID, of a swap file by its file system's."""

from __future__ import annotations

import json
import uuid

import pytest
from click.testing import CliRunner

from hibercheck.cli import image as command
from hibercheck.handoff.acceptance import willing
from hibercheck.handoff.acceptance.announced import header_page, is_announced
from hibercheck.handoff.acceptance.refusal import Question
from hibercheck.report.image import discard_command
from hibercheck.swsusp.image import open_image
from tests.handoff.facts.test_used_since import disk_of, ext4
from tests.support import made_system as made
from tests.support.image_writer import ImageWriter
from tests.support.made_inputs import made_image, made_plan

FILE_SYSTEM = str(uuid.UUID(bytes=bytes(range(16))))
SWAP = str(uuid.UUID(bytes=bytes(range(16, 32))))
PAGE = 4096
FIRST = 40
"""The page of its file system at which the swap file begins."""
VARIABLE = "sys/firmware/efi/efivars/HibernateLocation-8cf2644b-4b0b-428f-9387-6d876050dc67"


@pytest.fixture
def file_disk(tmp_path):
    """A disk whose only partition is an ext4 file system with a swap file in it, which has an image."""
    content = ImageWriter(frames={1: None}, header_at=FIRST).encode()
    return disk_of(tmp_path / "disk", ext4()[:PAGE] + content[PAGE:])


def set_location(root, name, offset):
    """Write the variable as systemd does."""
    value = json.dumps({"uuid": name, "offset": offset, "kernelVersion": "6.12-x", "osReleaseId": "debian"})
    made.write(root, VARIABLE, b"\7\0\0\0" + f"{value}\0".encode("utf-16-le"))


def test_a_stream_has_no_page():
    image = made_image()
    image.swap_map = None
    assert header_page(image) is None
    assert is_announced(image, SWAP, 0) is None


def test_the_page_counts_from_the_start_of_the_swap():
    image = made_image(swap_uuid=SWAP)
    assert (header_page(image), is_announced(image, SWAP.upper(), 0), is_announced(image, SWAP, 3)) == (0, True, False)
    assert is_announced(image, FILE_SYSTEM, 0) is False
    assert is_announced(made_image(), SWAP, 0) is None  # swap without a UUID


@pytest.mark.parametrize(("name", "offset", "here"), [
    (FILE_SYSTEM, FIRST, True), (FILE_SYSTEM.upper(), FIRST, True), (SWAP, FIRST, False), (FILE_SYSTEM, 0, False),
])  # fmt: skip
def test_a_swap_file_is_named_by_its_file_system(file_disk, name, offset, here):
    with open_image(file_disk) as opened:
        assert header_page(opened) == FIRST
        assert is_announced(opened, name, offset) is here


def test_a_copy_of_the_file_alone_does_not_tell(tmp_path):
    path = ImageWriter(frames={1: None}, header_at=FIRST).write(tmp_path / "disk")
    with open_image(str(path)) as opened:
        assert is_announced(opened, FILE_SYSTEM, FIRST) is None


@pytest.mark.parametrize(("offset", "said"), [
    (FIRST, "page 40, by Linux 6.12-x: this image"), (7, "page 7, by Linux 6.12-x, not this image"),
])  # fmt: skip
def test_image_tells(file_disk, tmp_path, offset, said):
    set_location(tmp_path / "root", FILE_SYSTEM, offset)
    given = [file_disk, "--root", str(tmp_path / "root")]
    ran = CliRunner().invoke(command.command, [*given, "--color", "never", "--width", "300"], standalone_mode=False)
    assert said in ran.output
    ran = CliRunner().invoke(command.command, [*given, "--format", "json"], standalone_mode=False)
    found = json.loads(ran.output)["hibernate_location"]
    assert found == {"uuid": FILE_SYSTEM, "offset": offset, "kernel": "6.12-x", "here": offset == FIRST}


def test_a_swap_file_is_thrown_away_by_its_own_name(file_disk):
    """mkswap on the device that was read would destroy the file system that the swap file is in."""
    with open_image(file_disk) as opened:
        opened.path, opened.partition = (
            "/dev/nvme0n1p2",
            None,
        )  # as where the partition itself is read, by --resume-offset
        assert discard_command(opened)[-1] == "SWAPFILE"
        opened.header_offset = opened.swap_map.base
        assert discard_command(opened)[-1] == "/dev/nvme0n1p2"


def test_image_tells_by_what_was_collected(file_disk, tmp_path):
    facts = {"hibercheck_facts": 1, "hibernate_location": {"uuid": FILE_SYSTEM, "offset": FIRST}}
    path = made.write(tmp_path, "facts.json", json.dumps(facts))
    given = [file_disk, "--resumer-facts", str(path), "--format", "json"]
    ran = CliRunner().invoke(command.command, given, standalone_mode=False)
    assert json.loads(ran.output)["hibernate_location"]["here"] is True
    ran = CliRunner().invoke(command.command, [file_disk, "--format", "json"], standalone_mode=False)
    assert json.loads(ran.output)["hibernate_location"] is None


def test_a_check_does_not_miss_a_swap_file_that_is_named(file_disk):
    with open_image(file_disk) as opened:
        for offset, remarks in ((FIRST, 0), (FIRST + 1, 1)):
            asked = Question(made_plan(image=opened, collected={"location": (FILE_SYSTEM, offset)}))
            willing.announced(asked)
            assert len(asked.remarks) == remarks
