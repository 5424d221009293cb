"""The resumer that nobody named: that of the boot loader, and only for an image of this machine."""

from __future__ import annotations

from hibercheck.host import entries
from tests.support.image_writer import ImageWriter


def system(root):
    (root / "boot/grub").mkdir(parents=True)
    (root / "boot/vmlinuz-6.12").write_bytes(b"")
    menu = "menuentry 'Test' {\n\tlinux /boot/vmlinuz-6.12 root=/dev/sda1 nosmt\n}\n"
    (root / "boot/grub/grub.cfg").write_text(menu)
    return root


def test_the_default_entry_of_a_mounted_system(hibercheck, engine, tmp_path):
    root = system(tmp_path / "root")
    ran = hibercheck("i", "--root", root, "--fail-on", "never")
    assert ran.status == 0
    assert engine.asked.resumer == str(root / "boot/vmlinuz-6.12")
    assert engine.asked.options.resumer_cmdline == "root=/dev/sda1 nosmt"
    assert "the default boot entry 'Test'" in ran.err
    hibercheck("i", "--root", root, "--resumer-cmdline", "mine", "--resumer-cmdline-add", "x")
    assert (engine.asked.options.resumer_cmdline, engine.asked.options.resumer_cmdline_add) == ("mine", "x")
    assert hibercheck("i", "--root", root, "-q", "--fail-on", "never").err == ""


def test_without_entries_it_is_asked_for(hibercheck, engine, tmp_path):
    image = ImageWriter(frames={1: None}).write(tmp_path / "image")
    ran = hibercheck(image, "--root", tmp_path)
    assert (ran.status, engine.asked) == (2, None)
    assert "no boot entries found" in ran.err
    assert "--resumer" in ran.err
    ran = hibercheck(image, "--root", tmp_path, "--resumer-offline", "1")
    assert (ran.status, engine.asked) == (2, None)


def test_a_mistyped_name_is_told_before_the_resumer_is_asked_for(hibercheck, engine, tmp_path):
    ran = hibercheck(tmp_path / "imgae", "--root", tmp_path)
    assert (ran.status, engine.asked) == (3, None)
    assert "imgae: cannot be opened: No such file or directory" in ran.err
    assert "boot entries" not in ran.err


def test_an_image_of_another_machine_needs_a_resumer(hibercheck, engine, tmp_path, monkeypatch):
    root, real = system(tmp_path / "root"), entries.boot_entries
    monkeypatch.setattr(entries, "boot_entries", lambda _root: real(root))
    image = ImageWriter(frames={1: None}).write(tmp_path / "image")
    ran = hibercheck(image)
    assert (ran.status, engine.asked) == (2, None)
    assert "not known to be this machine's" in ran.err


def test_the_entrys_initramfs_is_looked_at_for_a_bootconfig(hibercheck, engine, tmp_path):
    """The last of several, as a bootconfig ends what is loaded; not one that cannot be read."""
    root = system(tmp_path / "root")
    menu = root / "boot/grub/grub.cfg"
    menu.write_text(menu.read_text().replace("nosmt\n", "nosmt\n\tinitrd /boot/microcode.img /boot/initrd.img-6.12\n"))
    hibercheck("i", "--root", root, "--fail-on", "never")
    assert engine.asked.options.resumer_initramfs is None
    (root / "boot/initrd.img-6.12").write_bytes(b"")
    hibercheck("i", "--root", root, "--fail-on", "never")
    assert engine.asked.options.resumer_initramfs == str(root / "boot/initrd.img-6.12")
    hibercheck("i", "--root", root, "--resumer-initramfs", "mine", "--fail-on", "never")
    assert engine.asked.options.resumer_initramfs == "mine"
