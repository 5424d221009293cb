"""Facts stand in for the kernel they were taken from, and a damaged file is named as such."""

from __future__ import annotations

import base64
import copy
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hibercheck import __version__
from hibercheck.errors import HibercheckError, MalformedKernel, MissingFact, UsageProblem
from hibercheck.handoff.facts.kernels import open_resumee, open_resumer
from hibercheck.kernel.code.codec import DocumentError, decode, encode, integer
from hibercheck.kernel.code.facts import FactsKernel, facts_of, parse_facts
from hibercheck.kernel.code.model import Patch, Touch, Trait
from hibercheck.kernel.code.needed import MEMBERS, SIZES
from hibercheck.kernel.code.traits import DECLARED, read_traits
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


@pytest.fixture
def small(facts):
    """Facts of a kernel that keep just what a test puts into them."""

    def make(**members):
        plain = {"symbols": {}, "sizes": {}, "offsets": {}, "memory": []}
        return FactsKernel("kernel.json", copy.deepcopy(facts.document) | plain | members)

    return make


def kept(start, content):
    return {"address": hex(start), "bytes": base64.b64encode(content).decode()}


def test_symbols_are_named_within_their_size_or_by_the_distance_from_the_start(small):
    kernel = small(symbols={
        "_text": ["0x1000", None, "T"], "f": ["0x1100", "0x20", "t"], "f.cold": ["0x1400", None, "t"],
        "fa": ["0x1500", "0x10", "t"], "_end": ["0x2000", None, "B"],
    })  # fmt: skip
    named = {
        0x1000: ("_text", 0), 0x1100: ("f", 0), 0x111F: ("f", 0x1F), 0x1120: ("_text", 0x120), 0x1400: ("f.cold", 0),
        0x1401: ("_text", 0x401), 0x1FFF: ("_text", 0xFFF), 0x2000: ("_end", 0),
    }  # fmt: skip
    found = kernel.nearest_many([*named, 0xFFF, 0x2001])
    assert {address: (symbol.name, offset) for address, (symbol, offset) in found.items()} == named
    assert [one.name for one in kernel.variants("f")] == ["f", "f.cold"]
    assert kernel.extent(kernel.require("f")) == 0x20
    with pytest.raises(MissingFact, match="does not keep the size of _text"):
        kernel.extent(kernel.require("_text"))
    assert small(symbols={"_text": ["0x1000", None, "T"]}).nearest(0x1100) is None
    assert small(symbols={"_end": ["0x2000", None, "T"]}).nearest(0x1100) is None


def test_bytes_are_kept_by_pages_that_may_be_cut_short(small):
    content = bytes(range(256)) * 16
    kernel = small(memory=[kept(0x1000, content), kept(0x2000, b"tail\0more")])
    assert kernel.read(0x1FFC, 8) == content[-4:] + b"tail"
    assert kernel.read(0x1000, 4096) == content
    assert kernel.read(0x2000, 9) == b"tail\0more"
    assert kernel.read(0x2003, 0) == b""
    assert kernel.read_string(0x2000) == b"tail"
    assert kernel.read_string(0x2000, 3) == b"tai"
    assert kernel.read_string(0x1FF0, 16) == content[-16:]
    for address, size in ((0x2000, 10), (0x2008, 2), (0x1FFF, 11), (0xFFF, 2), (0x3000, 1)):
        with pytest.raises(MissingFact, match="keeps nothing at"):
            kernel.read(address, size)


def test_types_that_are_kept_are_known_and_those_that_were_looked_for_are_known_to_lack(small):
    kernel = small(sizes={"a": 24, "a.b": 8, "c": None}, offsets={"a.b": 16, "a.c": None})
    assert (kernel.size_of("a"), kernel.size_of("a", "b"), kernel.offset_of("a", "b")) == (24, 8, 16)
    assert (kernel.has_member("a", "b"), kernel.has_member("a", "c")) == (True, False)
    for ask in (lambda: kernel.size_of("c"), lambda: kernel.size_of("d"), lambda: kernel.offset_of("a", "c")):
        with pytest.raises(MissingFact, match="does not say where"):
            ask()
    with pytest.raises(MissingFact, match=r"keeps nothing about a\.d"):
        kernel.has_member("a", "d")


def test_the_per_cpu_area_starts_where_the_facts_say_or_nowhere(small):
    assert small(percpu_start=0).percpu_start == 0
    with pytest.raises(MissingFact, match="per-CPU area"):
        _ = small(percpu_start=None).percpu_start


@pytest.mark.parametrize("members", [
    {"memory": {}}, {"memory": [5]}, {"memory": [kept(0x1001, b"x")]}, {"memory": [kept(0x1000, bytes(4097))]},
    {"symbols": []}, {"symbols": {"f": [1, 2]}}, {"symbols": {"f": 5}}, {"sizes": {"a": "x"}}, {"banner": None},
    {"schema_version": 0}, {"kind": "other"}, {"traits": None}, {"percpu_start": "x"},
])  # fmt: skip
def test_members_of_another_form(small, members):
    with pytest.raises(MalformedKernel):
        small(**members)


