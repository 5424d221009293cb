"""An image that is not written yet, as far as it is known: it takes the place of a real one in a scenario.

So the resumer's tests of it and its scenario are those of a check.  What nobody can know of it yet raises MissingFact.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import NoReturn

from hibercheck.data import dataclass
from hibercheck.errors import MissingFact
from hibercheck.handoff.facts.e820 import Map, e820_checksum

PATH = "the image that would be written"


def _not_yet(what: str) -> NoReturn:
    raise MissingFact(f"{what} is not known before it is written", path=PATH)


@dataclass(frozen=True, slots=True)
class _Frames:
    """The frames of the image: at least so many, which ones nobody knows."""

    least: int
    has_zero_flag: bool

    def __len__(self) -> int:
        return self.least

    def runs(self) -> list[tuple[int, int]]:
        """Return none: those of a machine are memory of that machine."""
        return []

    def __getattr__(self, name: str) -> NoReturn:
        _not_yet(f"which frames it covers ({name})")


class ExpectedImage:
    """An image as far as it is known before it is written; see `hibercheck.swsusp.image.Image`.

    Args:
        compressor: ``lzo``, ``lz4`` or ``none``.
        hw_sig: The firmware's signature, if the resumee puts it into the header.
        magic: Of its arch record.
        memory_map: The firmware's memory map, or None.
        pages: get_num_physpages() of the resumee.
        least: Frames that it has at least.
        has_zero_flag: Whether it marks pages of zeros.
    """

    path = PATH
    swap_map = None
    """Where it will be is compared with where entries look, before this (`hibercheck.handoff.preflight.find`)."""
    header_offset = 0

    def __init__(
        self,
        *,
        compressor: str,
        hw_sig: int | None,
        magic: int,
        memory_map: Map | None,
        pages: int,
        least: int,
        has_zero_flag: bool,
    ) -> None:
        self.compressor = compressor
        self.header = SimpleNamespace(hw_sig=hw_sig)
        checksum = None if memory_map is None else e820_checksum(memory_map)
        self.record = SimpleNamespace(magic=magic, e820_checksum=checksum, e820_digest=None)
        self.info = SimpleNamespace(num_physpages=pages)
        self.pfns = _Frames(least, has_zero_flag)

    def __getattr__(self, name: str) -> NoReturn:
        """Raise MissingFact: nothing else is known of it."""
        _not_yet(name.replace("_", " "))


@dataclass(frozen=True, slots=True)
class Nothing:
    """Memory of which no frame is known."""

    def frame(self, pfn: int, /) -> bytes | None:  # noqa: ARG002 - the signature of PhysicalMemory
        """Return nothing."""
        return None
