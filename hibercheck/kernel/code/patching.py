"""Whether code in memory is a kernel's own, as the kernel itself may rewrite some of it while it runs."""

from __future__ import annotations

from hibercheck.kernel.code.model import Patch


def same_code(before: bytes, after: bytes, address: int, patchable: tuple[Patch, ...]) -> bool:
    """Compare code; bytes that the kernel itself may patch at run time do not count.

    Args:
        before: Bytes of the vmlinux or of the running resumer.
        after: Bytes in the image.
        address: Link-time address of the first byte.
        patchable: The ranges that may differ.
    """
    if before == after:
        return True
    if len(before) != len(after):
        return False
    differing = {address + offset for offset, (old, new) in enumerate(zip(before, after, strict=True)) if old != new}
    return all(any(patch.start <= place < patch.end for patch in patchable) for place in differing)
