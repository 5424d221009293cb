from __future__ import annotations

from pathlib import Path

import pytest

from hibercheck.errors import InputProblem, UsageProblem
from hibercheck.handoff.matrix.collect import kernels_named
from hibercheck.kernel.kernel import open_kernel
from hibercheck.kernel.locate import locate
from tests.support.elf_writer import SYMBOLS, write_kernel

RELEASE = "6.12.94+deb13-cloud-amd64"


def put(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"kernel")


def test_a_path_stays_itself(tmp_path: Path) -> None:
    put(tmp_path, "6.1")
    assert locate(str(tmp_path / "6.1")) == tmp_path / "6.1"
    assert locate(str(tmp_path / "absent")) == tmp_path / "absent"


def test_an_empty_name_is_not_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "vmlinux")
    monkeypatch.chdir(tmp_path)
    assert locate(".") == Path("vmlinux")
    with pytest.raises(UsageProblem, match="is empty"):
        locate("")
    assert list(kernels_named([""])) == [""]


@pytest.mark.parametrize(
    "place",
    [
        f"boot/vmlinuz-{RELEASE}",
        f"boot/vmlinux-{RELEASE}",
        f"boot/vmlinux-{RELEASE}.xz",
        f"usr/lib/debug/boot/vmlinux-{RELEASE}",
        f"usr/lib/debug/lib/modules/{RELEASE}/vmlinux",
        f"usr/lib/debug/lib/modules/{RELEASE}/vmlinux.xz",
        f"lib/modules/{RELEASE}/build/vmlinux",
        f"usr/lib/modules/{RELEASE}/vmlinuz",
    ],
)
def test_a_release_where_distributions_put_it(tmp_path: Path, place: str) -> None:
    put(tmp_path, place, "boot/vmlinuz-6.12.94", f"boot/System.map-{RELEASE}")
    assert locate(RELEASE, tmp_path) == tmp_path / place


def test_a_release_with_symbols_goes_first(tmp_path: Path) -> None:
    put(tmp_path, f"boot/vmlinuz-{RELEASE}", f"usr/lib/debug/boot/vmlinux-{RELEASE}")
    assert locate(RELEASE, tmp_path).name == f"vmlinux-{RELEASE}"


def test_a_release_that_is_not_installed(tmp_path: Path) -> None:
    with pytest.raises(InputProblem, match=r"neither a file nor a kernel.*debug package"):
        locate(RELEASE, tmp_path)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["vmlinux", "arch/x86/boot/bzImage"], "vmlinux"),
        (["arch/x86/boot/bzImage"], "arch/x86/boot/bzImage"),
        ([f"boot/vmlinuz-{RELEASE}", f"boot/config-{RELEASE}"], f"boot/vmlinuz-{RELEASE}"),
        (
            [f"usr/lib/modules/{RELEASE}/vmlinuz", f"usr/lib/modules/{RELEASE}/x.ko"],
            f"usr/lib/modules/{RELEASE}/vmlinuz",
        ),
        (
            [f"boot/vmlinuz-{RELEASE}", f"usr/lib/debug/lib/modules/{RELEASE}/vmlinux"],
            f"usr/lib/debug/lib/modules/{RELEASE}/vmlinux",
        ),
    ],
)
def test_a_tree(tmp_path: Path, names: list[str], found: str) -> None:
    put(tmp_path, *names)
    assert locate(str(tmp_path)) == tmp_path / found


def test_a_tree_with_several_kernels(tmp_path: Path) -> None:
    put(tmp_path, "boot/vmlinuz-6.1", "boot/vmlinuz-6.12.xz", "boot/vmlinuz-6.12")
    with pytest.raises(UsageProblem, match=r"several kernels \(6\.1, 6\.12\)"):
        locate(str(tmp_path))


def test_a_tree_without_a_kernel(tmp_path: Path) -> None:
    put(tmp_path, "boot/initrd.img-6.1")
    with pytest.raises(InputProblem, match="directory without a kernel"):
        locate(str(tmp_path))


def test_opening_what_was_located(tmp_path: Path) -> None:
    path = tmp_path / "boot/vmlinuz-6.1"
    path.parent.mkdir()
    path.write_bytes(write_kernel(SYMBOLS))
    with open_kernel(str(tmp_path)) as kernel:
        assert kernel.path == str(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [("absent/vmlinux", "No such file"), ("a\0b", "cannot be opened"), ("x" * 5000, "cannot be opened")],
)
def test_what_cannot_be_read(name: str, message: str) -> None:
    with pytest.raises(InputProblem, match=message) as caught:
        open_kernel(name)
    assert caught.value.exit_status == 3


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "vmlinux").touch()
    with pytest.raises(InputProblem, match="is empty"):
        open_kernel(str(tmp_path / "vmlinux"))
