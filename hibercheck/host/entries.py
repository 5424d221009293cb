"""What a system's boot loader would start: Boot Loader Specification entries, unified kernel images, and grub.cfg.

Sources: the specifications of the UAPI group (boot loader, UKI), loader.conf(5), systemd-boot(7), the manual of GRUB.
Nothing is executed: of grub.cfg only the menu of grub-mkconfig is understood, with the variables of grubenv.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from hibercheck.data import dataclass, replace
from hibercheck.files.pe import read_program
from hibercheck.host.tree import data_of, inside, is_there, listed, opened, text_of

_BOOT_DIRECTORIES = ("efi", "boot/efi", "boot", "esp")
"""Where the ESP and the XBOOTLDR partition are mounted."""
_GRUB_FILES = ("boot/grub/grub.cfg", "boot/grub2/grub.cfg", "boot/efi/EFI/fedora/grub.cfg")
_GRUB_ENVIRONMENTS = ("boot/grub/grubenv", "boot/grub2/grubenv", "boot/efi/EFI/fedora/grubenv")
_LOADER_VARIABLE = "sys/firmware/efi/efivars/{name}-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
_MAX_FILE = 4 << 20
_MAX_ENTRIES = 512


@dataclass(frozen=True, slots=True)
class BootEntry:
    """One entry of a boot loader.

    Attributes:
        name: Its identifier: the file of a BLS entry or UKI, or GRUB's title.
        title: What the menu shows.
        kernel: The kernel's file on this system, as far as it can be told.
        command_line: What the kernel is given.
        source: The file that says so.
        default: Whether the loader starts it if nobody chooses.
        initramfs: The files that make its initramfs; of a unified image that has one, the image itself.
    """

    name: str
    title: str
    kernel: Path
    command_line: str
    source: Path
    default: bool = False
    initramfs: tuple[Path, ...] = ()


def boot_entries(root: Path) -> tuple[BootEntry, ...]:
    """Return the entries of a system, the default first; none where no loader that is known is found.

    Args:
        root: ``/``, or where the system is mounted.
    """
    loader = [*_bls(root), *_unified(root)]
    menu = _grub(root)
    if menu is not None and menu.bls:
        return _ordered(_grub_default(menu, loader))
    if loader and (menu is None or is_systemd_boot(root)):
        return _ordered(_systemd_default(root, loader))
    return _ordered(_grub_default(menu, menu.entries)) if menu is not None else ()


def _ordered(entries: list[BootEntry]) -> tuple[BootEntry, ...]:
    return tuple(sorted(entries, key=lambda one: not one.default)[:_MAX_ENTRIES])


# Boot Loader Specification, type 1


def _bls(root: Path) -> Iterator[BootEntry]:
    environment = _grub_environment(root)
    for directory in _BOOT_DIRECTORIES:
        for path in listed(root / directory / "loader/entries", "*.conf", root):
            keys: dict[str, list[str]] = {}
            for line in text_of(path, root, _MAX_FILE).splitlines():
                key, _, value = line.strip().partition(" ")
                if key and not key.startswith("#"):
                    keys.setdefault(key, []).append(value.strip())
            kernel = (keys.get("linux") or keys.get("efi") or keys.get("uki") or [""])[0]
            if kernel:
                yield BootEntry(
                    name=path.name,
                    title=(keys.get("title") or [path.stem])[0],
                    kernel=_within(root / directory, kernel, root),
                    command_line=_expanded(" ".join(keys.get("options", [])), environment),
                    source=path,
                    initramfs=tuple(
                        _within(root / directory, name, root)
                        for name in _expanded(" ".join(keys.get("initrd", [])), environment).split()
                    ),
                )


def _within(directory: Path, name: str, root: Path) -> Path:
    """Return the file that a loader's path means: paths count from the partition, which may be / itself."""
    plain = name.split(")", 1)[-1] if name.startswith("(") else name
    own, other = directory / plain.lstrip("/"), root / plain.lstrip("/")
    whole = other.is_relative_to(directory)  # /boot/vmlinuz is of a partition that has /boot
    found = own if is_there(own, root) or not (is_there(other, root) or whole) else other
    try:
        return inside(found, root) if found.is_symlink() else found
    except OSError:
        return found


