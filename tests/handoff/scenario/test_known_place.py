"""Where the resumer lies and how it pages: of several sources the best, and what follows from the resumee's place."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hibercheck.addresses import START_KERNEL_MAP
from hibercheck.errors import Mismatch, MissingFact, UsageProblem
from hibercheck.handoff.facts.e820 import RAM, RESERVED, E820Entry
from hibercheck.handoff.facts.standing import Known, Standing
from hibercheck.handoff.scenario.known_place import (
    FRED,
    KASLR_OFFSET,
    LEVELS,
    LOAD_ADDRESS,
    linked_at,
    resumee_address,
    sensible_alignment,
    takes_fred,
)
from tests.support.made_inputs import INTEL, LINKED, Kernel, asking, made_dumped, made_resumee, made_space

MEASURED, READ, GIVEN, INFERRED, USUAL = Standing
FIXED, RANDOM = {"randomize_base": False}, {"randomize_base": True}


def told(fact, **given):
    found = asking(**given).known(fact)
    return None if found is None else (found.value, found.standing)


def nokaslr(phys_base=0, **values):
    line = values.pop("command_line", "nokaslr")
    return made_resumee(made_space(phys_base=phys_base), command_line=line, loader_line="", **values)


@pytest.mark.parametrize(("given", "expected"), [
    ({"traits": RANDOM, "resumer_cmdline": "quiet"}, (None, GIVEN)),
    ({"traits": RANDOM}, (None, INFERRED)),  # the resumee's line, which had no nokaslr
    ({"traits": RANDOM, "resumer_cmdline": "nokaslr"}, (LINKED, USUAL)),
    ({"traits": FIXED, "resumer_cmdline": "quiet"}, (LINKED, USUAL)),
    ({"traits": RANDOM, "resumer_cmdline": "nokaslr", "resumee": nokaslr()}, (LINKED, INFERRED)),
    ({"traits": RANDOM, "resumer_cmdline": "nokaslr", "resumee": nokaslr(0x2000000)}, (LINKED + 0x2000000, INFERRED)),
    ({"traits": RANDOM, "resumer_cmdline": "nokaslr", "resumee": nokaslr(0x2000000, command_line="")}, (LINKED, USUAL)),
    ({"traits": RANDOM, "resumer_cmdline": "nokaslr", "resumee": nokaslr(0x2000000, command_line=None)},
     (LINKED, USUAL)),
    ({"traits": RANDOM, "resumer_phys_base": 0x4000000}, (0x4000000, GIVEN)),
    ({"traits": RANDOM, "collected": {"load_address": 0x6000000}}, (0x6000000, MEASURED)),
    ({"traits": RANDOM, "collected": {"phys_base": 0x6000000}}, (LINKED + 0x6000000, MEASURED)),
    ({"traits": RANDOM, "collected": {}}, (None, INFERRED)),
    ({"traits": RANDOM, "dumped": made_dumped(made_space(phys_base=0x8000000))}, (LINKED + 0x8000000, MEASURED)),
])  # fmt: skip
def test_the_load_address(given, expected):
    assert told(LOAD_ADDRESS, **given) == expected


@pytest.mark.parametrize(("given", "expected"), [
    ({"traits": RANDOM, "resumer_cmdline": "quiet"}, (None, GIVEN)),
    ({"traits": RANDOM, "resumer_cmdline": "nokaslr"}, (0, GIVEN)),
    ({"traits": FIXED}, (0, INFERRED)),
    ({"traits": RANDOM, "collected": {"text_address": 0xFFFFFFFF8A000000}}, (0x9000000 - 0x0, MEASURED)),
    ({"traits": RANDOM, "collected": {"kernel_offset": 0x7000000}}, (0x7000000, MEASURED)),
    ({"traits": RANDOM, "collected": {}}, (None, INFERRED)),
    ({"traits": RANDOM, "dumped": made_dumped(made_space(kaslr_offset=0x5000000))}, (0x5000000, MEASURED)),
])  # fmt: skip
def test_the_offset_of_virtual_addresses(given, expected):
    assert told(KASLR_OFFSET, **given) == expected


@pytest.mark.parametrize("fact", [LOAD_ADDRESS, KASLR_OFFSET])
def test_whether_places_are_random_has_to_be_known_unless_the_line_says_that_they_are_not(fact):
    with pytest.raises(MissingFact) as found:
        told(fact, traits={}, resumer_cmdline="quiet")
    assert "nokaslr" in found.value.advice
    assert told(fact, traits={}, resumer_cmdline="nokaslr") is not None


def test_where_a_resumee_without_kaslr_lies():
    assert resumee_address(asking(resumee=nokaslr(0x2000000))) == LINKED + 0x2000000
    assert resumee_address(asking(resumee=nokaslr(0x2000000, command_line="quiet"))) is None
    assert resumee_address(asking(resumee=nokaslr(0x2000000, command_line=None))) is None
    assert linked_at(asking()) == LINKED


def test_a_dump_and_an_option_that_differ_contradict_each_other():
    dumped = made_dumped(made_space(phys_base=0x2000000))
    with pytest.raises(Mismatch, match="0x3000000"):
        told(LOAD_ADDRESS, traits=FIXED, dumped=dumped, resumer_phys_base=0x2000000)
    what_if = {"dumped": dumped, "resumer_phys_base": 0x2000000, "what_if": True}
    assert told(LOAD_ADDRESS, traits=FIXED, **what_if) == (0x2000000, GIVEN)


def test_a_supposed_run_lies_where_the_dump_has_it():
    what_if = {"dumped": made_dumped(made_space(kaslr_offset=0x5000000)), "what_if": True, "traits": RANDOM}
    one = asking(resumer_cmdline="nokaslr", **what_if)
    found = one.known(KASLR_OFFSET)
    assert (found.value, found.standing) == (0x5000000, MEASURED)
    assert any("nokaslr is not obeyed" in remark for remark in one.remarks)
    with pytest.raises(Mismatch, match="how far KASLR moves"):
        told(KASLR_OFFSET, **what_if | {"what_if": False}, resumer_cmdline="nokaslr")
    with pytest.raises(Mismatch) as five:
        told(LEVELS, traits=LA57, dumped=made_dumped(made_space(levels=5)), resumer_cmdline="no5lvl", what_if=True)
    assert "--what-if" not in five.value.advice


ROOMS = (E820Entry(0x100000, 0x7F00000, RAM), E820Entry(0x8000000, 0x100000, RESERVED))


@pytest.mark.parametrize("address", [0x0, 0x7E00000, 0x8000000, 1 << 40])
def test_an_address_at_which_the_machine_has_no_room_for_the_kernel(address):
    kernel = Kernel(_end=START_KERNEL_MAP + LINKED + 0xC00000)
    given = {"traits": RANDOM, "resumee": made_resumee(e820=ROOMS), "resumer": kernel}
    with pytest.raises(UsageProblem, match="not all is RAM"):
        told(LOAD_ADDRESS, **given, resumer_phys_base=address)
    assert told(LOAD_ADDRESS, **given, resumer_phys_base=0x7000000) == (0x7000000, GIVEN)


@pytest.mark.parametrize(("size", "fits"), [
    (None, True), (0, True), (1, True), (0x1000, True), (0x7000000, True), (0x7000001, False), (0x7001000, False),
])  # fmt: skip
def test_the_last_byte_of_the_kernel_lies_in_ram_too(size, fits):
    kernel = Kernel() if size is None else Kernel(_end=START_KERNEL_MAP + LINKED + size)
    given = {"traits": RANDOM, "resumee": made_resumee(e820=ROOMS), "resumer": kernel, "resumer_phys_base": 0x1000000}
    if fits:
        assert told(LOAD_ADDRESS, **given) == (0x1000000, GIVEN)
    else:
        with pytest.raises(UsageProblem, match="not all is RAM"):
            told(LOAD_ADDRESS, **given)


FIVE = replace(INTEL, virtual_bits=57)
LA57 = {"la57": True}


@pytest.mark.parametrize(("given", "expected"), [
    ({"traits": LA57, "resumer_cmdline": "no5lvl"}, (4, GIVEN)),
    ({"traits": {"la57": False}, "resumer_cmdline": ""}, (4, READ)),
    ({"traits": LA57, "resumee": made_resumee(features=FIVE), "resumer_cmdline": ""}, (5, INFERRED)),
    ({"traits": LA57, "resumee": made_resumee(features=INTEL), "resumer_cmdline": ""}, (4, INFERRED)),
    ({"traits": LA57, "resumee": made_resumee(made_space(levels=5), features=INTEL)}, (5, INFERRED)),
    ({"traits": {}, "resumee": made_resumee(features=FIVE)}, None),  # what its code can do is not known
    ({"traits": {}, "resumee": made_resumee(features=INTEL), "resumer_cmdline": ""}, (4, INFERRED)),
    ({"traits": LA57, "collected": {"levels": 5}}, (5, MEASURED)),
    ({"traits": LA57, "collected": {"features": INTEL}}, (4, MEASURED)),
    ({"traits": LA57, "collected": {"features": replace(INTEL, flags=INTEL.flags | {"la57"})}}, (5, INFERRED)),
    ({"traits": LA57, "dumped": made_dumped(made_space(levels=5))}, (5, MEASURED)),
])  # fmt: skip
def test_the_levels_of_its_page_tables(given, expected):
    assert told(LEVELS, **given) == expected


@pytest.mark.parametrize(("symbols", "line", "expected"), [
    ({"level4_kernel_pgt": 1}, "", (4, INFERRED)),  # it would have had five
    ({"level4_kernel_pgt": 1}, "no5lvl", None),
    ({"level4_kernel_pgt": 1}, None, None),
    ({}, "", None),
])  # fmt: skip
def test_where_nothing_tells_the_cpu_a_resumee_that_would_have_used_five_levels_does(symbols, line, expected):
    for features in (None, replace(INTEL, virtual_bits=None)):
        resumee = made_resumee(made_space(Kernel(**symbols)), command_line=line, features=features)
        assert told(LEVELS, traits=LA57, resumee=resumee, resumer_cmdline="quiet") == expected


@pytest.mark.parametrize(("fact", "value", "text"), [
    (LOAD_ADDRESS, None, "random"), (LOAD_ADDRESS, 0x1000000, "0x1000000"), (KASLR_OFFSET, None, "random"),
    (KASLR_OFFSET, 0, "0x0"), (LEVELS, 5, "5"),
])  # fmt: skip
def test_how_places_are_shown(fact, value, text):
    assert fact.show(value) == text


@pytest.mark.parametrize(("line", "address", "resumee", "told"), [
    ("nokaslr", 0x5000000, {}, True), ("nokaslr", LINKED, {}, False), ("quiet", 0x5000000, {}, False),
    ("nokaslr", 0x5000000, {"booted_by_efi": True}, False), ("nokaslr", 0x5000000, {"booted_by_kexec": True}, False),
])  # fmt: skip
def test_an_address_that_nokaslr_does_not_explain_is_told(line, address, resumee, told):
    """Facts of another boot of the same build: measured, they turned a reset into exit 0."""
    given = {"collected": {"command_line": line, "load_address": address}, "traits": {"randomize_base": True}}
    found = asking(**given, resumee=made_resumee(**resumee))
    assert found.need(LOAD_ADDRESS).value == address
    assert any("nokaslr" in remark for remark in found.remarks) is told


HAS = replace(INTEL, flags=frozenset({"fred", "lkgs"}))


@pytest.mark.parametrize(("built", "default", "line", "features", "uses"), [
    (True, True, "", HAS, True), (True, True, "fred=off", HAS, False), (True, True, "fred=on", HAS, True),
    (True, False, "", HAS, False), (True, False, "fred=on", HAS, True), (True, False, "fred=off", HAS, False),
    (False, True, "fred=on", HAS, False), (None, True, "", HAS, None), (True, None, "", HAS, None),
    (None, None, "", HAS, None), (True, True, "", INTEL, False), (None, None, "", INTEL, False),
    (True, True, "", None, None), (False, None, "", None, False),
    (True, True, "", replace(INTEL, flags=frozenset({"lkgs"})), True),  # hidden by a kernel that did not use it
])  # fmt: skip
def test_whether_it_takes_exceptions_by_fred(built, default, line, features, uses):
    run = asking(
        traits={"fred": built, "fred_default": default}, resumer_cmdline=line, resumee=made_resumee(features=features)
    )
    found = run.known(FRED)
    assert (None if found is None else found.value) is uses


@pytest.mark.parametrize(("size", "sensible"), [
    (0, False), (1, False), (1 << 20, False), ((2 << 20) - 1, False), (2 << 20, True), (3 << 20, False),
    (4 << 20, True), (6 << 20, False), (8 << 20, True), (16 << 20, True), ((16 << 20) + 1, False), (24 << 20, False),
    (32 << 20, False), (1 << 40, False), (-(2 << 20), False),
])  # fmt: skip
def test_alignments_that_a_configuration_can_have(size, sensible):
    """PHYSICAL_ALIGN, arch/x86/Kconfig: from 0x200000 to 0x1000000 on x86-64, and a power of two."""
    assert sensible_alignment(size) is sensible


@pytest.mark.parametrize(("known", "flags", "takes"), [
    (True, set(), True), (False, {"fred", "lkgs"}, False), (False, set(), False), (None, {"fred"}, True),
    (None, {"lkgs"}, True), (None, {"smep"}, False), (None, set(), False),
])  # fmt: skip
def test_where_it_is_not_known_a_cpu_that_can_may_deliver_by_fred(known, flags, takes):
    found = None if known is None else Known(known, READ, "its code")
    assert takes_fred(found, frozenset(flags)) is takes
