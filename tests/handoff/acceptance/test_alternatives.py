"""What would make the resumer load the image, or refuse it, and has a sign in the inputs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hibercheck.handoff.acceptance.alternatives import acceptance_alternatives
from hibercheck.handoff.facts.e820 import E820Entry
from hibercheck.handoff.scenario.alternatives import KINDS
from tests.support.cases import says_the_same
from tests.support.made_inputs import INTEL, Kernel, made_image, made_plan, made_resumee, made_space

UEFI, SHIM = made_resumee(booted_by_efi=True), made_resumee(booted_by_efi=True, secure_boot=True)
TOLD = made_resumee(booted_by_efi=True, secure_boot=False)
BY = {"locked_down_by": ("lockdown=", "Secure Boot")}


def offered(**given):
    """Return the alternatives as (id, value, what to add to the command line), which says what is judged."""
    plan = made_plan(**given)
    found = acceptance_alternatives(plan)
    assert all(says_the_same(one, plan.options) for one in found)
    return [(one.id, one.value, *one.arguments) for one in found]


def fact(text):
    return "--fact", text


def test_nothing_is_varied_without_a_sign():
    assert offered() == []


def test_every_kind_is_declared():
    every = [
        {"traits": BY, "resumee": UEFI}, {"resumer_cmdline": "noresume"}, {"resumee": made_resumee(boot_pages=5)},
    ]  # fmt: skip
    for given in every:
        for one in acceptance_alternatives(made_plan(**given)):
            assert KINDS[one.id].fact == one.fact
            assert one.reason


@pytest.mark.parametrize(("given", "expected"), [
    ({"traits": BY, "resumee": UEFI}, [("lockdown", "integrity", fact("lockdown=integrity"))]),
    ({"traits": BY, "resumee": SHIM}, [("lockdown", "none", fact("lockdown=none"))]),
    ({"traits": BY, "resumee": TOLD}, []), ({"traits": BY}, []),
    ({"traits": {"locked_down_by": ("lockdown=",)}, "resumee": UEFI}, []), ({"resumee": UEFI}, []),
    ({"traits": BY, "resumee": UEFI, "facts": (("lockdown", "none"),)}, []),
    ({"traits": BY, "resumee": SHIM, "collected": {"lockdown": "integrity"}}, []),
])  # fmt: skip
def test_lockdown_by_secure_boot(given, expected):
    assert offered(**given) == expected


USER = [("resume", "user space", fact("resume=user"))]


def at_page(page):
    image = made_image()
    image.header_offset += 4096 * page
    return image


@pytest.mark.parametrize(("given", "expected"), [
    ({"resumer_cmdline": "noresume"}, USER), ({"resumer_cmdline": "resume=/dev/sda2", "image": at_page(7)}, USER),
    ({"resumer_cmdline": "resume=/dev/sda2", "image": at_page(0)}, []),
    ({"resumer_cmdline": "noresume", "facts": (("resume", "user"),)}, []),
    ({"resumer_cmdline": "resume_offset=7", "image": at_page(7)}, []),
])  # fmt: skip
def test_a_program_may_start_the_resume(given, expected):
    assert offered(**given) == expected


GUEST = replace(INTEL, flags=INTEL.flags | {"hypervisor"})
KNOWS = made_space(Kernel(init_s4_sigcheck=1))


@pytest.mark.parametrize(("given", "expected"), [
    ({"resumer_cmdline": "acpi_sleep=s4_hwsig"}, [("hw-sig", "another than in the image", fact("hw-sig=other"))]),
    ({"resumer_cmdline": "acpi_sleep=s4_hwsig", "facts": (("hw-sig", "same"),)}, []),
    ({"resumer_cmdline": "acpi_sleep=s4_hwsig", "image": made_image()}, []),
    ({"resumer_cmdline": "acpi_sleep=s4_hwsig", "traits": {"hw_sig": False}}, []),
    ({"resumer_cmdline": ""}, []),
    ({"resumer_cmdline": "quiet", "resumee": made_resumee(KNOWS, features=GUEST)},
     [("hw-sig-guest", "compared", ("--resumer-cmdline", "quiet acpi_sleep=s4_hwsig"))]),
    ({"resumer_cmdline": "", "resumee": made_resumee(KNOWS, features=GUEST)},
     [("hw-sig-guest", "compared", ("--resumer-cmdline", "acpi_sleep=s4_hwsig"))]),
    ({"resumer_cmdline": "quiet", "resumee": made_resumee(KNOWS)}, []),  # no guest
    ({"resumer_cmdline": "quiet", "resumee": made_resumee(KNOWS, features=None)}, []),
    ({"resumer_cmdline": "quiet", "resumee": made_resumee(KNOWS, features=GUEST, hypervisor=False)}, []),
    ({"resumer_cmdline": "acpi_sleep=s4_nohwsig", "resumee": made_resumee(KNOWS, features=GUEST)}, []),
    ({"resumer_cmdline": "quiet", "resumee": made_resumee(features=GUEST)}, []),
])  # fmt: skip
def test_the_firmwares_signature(given, expected):
    given = {"image": made_image(hw_sig=5), **given, "traits": {"hw_sig": True, **given.get("traits", {})}}
    assert offered(**given) == expected


ASKS = made_resumee(made_space(Kernel(hib_comp_algo=1)))
MODULE = {"compressors": ("lzo:builtin", "lz4:module?")}


@pytest.mark.parametrize(("given", "expected"), [
    ({}, [("lz4-module", "absent", fact("lz4=absent"))]),
    ({"resumee": made_resumee()}, []), ({"image": made_image("lzo")}, []), ({"image": made_image("none")}, []),
    ({"traits": {"compressors": ("lz4:builtin",)}}, []), ({"traits": {"compressors": None}}, []),
    ({"facts": (("lz4", "loaded"),)}, []), ({"collected": {"compressors": {"lz4": True}}}, []),
])  # fmt: skip
def test_a_module_of_the_initramfs(given, expected):
    assert offered(**{"resumee": ASKS, "image": made_image("lz4"), "traits": MODULE, **given}) == expected


@pytest.mark.parametrize(("given", "expected"), [
    ({"resumee": made_resumee(boot_pages=32000)}, [("memory-added", "the image's 32768", fact("pages=32768"))]),
    ({"resumee": made_resumee(boot_pages=33000)}, [("memory-added", "the image's 32768", fact("pages=32768"))]),
    ({"resumee": made_resumee(boot_pages=32768)}, []),
    ({"resumee": made_resumee(boot_pages=32000), "facts": (("pages", "32000"),)}, []),
    ({"resumee": made_resumee(boot_pages=32000), "collected": {"pages": 32000}}, []),
])  # fmt: skip
def test_memory_that_the_resumer_may_be_given_too(given, expected):
    assert offered(**given) == expected


def test_a_number_of_pages_that_comes_to_the_same_is_no_other():
    """What was added to the resumee its command line takes away from the resumer's count again."""
    entries = (E820Entry(0, 128 << 20, 1), E820Entry(1 << 30, 1 << 20, 1))
    resumee = made_resumee(e820=entries, boot_pages=32768 - 256, command_line="mem=1G")
    assert offered(resumee=resumee, resumer_cmdline="") == []


