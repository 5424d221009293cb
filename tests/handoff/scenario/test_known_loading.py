"""On what it depends whether the resumer loads an image: each fact from the best source that has it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from hibercheck.errors import Mismatch
from hibercheck.handoff.facts.e820 import E820Entry
from hibercheck.handoff.facts.firmware_map import FirmwareMap
from hibercheck.handoff.facts.logged import LogFacts
from hibercheck.handoff.facts.standing import Standing
from hibercheck.handoff.scenario.known_loading import (
    COMPRESSOR,
    FREE,
    HIBERNATES,
    LOCKDOWN,
    MEMORY_MAP,
    PAGES,
    RESUMED_BY,
    SIGNATURE,
    added_to,
)
from tests.support.made_inputs import asking, made_dumped, made_resumee

MEASURED, READ, GIVEN, INFERRED, USUAL = Standing
MIB = 1 << 20
MAP = (E820Entry(0, 16 * MIB, 1), E820Entry(16 * MIB, MIB, 2), E820Entry(32 * MIB, 16 * MIB, 1))


def image(compressor="lzo", hw_sig=None, pages=8192):
    return SimpleNamespace(
        compressor=compressor,
        header=SimpleNamespace(hw_sig=hw_sig),
        info=SimpleNamespace(num_physpages=pages),
    )


def told(fact, **given):
    found = asking(**{"image": image(), **given}).known(fact)
    return None if found is None else (found.value, found.standing)


SHIM = made_resumee(secure_boot=True)
LOGGED, QUIET = LogFacts("log", secure_boot=True), LogFacts("log", secure_boot=False)


@pytest.mark.parametrize(("by", "given", "expected"), [
    (None, {}, ("none", USUAL)),
    ((), {}, ("none", READ)),
    (("lockdown=",), {"resumer_cmdline": "lockdown=integrity"}, ("integrity", GIVEN)),
    (("lockdown=",), {"resumee": made_resumee(loader_line="lockdown=integrity")}, ("integrity", INFERRED)),
    (("lockdown=",), {"resumer_cmdline": ""}, ("none", READ)),
    ((), {"resumer_cmdline": "lockdown=integrity"}, ("none", READ)),
    (None, {"resumer_cmdline": "lockdown=integrity"}, ("none", USUAL)),
    (("always",), {}, ("integrity", READ)),
    (("Secure Boot",), {"resumee": SHIM}, ("integrity", INFERRED)),
    (("Secure Boot",), {}, ("none", INFERRED)),
    (("lockdown=",), {"resumee": SHIM}, ("none", READ)),
    (("Secure Boot",), {"logged": LOGGED, "resumee": SHIM}, ("integrity", MEASURED)),
    (("lockdown=",), {"logged": LOGGED}, ("none", READ)),
    (("Secure Boot",), {"logged": QUIET, "resumee": SHIM}, ("integrity", INFERRED)),
    (("Secure Boot",), {"logged": QUIET}, ("none", INFERRED)),
    (("lockdown=", "always"), {"resumer_cmdline": "lockdown=confidentiality"}, ("confidentiality", GIVEN)),
    (("always",), {"facts": (("lockdown", "none"),)}, ("none", GIVEN)),
    (("always",), {"collected": {"lockdown": "none"}}, ("none", MEASURED)),
    (("always",), {"dumped": made_dumped(lockdown="none")}, ("none", MEASURED)),
    (("always",), {"dumped": made_dumped(lockdown="none"), "what_if": True}, ("integrity", READ)),
    (("always",), {"collected": {"lockdown": "none"}, "what_if": True}, ("integrity", READ)),
])  # fmt: skip
def test_lockdown(by, given, expected):
    assert told(LOCKDOWN, traits={"locked_down_by": by}, **given) == expected


@pytest.mark.parametrize(("collected", "more", "expected"), [
    ({}, {}, None), ({"hibernation": False}, {}, (False, MEASURED)), ({"hibernation": True}, {}, (True, MEASURED)),
    ({"hibernation": False}, {"what_if": True}, None),
])  # fmt: skip
def test_what_the_resumer_says_of_itself(collected, more, expected):
    assert told(HIBERNATES, collected=collected, **more) == expected


@pytest.mark.parametrize(("theirs", "given", "expected"), [
    (None, {"collected": {"hw_signature": 5}}, None),
    (5, {"collected": {"hw_signature": 5}}, (True, MEASURED)),
    (5, {"collected": {"hw_signature": 6}}, (False, MEASURED)),
    (5, {"collected": {}}, (True, INFERRED)),
    (5, {}, (True, INFERRED)),
    (5, {"facts": (("hw-sig", "other"),)}, (False, GIVEN)),
    (5, {"facts": (("hw-sig", "same"),)}, (True, GIVEN)),
    (0, {}, (True, INFERRED)),
])  # fmt: skip
def test_the_firmwares_signature(theirs, given, expected):
    assert told(SIGNATURE, image=image(hw_sig=theirs), **given) == expected


MODULE, BUILTIN, BOTH = ("lzo:builtin", "lz4:module?"), ("lzo:builtin", "lz4:builtin"), ("lz4:builtin", "lz4:module?")


@pytest.mark.parametrize(("name", "known", "given", "expected"), [
    ("none", MODULE, {}, None),
    ("lzo", None, {}, None),
    ("lzo", MODULE, {}, (True, READ)),
    ("lz4", ("lzo:builtin",), {}, (False, READ)),
    ("lz4", BUILTIN, {}, (True, READ)),
    ("lz4", MODULE, {}, (True, USUAL)),
    ("lz4", MODULE, {"facts": (("lz4", "absent"),)}, (False, GIVEN)),
    ("lz4", MODULE, {"facts": (("lz4", "loaded"),)}, (True, GIVEN)),
    ("lz4", BUILTIN, {"facts": (("lz4", "absent"),)}, (True, READ)),  # no module: the fact is of something else
    ("lz4", None, {"facts": (("lz4", "absent"),)}, None),
    ("lzo", MODULE, {"facts": (("lz4", "absent"),)}, (True, READ)),
    ("lz4", MODULE, {"collected": {"compressors": {"lz4": True}}}, (True, MEASURED)),
    ("lz4", MODULE, {"collected": {"compressors": {"lz4": False}}}, (True, MEASURED)),  # loaded when asked for
    ("lz4", MODULE, {"collected": {"compressors": {"lzo": True}}}, (False, MEASURED)),
    ("lz4", MODULE, {"collected": {"compressors": {}}}, (True, USUAL)),
    ("lz4", MODULE, {"collected": {}}, (True, USUAL)),
    ("lz4", BUILTIN, {"collected": {"compressors": {"lzo": True}}}, (True, READ)),  # /proc/crypto need not list it
    ("lz4", BOTH, {"collected": {"compressors": {"lzo": True}}}, (True, USUAL)),
    ("lz4", MODULE, {"collected": {"compressors": {"lzo": True}}, "what_if": True}, (True, USUAL)),
])  # fmt: skip
def test_whether_it_can_decompress_the_image(name, known, given, expected):
    assert told(COMPRESSOR, traits={"compressors": known}, image=image(name), **given) == expected


def test_the_memory_map_is_the_best_that_there_is():
    other = FirmwareMap(MAP[:1], "sysfs")
    resumee = made_resumee(e820=MAP)
    assert told(MEMORY_MAP) is None
    assert told(MEMORY_MAP, resumee=resumee) == (FirmwareMap(MAP, "kernel"), INFERRED)
    assert told(MEMORY_MAP, resumee=resumee, collected={"firmware": other}) == (other, MEASURED)
    assert told(MEMORY_MAP, resumee=resumee, dumped=made_dumped(e820=MAP[1:])) == (
        FirmwareMap(MAP[1:], "kernel"), MEASURED,
    )  # fmt: skip
    assert told(MEMORY_MAP, resumee=resumee, dumped=made_dumped()) == (FirmwareMap(MAP, "kernel"), INFERRED)
    assert MEMORY_MAP.show(FirmwareMap(MAP, "kernel")) == "3 ranges with 31 MiB of RAM"  # but for page 0


@pytest.mark.parametrize(("boot_pages", "added"), [(None, 0), (8192, 0), (8000, 192), (9000, -808)])
def test_memory_that_came_or_went_while_the_resumee_ran_is_not_there_at_boot(boot_pages, added):
    resumee = made_resumee(boot_pages=boot_pages)
    assert added_to(resumee, 8192) == added
    assert told(PAGES, resumee=resumee) == (8192 - added, INFERRED)


@pytest.mark.parametrize(("ours", "theirs", "pages"), [
    ("", "", 8192),
    ("mem=40M", "mem=40M", 8192),
    ("mem=40M", "", 8192 - 2048),  # 8 MiB of the last range are beyond it
    ("", "mem=40M", 8192 + 2048),
    ("mem=16M", "mem=40M", 8192 - 2048),
])  # fmt: skip
def test_limits_of_memory_count_as_the_map_has_it(ours, theirs, pages):
    run = {"resumer_cmdline": ours, "resumee": made_resumee(e820=MAP, command_line=theirs)}
    assert told(PAGES, **run) == (pages, INFERRED)
    without_map = {**run, "resumee": made_resumee(command_line=theirs)}
    assert told(PAGES, **without_map) == ((8192, INFERRED) if ours == theirs else None)  # nobody can count then


@pytest.mark.parametrize(("given", "expected"), [
    ({"facts": (("pages", "77"),)}, (77, GIVEN)), ({"collected": {"pages": 78}}, (78, MEASURED)),
    ({"dumped": made_dumped(pages=79)}, (79, MEASURED)), ({"collected": {}}, (8192, INFERRED)),
])  # fmt: skip
def test_the_number_of_pages(given, expected):
    assert told(PAGES, **given) == expected


def test_free_memory_and_who_starts_the_resume():
    assert told(FREE) is None
    assert told(FREE, facts=(("free-pages", "5"),)) == (5, GIVEN)
    assert told(FREE, collected={"free_pages": 6}) == (6, MEASURED)
    assert told(FREE, collected={"free_pages": 6}, what_if=True) is None
    assert told(RESUMED_BY) == ("kernel", USUAL)
    assert told(RESUMED_BY, facts=(("resume", "user"),)) == ("user", GIVEN)


@pytest.mark.parametrize(("fact", "value", "text"), [
    (LOCKDOWN, "none", None), (LOCKDOWN, "integrity", "integrity"), (HIBERNATES, True, "yes"),
    (HIBERNATES, False, "no"),
    (SIGNATURE, True, "yes"), (SIGNATURE, False, "no"), (COMPRESSOR, True, "yes"), (COMPRESSOR, False, "no"),
    (PAGES, 5, "5"), (FREE, 5, "5"), (RESUMED_BY, "kernel", None),
    (RESUMED_BY, "user", "a program, by /sys/power/resume"),
])  # fmt: skip
def test_how_they_are_shown(fact, value, text):
    assert fact.show(value) == text


def test_a_number_of_pages_that_was_measured_is_not_said_otherwise():
    for seen in ({"collected": {"pages": 5}}, {"dumped": made_dumped(pages=5)}):
        with pytest.raises(Mismatch, match=r"the resumer's number of physical pages: 5 .* and 6"):
            told(PAGES, **seen, facts=(("pages", "6"),))
        assert told(PAGES, **seen, facts=(("pages", "5"),)) == (5, MEASURED)
