"""What the boot loader starts by default: systemd-boot, unified images, GRUB with and without BLS."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from hibercheck.host.entries import boot_entries, version_key
from hibercheck.host.swap import active_swaps, configured_swaps, host_name, parameter, swap_uuids


def write(root, name, content=""):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def bls(root, name, release, options, directory="efi"):
    write(root, f"{directory}/m/{release}/linux")
    write(
        root,
        f"{directory}/loader/entries/{name}.conf",
        f"# made\ntitle Test {release}\nversion {release}\nlinux /m/{release}/linux\noptions {options}\noptions more\n",
    )


def default(root):
    entries = boot_entries(root)
    assert [one.default for one in entries] == [True] + [False] * (len(entries) - 1)
    return entries[0]


def test_systemd_boot_takes_the_newest(tmp_path):
    write(tmp_path, "efi/loader/loader.conf", "timeout 3\n")
    for release in ("6.9.1", "6.12.1", "6.12.0"):
        bls(tmp_path, f"m-{release}", release, f"root=/dev/sda2 resume=UUID=AB {release}")
    entry = default(tmp_path)
    assert entry.title == "Test 6.12.1"
    assert entry.kernel == tmp_path / "efi/m/6.12.1/linux"
    assert entry.command_line == "root=/dev/sda2 resume=UUID=AB 6.12.1 more"
    assert len(boot_entries(tmp_path)) == 3


def test_unless_it_is_told_otherwise(tmp_path):
    write(tmp_path, "boot/loader/loader.conf", "default  m-6.9*\n")
    for release in ("6.9.1", "6.12.1"):
        bls(tmp_path, f"m-{release}", release, "ro", "boot")
    assert default(tmp_path).title == "Test 6.9.1"
    variable = "sys/firmware/efi/efivars/LoaderEntryDefault-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
    write(tmp_path, variable, b"\7\0\0\0" + "m-6.12.1.conf\0".encode("utf-16-le"))
    assert default(tmp_path).title == "Test 6.12.1"


def test_unified_images_have_their_own_command_line(tmp_path):
    stub = Path("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")
    if not stub.exists() or shutil.which("objcopy") is None:
        pytest.skip("no systemd stub or objcopy here")
    write(tmp_path, "line", "root=UUID=1 resume=UUID=2 quiet\n")
    write(tmp_path, "osrel", 'NAME=Test\nPRETTY_NAME="Test 13"\n')
    write(tmp_path, "linux", "kernel")
    target = tmp_path / "boot/efi/EFI/Linux/m-6.12.1.efi"
    target.parent.mkdir(parents=True)
    sections = ["--add-section", f".osrel={tmp_path}/osrel", "--change-section-vma", ".osrel=0x140000000"]
    sections += ["--add-section", f".cmdline={tmp_path}/line", "--change-section-vma", ".cmdline=0x140010000"]
    sections += ["--add-section", f".linux={tmp_path}/linux", "--change-section-vma", ".linux=0x140020000"]
    subprocess.run(["objcopy", *sections, stub, target], check=True, capture_output=True)
    write(tmp_path, "boot/efi/EFI/Linux/other.efi", stub.read_bytes())  # a program without a kernel
    (entry,) = boot_entries(tmp_path)
    assert (entry.title, entry.kernel, entry.command_line) == ("Test 13", target, "root=UUID=1 resume=UUID=2 quiet")


GRUB = """
set default="{default}"
if [ "${{next_entry}}" ] ; then
   set default="${{next_entry}}"
