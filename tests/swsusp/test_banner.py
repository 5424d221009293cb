"""The kernel's banner is found in its memory, near its code or anywhere."""

from hibercheck.swsusp.image import open_image
from tests.support.image_format import PAGE
from tests.support.image_writer import ImageWriter
from tests.swsusp.strategies import page

BANNER = b"Linux version 6.1.0-50-cloud-amd64 (a@b.org) (gcc-12 (Debian 12.2.0), GNU ld) #1 SMP Debian 6.1.176-1\n"
WEAK = BANNER.replace(b"#1 SMP Debian 6.1.176-1", b"# SMP ")
NEAR = 0x1997000 // PAGE


def banner(tmp_path, frames, **more):
    with open_image(str(ImageWriter(frames=frames).write(tmp_path / "i"))) as image:
        return image.find_banner(**more)


def test_near_the_code_across_two_frames(tmp_path):
    data = (b"\0" * (PAGE - 40) + BANNER).ljust(2 * PAGE, b"\0")
    frames = {NEAR + 7: data[:PAGE], NEAR + 8: data[PAGE:], 5: BANNER.replace(b"6.1.0", b"5.9.9").ljust(PAGE, b"\0")}
    assert banner(tmp_path, frames) == BANNER.decode().rstrip()


def test_frames_that_are_not_neighbours_make_no_banner(tmp_path):
    data = (b"\0" * (PAGE - 40) + BANNER).ljust(2 * PAGE, b"\0")
    assert banner(tmp_path, {NEAR + 7: data[:PAGE], NEAR + 9: data[PAGE:]}) is None


def test_below_the_code(tmp_path):
    assert banner(tmp_path, {NEAR - 7: BANNER.ljust(PAGE, b"\0")}) == BANNER.decode().rstrip()


def test_the_weak_constant_does_not_count(tmp_path):
    frames = {NEAR + 1: WEAK.ljust(PAGE, b"\0"), NEAR + 2: BANNER.ljust(PAGE, b"\0")}
    assert banner(tmp_path, frames) == BANNER.decode().rstrip()


def test_far_away_only_if_asked(tmp_path):
    frames = {NEAR + (1 << 20): BANNER.ljust(PAGE, b"\0"), 3: page(3)}
    assert banner(tmp_path, frames) is None
    assert banner(tmp_path, frames, everywhere=True) == BANNER.decode().rstrip()


def test_none(tmp_path):
    assert banner(tmp_path, {3: page(3)}, everywhere=True) is None
