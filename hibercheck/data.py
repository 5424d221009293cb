"""Frozen dataclasses with slots, for a fraction of what the standard library's cost at start-up.

`dataclasses.dataclass` writes and compiles six methods for every class.  The hundred classes that a check imports took
a sixth of its whole time that way, most of it for classes of which the run makes few objects or none.  Here all classes
share those methods, only one of many objects gets an ``__init__`` of its own, and what `dataclasses.fields` shows is
made when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    from dataclasses import MISSING, Field, FrozenInstanceError, fields
    from dataclasses import dataclass as _standard
    from operator import attrgetter

    T = TypeVar("T", bound=type)

    _OFTEN = 64
    """Objects from which on compiling an ``__init__`` pays."""

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

    def _make(cls: T) -> T:
        """The class again, with slots, which can only be given when a class is made."""
        declared = vars(cls)
        names = tuple(declared.get("__annotations__", ()))
        specified = {name: declared[name] for name in names if name in declared}
        namespace = {
            name: value
            for name, value in declared.items()
            if name not in specified and name not in {"__dict__", "__weakref__"}
        }
        own = set(namespace)
        parameters = {name: specified.get(name, MISSING) for name in names if _of(specified.get(name), "init")}
        compared = tuple(name for name in names if _of(specified.get(name), "compare"))
        shared = {
            "__repr__": _repr,
            "__setattr__": _refuse_to_set,
            "__delattr__": _refuse_to_delete,
            "__getstate__": _state,
            "__setstate__": _restore,
        }
        shared |= _comparison(attrgetter(*compared)) if compared else {}
        namespace |= {name: method for name, method in shared.items() if name not in own}
        namespace |= {"__qualname__": cls.__qualname__, "__slots__": names, "__match_args__": tuple(parameters)}
        namespace["__dataclass_fields__"] = _Fields(cls)
        made = type(cls)(cls.__name__, cls.__bases__, namespace)
        if "__init__" not in own:
            made.__init__ = _init(made, parameters)
        return made

    def _of(specified: object, what: str) -> bool:
        """What `dataclasses.field` was told of a field; true for one that has no such specification."""
        return getattr(specified, what) if isinstance(specified, Field) else True

    class _Fields:
        """``__dataclass_fields__``: made by the standard library, but only if somebody looks."""

        def __init__(self, declared: type) -> None:
            self._declared = declared

        def __set_name__(self, owner: type, name: str) -> None:
            self._owner, self._name = owner, name

        def __get__(self, instance: object, _owner: type) -> dict[str, Any]:
            made = _standard(init=False, repr=False, eq=False)(self._declared).__dataclass_fields__
            setattr(self._owner, self._name, made)
            return made

    def _init(cls: type, parameters: dict[str, Any]) -> Any:  # noqa: ANN401 - a method
        """An ``__init__`` that takes these parameters; a value is a default, a `dataclasses.field`, or MISSING.

        Of a class that many objects are made of, one is written that is compiled and faster.
        """
        count = len(parameters)
        assign = {name: getattr(cls, name).__set__ for name in parameters}  # past `_refuse_to_set`
        puts = tuple(assign.values())
        finish = getattr(cls, "__post_init__", None)
        defaults, factories = _defaults(cls, parameters)
        bound = _binder(cls.__name__, tuple(parameters), defaults, factories)
        left = _OFTEN

        def __init__(self: object, *args: object, **kwargs: object) -> None:  # noqa: N807
            nonlocal left
            left -= 1
            if not left:
                cls.__init__ = _written(assign, defaults, factories, finish)
            values = args if len(args) == count and not kwargs else bound(args, kwargs)
            for put, value in zip(puts, values, strict=True):
                put(self, value)
            if finish is not None:
                finish(self)

        return __init__

    def _defaults(cls: type, parameters: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The defaults of parameters, and what makes those that every object has its own of."""
        defaults, factories = {}, {}
        for name, value in parameters.items():
            if isinstance(value, Field) and value.default_factory is not MISSING:
                factories[name] = value.default_factory
            elif (default := value.default if isinstance(value, Field) else value) is not MISSING:
                defaults[name] = default
            elif defaults or factories:
                raise TypeError(f"in {cls.__name__} a field without a default follows one that has one")
        return defaults, factories

    def _binder(what: str, order: tuple[str, ...], defaults: dict[str, Any], factories: dict[str, Any]) -> Any:  # noqa: ANN401
        """What finds every parameter's value among positional and named arguments and defaults."""

        def bound(args: tuple[object, ...], kwargs: dict[str, object]) -> list[object]:
            values, named = list(args), 0
            for name in order[len(args) :]:
                if name in kwargs:
                    values.append(kwargs[name])
                    named += 1
                elif name in defaults:
                    values.append(defaults[name])
                elif name in factories:
                    values.append(factories[name]())
            if len(values) != len(order) or named != len(kwargs):
                raise TypeError(f"{what} takes {', '.join(order)}: one is missing, twice there, or not of them")
            return values

        return bound

    def _written(assign: dict[str, Any], defaults: dict[str, Any], factories: dict[str, Any], finish: Any) -> Any:  # noqa: ANN401
        """An ``__init__`` as `dataclasses` would write it."""
        scope: dict[str, Any] = {"MISSING": MISSING, "finish": finish}
        parameters, body = ["self"], ["pass"]
        for name, put in assign.items():
            value = name
            scope[f"put_{name}"] = put
            if name in defaults:
                scope[f"default_{name}"] = defaults[name]
                parameters.append(f"{name}=default_{name}")
            elif name in factories:
                scope[f"make_{name}"] = factories[name]
                parameters.append(f"{name}=MISSING")
                value = f"make_{name}() if {name} is MISSING else {name}"
            else:
                parameters.append(name)
            body.append(f"put_{name}(self, {value})")
        if finish is not None:
            body.append("finish(self)")
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
