"""The dataclasses of `hibercheck.data` against the standard library's, which they replace for their cost alone."""

from __future__ import annotations

import copy
import importlib
import pickle
import pkgutil
from collections.abc import Callable
from dataclasses import FrozenInstanceError, asdict, dataclass, field, fields, replace
from typing import Any

import pytest

import hibercheck
from hibercheck import data


class _Declared:
    """What both decorators are put on."""

    a: int
    b: tuple[int, ...] = (1,)
    c: dict[int, int] = field(default_factory=dict, repr=False, compare=False)
    d: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "d", self.a + 1)


def _declare(decorate: Callable[[type], type]) -> Any:
    own = {name: value for name, value in vars(_Declared).items() if name not in {"__dict__", "__weakref__"}}
    return decorate(type("Both", (), own))


Standard = _declare(dataclass(frozen=True, slots=True))
Both = _declare(data.dataclass(frozen=True, slots=True))
Both.__module__, Both.__qualname__ = __name__, "Both"


@pytest.mark.parametrize(
    ("args", "kwargs"), [((1,), {}), ((1, (2, 3)), {}), ((), {"a": 1, "c": {1: 2}}), ((7, ()), {"c": {}})]
)
def test_it_behaves_as_the_standard_one(args: tuple[object, ...], kwargs: dict[str, object]) -> None:
    ours, theirs = Both(*args, **kwargs), Standard(*args, **kwargs)
    assert repr(ours) == repr(theirs)
    assert asdict(ours) == asdict(theirs)
    assert repr(replace(ours, a=9)) == repr(replace(theirs, a=9))
    assert replace(ours, a=9).d == 10
    assert [one.name for one in fields(ours)] == [one.name for one in fields(theirs)]
    for name in ("__slots__", "__match_args__"):
        assert getattr(Both, name) == getattr(Standard, name)
    assert not hasattr(ours, "__dict__")


def test_the_hundredth_object_is_made_like_the_first() -> None:
    made = _declare(data.dataclass(frozen=True, slots=True))
    for number in range(100):
        one, other = made(number), made(a=number, c={})
        assert (one.a, one.b, one.c, one.d) == (number, (1,), {}, number + 1)
        assert one == other
        assert one.c is not other.c
        for args, kwargs in (((), {}), ((1, 2, 3, 4), {}), ((1,), {"d": 3}), ((1,), {"a": 1})):
            with pytest.raises(TypeError):
                made(*args, **kwargs)


@pytest.mark.parametrize("count", [*range(16), 40])
@pytest.mark.parametrize("then", [False, True])
def test_a_record_may_have_any_number_of_fields(count: int, then: bool) -> None:
    names = [f"field_{number}" for number in range(count)]
    values = dict(zip(names, range(count), strict=True))
    made_so_far: list[object] = []
    more = {"__post_init__": lambda self: made_so_far.extend([self])} if then else {}
    namespace = {"__annotations__": dict.fromkeys(names, "int"), **more}
    wide = data.dataclass(frozen=True, slots=True)(type("Wide", (), namespace))
    half = count // 2
    by_name = {name: values[name] for name in reversed(names[half:])}
    made = [wide(*range(half), **by_name), wide(**values), wide(*values.values())]
    assert [{name: getattr(one, name) for name in names} for one in made] == [values] * 3
    assert [id(one) for one in made_so_far] == [id(one) for one in made] * then
    for args, kwargs in (
        ((*range(count), 1), {}),
        ((), {**values, "other": 1}),
        (tuple(range(1, count)), {"other": 1}),
    ):
        with pytest.raises(TypeError):
            wide(*args, **kwargs)


def test_objects_are_compared_and_hashed_by_their_fields() -> None:
    assert Both(1) == Both(1, c={5: 6})
    assert hash(Both(1)) == hash(Both(1, c={5: 6}))
    assert Both(1) != Both(2)
    assert Both(1) != Standard(1)
    assert Both(1) != 1


def test_records_of_two_types_are_not_equal_whatever_they_hold() -> None:
    """What `typing.NamedTuple` would not give."""
    other = _declare(data.dataclass(frozen=True, slots=True))
    assert Both(1) != other(1)
    assert Both(1) != (1, (1,))
    assert len({Both(1), other(1), Both(1)}) == 2
    records = [
        (module, name)
        for module in pkgutil.walk_packages(hibercheck.__path__, "hibercheck.")
        if not module.name.endswith("__main__")
        for name, one in vars(importlib.import_module(module.name)).items()
        if isinstance(one, type) and issubclass(one, tuple) and one.__module__ == module.name
    ]
    # a tuple with names, within one module, of which nothing is compared with anything else
    assert sorted((module.name, name) for module, name in records) == [
        ("hibercheck.dump.elf", "Segment"),
        ("hibercheck.dump.flattened", "_Piece"),
    ]


def test_copies_and_pickles_are_equal_and_keep_what_is_not_compared() -> None:
    one = Both(1, (2,), {3: 4})
    for other in (copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one))):  # noqa: S301 - our own
        assert other == one
        assert (other.c, other.d) == ({3: 4}, 2)


def test_defaults_of_a_factory_are_not_shared() -> None:
    assert Both(1).c is not Both(1).c


def test_objects_are_frozen() -> None:
    one = Both(1)
    with pytest.raises(FrozenInstanceError):
        one.a = 2
    with pytest.raises(FrozenInstanceError):
        one.new = 2
    with pytest.raises(FrozenInstanceError):
        del one.a


def test_a_record_without_fields() -> None:
    empty = data.dataclass(frozen=True, slots=True)(type("Empty", (), {"__annotations__": {}}))
    assert empty() == empty()
    assert hash(empty()) == hash(empty())
    assert repr(empty()) == "Empty()"


@pytest.mark.parametrize(("args", "kwargs"), [((), {}), ((1, 2, 3, 4), {}), ((1,), {"d": 3}), ((1,), {"a": 1})])
def test_wrong_arguments_are_a_type_error(args: tuple[object, ...], kwargs: dict[str, object]) -> None:
    with pytest.raises(TypeError):
        Standard(*args, **kwargs)
    with pytest.raises(TypeError):
        Both(*args, **kwargs)


def test_a_field_without_default_after_one_with_is_refused() -> None:
    namespace = {"__annotations__": {"a": "int", "b": "int"}, "a": 1}
    with pytest.raises(TypeError):
        data.dataclass(frozen=True, slots=True)(type("Wrong", (), namespace))


def test_only_frozen_data_with_slots_is_made() -> None:
    with pytest.raises(TypeError, match="frozen"):
        data.dataclass(frozen=False, slots=True)


def test_what_is_equal_but_for_some_fields() -> None:
    told = data.all_but(Both, "a")
    assert told(Both(1, (2,))) == told(Both(3, (2,))) != told(Both(1, (4,)))
    assert told(Both(1)) == ((1,), {})
