"""Kernels whose code is damaged or made to waste time: traits are unknown or an error is raised, soon."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hibercheck.errors import HibercheckError
from hibercheck.kernel.code.traits import read_traits
from hibercheck.kernel.kernel import open_kernel
from tests.kernel.code.conftest import PARTS, MadeKernels
from tests.support.effort import ends

MWAIT_FIRST = PARTS["native"]


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """The bytes of a made kernel, and where its text is in them."""
    if not all(shutil.which(tool) for tool in ("as", "ld", "objcopy")):
        pytest.skip("binutils (as, ld, objcopy) are needed to make kernels")
    directory = tmp_path_factory.mktemp("hostile")
    path = MadeKernels(directory).path()
    with open_kernel(path) as kernel:
        section = kernel.section(".text")
    return directory / "damaged", Path(path).read_bytes(), section.offset, section.size


def read(target, content):
    target.write_bytes(content)
    try:
        with open_kernel(str(target)) as kernel:
            return read_traits(kernel)
    except HibercheckError as error:
        assert "\n" not in str(error)  # noqa: PT017 - any of the family is right
        return None


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_code(image, data):
    target, content, offset, size = image
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, size - 1))
        new = data.draw(st.binary(min_size=1, max_size=6))[: size - at]
        damaged[offset + at : offset + at + len(new)] = new
    read(target, bytes(damaged))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1 << 20))
def test_truncated(image, size):
    target, content, _, _ = image
    read(target, content[: size % len(content)])


@pytest.mark.parametrize("byte", [0x00, 0x06, 0x90, 0xC3, 0xCC, 0xE8, 0xEB, 0xF4, 0xFF])
def test_a_text_of_one_byte(image, byte):
    target, content, offset, size = image
    read(target, content[:offset] + bytes([byte]) * size + content[offset + size :])


@pytest.mark.parametrize(
    "body",
    [
        ".rept 9000\n hlt\n .endr\n",
        ".rept 4000\n hlt\n je 1b\n .endr\n",
        ".rept 3000\n call 1b\n .endr\n",
        ".rept 3000\n in %dx, %al\n jne 1b\n .endr\n",
    ],
    ids=["many hlt", "many loops", "recursion", "many ports"],
)
def test_a_waste_of_time_is_cut_short(made, body):
    hlt = f"fn hlt_play_dead\n1: {body} hlt\n jmp 1b\nend hlt_play_dead\n"
    path = made.path(hlt=hlt)
    with ends(), open_kernel(path) as kernel:
        try:
            read_traits(kernel)
        except HibercheckError as error:
            assert "places" in str(error)  # noqa: PT017 - either is right


def test_many_functions_are_cut_short(made):
    count = 600
    calls = "".join(f" call waste_{number}\n" for number in range(count))
    functions = "".join(
        f"fn waste_{number}\n .rept 300\n nop\n .endr\n ret\nend waste_{number}\n" for number in range(count)
    )
    hook = f"fn hibernate_resume_nonboot_cpu_disable\n{calls} ret\nend hibernate_resume_nonboot_cpu_disable\n"
    with ends(120):
        traits = made.traits(hook=hook, extra=functions)
    assert traits.sends_init.value is None