# Unified kernel images, type 2


def _unified(root: Path) -> Iterator[BootEntry]:
    seen = set()
    for directory in _BOOT_DIRECTORIES:
        for path in listed(root / directory / "EFI/Linux", "*.efi", root):
            sections = pe_sections(path, (".cmdline", ".osrel", ".initrd"), root)
            if sections is None or path.resolve() in seen:
                continue
            seen.add(path.resolve())
            title = re.search(r'^PRETTY_NAME="?([^"\n]*)', sections.get(".osrel", ""), re.MULTILINE)
            line = sections.get(".cmdline", "").strip()
            own = (path,) if ".initrd" in sections else ()
            yield BootEntry(path.name, title.group(1) if title else path.stem, path, line, path, initramfs=own)


def pe_sections(path: Path, wanted: tuple[str, ...], root: Path = Path("/")) -> dict[str, str] | None:
    """Return sections of an EFI program as text; None where the file is none, or has no kernel in it.

    Args:
        path: The file.
        wanted: Their names.
        root: Where its system is.
    """
    descriptor = opened(path, root)
    if descriptor is None:
        return None
    try:
        with os.fdopen(descriptor, "rb") as file:
            program = read_program(lambda offset, size: os.pread(file.fileno(), size, offset))
            if program is None or ".linux" not in program.sections:
                return None
            found = {name: program.sections[name] for name in wanted if name in program.sections}
            return {
                name: os.pread(file.fileno(), min(place.size, _MAX_FILE), place.offset)
                .split(b"\0")[0]
                .decode("utf-8", "replace")
                for name, place in found.items()
            }
    except OSError:
        return None


# systemd-boot's choice


def is_systemd_boot(root: Path) -> bool:
    """Whether systemd-boot starts the system, and so UEFI does."""
    directories = [root / directory for directory in _BOOT_DIRECTORIES]
    places = ("loader/loader.conf", "EFI/systemd/systemd-bootx64.efi")
    return any(is_there(one / place, root) for one in directories for place in places)


def _systemd_default(root: Path, entries: list[BootEntry]) -> list[BootEntry]:
    """Mark the default: what `bootctl set-default` wrote, loader.conf, or the newest (systemd-boot(7))."""
    ranked = sorted(entries, key=lambda one: version_key(one.name), reverse=True)
    wanted = [efi_variable(root, "LoaderEntryDefault")]
    for directory in _BOOT_DIRECTORIES:
        found = re.search(r"^\s*default\s+(\S+)", text_of(root / directory / "loader/loader.conf", root), re.MULTILINE)
        wanted.append(found.group(1) if found else None)
    for pattern in filter(None, wanted):
        for one in ranked:
            if fnmatch.fnmatch(one.name.lower(), pattern.lower()) or one.name.removesuffix(".conf") == pattern:
                return [replace(each, default=each is one) for each in ranked]
    return [replace(each, default=each is ranked[0]) for each in ranked]


def efi_variable(root: Path, name: str) -> str | None:
    """Return a variable of the boot loader interface as text: four bytes of attributes, then UTF-16; or None."""
    data = data_of(root / _LOADER_VARIABLE.format(name=name), root)
    if data is None:
        return None
    return data[4:].decode("utf-16-le", "replace").split("\0")[0] or None