HELD = 14000


@pytest.mark.parametrize(("held", "given", "expected"), [
    (HELD, {}, []),
    (16128, {}, [("room", "too little for the image", fact("free-pages=16127"))]),  # half of 32768 - 512
    (16127, {}, []),
    (HELD, {"resumer_cmdline": "hugepages=1"}, [("room", "too little for the image", fact("free-pages=13999"))]),
    (HELD, {"resumer_cmdline": "hugepages=40"}, [("room", "enough for the image", fact("free-pages=14000"))]),
    (32256, {}, [("room", "too little for the image", fact("free-pages=32255"))]),
    (32257, {}, [("room", "enough for the image", fact("free-pages=32257"))]),
    (16128, {"facts": (("free-pages", "40000"),)}, []), (16128, {"collected": {"free_pages": 40000}}, []),
])  # fmt: skip
def test_room(held, given, expected):
    assert offered(**given, image=made_image(runs=((0x100, held),))) == expected


def test_what_is_said_takes_the_place_of_what_was_said_of_the_same_fact():
    given = {"resumer_cmdline": "noresume", "facts": (("resume", "kernel"), ("smt", "on"))}
    (one,) = acceptance_alternatives(made_plan(**given))
    assert one.options.facts == (("smt", "on"), ("resume", "user"))
    assert one.options.resumer_cmdline == "noresume"


def test_reasons_say_what_is_seen():
    def reason(**given):
        (one,) = acceptance_alternatives(made_plan(**given))
        return one.reason

    huge = {"resumer_cmdline": "hugepages=1"}
    assert reason(**huge) == "512 pages are set aside for huge pages"
    assert reason(image=made_image(runs=((1, 20000),))) == "the image has 20000 of 32768 pages"
    assert reason(resumee=made_resumee(boot_pages=32000)).startswith("768 pages came to or went from")
