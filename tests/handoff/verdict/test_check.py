"""What a wrong input gets: one line, the right exit status, never a traceback."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hibercheck.errors import InputProblem, Mismatch, UsageProblem
from hibercheck.handoff.scenario.options import CheckOptions
from hibercheck.handoff.verdict.check import check
from tests.support.unpacked import plain_path


@pytest.fixture(scope="module")
def files():
    return {
        "image": plain_path("images/9c031ac5a1.bin.xz"),
        "resumer": plain_path("kernels/small-hlt.vmlinux.xz"),
        "resumee": plain_path("kernels/mid-current.vmlinux.xz"),
    }


def refused(files, **changes):
    given = files | changes
    line, offline = given.pop("cmdline", "nokaslr"), frozenset(given.pop("offline", ()))
    options = CheckOptions(resumer_cmdline=line, resumer_offline=offline)
    with pytest.raises((InputProblem, UsageProblem)) as caught:
        check(given["image"], given["resumer"], given["resumee"], options)
    assert "\n" not in str(caught.value)
    return caught.value


def test_swapped_kernels_are_named_by_their_banners(files):
    error = refused(files, resumer=files["resumee"], resumee=files["resumer"])
    assert isinstance(error, Mismatch)
    assert error.exit_status == 3
    assert str(error).count("Linux version") == 2
    assert "swapped" in str(error)


@pytest.mark.parametrize("role", ["resumer", "resumee"])
@pytest.mark.parametrize("program", [sys.executable, shutil.which("true")])
def test_an_elf_file_that_is_no_kernel(files, role, program):
    error = refused(files, **{role: program})
    assert error.exit_status == 3
    assert "not a Linux kernel" in str(error)


@pytest.mark.parametrize("role", ["image", "resumer", "resumee"])
def test_a_file_that_is_not_there(files, role, tmp_path):
    error = refused(files, **{role: str(tmp_path / "absent")})
    assert error.exit_status == 3
    assert "absent" in str(error)


def test_an_image_given_as_a_kernel(files):
    assert "hibernation image" in str(refused(files, resumer=files["image"]))


def test_a_kernel_given_as_the_image(files):
    assert refused(files, image=files["resumer"]).exit_status == 3


def test_plain_swap_space(files, tmp_path):
    swap = tmp_path / "swap"
    swap.write_bytes(bytes(0xFF6) + b"SWAPSPACE2" + bytes(1 << 20))
    assert "plain swap space" in str(refused(files, image=str(swap)))


def test_a_cpu_that_is_not_there(files):
    error = refused(files, offline={7}, cmdline="nokaslr nr_cpus=4")
    assert error.exit_status == 2
    assert "CPU 7" in str(error)


def test_a_truncated_image(files, tmp_path):
    with Path(files["image"]).open("rb") as whole:
        head = whole.read(24 << 20)
    cut = tmp_path / "cut.bin"
    cut.write_bytes(head)
    assert "beyond the end of the file" in str(refused(files, image=str(cut)))


def test_the_command_prints_that_line_alone(files):
    command = [
        sys.executable,
        "-m",
        "hibercheck",
        files["image"],
        "--resumer",
        "/nowhere",
        "--resumee",
        files["resumee"],
    ]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr.count("\n")) == (3, "", 1)
    assert run.stderr.startswith("hibercheck: /nowhere")


@pytest.mark.parametrize(("name", "other"), [("fatal", "random-address"), ("random-address", "fatal")])
def test_a_dump_with_another_image_loaded_is_not_of_this_resume(committed, name, other):
    """The same build of the resumer, and no command line that would contradict the dump's."""
    case = committed(name)
    files = case["image"], case["resumer"], case["resumee"]
    dump = committed(other)["memory"]
    with pytest.raises(Mismatch, match=r"shows another image loaded: .* --what-if"):
        check(*files, CheckOptions(resumer_memory=dump))
    supposed = check(*files, CheckOptions(resumer_memory=dump, what_if=True))
    assert any(one.name == "load-address" and one.standing == "measured" for one in supposed.assumptions)
