"""Whether the resumer is willing to resume at all: built and told to, not locked down, and where it looks."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from hibercheck.handoff.acceptance import willing
from hibercheck.handoff.acceptance.alternatives import acceptance_alternatives
from hibercheck.handoff.acceptance.refusal import EINVAL, Question
from hibercheck.handoff.verdict.check import check
from hibercheck.kernel.code.facts import facts_of
from hibercheck.kernel.kernel import open_kernel
from tests.support.cases import options_of
from tests.support.made_inputs import Kernel, made_dumped, made_image, made_plan, made_resumee, made_space
from tests.support.unpacked import FIXTURES, plain_path

ACPI = "PM: Suspend image hardware signature mismatch"


def asked(test, **given):
    """Return the refusal of one test of the resumer, or None."""
    return getattr(willing, test)(Question(made_plan(**given)))


@pytest.mark.parametrize(("hibernation", "refuses"), [(True, False), (False, True), (None, False)])
def test_a_kernel_built_without_hibernation(hibernation, refuses):
    found = asked("built_in", traits={"hibernation": hibernation})
    assert (found is not None) is refuses
    if found:
        assert (found.test, found.errno, found.log, found.keeps_image) == ("no-hibernation", None, (), True)


@pytest.mark.parametrize(("line", "dumped", "what_if", "given"), [
    ("", None, False, None), ("nohibernate", None, False, "nohibernate"), ("hibernate=no", None, False, "hibernate=no"),
    ("", made_dumped(), False, None), ("", made_dumped(no_hibernation=False), False, None),
    ("", made_dumped(no_hibernation=True), False, "nohibernate"), ("", made_dumped(no_hibernation=True), True, None),
])  # fmt: skip
def test_a_kernel_told_not_to(line, dumped, what_if, given):
    found = asked("told_not_to", resumer_cmdline=line, dumped=dumped, what_if=what_if)
    assert (found is None) is (given is None)
    if found:
        assert (found.test, found.keeps_image, found.errno) == ("hibernation-off", True, None)
        assert found.reason == f"was booted with {given}"
        assert found.advice == f"boot the resumer without {given}"


@pytest.mark.parametrize(("asks", "mode", "refuses"), [
    (("locked down",), "integrity", True), (("locked down",), "confidentiality", True),
    (("locked down",), "none", False),
    ((), "integrity", False), (("secret memory",), "integrity", False), (None, "integrity", True),
])  # fmt: skip
def test_lockdown_matters_to_a_kernel_that_asks_for_it(asks, mode, refuses):
    found = asked("locked_down", traits={"refuses_while": asks}, facts=(("lockdown", mode),))
    assert (found is not None) is refuses
    if found:
        assert (found.test, found.errno, found.keeps_image) == ("lockdown", None, True)
        assert f"({mode}: given)" in found.reason


@pytest.mark.parametrize(("collected", "asks", "said"), [
    ({"hibernation": True}, (), None), ({}, (), None), (None, (), None),
    ({"hibernation": False}, (), "[disabled]"),
    ({"hibernation": False}, None, "[disabled]"),
    ({"hibernation": False}, ("locked down", "secret memory", "CXL memory"), "(secret memory or CXL memory?)"),
    ({"hibernation": False}, ("locked down",), "[disabled]"),
])  # fmt: skip
def test_a_kernel_that_says_no_to_all_who_ask(collected, asks, said):
    found = asked("says_no", collected=collected, traits={"refuses_while": asks})
    assert (found is None) is (said is None)
    if found:
        assert (found.test, found.errno, found.keeps_image) == ("hibernation-disabled", None, True)
        assert found.reason.endswith(said)


@pytest.mark.parametrize(("line", "by", "refuses"), [
    ("", "kernel", False), ("noresume", "kernel", True), ("noresume", "user", False),
    ("hibernate=noresume", "kernel", True), ("noresume", None, True),
])  # fmt: skip
def test_a_kernel_that_is_not_asked(line, by, refuses):
    found = asked("not_asked", resumer_cmdline=line, facts=() if by is None else (("resume", by),))
    assert (found is not None) is refuses
    if found:
        assert (found.test, found.errno, found.keeps_image) == ("not-resumed", None, True)
        assert line in found.reason
        assert line in found.advice


def at_page(page):
    image = made_image()
    image.header_offset = image.swap_map.base + 4096 * page
    return image


@pytest.mark.parametrize(("line", "page", "by", "refuses"), [
    ("", 7, None, False),  # a program resumes, which knows where
    ("resume=/dev/sda2", 0, None, False), ("resume=/dev/sda2", 7, None, True),
    ("resume_offset=7", 7, None, False), ("resume_offset=8", 7, None, True), ("resume_offset=8", 7, "user", False),
    ("resume=/dev/sda2 resume_offset=7", 7, None, False), ("resume_offset=0", 7, None, True),
])  # fmt: skip
def test_a_kernel_reads_one_page(line, page, by, refuses):
    given = {"resumer_cmdline": line, "image": at_page(page), "facts": () if by is None else (("resume", by),)}
    found = asked("looks_elsewhere", **given)
    assert (found is not None) is refuses
    if found:
        assert (found.test, found.errno, found.keeps_image) == ("resume-offset", None, True)
        assert f"the header is at page {page}" in found.reason.replace("this one's", "the")
        assert found.advice == f"boot it with resume_offset={page}"
        without = "resume_offset" not in line
        assert ("resume= without resume_offset=" in found.reason) is without


@pytest.mark.parametrize(("line", "own", "by", "refuses"), [
    ("resume=UUID=aaaa-1", "aaaa-1", None, False), ('resume=UUID="AAAA-1"', "aaaa-1", None, False),
    ("resume=UUID=bbbb-2", "aaaa-1", None, True), ("resume=UUID=bbbb-2", "aaaa-1", "user", False),
    ("resume=UUID=bbbb-2", None, None, False), ("resume=/dev/sda2", "aaaa-1", None, False),
    ("resume=UUID=", "aaaa-1", None, False), ("resume=PARTUUID=bbbb-2", "aaaa-1", None, False),
])  # fmt: skip
def test_a_resumer_that_is_told_of_another_swap_does_not_find_the_image(line, own, by, refuses):
    image = at_page(0)
    image.swap_uuid = own
    given = {"resumer_cmdline": line, "image": image, "facts": () if by is None else (("resume", by),)}
    found = asked("looks_elsewhere", **given)
    assert (found is not None) is refuses
    if found:
        assert (found.test, found.keeps_image) == ("resume-device", True)
        assert found.advice == f"boot it with resume=UUID={own}"
    offers = [one.id for one in acceptance_alternatives(made_plan(**given))]
    assert ("resume" in offers) is refuses


def test_a_stream_has_no_page_to_look_at():
    image = made_image()
    image.swap_map = None
    assert asked("looks_elsewhere", resumer_cmdline="resume_offset=8", image=image) is None


KNOWS = Kernel(init_s4_sigcheck=1)


def guest(runs_in_one, kernel=KNOWS):
    return made_resumee(made_space(kernel), hypervisor=runs_in_one)


@pytest.mark.parametrize(("given", "obeys"), [
    ({"resumer_cmdline": "acpi_sleep=s4_hwsig"}, True),
    ({"resumer_cmdline": "acpi_sleep=s4_nohwsig", "resumee": guest(True)}, False),
    ({"resumer_cmdline": "", "resumee": guest(True)}, True),
    ({"resumer_cmdline": "", "resumee": guest(False)}, False),
    ({"resumer_cmdline": "", "resumee": guest(None)}, False),
    ({"resumer_cmdline": "", "resumee": guest(True, Kernel())}, False),  # before f6c46b1d62f8
])  # fmt: skip
def test_who_takes_the_firmwares_signature_for_its_own(given, obeys):
    assert willing.obeys_signature(Question(made_plan(**given))) is obeys


@pytest.mark.parametrize(("theirs", "given", "now"), [
    (None, {}, None),
    (0x1234, {"resumer_cmdline": "acpi_sleep=s4_hwsig"}, None),
    (0x1234, {"resumer_cmdline": ""}, "00000000"),
    (0, {"resumer_cmdline": ""}, None),  # it compares 0 with 0
    (0x1234, {"resumer_cmdline": "acpi=off acpi_sleep=s4_hwsig"}, "00000000"),
    (0x1234, {"resumer_cmdline": "acpi_sleep=s4_hwsig", "facts": (("hw-sig", "other"),)}, "..."),
    (0x1234, {"resumer_cmdline": "acpi_sleep=s4_hwsig", "facts": (("hw-sig", "same"),)}, None),
    (0x1234, {"resumer_cmdline": "acpi_sleep=s4_hwsig", "traits": {"hw_sig": False}}, None),
    (0x1234, {"resumer_cmdline": "acpi_sleep=s4_hwsig", "traits": {"hw_sig": None}}, None),
    (0x1234, {"dumped": made_dumped(hardware_signature=0x1234)}, None),
    (0x1234, {"dumped": made_dumped(hardware_signature=0x99)}, "00000099"),
    (0x1234, {"dumped": made_dumped(hardware_signature=0x99), "resumer_cmdline": "acpi_sleep=s4_hwsig",
              "what_if": True}, None),
    (0x1234, {"dumped": made_dumped(), "resumer_cmdline": "acpi_sleep=s4_hwsig"}, None),
])  # fmt: skip
def test_the_signature_of_the_firmware(theirs, given, now):
    given = {**given, "image": made_image(hw_sig=theirs), "traits": {"hw_sig": True, **given.get("traits", {})}}
    found = asked("signature", **given)
    assert (found is None) is (now is None)
    if found:
        assert (found.test, found.errno, found.keeps_image) == ("hardware-signature", EINVAL, False)
        assert found.log == (f"{ACPI} ({theirs:08x} now {now}); aborting resume.",)


def test_the_page_of_the_header_counts_from_the_start_of_the_swap():
    assert willing.looked_at(Question(made_plan(image=at_page(3)))) == 3
    assert willing.looked_at(Question(made_plan(image=at_page(3), resumer_cmdline="resume=/dev/sda2"))) == 0


CASES = {case["name"]: case for case in json.loads((FIXTURES / "cases.json").read_text())["cases"]}
HIBERNATES = ("hibern", "swsusp", "snapshot")


@pytest.fixture
def unpacked_case():
    """Return a function that gives a case's image and kernels, and its options with some more."""

    def give(name, **more):
        case = CASES[name]
        files = (plain_path(case[role]) for role in ("image", "resumer", "resumee"))
        return *files, options_of(case["args"], **more)

    return give


