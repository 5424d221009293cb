"""What an initramfs has that would resume, and for which images: read out of its archive, never run.

An initramfs is a row of cpio archives in the "newc" format, each perhaps compressed, with zeros between them
(Documentation/driver-api/early-userspace/buffer-format.rst).  What follows a compressed one is not looked for: the
uncompressed ones, with microcode or ACPI tables, come first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from hibercheck.data import dataclass
from hibercheck.errors import HibercheckError
from hibercheck.files.compression import Undecodable, decoded, recognise
from hibercheck.files.pe import read_program
from hibercheck.files.source import Source
from hibercheck.host.tree import opened
from hibercheck.patterns import pattern

MOST_FILES = 200_000
MOST_BYTES = 4 << 30
"""Unpacked bytes that are gone through; all of a distribution's drivers and firmware take 0.6 GiB."""
MOST_ZEROS = 64 << 20
"""Zeros between archives that are skipped: what fills a sector, or a page."""
MOST_OPENS = 1 << 20
"""Characters that are kept of what tells which devices to open."""

_HEADER = 110
_MAGICS = (b"070701", b"070702")
_KEPT = 1 << 16
_PIECE = 1 << 20

_GENERATOR = pattern(r"(?:usr/)?lib/systemd/system-generators/systemd-hibernate-resume-generator$")
_TOOLS = pattern(r"scripts/local-premount/resume$")
_CONF = pattern(r"conf/(?:initramfs\.conf|conf\.d/[^/]+)$")
_OPENS = pattern(r"(?:(?:etc|cryptroot)/crypttab|etc/cmdline\.d/[^/]+\.conf|etc/cmdline|cryptroot/conf(?:\.d/[^/]+)?)$")
"""What tells an initramfs which encrypted devices to open: crypttab(5), parameters that dracut keeps."""
_RELEASES = ("etc/os-release", "usr/lib/os-release", "etc/initrd-release", "usr/lib/initrd-release")
"""In the order in which they count; the first are mostly links to the last (initrd-release(5))."""
_DRACUT = pattern(r"(?:usr/)?(?:var/)?lib/dracut/hooks/[a-z-]+/\d*-?(?:parse-)?resume[^/]*\.sh$")
_MKINITCPIO = pattern(r"hooks/resume$")
_MODULE = pattern(r"/kernel/crypto/(lzo|lz4)\.ko(?:\.\w+)?$")
_IDENTITY = pattern(r"^(ID|IMAGE_ID)=(.*)$", re.MULTILINE)
_RESUME = pattern(r"^\s*(?:export\s+)?RESUME=(.*)$", re.MULTILINE)

SYSTEMD, TOOLS, DRACUT, MKINITCPIO = "systemd", "initramfs-tools", "dracut", "mkinitcpio"


@dataclass(frozen=True, slots=True)
class Initramfs:
    """What was found in one.

    Attributes:
        programs: What in it starts a resume: ``systemd``, ``initramfs-tools``, ``dracut``, ``mkinitcpio``.
        default: The device that it resumes from where the command line names none (RESUME= of initramfs-tools), or "".
        modules: Compressors of images that it has as modules.
        opens: What it has that tells which encrypted devices to open.
        system: ID and IMAGE_ID of its os-release(5); None where it has none.
        problem: Why it could not be read to its end, or "".
    """

    programs: frozenset[str]
    default: str = ""
    modules: frozenset[str] = frozenset()
    problem: str = ""
    opens: str = ""
    system: tuple[str, str] | None = None


def read_initramfs(files: tuple[Path, ...], root: Path) -> Initramfs:
    """Read the archives that a boot loader puts together; a file that cannot be read is told in ``problem``.

    Args:
        files: The files, in their order; a unified kernel image has its own inside.
        root: ``/``, or where their system is mounted.
    """
    names: set[str] = set()
    default, problem = "", ""
    opens: list[str] = []
    releases: dict[str, str] = {}
    for path in files:
        descriptor = opened(path, root)
        if descriptor is None:
            problem = problem or f"{path} cannot be read"
            continue
        with Source(str(path), descriptor) as source:
            try:
                for name, content in _files(source, *archive_range(source)):
                    names.add(name)
                    if _CONF.match(name):
                        values: list[str] = _RESUME.findall(content.decode("utf-8", "replace"))
                        default = values[-1].strip().strip("'\"") if values else default
                    elif _OPENS.match(name) and sum(map(len, opens)) < MOST_OPENS:
                        opens.append(content.decode("utf-8", "replace"))
                    elif name in _RELEASES:
                        releases[name] = content.decode("utf-8", "replace")
            except (Undecodable, HibercheckError, ValueError, OSError) as error:
                problem = problem or f"{path} cannot be read to its end: {error}"
    tests = {SYSTEMD: _GENERATOR, TOOLS: _TOOLS, DRACUT: _DRACUT, MKINITCPIO: _MKINITCPIO}
    programs = frozenset(name for name, test in tests.items() if any(map(test.match, names)))
    modules = frozenset(found.group(1) for name in names if (found := _MODULE.search(name)) is not None)
    systems = (system_of(releases[name]) for name in _RELEASES if name in releases)
    system = next((one for one in systems if one[0]), None)
    return Initramfs(programs, default, modules, problem, "\n".join(opens), system)


