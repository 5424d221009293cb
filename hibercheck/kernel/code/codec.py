"""Frozen dataclasses as JSON and back, by their own annotations.

Reading trusts nothing: a value of another type than the annotation says is an error with the place in the document.
Addresses are hexadecimal strings, because a JSON number of more than 53 bits does not survive most readers.
"""

from __future__ import annotations

import binascii
import types
import typing
from base64 import b64decode, b64encode
from dataclasses import fields, is_dataclass
from functools import lru_cache
from typing import Any, TypeVar

ADDRESSES = frozenset(
    {"address", "start", "end", "entry", "wait", "function_address", "handler", "instruction", "ranges"}
)
"""Fields whose integers are addresses."""

MAX_DEPTH = 12
"""Nesting of a facts file; a hostile one could otherwise nest until Python's stack ends."""

_EXACT = 1 << 53

Json = Any
T = TypeVar("T")


class DocumentError(ValueError):
    """A document that does not fit; the message says where and what was expected."""


def encode(value: Any, name: str = "") -> Json:  # noqa: ANN401 - any annotated dataclass
    """Turn dataclasses, tuples, bytes and integers into what `json.dumps` writes."""
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: encode(getattr(value, one.name), one.name) for one in fields(value)}
    if isinstance(value, (tuple, list)):
        return [encode(one, name) for one in value]
    if isinstance(value, bytes):
        return b64encode(value).decode("ascii")
    if isinstance(value, int) and not isinstance(value, bool) and (name in ADDRESSES or abs(value) >= _EXACT):
        return hex(value)
    return value


def decode(kind: type[T], document: Json, where: str = "$") -> T:
    """Build a value of an annotated type from a JSON document.

    Args:
        kind: A dataclass, or any type that annotations of one are made of.
        document: What `json.loads` gave.
        where: Place of the document, for messages.

    Raises:
        DocumentError: It has another shape.
    """
    return typing.cast("T", _decode(kind, document, where, 0))


def _decode(kind: Any, document: Json, where: str, depth: int) -> Any:  # noqa: ANN401 - one case a type
    if depth > MAX_DEPTH:
        raise DocumentError(f"{where}: nested deeper than {MAX_DEPTH}")
    origin = typing.get_origin(kind)
    if origin is tuple:
        return _tuple(kind, document, where, depth)
    if origin in (types.UnionType, typing.Union):
        if document is None:
            return None
        inner = next(one for one in typing.get_args(kind) if one is not type(None))
        return _decode(inner, document, where, depth)
    if origin is typing.Literal:
        if document not in typing.get_args(kind):
            raise DocumentError(f"{where}: {document!r} is none of {', '.join(map(str, typing.get_args(kind)))}")
        return document
    if is_dataclass(origin or kind):
        return _record(kind, document, where, depth)
    return _scalar(kind, document, where)


def _tuple(kind: Any, document: Json, where: str, depth: int) -> tuple[Any, ...]:  # noqa: ANN401
    if not isinstance(document, list):
        raise DocumentError(f"{where}: a list was expected")
    items = typing.get_args(kind)
    if len(items) == 2 and items[1] is Ellipsis:
        items = (items[0],) * len(document)
    if len(items) != len(document):
        raise DocumentError(f"{where}: {len(items)} items were expected, not {len(document)}")
    return tuple(
        _decode(one, item, f"{where}[{index}]", depth + 1)
        for index, (one, item) in enumerate(zip(items, document, strict=True))
    )


def _record(kind: Any, document: Json, where: str, depth: int) -> Any:  # noqa: ANN401
    if not isinstance(document, dict):
        raise DocumentError(f"{where}: an object was expected")
    origin = typing.get_origin(kind) or kind
    arguments = dict(zip(getattr(origin, "__parameters__", ()), typing.get_args(kind), strict=False))
    values = {}
    for name, annotation in _annotations(origin).items():
        if name not in document:
            raise DocumentError(f"{where}: {name} is missing")
        values[name] = _decode(_substitute(annotation, arguments), document[name], f"{where}.{name}", depth + 1)
    return origin(**values)


@lru_cache(maxsize=64)
def _annotations(kind: Any) -> dict[str, Any]:  # noqa: ANN401
    hints = typing.get_type_hints(kind)
    return {one.name: hints[one.name] for one in fields(kind)}


def _substitute(annotation: Any, arguments: dict[Any, Any]) -> Any:  # noqa: ANN401
    """Replace the type variables of a generic dataclass in the annotation of one of its fields."""
    if annotation in arguments:
        return arguments[annotation]
    inner = typing.get_args(annotation)
    if any(one in arguments for one in inner):
        replaced = tuple(arguments.get(one, one) for one in inner)
        return typing.Union[replaced]  # noqa: UP007 - built from a tuple; the only generic annotation is Optional
    return annotation


def _scalar(kind: Any, document: Json, where: str) -> Any:  # noqa: ANN401
    if kind is int:
        return integer(document, where)
    if kind is bytes:
        return binary(document, where)
    if not isinstance(document, kind):
        raise DocumentError(f"{where}: {kind.__name__} was expected, not {type(document).__name__}")
    return document


def integer(document: Json, where: str) -> int:
    """Read an integer, written as a number or as a hexadecimal string; raises `DocumentError`."""
    if isinstance(document, int) and not isinstance(document, bool):
        return document
    if isinstance(document, str) and len(document) <= 20:
        try:
            return int(document, 16)
        except ValueError:
            pass
    raise DocumentError(f"{where}: an integer was expected")


def binary(document: Json, where: str) -> bytes:
    """Read bytes, written in base 64; raises `DocumentError`."""
    try:
        return b64decode(document, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise DocumentError(f"{where}: base 64 was expected") from error
