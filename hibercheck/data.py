"""Frozen dataclasses with slots, for a fifth of what the standard library's cost at start-up.

`dataclasses.dataclass` writes and compiles six methods for every class.  The hundred classes that a check imports took
a seventh of its whole time that way, most of it for classes of which the run makes no object.  Here all classes share
those methods, and a class's ``__init__`` is written when its first object is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    from dataclasses import MISSING, FrozenInstanceError, fields
    from dataclasses import dataclass as _standard
    from operator import attrgetter

    T = TypeVar("T", bound=type)

    def dataclass(*, frozen: bool, slots: bool) -> Any:  # noqa: ANN401 - a decorator, typed above
        """As `dataclasses.dataclass`, for what is frozen and has slots.

        Nothing differs but the cost: fields, defaults, factories, `dataclasses.replace`, comparison, hash,
        representation, copies and pickles are as usual.

        Raises:
            TypeError: The class would not be frozen, or have no slots.
        """
        if not (frozen and slots):
            raise TypeError("only frozen dataclasses with slots are made here")
        return _make

    def _make(cls: T) -> T:
        own = set(vars(cls))
        made = _standard(init=False, repr=False, eq=False, slots=True)(cls)
        given = [one.default is MISSING and one.default_factory is MISSING for one in fields(made) if one.init]
        if given != sorted(given, reverse=True):
            raise TypeError(f"in {cls.__name__} a field without a default follows one that has one")
        names = tuple(one.name for one in fields(made) if one.compare)
        shared = {
            "__init__": _first_init(made),
            "__repr__": _repr,
            "__setattr__": _refuse_to_set,
            "__delattr__": _refuse_to_delete,
            "__getstate__": _state,
            "__setstate__": _restore,
        }
        shared |= _comparison(attrgetter(*names)) if names else {}
        for name, method in shared.items():
            if name not in own:
                setattr(made, name, method)
        return made

    def _first_init(cls: type) -> Any:  # noqa: ANN401 - a method
        """An ``__init__`` that puts the real one in its place."""

        def __init__(self: object, *args: object, **kwargs: object) -> None:  # noqa: N807
            cls.__init__ = _written_init(cls)
            cls.__init__(self, *args, **kwargs)

        return __init__

    def _written_init(cls: type) -> Any:  # noqa: ANN401 - a method
        """The ``__init__`` of a class, as `dataclasses` would write it."""
        scope: dict[str, Any] = {"MISSING": MISSING, "assign": object.__setattr__}
        parameters, body = ["self"], ["pass"]
        for one in fields(cls):
            if not one.init:  # __post_init__ assigns it
                continue
            value = one.name
            if one.default is not MISSING:
                scope[f"default_{one.name}"] = one.default
                parameters.append(f"{one.name}=default_{one.name}")
            elif one.default_factory is not MISSING:
                scope[f"make_{one.name}"] = one.default_factory
                parameters.append(f"{one.name}=MISSING")
                value = f"make_{one.name}() if {one.name} is MISSING else {one.name}"
            else:
                parameters.append(one.name)
            body.append(f"assign(self, {one.name!r}, {value})")
        if hasattr(cls, "__post_init__"):
            body.append("self.__post_init__()")
        exec(f"def __init__({', '.join(parameters)}):\n " + "\n ".join(body), scope)  # noqa: S102 - names of fields
        return scope["__init__"]

    def _comparison(values: Any) -> dict[str, Any]:  # noqa: ANN401 - attrgetter
        def __eq__(self: object, other: object) -> bool:  # noqa: N807
            return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

        def __hash__(self: object) -> int:  # noqa: N807
            return hash(values(self))

        return {"__eq__": __eq__, "__hash__": __hash__}

    def _repr(self: object) -> str:
        shown = ", ".join(f"{one.name}={getattr(self, one.name)!r}" for one in fields(self) if one.repr)
        return f"{type(self).__qualname__}({shown})"

    def _refuse_to_set(self: object, name: str, _value: object) -> None:
        raise FrozenInstanceError(f"cannot assign to field {name!r} of {type(self).__name__}")

    def _refuse_to_delete(self: object, name: str) -> None:
        raise FrozenInstanceError(f"cannot delete field {name!r} of {type(self).__name__}")

    def _state(self: object) -> list[Any]:
        return [getattr(self, one.name) for one in fields(self)]

    def _restore(self: object, state: list[Any]) -> None:
        for one, value in zip(fields(self), state, strict=True):
            object.__setattr__(self, one.name, value)


__all__ = ["dataclass"]
