"""Where kernels are: the layouts of real systems, as names only; every command finds the same in them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hibercheck.errors import UsageProblem
from hibercheck.files.kernels import kernel_files, kernels_in, of_release
from hibercheck.handoff.matrix.collect import kernels_named
from hibercheck.kernel.locate import locate

M = "0123456789abcdef0123456789abcdef"
H = "0abcdfghijklmnpqrsvwxyz123456789"[:32]

LAYOUTS = {
    "Debian": (
        ["boot/vmlinuz-6.1.0-50-amd64", "boot/System.map-6.1.0-50-amd64", "boot/initrd.img-6.1.0-50-amd64",
         "boot/config-6.1.0-50-amd64", "boot/vmlinuz-6.12.94+deb13-amd64",
         "usr/lib/debug/boot/vmlinux-6.12.94+deb13-amd64", "lib/modules/6.1.0-50-amd64/modules.dep"],
        {"6.1.0-50-amd64": "boot/vmlinuz-6.1.0-50-amd64",
         "6.12.94+deb13-amd64": "usr/lib/debug/boot/vmlinux-6.12.94+deb13-amd64"},
    ),
    "Ubuntu": (
        ["boot/vmlinuz-6.8.0-45-generic", "boot/vmlinuz-6.8.0-45-generic.efi.signed.sig", "boot/vmlinuz.old.bak"],
        {"6.8.0-45-generic": "boot/vmlinuz-6.8.0-45-generic"},
    ),
    "Fedora": (
        ["boot/vmlinuz-6.11.4-301.fc41.x86_64", f"boot/vmlinuz-0-rescue-{M}",
         "boot/.vmlinuz-6.11.4-301.fc41.x86_64.hmac", "lib/modules/6.11.4-301.fc41.x86_64/vmlinuz",
         "usr/lib/debug/lib/modules/6.11.4-301.fc41.x86_64/vmlinux", f"boot/loader/entries/{M}-6.11.4.conf"],
        {"6.11.4-301.fc41.x86_64": "usr/lib/debug/lib/modules/6.11.4-301.fc41.x86_64/vmlinux",
         f"0-rescue-{M}": f"boot/vmlinuz-0-rescue-{M}"},
    ),
    "openSUSE": (
        ["boot/vmlinux-6.4.0-150600.21-default.gz", "boot/vmlinuz-6.4.0-150600.21-default",
         "usr/lib/modules/6.4.0-150600.21-default/vmlinuz", "boot/sysctl.conf-6.4.0-150600.21-default"],
        {"6.4.0-150600.21-default": "boot/vmlinux-6.4.0-150600.21-default.gz"},
    ),
    "Arch": (
        ["boot/vmlinuz-linux", "boot/initramfs-linux.img", "usr/lib/modules/6.11.5-arch1-1/vmlinuz",
         "usr/lib/modules/6.11.5-arch1-1/pkgbase"],
        {"linux": "boot/vmlinuz-linux", "6.11.5-arch1-1": "usr/lib/modules/6.11.5-arch1-1/vmlinuz"},
    ),
    "Gentoo": (
        ["boot/kernel-6.6.52-gentoo", "boot/kernel-genkernel-x86_64-6.6.47-gentoo", "boot/initramfs-6.6.52-gentoo.img"],
        {"6.6.52-gentoo": "boot/kernel-6.6.52-gentoo",
         "6.6.47-gentoo": "boot/kernel-genkernel-x86_64-6.6.47-gentoo"},
    ),
    "kernel-install": (
        [f"efi/{M}/6.12.1-200.fc41.x86_64/linux", f"efi/{M}/6.12.1-200.fc41.x86_64/initrd",
         f"efi/loader/entries/{M}-6.12.1-200.fc41.x86_64.conf"],
        {"6.12.1-200.fc41.x86_64": f"efi/{M}/6.12.1-200.fc41.x86_64/linux"},
    ),
    "unified images": (
        [f"boot/efi/EFI/Linux/{M}-6.12.1-amd64.efi", f"boot/efi/EFI/Linux/{M}-6.12.2-amd64+3-0.efi",
         "boot/efi/EFI/systemd/systemd-bootx64.efi", "boot/efi/EFI/BOOT/BOOTX64.EFI"],
        {"6.12.1-amd64": f"boot/efi/EFI/Linux/{M}-6.12.1-amd64.efi",
         "6.12.2-amd64": f"boot/efi/EFI/Linux/{M}-6.12.2-amd64+3-0.efi"},
    ),
    "NixOS": (
        [f"boot/EFI/nixos/{H}-linux-6.6.54-bzImage.efi", f"boot/EFI/nixos/{H}-initrd-linux-6.6.54-initrd.efi"],
        {"6.6.54": f"boot/EFI/nixos/{H}-linux-6.6.54-bzImage.efi"},
    ),
    "ostree": (
        ["boot/ostree/fedora-9ab8/vmlinuz-6.10.6-200.fc40.x86_64", "boot/ostree/fedora-9ab8/initramfs-6.10.6.img"],
        {"6.10.6-200.fc40.x86_64": "boot/ostree/fedora-9ab8/vmlinuz-6.10.6-200.fc40.x86_64"},
    ),
    "Alpine": (["boot/vmlinuz-lts", "boot/initramfs-lts", "boot/System.map-lts"], {"lts": "boot/vmlinuz-lts"}),
    "Void": (
        ["boot/vmlinuz-6.6.54_1", "boot/config-6.6.54_1", "boot/initramfs-6.6.54_1.img"],
        {"6.6.54_1": "boot/vmlinuz-6.6.54_1"},
    ),
    "Slackware": (["boot/vmlinuz-huge-5.15.19", "boot/System.map-huge-5.15.19"],
                  {"huge-5.15.19": "boot/vmlinuz-huge-5.15.19"}),
    "build tree": (["vmlinux", "arch/x86/boot/bzImage", "System.map", "vmlinux.o"], {"": "vmlinux"}),
    "a collection": (
        ["vmlinux-old", "vmlinuz-new", "stock.facts", "linux-image-6.1.deb", "notes.txt", "vmlinux-old.sig"],
        {"old": "vmlinux-old", "new": "vmlinuz-new", "stock.facts": "stock.facts",
         "linux-image-6.1.deb": "linux-image-6.1.deb"},
    ),
    "loose and compressed": (
        ["a.vmlinux.xz", "b.vmlinuz.zst", "c.vmlinux", "d.txt.xz", "e.xz", "f.json.xz", "g.bzImage"],
        {"a.vmlinux.xz": "a.vmlinux.xz", "b.vmlinuz.zst": "b.vmlinuz.zst", "c.vmlinux": "c.vmlinux",
         "g.bzImage": "g.bzImage"},
    ),
}  # fmt: skip
"""For each: the files, and for each release the one that is taken."""


@pytest.fixture(params=LAYOUTS)
def layout(request, tmp_path):
    names, found = LAYOUTS[request.param]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path, {release: tmp_path / name for release, name in found.items()}


def test_each_release_once_and_by_its_best_file(layout):
    tree, found = layout
    assert kernels_in(tree) == found


def test_kernel_matrix_and_resumer_agree(layout):
    tree, found = layout
    assert sorted(kernels_named([str(tree)])) == sorted(map(str, found.values()))
    if len(found) == 1:
        assert locate(str(tree)) == next(iter(found.values()))
    else:
        with pytest.raises(UsageProblem, match="holds several kernels"):
            locate(str(tree))
    for release, path in found.items():
        if re.match(r"\d+\.\d", release):
            assert locate(release, tree) == path
            assert next(of_release(release, tree)) == path


def test_boot_itself(layout):
    tree, found = layout
    inside = {release: path for release, path in found.items() if path.is_relative_to(tree / "boot")}
    if inside:
        assert {release: kernels_in(tree / "boot").get(release) for release in inside} == inside


def test_the_running_system_of_nixos(tmp_path):
    store = tmp_path / "nix/store" / f"{H}-linux-6.6.54"
    store.mkdir(parents=True)
    (store / "bzImage").write_bytes(b"")
    (tmp_path / "run/booted-system").mkdir(parents=True)
    (tmp_path / "run/booted-system/kernel").symlink_to(store / "bzImage")
    assert kernels_in(tmp_path) == {"6.6.54": tmp_path / "run/booted-system/kernel"}


def test_names_with_wildcards_mean_themselves(tmp_path):
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot/vmlinuz-6.1-x").write_bytes(b"")
    assert list(of_release("6.1-*", tmp_path)) == []
    assert [one.path for one in kernel_files(tmp_path)] == [Path(tmp_path / "boot/vmlinuz-6.1-x")]


def test_a_directory_is_no_build_tree_because_it_has_a_vmlinux(tmp_path):
    """Other kernels beside one of that name were passed over: a matrix of three had one."""
    for name in ("vmlinux", "vmlinux-lts", "vmlinux-released.xz", "vmlinuz"):
        (tmp_path / name).write_bytes(b"")
    assert {path.name for path in kernels_in(tmp_path).values()} == {"vmlinux", "vmlinux-lts", "vmlinux-released.xz"}
    (tmp_path / "Makefile").write_text("")
    assert {path.name for path in kernels_in(tmp_path).values()} == {"vmlinux"}
