"""The kernels of a matrix: finding them, reading each once, and keeping what was read by build id."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from hibercheck import __version__
from hibercheck.errors import HibercheckError, InputProblem
from hibercheck.handoff.matrix.brief import Brief, brief_of
from hibercheck.handoff.matrix.scenario import Settings
from hibercheck.kernel.code.facts import SCHEMA_VERSION, FactsKernel, facts_of, parse_facts
from hibercheck.kernel.kernel import Kernel, open_kernel

_NAMES = ("vmlinux", "vmlinuz", "bzImage", "linux-image")
_ENDINGS = (".facts", ".json", ".vmlinux", ".vmlinuz", ".deb", ".rpm")


def kernels_named(arguments: Iterable[str]) -> Iterator[str]:
    """Yield the kernels that arguments name: files, directories of them, and ``@LIST``, a file with one on each line.

    Raises:
        InputProblem: A directory or list cannot be read, or a directory holds no kernel.
    """
    for argument in arguments:
        try:
            if argument.startswith("@"):
                lines = Path(argument[1:]).read_text(encoding="utf-8").splitlines()
                yield from kernels_named(line.strip() for line in lines if line.strip() and line[0] not in "#@")
            elif Path(argument).is_dir():
                yield from _in_directory(argument)
            else:
                yield argument
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is not text"
            raise InputProblem(f"cannot be read: {reason}", path=argument) from error


def _in_directory(path: str) -> Iterator[str]:
    found = [
        str(file)
        for file in sorted(Path(path).iterdir())
        if file.is_file() and (file.name.startswith(_NAMES) or file.suffix in _ENDINGS)
    ]
    if not found:
        advice = f"kernels are files called {', '.join(_NAMES)}... or ending in {', '.join(_ENDINGS)}"
        raise InputProblem("holds no kernel", path=path, advice=advice)
    yield from found


def default_cache() -> Path:
    """Return the directory for what is kept: XDG_CACHE_HOME, or ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache") / "hibercheck"


def read_brief(path: str, settings: Settings, cache: Path | None) -> Brief:
    """Read a kernel, or its facts out of the cache.

    Raises:
        HibercheckError: It cannot be read, or lacks what a matrix needs.
    """
    kept = None if cache is None else _kept(path, cache)
    if kept is not None:
        return brief_of(kept, settings)
    with open_kernel(path) as kernel:
        if cache is not None and not isinstance(kernel, FactsKernel):
            _keep(kernel, path, cache)
        return brief_of(kernel, settings)


def _stamp(path: str) -> str | None:
    """Name a file by place, size and time, so that it need not be opened to know what it is."""
    try:
        status = Path(path).stat()
    except OSError:
        return None
    text = f"{os.path.realpath(path)}\0{status.st_size}\0{status.st_mtime_ns}"
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _folder(cache: Path) -> Path:
    return cache / f"facts-{SCHEMA_VERSION}-{__version__}"


def _kept(path: str, cache: Path) -> Kernel | None:
    """Return the kept facts of a kernel file, or None; whatever is wrong with them, the kernel itself is there."""
    stamp = _stamp(path)
    if stamp is None:
        return None
    try:
        build_id = (_folder(cache) / f"{stamp}.link").read_text(encoding="ascii").strip()
        if not build_id.isalnum():
            return None
        content = (_folder(cache) / f"{build_id}.json").read_bytes()
        return parse_facts(path, content)
    except (OSError, ValueError, HibercheckError):
        return None


def _keep(kernel: Kernel, path: str, cache: Path) -> None:
    """Keep a kernel's facts; a cache that cannot be written only costs time."""
    stamp = _stamp(path)
    if stamp is None:
        return
    name = kernel.build_id or stamp
    content = json.dumps(facts_of(kernel)).encode()
    with contextlib.suppress(OSError):
        folder = _folder(cache)
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / f"{name}.json", content)
        _write(folder / f"{stamp}.link", name.encode("ascii"))


def _write(target: Path, content: bytes) -> None:
    """Write a file all at once: others may be reading it."""
    descriptor, name = tempfile.mkstemp(dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
        Path(name).replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
