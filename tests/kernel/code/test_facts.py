"""Facts stand in for the kernel they were taken from, and a damaged file is named as such."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hibercheck.errors import HibercheckError, MalformedKernel, MissingFact, UsageProblem
from hibercheck.handoff.kernels import HANDOFF_SYMBOLS
from hibercheck.kernel.code.codec import DocumentError, decode, encode
from hibercheck.kernel.code.facts import FactsKernel, facts_of, parse_facts
from hibercheck.kernel.code.model import Patch, Touch, Trait
from hibercheck.kernel.code.needed import NEEDED_SYMBOLS
from hibercheck.kernel.code.traits import read_traits
from hibercheck.kernel.kernel import open_kernel

EXTRA = """
.globl _text
.set _text, 0xffffffff81000000
fn restore_registers
 ret
end restore_registers
"""


@pytest.fixture
def kernel(made):
    with open_kernel(made.path(extra=EXTRA)) as opened:
        yield opened


@pytest.fixture
def facts(kernel, tmp_path):
    path = tmp_path / "kernel.json"
    path.write_text(json.dumps(facts_of(kernel)))
    opened = open_kernel(str(path))
    assert isinstance(opened, FactsKernel)
    return opened


def test_everything_that_the_handoff_asks_for_is_kept():
    assert HANDOFF_SYMBOLS <= NEEDED_SYMBOLS


def test_facts_say_the_same(kernel, facts):
    assert read_traits(facts) == read_traits(kernel)
    assert (facts.banner, facts.release, facts.build_id) == (kernel.banner, kernel.release, kernel.build_id)
    assert facts.percpu_start == kernel.percpu_start
    assert facts.percpu_zero_based is True
    for name in ("_text", "smp_ops", "native_play_dead", "restore_registers"):
        assert facts.require(name).address == kernel.require(name).address
    for loop in read_traits(kernel).park_loops:
        assert facts.read(loop.start, loop.end - loop.start) == kernel.read(loop.start, loop.end - loop.start)
    address = kernel.require("native_play_dead").address + 5
    assert facts.nearest(address)[0].name == "native_play_dead"
    assert facts.nearest(address)[1] == 5


def test_what_facts_lack_is_missing_and_not_absent(facts):
    with pytest.raises(MissingFact, match="keeps no symbol"):
        facts.require("crc32_le")
    with pytest.raises(MissingFact):
        facts.read(0xFFFFFFFF82000000, 8)
    with pytest.raises(MissingFact):
        facts.offset_of("task_struct", "stack")
    with pytest.raises(MissingFact):
        facts.has_member("task_struct", "stack")
    assert facts.nearest(0x1234) is None
    assert facts.symbol("crc32_le") is None


def test_all_symbols_on_request(kernel):
    kept = FactsKernel("x", json.loads(json.dumps(facts_of(kernel, all_symbols=True))))
    assert kept.require("crc32_le").address == kernel.require("crc32_le").address


def test_facts_of_facts_are_the_same_document(facts):
    assert json.loads(json.dumps(facts.document)) == facts.document


def test_symbols_and_facts_do_not_go_together(facts, tmp_path):
    (tmp_path / "System.map").write_text("ffffffff81000000 T _text\n")
    with pytest.raises(UsageProblem):
        open_kernel(facts.path, symbols=str(tmp_path / "System.map"))


def test_addresses_survive_readers_with_53_bits(kernel):
    def numbers(value):
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, list):
            for one in value:
                yield from numbers(one)
        elif isinstance(value, int):
            yield value

    assert all(abs(number) < 1 << 53 for number in numbers(facts_of(kernel)))


@pytest.mark.parametrize(
    "content",
    [b"{", b"{}", b"[]", b"{'kind': 1}", b'{"kind": "hibercheck kernel facts", "schema_version": 99}', b"{" * 100000],
)
def test_what_is_no_facts_file(content):
    with pytest.raises(MalformedKernel, match="x: is not"):
        parse_facts("x", content)


def places(value, path=()):
    """Every place in a document."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(data=st.data())
def test_damage_is_named(kernel, data):
    document = json.loads(json.dumps(facts_of(kernel)))
    path = data.draw(st.sampled_from([place for place in places(document) if place and place[0] != "tool"]))
    damaged = copy.deepcopy(document)
    holder = damaged
    for key in path[:-1]:
        holder = holder[key]
    if data.draw(st.booleans()):
        holder[path[-1]] = data.draw(st.sampled_from([None, 7, -1, "x", [], {}, [1], {"a": 1}, True, 1.5]))
    else:
        del holder[path[-1]]
    try:
        opened = FactsKernel("x", damaged)
        opened.symbols(["_text"])
        opened.nearest(0xFFFFFFFF81000010)
        read_traits(opened)
    except HibercheckError as error:
        message = str(error)
        if "\n" in message:
            pytest.fail(message)


TRAITS = st.builds(
    Trait,
    name=st.text(),
    value=st.none() | st.booleans(),
    evidence=st.just(()),
    commit=st.none() | st.text(),
    reason=st.none() | st.text(),
)
PATCHES = st.builds(
    Patch,
    start=st.integers(0, (1 << 64) - 1),
    end=st.integers(0, (1 << 64) - 1),
    why=st.text(),
    variants=st.lists(st.binary()).map(tuple),
)
TOUCHES = st.builds(
    Touch,
    kind=st.sampled_from(["text", "line", "io"]),
    access=st.sampled_from(["read", "fetch"]),
    address=st.none() | st.integers(0, (1 << 64) - 1),
    symbol=st.none() | st.text(),
    register=st.none() | st.text(),
    displacement=st.integers(-(1 << 31), 1 << 31),
    size=st.integers(0, 64),
    instruction=st.integers(0, (1 << 64) - 1),
)


@given(TRAITS)
def test_traits_come_back(trait):
    assert decode(Trait[bool], json.loads(json.dumps(encode(trait)))) == trait


@given(PATCHES, TOUCHES)
def test_data_comes_back(patch, touch):
    assert decode(Patch, json.loads(json.dumps(encode(patch)))) == patch
    assert decode(Touch, json.loads(json.dumps(encode(touch)))) == touch


def test_a_value_of_another_kind_is_refused():
    with pytest.raises(DocumentError, match=r"\$\.kind: 'lines' is none of"):
        decode(Touch, encode(Touch("line", "read", 1, None, None, 0, 4, 5)) | {"kind": "lines"})
    with pytest.raises(DocumentError, match=r"\$\.value: bool was expected, not int"):
        decode(Trait[bool], encode(Trait("x", True)) | {"value": 1})
