"""Records as text, a line for each value that is something: for comparing whole results with committed ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

SKIPPED = {"loop", "memory"}
"""Fields that are inputs of what is shown, and large."""


def lines_of(value: object, name: str = "", indent: str = "") -> Iterator[str]:
    """Yield the lines of a record, sequence or value; what is None, empty or false has none."""
    if name in SKIPPED or value is None or value is False or value in ((), [], {}, "", frozenset()):
        return
    fields = getattr(value, "__dataclass_fields__", None)
    if fields is not None:
        yield f"{indent}{name}:"
        for field in fields:
            if not field.startswith("_"):
                yield from lines_of(getattr(value, field), field, indent + " ")
    elif isinstance(value, Mapping):
        yield f"{indent}{name}:"
        for key in value:
            yield from lines_of(value[key], str(key), indent + " ")
    elif isinstance(value, list | tuple) and any(hasattr(one, "__dataclass_fields__") for one in value):
        yield f"{indent}{name}: {len(value)}"
        for one in value:
            yield from lines_of(one, "-", indent + " ")
    else:
        shown = sorted(value) if isinstance(value, set | frozenset) else value
        if isinstance(shown, bytes):
            shown = shown.hex()
        text = f"{shown:#x}" if isinstance(shown, int) and shown > 4095 else str(shown)
        yield f"{indent}{name}: {text}"
