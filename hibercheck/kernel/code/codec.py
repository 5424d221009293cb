"""Frozen dataclasses as JSON and back, by their own annotations.

Reading trusts nothing: a value of another type than the annotation says is an error with the place in the document.
Addresses are hexadecimal strings, because a JSON number of more than 53 bits does not survive most readers.
"""

from __future__ import annotations

import binascii
import types
import typing
from base64 import b64decode, b64encode
from collections.abc import Callable, Hashable, Iterable
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import lru_cache
from itertools import repeat
from typing import Any, TypeVar

from hibercheck.numbers import U64, hexadecimal

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


class _MisfitError(Exception):
    """A value that does not fit.

    Each level adds its part of the place as the call returns, so that what fits pays for no places.
    """

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.place = ""


Reader = Callable[[Json, int], Any]
"""Builds a value from a document at a depth; raises `_MisfitError`."""


def decode(kind: type[T], document: Json, where: str = "$") -> T:
    """Build a value of an annotated type from a JSON document.

    Args:
        kind: A dataclass, or any type that annotations of one are made of.
        document: What `json.loads` gave.
        where: Place of the document, for messages.

    Raises:
        DocumentError: It has another shape.
    """
    try:
        return typing.cast("T", _reader(typing.cast("Hashable", kind))(document, 0))
    except _MisfitError as problem:
        raise DocumentError(f"{where}{problem.place}: {problem}") from problem.__cause__


@lru_cache(maxsize=512)
def _reader(kind: Hashable) -> Reader:
    """Make what reads a type, once: to ask an annotation what it is costs more than to read a value."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        return _items(inner[0]) if len(inner) == 2 and inner[1] is Ellipsis else _row(inner)
    if origin in (types.UnionType, typing.Union):
        some = _reader(next(one for one in inner if one is not type(None)))
        return lambda document, depth: None if document is None else some(document, depth)
    if origin is typing.Literal:
        return lambda document, _: _one_of(inner, document)
    if is_dataclass(origin or kind):
        return _record(kind)
    return _scalar(kind)


def _items(kind: Any) -> Reader:  # noqa: ANN401
    one = _reader(kind)
    return lambda document, depth: _each(repeat(one), _list(document, depth), depth)


def _row(kinds: tuple[Any, ...]) -> Reader:
    readers = [_reader(kind) for kind in kinds]

    def read(document: Json, depth: int) -> tuple[Any, ...]:
        items = _list(document, depth)
        if len(items) != len(readers):
            raise _MisfitError(f"{len(readers)} items were expected, not {len(items)}")
        return _each(readers, items, depth)

    return read


def _each(readers: Iterable[Reader], items: list[Json], depth: int) -> tuple[Any, ...]:
    found: list[Any] = []
    try:
        for one, item in zip(readers, items, strict=False):
            found.append(one(item, depth + 1))
    except _MisfitError as problem:
        problem.place = f"[{len(found)}]{problem.place}"
        raise
    return tuple(found)


def _record(kind: Any) -> Reader:  # noqa: ANN401
    origin = typing.get_origin(kind) or kind
    arguments = dict(zip(getattr(origin, "__parameters__", ()), typing.get_args(kind), strict=False))
    hints = typing.get_type_hints(origin)
    members = [(one.name, _reader(_substitute(hints[one.name], arguments))) for one in fields(origin)]

    def read(document: Json, depth: int) -> Any:  # noqa: ANN401
        _deep(depth)
        if not isinstance(document, dict):
            raise _MisfitError("an object was expected")
        values = {}
        for name, one in members:
            if name not in document:
                raise _MisfitError(f"{name} is missing")
            try:
                values[name] = one(document[name], depth + 1)
            except _MisfitError as problem:
                problem.place = f".{name}{problem.place}"
                raise
        return origin(**values)

    return read


def _substitute(annotation: Any, arguments: dict[Any, Any]) -> Any:  # noqa: ANN401
    """Replace the type variables of a generic dataclass in the annotation of one of its fields."""
    if annotation in arguments:
        return arguments[annotation]
    inner = typing.get_args(annotation)
    if any(one in arguments for one in inner):
        replaced = tuple(arguments.get(one, one) for one in inner)
        return typing.Union[replaced]  # noqa: UP007 - built from a tuple; the only generic annotation is Optional
    return annotation


def _scalar(kind: Any) -> Reader:  # noqa: ANN401
    if kind is int:
        return _integer
    if kind is bytes:
        return _binary

    def read(document: Json, _: int) -> Any:  # noqa: ANN401
        if not isinstance(document, kind):
            raise _MisfitError(f"{kind.__name__} was expected, not {type(document).__name__}")
        return document

    return read


def _list(document: Json, depth: int) -> list[Json]:
    _deep(depth)
    if not isinstance(document, list):
        raise _MisfitError("a list was expected")
    return document


def _deep(depth: int) -> None:
    if depth > MAX_DEPTH:
        raise _MisfitError(f"nested deeper than {MAX_DEPTH}")


def _one_of(words: tuple[Any, ...], document: Json) -> Json:
    if document not in words:
        raise _MisfitError(f"{document!r} is not one of {', '.join(map(str, words))}")
    return document


def _integer(document: Json, _: int = 0) -> int:
    if isinstance(document, int) and not isinstance(document, bool) and -U64 < document < U64:
        return document
    if isinstance(document, str):
        with suppress(ValueError):
            return -hexadecimal(document[1:]) if document.startswith("-") else hexadecimal(document)
    raise _MisfitError("an integer was expected")


def _binary(document: Json, _: int = 0) -> bytes:
    try:
        return b64decode(document, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise _MisfitError("base 64 was expected") from error


def integer(document: Json, where: str) -> int:
    """Read an integer, written as a number or as a hexadecimal string; raises `DocumentError`."""
    return decode(int, document, where)


def binary(document: Json, where: str) -> bytes:
    """Read bytes, written in base 64; raises `DocumentError`."""
    return decode(bytes, document, where)