def test_the_document_says_what_it_is_of(kernel):
    document = facts_of(kernel)
    assert (document["kind"], document["schema_version"]) == ("hibercheck kernel facts", 2)
    assert document["tool"] == {"name": "hibercheck", "version": __version__}
    told = (document["banner"], document["release"], document["build_id"])
    assert told == (kernel.banner, kernel.release, kernel.build_id)
    assert document["percpu_start"] == hex(kernel.percpu_start)
    assert set(document["sizes"]) == SIZES
    assert set(document["offsets"]) == {f"{structure}.{member}" for structure, member in MEMBERS}
    assert set(document["traits"]) == {one.name for one in DECLARED}
    play_dead = kernel.require("native_play_dead")
    assert document["symbols"]["native_play_dead"] == [hex(play_dead.address), play_dead.size, play_dead.letter]


@pytest.mark.parametrize("symbol", ["asm_exc_nmi", "native_play_dead"])
def test_pages_of_code_are_kept_as_far_as_they_are_asked_for(made, symbol):
    """Of a function at most a page, from where it begins; of a park loop all; of the segment what there is."""
    long = "fn asm_exc_nmi\n .skip 0x2800, 0x90\n ret\nend asm_exc_nmi\n .skip 0x3000, 0xcc\n"
    with open_kernel(made.path(extra=f"{EXTRA} .balign 4096\n .skip 0x800, 0xcc\n{long}")) as kernel:
        kept = FactsKernel("kernel.json", json.loads(json.dumps(facts_of(kernel))))
        start = kernel.require(symbol).address
        assert kept.read(start, 0x40) == kernel.read(start, 0x40)
        if symbol == "asm_exc_nmi":
            pages = {int(one["address"], 16) for one in kept.document["memory"]}
            first = start & -4096
            assert {page for page in pages if first <= page <= first + 0x3000} == {first, first + 0x1000}
            assert kept.read(start, 0x1800) == kernel.read(start, 0x1800)
            with pytest.raises(MissingFact):
                kept.read(start + 0x1800, 1)
        for page in kept.document["memory"]:
            end = kernel.elf.span_end(int(page["address"], 16))
            assert len(base64.b64decode(page["bytes"])) == min(4096, end - int(page["address"], 16))


def test_all_symbols_on_request(kernel):
    kept = FactsKernel("x", json.loads(json.dumps(facts_of(kernel, all_symbols=True))))
    assert kept.require("crc32_le").address == kernel.require("crc32_le").address


def test_facts_without_the_start_of_the_kernel_give_one_line_as_a_kernel_does(kernel, tmp_path):
    document = facts_of(kernel)
    del document["symbols"]["_text"]
    path = tmp_path / "kernel.json"
    path.write_text(json.dumps(document))
    for opened in (open_resumer, open_resumee):
        with pytest.raises(MissingFact, match=r"kernel\.json: keeps no symbol _text; give the kernel itself"):
            opened(str(path), None)


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
    [
        b"{",
        b"{}",
        b"[]",
        b"{'kind': 1}",
        b'{"kind": "hibercheck kernel facts", "schema_version": 99}',
        b'{"kind": "hibercheck kernel facts", "schema_version": true}',
        b"{" * 100000,
    ],
)
def test_what_is_no_facts_file(content):
    with pytest.raises(MalformedKernel, match="x: is not"):
        parse_facts("x", content)


@pytest.mark.parametrize("number", ["ffff_fff_8100000", " ff", "+ff", "\u0661", "f" * 17, 1 << 64, 1.0, True, None])
def test_what_is_no_integer(number):
    with pytest.raises(DocumentError, match=r"\$\.x: an integer was expected"):
        integer(number, "$.x")


def test_integers():
    assert [integer(number, "$") for number in (5, -5, "0x10", "ff", "-0x10", (1 << 64) - 1)] == [
        *(5, -5, 16, 255, -16),
        (1 << 64) - 1,
    ]


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
    with pytest.raises(DocumentError, match=r"\$\.kind: 'lines' is not one of"):
        decode(Touch, encode(Touch("line", "read", 1, None, None, 0, 4, 5)) | {"kind": "lines"})
    with pytest.raises(DocumentError, match=r"\$\.value: bool was expected, not int"):
        decode(Trait[bool], encode(Trait("x", True)) | {"value": 1})


@pytest.mark.parametrize(("kind", "document", "value"), [
    (tuple[int, str], [1, "a"], (1, "a")), (tuple[int, ...], [1, 2, 3], (1, 2, 3)), (tuple[int, ...], [], ()),
    (tuple[int, int, int], [1, 2, 3], (1, 2, 3)), (tuple[int, int], [1, 2, 3], None), (tuple[int, str], [1, 2], None),
    (tuple[int, ...], [1, "x"], None), (int | None, None, None), (bytes, "AAE=", b"\0\1"), (bytes, "AAE", None),
    (bytes, "\u00e9", None), (bytes, 5, None), (bool, 1, None), (int, "0x10", 16), (str, "x", "x"),
])  # fmt: skip
def test_types_are_read_as_they_are_annotated(kind, document, value):
    if value is None and document is not None:
        with pytest.raises(DocumentError):
            decode(kind, document)
    else:
        assert decode(kind, document) == value