def test_a_kernel_built_without_hibernation_refuses(unpacked_case, tmp_path):
    image, resumer, resumee, _ = unpacked_case("safe")
    symbols = tmp_path / "System.map"
    with open_kernel(resumer) as kernel, symbols.open("w") as file:
        for one in kernel.source:
            if not any(part in one.name for part in HIBERNATES):
                file.write(f"{one.address:016x} {one.letter} {one.name}\n")
    report = check(image, resumer, resumee, unpacked_case("safe", resumer_symbols=str(symbols))[3])
    assert (report.outcome, report.verdict) == ("refused", "refused")
    assert "was built without hibernation" in json.dumps([finding.message for finding in report.findings])


@pytest.mark.parametrize(("lz4", "outcome"), [("builtin", "resumes"), ("module?", "resumes"), ("absent", "refused")])
def test_lz4_as_a_module_is_no_refusal(unpacked_case, tmp_path, lz4, outcome):
    image, resumer, resumee, options = unpacked_case("lz4-zero-pages")
    with open_kernel(resumer) as kernel:
        document = facts_of(kernel)
    assert document["traits"]["compressors"]["value"] == ["lzo:builtin", "lz4:builtin"]
    document["traits"]["compressors"]["value"][1] = f"lz4:{lz4}"
    facts = tmp_path / "resumer.json"
    facts.write_text(json.dumps(document))
    report = check(image, str(facts), resumee, options)
    assert report.outcome == outcome
    absent = check(image, str(facts), resumee, replace(options, facts=(("lz4", "absent"),)))
    assert absent.outcome == ("resumes" if lz4 == "builtin" else "refused")


@pytest.mark.parametrize(("line", "uuid", "location", "told"), [
    ("", "AA", ("aa", 0), False), ("", "AA", ("bb", 0), True), ("", "AA", ("aa", 7), True),
    ("", None, ("aa", 0), False),
    ("resume=/dev/sda2", "AA", ("bb", 0), False), ("", "AA", None, False),
])  # fmt: skip
def test_where_systemd_would_look(line, uuid, location, told):
    image = made_image(swap_uuid=uuid)
    question = Question(made_plan(resumer_cmdline=line, image=image, collected={"location": location}))
    assert willing.announced(question) is None
    assert bool(question.remarks) is told
