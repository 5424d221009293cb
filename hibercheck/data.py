"""Frozen dataclasses with slots, for a fraction of what the standard library's cost at start-up.

`dataclasses.dataclass` writes and compiles six methods for every class: for the hundred classes that a check imports, a
tenth of its whole time.  Here all classes share the methods, an ``__init__`` is put together when the first object is
made, and what `dataclasses.fields` shows when somebody looks.  `typing.NamedTuple` has records that equal those of any
other type with the same values, no fields that are not compared, and costs three times as much.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass, replace
else:
    from dataclasses import MISSING, Field, FrozenInstanceError, fields
    from dataclasses import dataclass as _standard
    from types import FunctionType

    def dataclass(*, frozen: bool, slots: bool) -> Any:  # noqa: ANN401 - a decorator, typed above
        """As `dataclasses.dataclass`, for what is frozen, has slots and inherits no fields.

        Nothing differs but the cost: fields, defaults, factories, `dataclasses.replace`, comparison, hash,
        representation, copies and pickles are as usual.

        Raises:
            TypeError: The class would not be frozen, or have no slots.
        """
        if not (frozen and slots):
            raise TypeError("only frozen dataclasses with slots are made here")
        return _make

    def replace(record: Any, /, **changes: Any) -> Any:  # noqa: ANN401 - as `dataclasses.replace`
        """As `dataclasses.replace`, without making the fields that nobody has looked at.

        Raises:
            TypeError: A change is of no parameter of the record's type.
        """
        cls = type(record)
        given = {name: getattr(record, name) for name in cls.__match_args__ if name not in changes}
        return cls(**given, **changes)

    def _make(declared: type) -> type:
        """Return the class again, with slots, which can only be given when a class is made."""
        own = vars(declared)
        names = tuple(own.get("__annotations__", ()))
        given = {name: own[name] for name in names if name in own}
        parameters = {name: given.get(name, MISSING) for name in names if _told(given.get(name), "init")}
        optional = [_is_optional(one) for one in parameters.values()] if given else []
        if optional != sorted(optional):
            raise TypeError(f"in {declared.__name__} a field without a default follows one that has one")
        compared = [name for name in names if _told(given.get(name), "compare")]
        namespace = {"__init__": _first_init(parameters), **_SHARED, **_comparison(compared)}
        left_out = {*given, "__dict__", "__weakref__"}
        namespace |= {name: value for name, value in own.items() if name not in left_out}
        namespace |= {
            "__slots__": names,
            "__match_args__": tuple(parameters),
            "__dataclass_fields__": _Fields(declared),
        }
        return type(declared)(declared.__name__, declared.__bases__, namespace)

    class _Fields:
        """``__dataclass_fields__``: made by the standard library, but only if somebody looks."""

        def __init__(self, declared: type) -> None:
            self.declared = declared

        def __get__(self, instance: object, owner: type) -> dict[str, Any]:
            owner.__dataclass_fields__ = _standard(init=False, repr=False, eq=False)(self.declared).__dataclass_fields__
            return owner.__dataclass_fields__

    def _first_init(parameters: dict[str, Any]) -> Any:  # noqa: ANN401 - a method
        """Return an ``__init__`` that writes the one of the class, and gives way to it."""

        def __init__(self: object, *args: object, **kwargs: object) -> None:  # noqa: N807
            cls = type(self)
            cls.__init__ = _init(cls, parameters)
            cls.__init__(self, *args, **kwargs)

        return __init__

    def _init(cls: type, parameters: dict[str, Any]) -> Any:  # noqa: ANN401 - a method
        """Return what `dataclasses` would write: the values go into the slots, past what refuses to set attributes.

        To compile one would cost more than all else that is done here: all classes have one code, each with the names
        of its own parameters.  A parameter's value here is its default, a `dataclasses.field`, or MISSING.
        """
        puts = []
        defaults = []
        for name, given in parameters.items():
            put = getattr(cls, name).__set__
            if isinstance(given, Field) and given.default_factory is not MISSING:
                put, given = _made_or_given(put, given.default_factory), None  # noqa: PLW2901 - none was given
                defaults.append(MISSING)
            elif _is_optional(given):
                defaults.append(given.default if isinstance(given, Field) else given)
            puts.append(put)
        scope = {"fill": _fill, "puts": puts, "then": getattr(cls, "__post_init__", None)}
        names = ("self", *parameters)
        code = _any_init.__code__.replace(
            co_argcount=len(names), co_nlocals=len(names), co_varnames=names, co_qualname=f"{cls.__qualname__}.__init__"
        )
        return FunctionType(code, scope, "__init__", tuple(defaults))

    def _any_init() -> None:
        """Fill a record; `_init` gives it the parameters and the scope of one class."""
        fill(puts, then, *locals().values())  # noqa: F821 - names of that scope

    def _fill(puts: list[Any], then: Any, record: object, *values: object) -> None:  # noqa: ANN401 - setters, a method
        for put, value in zip(puts, values, strict=True):
            put(record, value)
        if then is not None:
            then(record)

    def _made_or_given(put: Any, make: Any) -> Any:  # noqa: ANN401 - setter and factory of a field
        """Return what puts the value of a field with a factory, which is called where no value was given."""
        return lambda self, value: put(self, make() if value is MISSING else value)

    def _told(given: object, what: str) -> bool:
        """Return what `dataclasses.field` was told of a field; true for one that has no such specification."""
        return getattr(given, what) if isinstance(given, Field) else True

    def _is_optional(given: Any) -> bool:  # noqa: ANN401 - as above
        if isinstance(given, Field):
            return given.default is not MISSING or given.default_factory is not MISSING
        return given is not MISSING

    def _comparison(names: list[str]) -> dict[str, Any]:
        values = attrgetter(*names) if names else lambda _self: ()

        def __eq__(self: object, other: object) -> bool:  # noqa: N807
            return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

        def __hash__(self: object) -> int:  # noqa: N807
            return hash(values(self))

        return {"__eq__": __eq__, "__hash__": __hash__}

    def _repr(self: object) -> str:
        shown = ", ".join(f"{one.name}={getattr(self, one.name)!r}" for one in fields(self) if one.repr)
        return f"{type(self).__qualname__}({shown})"

    def _refuse(self: object, name: str, *_value: object) -> None:
        raise FrozenInstanceError(f"cannot assign to field {name!r} of {type(self).__name__}, or delete it")

    def _state(self: object) -> list[Any]:
        return [getattr(self, name) for name in self.__slots__]

    def _restore(self: object, state: list[Any]) -> None:
        for name, value in zip(self.__slots__, state, strict=True):
            object.__setattr__(self, name, value)

    _SHARED = {
        "__repr__": _repr,
        "__setattr__": _refuse,
        "__delattr__": _refuse,
        "__getstate__": _state,
        "__setstate__": _restore,
    }


def all_but(record: type[Any], *names: str) -> Callable[[Any], tuple[Any, ...]]:
    """Return what tells the values of a type's records in all fields but those: equal where nothing else differs.

    To replace those fields by the same values would make a record for each comparison, at five times the cost.
    """
    return attrgetter(*(name for name in record.__match_args__ if name not in names))


__all__ = ["all_but", "dataclass", "replace"]
