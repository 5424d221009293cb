"""Text out of images and kernels is untrusted: what may not reach a terminal is shown by its escape.

A banner or a command line can hold escape sequences that move the cursor, set the title, or reverse the reading
order.  Everything that is shown passes through here.
"""

from __future__ import annotations

import unicodedata

_UNSAFE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories: controls, formatting (bidi overrides, zero widths), surrogates, unassigned, line separators."""

LONGEST = 8192
"""Characters shown of one text: four kernel command lines (COMMAND_LINE_SIZE, arch/x86/include/asm/setup.h)."""


def clean(text: str, *, keep: str = "") -> str:
    r"""Return ``text`` with every control or formatting character replaced by its escape, such as ``\x1b``.

    Args:
        text: Untrusted text.
        keep: Characters left alone although they are controls, such as a newline.

    Returns:
        The text; of one line that is longer than `LONGEST`, its start and how much is left out.
    """
    if len(text) > LONGEST and not keep:
        text = f"{text[:LONGEST]}... ({len(text) - LONGEST} more characters)"
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char if char in keep or unicodedata.category(char) not in _UNSAFE else _escape(char) for char in text
    )


def one_line(text: str) -> str:
    """Return ``text`` cleaned and on one line: line ends become spaces."""
    return clean(" ".join(text.split("\n"))).strip()


def _escape(char: str) -> str:
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