def version_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort names as versions: numbers by their value."""
    parts = re.findall(r"\d+|[^\d]+", name)
    return tuple((1, int(part), "") if part.isdigit() and len(part) < 20 else (0, 0, part) for part in parts)


# GRUB


@dataclass(frozen=True, slots=True)
class _Menu:
    """A menu of GRUB: entries by their path in it (``1>0``), what is chosen, and whether it takes the BLS entries."""

    entries: list[BootEntry]
    paths: dict[str, int]
    chosen: str
    bls: bool


def _grub_environment(root: Path) -> dict[str, str]:
    environment: dict[str, str] = {}
    for place in _GRUB_ENVIRONMENTS:
        for line in text_of(root / place, root, _MAX_FILE).splitlines():
            name, equals, value = line.partition("=")
            if equals and re.fullmatch(r"\w+", name):
                environment.setdefault(name, value)
    return environment


def _expanded(text: str, variables: Mapping[str, str]) -> str:
    return re.sub(r"\$\{?(\w+)\}?", lambda found: variables.get(found.group(1), ""), text).strip()


def _grub(root: Path) -> _Menu | None:
    path = next((root / place for place in _GRUB_FILES if text_of(root / place, root, _MAX_FILE)), None)
    if path is None:
        return None
    variables = _grub_environment(root)
    entries: list[BootEntry] = []
    paths: dict[str, int] = {}
    chosen, bls = variables.get("saved_entry", ""), False
    counts, submenus, titles, open_entry = [0], [], [], None
    kernel_line, initramfs = "", ""
    for raw in text_of(path, root, _MAX_FILE).splitlines():
        line = raw.strip()
        default = re.fullmatch(r'set\s+default="?([^"]*)"?', line)
        if default is not None and ("$" not in default.group(1) or not chosen):
            value = _expanded(default.group(1), variables)
            chosen = value or chosen
        bls |= line.split(" ")[0] == "blscfg"
        opening = re.match(r"(menuentry|submenu)\s+(?:'([^']*)'|\"([^\"]*)\")(.*)\{$", line)
        if opening is not None:
            title = opening.group(2) if opening.group(2) is not None else opening.group(3)
            identity = re.search(r"(?:\$menuentry_id_option|--id)\s+'?([^'\s]+)", opening.group(4))
            names = [str(counts[-1]), title, *([identity.group(1)] if identity else [])]
            counts[-1] += 1
            if opening.group(1) == "submenu":
                submenus.append(names)
                counts.append(0)
            else:
                titles, open_entry, kernel_line, initramfs = names, title, "", ""
            continue
        words = line.split()
        if open_entry is not None and words and words[0] in {"linux", "linux16", "linuxefi"} and len(words) > 1:
            kernel_line = _expanded(line.split(None, 1)[1], variables)
        if open_entry is not None and words and words[0] in {"initrd", "initrd16", "initrdefi"} and len(words) > 1:
            initramfs = _expanded(line.split(None, 1)[1], variables)
        if line == "}" and open_entry is not None:
            if kernel_line:
                name, _, options = kernel_line.partition(" ")
                for each in _joined([*submenus, titles]):
                    paths.setdefault(each, len(entries))
                kernel = _within(root / "boot", name, root)
                more = tuple(_within(root / "boot", one, root) for one in initramfs.split())
                entries.append(BootEntry(open_entry, open_entry, kernel, options, path, initramfs=more))
            open_entry = None
        elif line == "}" and submenus and raw[:1] == "}":
            submenus.pop()
            counts.pop()
    return _Menu(entries, paths, variables.get("next_entry") or chosen or "0", bls)


def _joined(levels: list[list[str]]) -> list[str]:
    """Return every way to name an entry: each level by number, title or identifier."""
    ways = [""]
    for names in levels:
        ways = [f"{way}>{name}" if way else name for way in ways for name in names]
    return ways + levels[-1][1:]


def _grub_default(menu: _Menu, entries: list[BootEntry]) -> list[BootEntry]:
    """Mark the entry that GRUB starts by itself; BLS entries count from the newest."""
    if menu.bls:
        ranked = sorted(entries, key=lambda one: version_key(one.name), reverse=True)
        number = int(menu.chosen) if menu.chosen.isdigit() and len(menu.chosen) < 4 else None
        named = next((i for i, one in enumerate(ranked) if one.name.removesuffix(".conf") == menu.chosen), None)
        which = named if named is not None else number if number is not None and number < len(ranked) else 0
        return [replace(one, default=index == which) for index, one in enumerate(ranked)]
    which = menu.paths.get(menu.chosen, 0)
    return [replace(one, default=index == which) for index, one in enumerate(entries)]
