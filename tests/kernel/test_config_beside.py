"""The configuration that lies beside a kernel: whose it must be, and what is not believed."""

import os

import pytest

from hibercheck.kernel.ikconfig import beside

HEAD = "#\n# Automatically generated file; DO NOT EDIT.\n# Linux/x86 6.1.192 Kernel Configuration\n#\n"
RELEASE = "6.1.192-lab-small-hlt"


@pytest.fixture
def kernel(tmp_path):
    path = tmp_path / "vmlinux"
    path.write_bytes(b"x")
    return path


def config(kernel, name, text, *, age=-10, mode=0o644):
    path = kernel.parent / name
    path.write_text(text)
    path.chmod(mode)
    moment = kernel.stat().st_mtime + age
    os.utime(path, (moment, moment))
    return path


@pytest.mark.parametrize("name", [".config", f"config-{RELEASE}"])
def test_it_is_found(kernel, name):
    path = config(kernel, name, HEAD + 'CONFIG_PHYSICAL_ALIGN=0x1000000\n# CONFIG_X is not set\nCONFIG_Y="z"\n')
    assert beside(str(kernel), RELEASE) == (str(path), {"CONFIG_PHYSICAL_ALIGN": "0x1000000", "CONFIG_Y": "z"})


@pytest.mark.parametrize(
    ("name", "text", "more"),
    [
        (".config", HEAD.replace("6.1.192", "6.1.19"), {}),
        (".config", HEAD.replace("6.1.192", "6.12.1"), {}),
        (".config", HEAD.replace("x86", "arm64"), {}),
        (".config", "CONFIG_PHYSICAL_ALIGN=0x1000000\n", {}),
        (".config", HEAD, {"age": 10}),
        (".config", HEAD, {"mode": 0o666}),
        ("config", HEAD, {}),
    ],
)
def test_what_is_not_believed(kernel, name, text, more):
    config(kernel, name, text, **more)
    assert beside(str(kernel), RELEASE) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_another_users_is_not_believed(kernel):
    path = config(kernel, ".config", HEAD)
    os.chown(path, 12345, 12345)
    assert beside(str(kernel), RELEASE) is None


def test_nothing_is_waited_for(kernel):
    os.mkfifo(kernel.parent / ".config")
    assert beside(str(kernel), RELEASE) is None
