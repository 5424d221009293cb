"""The real fixtures, unpacked once, and private copies of them that can be damaged in place."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.conftest import ROOT, SHARED_CASES
from tests.fuzz.mutate import Patch
from tests.support import unpacked
from tests.support.unpacked import CACHE

FIXTURES = ROOT / "fixtures"


def cases() -> list[dict[str, Any]]:
    """The measured cases among the fixtures."""
    return json.loads((FIXTURES / "cases.json").read_text(encoding="utf-8"))["cases"]


def unpack(name: str, directory: Path = FIXTURES) -> Path:
    """Unpack ``images/x.bin.xz`` once and return its path; other files are given as they are."""
    source = directory / name
    if source.suffix != ".xz":
        return source
    place = CACHE if directory.resolve() == SHARED_CASES.resolve() else CACHE / directory.resolve().name
    return unpacked.unpack(source, place)


class Copy:
    """A private copy of a file, sparse where the file is zeros, that can be damaged and is mended again.

    Args:
        source: The file.
        directory: Where the copy goes.
    """

    def __init__(self, source: Path, directory: Path) -> None:
        self.path = directory / source.name
        with source.open("rb") as plain, self.path.open("wb") as copy:
            unpacked.write_sparse(plain, copy)
        self._descriptor = os.open(self.path, os.O_RDWR)
        self.size = os.fstat(self._descriptor).st_size

    def read(self, offset: int, size: int) -> bytes:
        """Return ``size`` bytes; zeros beyond the end."""
        return os.pread(self._descriptor, size, offset).ljust(size, b"\0")

    @contextmanager
    def damaged(self, patches: Sequence[Patch]) -> Iterator[Path]:
        """Have the patches in the file for a while."""
        inside = [Patch(at, data[: self.size - at]) for at, data in patches if 0 <= at < self.size]
        before = [Patch(at, os.pread(self._descriptor, len(data), at)) for at, data in inside]
        try:
            for at, data in inside:
                os.pwrite(self._descriptor, data, at)
            yield self.path
        finally:
            for at, data in reversed(before):
                os.pwrite(self._descriptor, data, at)