fi
menuentry 'Debian GNU/Linux' --class debian $menuentry_id_option 'gnulinux-simple-1' {{
	load_video
	linux	/boot/vmlinuz-6.12.94 root=UUID=1 ro  quiet
	initrd	/boot/initrd.img-6.12.94
}}
submenu 'Advanced options' $menuentry_id_option 'gnulinux-advanced-1' {{
	menuentry 'Debian, with Linux 6.12.94' --class debian $menuentry_id_option 'gnulinux-6.12.94-advanced-1' {{
		if [ x = y ]; then
			insmod part_gpt
		fi
		linux	/boot/vmlinuz-6.12.94 root=UUID=1 ro  quiet
	}}
	menuentry 'Debian, with Linux 6.1.0' --class debian $menuentry_id_option 'gnulinux-6.1.0-advanced-1' {{
		linux	/boot/vmlinuz-6.1.0 root=UUID=1 ro single nosmt
	}}
}}
menuentry 'UEFI Firmware Settings' {{
	fwsetup
}}
menuentry "Other" {{
	linux /boot/vmlinuz-other $extra
}}
"""


@pytest.mark.parametrize(
    ("chosen", "kernel", "options"),
    [
        ("0", "vmlinuz-6.12.94", "root=UUID=1 ro  quiet"),
        ("Debian GNU/Linux", "vmlinuz-6.12.94", "root=UUID=1 ro  quiet"),
        ("1>1", "vmlinuz-6.1.0", "root=UUID=1 ro single nosmt"),
        ("gnulinux-advanced-1>gnulinux-6.1.0-advanced-1", "vmlinuz-6.1.0", "root=UUID=1 ro single nosmt"),
        ("Advanced options>Debian, with Linux 6.1.0", "vmlinuz-6.1.0", "root=UUID=1 ro single nosmt"),
        ("3", "vmlinuz-other", "from=environment"),
        ("no such entry", "vmlinuz-6.12.94", "root=UUID=1 ro  quiet"),
    ],
)
@pytest.mark.parametrize("saved", [False, True])
def test_grub(tmp_path, chosen, kernel, options, saved):
    for name in ("vmlinuz-6.12.94", "vmlinuz-6.1.0", "vmlinuz-other"):
        write(tmp_path, f"boot/{name}")
    write(tmp_path, "boot/grub/grub.cfg", GRUB.format(default="${saved_entry}" if saved else chosen))
    environment = f"# GRUB Environment Block\nsaved_entry={chosen if saved else '1>1'}\nextra=from=environment\n"
    write(tmp_path, "boot/grub/grubenv", environment)
    entry = default(tmp_path)
    assert (entry.kernel, entry.command_line) == (tmp_path / "boot" / kernel, options)
    assert len(boot_entries(tmp_path)) == 4


def test_grub_with_entries_of_the_specification(tmp_path):
    write(tmp_path, "boot/grub2/grub.cfg", 'set default="${saved_entry}"\ninsmod blscfg\nblscfg\n')
    write(tmp_path, "boot/grub2/grubenv", "saved_entry=m-6.9.1\nkernelopts=root=UUID=7 rhgb\n")
    for release in ("6.9.1", "6.12.1"):
        bls(tmp_path, f"m-{release}", release, "$kernelopts", "boot")
    entry = default(tmp_path)
    assert (entry.title, entry.command_line) == ("Test 6.9.1", "root=UUID=7 rhgb more")
    write(tmp_path, "boot/grub2/grubenv", "saved_entry=\n")
    assert default(tmp_path).title == "Test 6.12.1"


def test_a_kernel_that_is_gone_is_named_where_it_was(tmp_path):
    menu = "menuentry 'a' {\n\tlinux /boot/vmlinuz-1 ro\n}\nmenuentry 'b' {\n\tlinux /vmlinuz-2 ro\n}\n"
    write(tmp_path, "boot/grub/grub.cfg", menu)
    assert [one.kernel for one in boot_entries(tmp_path)] == [tmp_path / "boot/vmlinuz-1", tmp_path / "boot/vmlinuz-2"]


def test_where_there_is_no_loader(tmp_path):
    assert boot_entries(tmp_path) == ()
    assert boot_entries(tmp_path / "nowhere") == ()
    write(tmp_path, "efi/EFI/Linux/x.efi", b"MZ" + bytes(58) + b"\xff\xff\xff\xff")
    write(tmp_path, "boot/grub/grub.cfg", "menuentry 'x' {\n" * 9)
    assert boot_entries(tmp_path) == ()


def test_versions_are_compared_as_numbers():
    assert sorted(["m-6.9", "m-6.12", "m-6.12.1"], key=version_key) == ["m-6.9", "m-6.12", "m-6.12.1"]


def test_swap_and_names(tmp_path):
    write(
        tmp_path,
        "proc/swaps",
        "Filename\tType\tSize\tUsed\tPriority\n/dev/sda2 partition 1024 0 -2\n/swap\\040file file 2048 8 5\n",
    )
    write(
        tmp_path,
        "etc/fstab",
        "UUID=AB-cd none swap sw,pri=3 0 0\n# x none swap\n/swapfile none swap sw 0 0\n/ / ext4\n",
    )
    write(tmp_path, "etc/hostname", "tulip\n")
    first, second = active_swaps(tmp_path)
    assert (first.name, first.kind, first.size, first.used, first.priority) == ("/swap file", "file", 2 << 20, 8192, 5)
    assert second.name == "/dev/sda2"
    assert [(one.name, one.kind, one.priority) for one in configured_swaps(tmp_path)] == [
        ("UUID=AB-cd", "partition", 3),
        ("/swapfile", "file", None),
    ]
    assert swap_uuids(tmp_path, ()) == {"ab-cd"}
    assert host_name(tmp_path) == "tulip"
    assert parameter("a resume=x resume_offset=4 resume=UUID=7", "resume") == "UUID=7"
    assert parameter("noresume", "resume") is None