def system_of(release: str) -> tuple[str, str]:
    """Return ID and IMAGE_ID of an os-release(5), each "" where it has none."""
    values = dict(_IDENTITY.findall(release))
    own, image = (values.get(name, "").strip().strip("'\"") for name in ("ID", "IMAGE_ID"))
    return own, image


def is_initramfs(source: Source) -> bool:
    """Tell whether a file begins as an initramfs does: a cpio archive, perhaps compressed, or has one inside."""
    try:
        start, end = archive_range(source)
        whole = source.read(start, min(end - start, _PIECE))
        head = whole.lstrip(b"\0")
        form = recognise(head[:16])
        if form is not None:
            start += len(whole) - len(head)
            chunks = (source.read(at, min(_PIECE, end - at)) for at in range(start, end, _PIECE))
            head = next(decoded(form, chunks), b"")
    except (Undecodable, HibercheckError, ValueError, OSError):
        return False
    return head.startswith(_MAGICS)


def archive_range(source: Source) -> tuple[int, int]:
    """Return where the archives are: the whole file, or the section of a unified image that has them.

    Raises:
        ValueError: A unified image has none.
    """
    if source.read(0, 2) != b"MZ":
        return 0, source.size
    program = read_program(source.read)
    found = program.sections.get(".initrd") if program is not None else None
    if found is None or found.offset + found.size > source.size:
        raise ValueError("a unified kernel image without an initramfs")
    return found.offset, found.offset + found.size


def _files(source: Source, start: int, end: int) -> Iterator[tuple[str, bytes]]:
    """Yield the name of each file, and the beginning of its content where that may matter."""
    budget = _Budget()
    while start < end:
        head = source.read(start, min(end - start, _PIECE))
        zeros = len(head) - len(head.lstrip(b"\0"))
        if zeros:
            start += zeros
            budget.skip(zeros)
            continue
        form = recognise(head[:16])
        if form is not None:
            chunks = (source.read(at, min(_PIECE, end - at)) for at in range(start, end, _PIECE))
            yield from _archives(_Reader(decoded(form, chunks), budget))
            return
        if not head.startswith(_MAGICS):
            raise ValueError(f"at {start:#x} is neither a cpio archive nor compressed")
        chunks = (source.read(at, min(_PIECE, end - at)) for at in range(start, end, _PIECE))
        reader = _Reader(chunks, budget)
        yield from _archive(reader)
        start += reader.taken


def _archives(reader: _Reader) -> Iterator[tuple[str, bytes]]:
    """Yield what is in the archives of a stream, one behind another."""
    while reader.skip_zeros():
        yield from _archive(reader)


def _archive(reader: _Reader) -> Iterator[tuple[str, bytes]]:
    """Yield what is in one archive, up to its trailer."""
    while True:
        header = reader.take(_HEADER)
        if not header.startswith(_MAGICS):
            raise ValueError("a cpio header is damaged")
        size, length = int(header[54:62], 16), int(header[94:102], 16)
        if not 0 < length <= 4096:
            raise ValueError("a cpio header has a name of an impossible length")
        name = reader.take(length).rstrip(b"\0").decode("utf-8", "replace")
        reader.skip(-(_HEADER + length) % 4)
        if name == "TRAILER!!!":
            return
        name = name.removeprefix("./").lstrip("/")
        kept = reader.take(min(size, _KEPT)) if _CONF.match(name) or _OPENS.match(name) or name in _RELEASES else b""
        reader.skip(size - len(kept) + -size % 4)
        reader.budget.count()
        yield name, kept


class _Budget:
    """How much is gone through in all: an archive may claim anything."""

    def __init__(self) -> None:
        self.files, self.bytes, self.zeros = MOST_FILES, MOST_BYTES, MOST_ZEROS

    def count(self) -> None:
        self.files -= 1
        if self.files < 0:
            raise ValueError(f"it has more than {MOST_FILES} files")

    def skip(self, size: int) -> None:
        self.zeros -= size
        if self.zeros < 0:
            raise ValueError(f"it has more than {MOST_ZEROS >> 20} MiB of zeros")

    def take(self, size: int) -> None:
        self.bytes -= size
        if self.bytes < 0:
            raise ValueError(f"it unpacks to more than {MOST_BYTES >> 30} GiB")


class _Reader:
    """A stream of chunks, read in pieces."""

    def __init__(self, chunks: Iterator[bytes], budget: _Budget) -> None:
        self._chunks = chunks
        self._held = b""
        self._at = 0
        self.budget = budget
        self.taken = 0

    def _more(self) -> bool:
        """Hold the next chunk; tell whether there is one."""
        chunk = next(self._chunks, None)
        if chunk is None:
            return False
        self.budget.take(len(chunk))
        self._held, self._at = self._held[self._at :] + chunk, 0
        return True

    def take(self, size: int) -> bytes:
        while len(self._held) - self._at < size:
            if not self._more():
                raise ValueError("it ends too early")
        piece = self._held[self._at : self._at + size]
        self._at += size
        self.taken += size
        return piece

    def skip(self, size: int) -> None:
        while size > 0:
            here = min(size, len(self._held) - self._at)
            self._at += here
            self.taken += here
            size -= here
            if size and not self._more():
                raise ValueError("it ends too early")

    def skip_zeros(self) -> bool:
        """Skip what fills the space between archives; tell whether something follows."""
        while True:
            rest = self._held[self._at :].lstrip(b"\0")
            self._at = len(self._held) - len(rest)
            if rest:
                return True
            if not self._more():
                return False
