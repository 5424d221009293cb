"""Physical memory as a stack of layers, each of which knows the contents of some frames.

The handoff is one such stack: what the image has written so far lies over what the resumer left.
A frame that no layer knows has *unknown* contents, which is a different thing from zeros: reading it raises
`UnknownMemory`, so that a missing fact can never pass for a value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from hibercheck.addresses import PAGE_SHIFT, PAGE_SIZE
from hibercheck.data import dataclass


class UnknownMemory(Exception):  # noqa: N818 - a state of knowledge that callers handle, not an error shown to a user
    """The contents of a frame are not known to any layer.

    Attributes:
        pfn: The frame's number.
    """

    def __init__(self, pfn: int) -> None:
        super().__init__(f"the contents of PFN {pfn:#x} are not known")
        self.pfn = pfn


class PhysicalMemory(Protocol):
    """Anything that can say what a page frame holds."""

    def frame(self, pfn: int) -> bytes | None:
        """Return the 4096 bytes of frame ``pfn``, or None when its contents are not known."""
        ...


class PartialMemory(Protocol):
    """A memory that knows some page tables only in part, such as those of which a vmlinux tells."""

    def frame(self, pfn: int) -> bytes | None:
        """Return the frame's bytes, with anything for entries that are not known, or None."""
        ...

    def knows_entry(self, table: int, index: int) -> bool:
        """Tell whether an entry of the table at a physical address is known."""
        ...


@dataclass(frozen=True, slots=True)
class MappedFrames:
    """Frames held in a mapping from PFN to their 4096 bytes: for tests and for synthetic pages."""

    frames: Mapping[int, bytes]

    def frame(self, pfn: int) -> bytes | None:
        """Return the frame's bytes, or None when the mapping lacks it."""
        return self.frames.get(pfn)


@dataclass(frozen=True, slots=True)
class LayeredMemory:
    """Several memories laid over one another; the first layer that knows a frame decides its contents."""

    layers: Sequence[PhysicalMemory]

    def frame(self, pfn: int) -> bytes | None:
        """Return the frame as the topmost layer that knows it has it, or None."""
        for layer in self.layers:
            content = layer.frame(pfn)
            if content is not None:
                return content
        return None


def read(memory: PhysicalMemory, address: int, size: int) -> bytes:
    """Read ``size`` bytes at physical ``address``, across frames.

    Raises:
        UnknownMemory: A frame in the range is known to no layer.
    """
    parts = []
    while size > 0:
        pfn, start = address >> PAGE_SHIFT, address & (PAGE_SIZE - 1)
        content = memory.frame(pfn)
        if content is None:
            raise UnknownMemory(pfn)
        part = content[start : start + size]
        parts.append(part)
        address += len(part)
        size -= len(part)
    return b"".join(parts)
