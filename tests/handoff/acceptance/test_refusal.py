"""The resumer's tests of an image: what fails, what its kernel prints, and whether the image is lost by then."""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack

import pytest

from hibercheck.handoff.acceptance.alternatives import acceptance_alternatives
from hibercheck.handoff.acceptance.held import unloadable
from hibercheck.handoff.acceptance.refusal import judge_acceptance
from hibercheck.handoff.facts.e820 import E820Entry, e820_checksum, pack_e820
from hibercheck.swsusp.header import MAGIC_V2, MAGIC_V3

PLAIN = "nokaslr"


@pytest.mark.parametrize(
    ("line", "test"),
    [
        (PLAIN, None),
        ("nohibernate", "hibernation-off"),
        ("hibernate=no hibernate=nocompress", "hibernation-off"),  # measured: not resumed
        ("hibernate=nocompress", None),
        ("noresume", "not-resumed"),
        ("hibernate=noresume", "not-resumed"),
        ("resume_offset=5", "resume-offset"),
        ("resume=/dev/sda2 resume_offset=0", None),
        ("mem=100M", "pages"),
        ("mem=200M mem=100M", "pages"),  # measured: the smaller counts
        ("mem=128M", None),
        ("memmap=1M$16M", "pages"),  # measured: errno -1
        ("memmap=64K#1M", "pages"),
        ("memmap=1M@256M", "pages"),
        ("memmap=1M$512M", None),  # there is no memory
        ("hugepages=60", "room"),  # measured: ENOMEM
        ("hugepages=1", None),
    ],
)
def test_what_the_command_line_decides(asked, line, test):
    refusal = asked().refusal(line)
    assert (None if refusal is None else refusal.test) == test


@pytest.mark.parametrize(
    ("line", "errno", "log", "keeps"),
    [
        ("nohibernate", None, [], True),
        ("noresume", None, [], True),
        ("resume_offset=5", None, [], True),
        ("mem=100M", 1, ["Image mismatch: memory size", "resume failed (-1)"], False),
        ("hugepages=60", 12, ["resume failed (-12)"], False),
    ],
)
def test_what_its_log_says_and_whether_the_image_is_lost(asked, line, errno, log, keeps):
    refusal = asked().refusal(line)
    assert (refusal.errno, refusal.keeps_image) == (errno, keeps)
    assert list(refusal.log) == [f"PM: hibernation: {line}" for line in log]


@pytest.mark.parametrize(
    ("theirs", "ours", "said"),
    [
        ("mem=100M", "", "the resumee was booted with mem=100M"),  # measured with mem=120M: errno -1
        ("mem=100M", "mem=100M", None),
        ("mem=100M", "mem=90M mem=100M", "mem=90M mem=100M on its command line"),
        ("mem=100M", "memmap=100M", None),
        ("mem=256M", "", None),  # no memory is beyond it
    ],
)
def test_a_limit_of_memory_on_the_resumees_side(asked, theirs, ours, said):
    case = asked()
    case.write_line(theirs)
    refusal = case.refusal(ours)  # by another test perhaps: the image still holds frames beyond the limit
    assert (refusal is not None and refusal.test == "pages") is (said is not None)
    assert said is None or refusal.reason.endswith(f": {said}")


@pytest.mark.parametrize("user", [False, True])
@pytest.mark.parametrize("line", ["noresume", "resume_offset=5"])
def test_a_program_may_resume_whatever_the_kernel_was_told(asked, line, user):
    facts = (("resume", "user"),) if user else ()
    assert (asked().refusal(line, facts=facts) is None) is user


@pytest.mark.parametrize(
    ("by", "line", "facts", "mode"),
    [
        (["lockdown="], "lockdown=integrity", (), "integrity"),
        (["lockdown="], "lockdown=confidentiality", (), "confidentiality"),
        (["lockdown="], PLAIN, (), None),
        ([], "lockdown=integrity", (), None),  # a kernel without that parameter
        (["lockdown=", "always"], PLAIN, (), "integrity"),
        (["lockdown=", "Secure Boot"], PLAIN, (), None),
        (["lockdown=", "Secure Boot"], PLAIN, (("lockdown", "integrity"),), "integrity"),
    ],
)
def test_lockdown(asked, by, line, facts, mode):
    case = asked()
    case.have(refuses_while=["locked down"], locked_down_by=by)
    refusal = case.refusal(line, facts=facts)
    assert (None if refusal is None else refusal.test) == (None if mode is None else "lockdown")
    if refusal is not None:
        assert f"({mode}: " in refusal.reason
        assert refusal.log[0].endswith("hibernation is restricted; see man kernel_lockdown.7")
        assert (refusal.errno, refusal.keeps_image) == (None, True)


@pytest.mark.parametrize(
    ("efi", "mode", "refused", "offered"),
    [
        (b"\0\0\0\0", 0, False, []),
        (b"EL64", 3, True, ["none"]),
        (b"EL64", 2, False, []),
        (b"EL64", 1, False, ["integrity"]),
    ],
)
def test_lockdown_by_secure_boot_as_the_firmware_told_the_resumee(asked, efi, mode, refused, offered):
    case = asked()
    case.have(refuses_while=["locked down"], locked_down_by=["lockdown=", "Secure Boot"])
    case.poke("boot_params", 0x1C0, efi)
    case.poke("boot_params", 0x1EC, bytes([mode]))
    with ExitStack() as stack:
        plan = case.plan(stack, PLAIN)
        assert (judge_acceptance(plan).refusal is not None) is refused
        others = [one for one in acceptance_alternatives(plan) if one.id == "lockdown"]
    assert [one.value for one in others] == offered
    for other in others:
        assert (case.refusal(PLAIN, facts=other.options.facts) is None) is refused


@pytest.mark.parametrize(
    ("line", "facts", "refused"),
    [
        (PLAIN, (), True),  # measured: the mark on the swap is gone then
        (f"{PLAIN} acpi_sleep=s4_hwsig", (), False),
        (f"{PLAIN} acpi_sleep=s4_nohwsig", (), True),
        (f"{PLAIN} acpi=off acpi_sleep=s4_hwsig", (), True),
        (f"{PLAIN} acpi_sleep=s4_hwsig", (("hw-sig", "other"),), True),
    ],
)
def test_the_firmwares_signature(asked, line, facts, refused):
    case = asked()
    case.sign(0x12345678)
    refusal = case.refusal(line, facts=facts)
    assert (refusal is not None) is refused
    if refusal is not None:
        assert (refusal.test, refusal.errno, refusal.keeps_image) == ("hardware-signature", 22, False)
        assert refusal.log[0].startswith("PM: Suspend image hardware signature mismatch (12345678 now ")


def test_a_kernel_that_knows_no_signature_does_not_compare_it(asked):
    case = asked()
    case.sign(0x12345678)
    case.have(hw_sig=False)
    assert case.refusal(PLAIN) is None


def test_that_the_signature_is_still_the_same_is_open(asked):
    case = asked()
    case.sign(0x12345678)
    with ExitStack() as stack:
        (other,) = acceptance_alternatives(case.plan(stack, f"{PLAIN} acpi_sleep=s4_hwsig"))
    assert (other.id, other.arguments) == ("hw-sig", (("--fact", "hw-sig=other"),))
    assert case.refusal(f"{PLAIN} acpi_sleep=s4_hwsig", facts=other.options.facts).test == "hardware-signature"


@pytest.mark.parametrize("pages", [32768, -256])
def test_memory_that_came_or_went_while_the_resumee_ran(asked, pages):
    """Its own map says how much it had when it booted: measured, a cold-booted resumer refuses (-1)."""
    case = asked()
    case.count(pages)
    refusal = case.refusal(PLAIN)
    assert (refusal.test, refusal.errno) == ("pages", 1)
    assert f"{abs(pages)} pages were {'added to' if pages > 0 else 'taken from'} the resumee" in refusal.reason
    with ExitStack() as stack:
        (other,) = acceptance_alternatives(case.plan(stack, PLAIN))
    assert other.id == "memory-added"
    assert case.refusal(PLAIN, facts=other.options.facts) is None


def facts_file(asked, **members):
    with ExitStack() as stack:
        banner = asked.plan(stack, PLAIN).resumer.banner
    path = asked.directory / "facts.json"
    path.write_text(json.dumps({"hibercheck_facts": 1, "version": banner, "cmdline": PLAIN, **members}))
    return str(path)


def test_what_the_resumer_says_of_itself(asked):
    case = asked()
    assert case.refusal(resumer_facts=facts_file(case, power_disk="[disabled]")).test == "hibernation-disabled"
    assert case.refusal(resumer_facts=facts_file(case, power_disk="platform [shutdown] reboot")) is None
    case.have(refuses_while=["locked down"], locked_down_by=["lockdown="])
    locked = facts_file(case, power_disk="[disabled]", lockdown="none [integrity] confidentiality")
    assert case.refusal(resumer_facts=locked).test == "lockdown"
    assert case.refusal(resumer_facts=facts_file(case, pages=30000)).test == "pages"
    assert case.refusal(resumer_facts=facts_file(case, meminfo=["MemFree:  4000 kB"])).test == "room"


def test_which_ranges_of_memory_differ_is_said(asked):
    case = asked()
    with ExitStack() as stack:
        plan = case.plan(stack, PLAIN)
        own = plan.resumee.e820
        assert e820_checksum(own) == plan.image.record.e820_checksum
    rows = [[one.address, one.size, one.kind] for one in own]
    assert case.refusal(resumer_facts=facts_file(case, e820_table=rows)) is None
    grown = [*rows, [1 << 32, 1 << 20, 1]]
    refusal = case.refusal(resumer_facts=facts_file(case, e820_table=grown))
    assert (refusal.test, refusal.errno) == ("memory-map", 1)
    assert "0x100000000-0x1000fffff is RAM and was nothing" in refusal.reason
    assert "Hibernate inconsistent memory map detected!" in refusal.log


def test_a_digest_of_older_kernels_is_compared_too(asked):
    case = asked()
    with ExitStack() as stack:
        own = case.plan(stack, PLAIN).resumee.e820
    case.have(e820_check="md5", arch_record_magic=hex(MAGIC_V2))
    case.record(MAGIC_V2, hashlib.md5(pack_e820(own)).digest())  # noqa: S324 - the kernel's choice
    assert case.refusal(PLAIN) is None
    case.record(MAGIC_V2, bytes(16))  # all zeros: not checked
    assert case.refusal(PLAIN) is None
    case.record(MAGIC_V2, b"x" * 16)
    assert case.refusal(PLAIN).test == "memory-map"
    case.have(arch_record_magic=hex(MAGIC_V3))
    refusal = case.refusal(PLAIN)
    assert (refusal.test, refusal.errno) == ("record-magic", 1)


def test_a_map_out_of_sysfs_is_perhaps_not_the_one_that_is_compared(asked):
    case = asked()
    with ExitStack() as stack:
        own = case.plan(stack, PLAIN).resumee.e820
    names = {1: "System RAM", 2: "Reserved", 3: "ACPI Tables", 4: "ACPI Non-volatile Storage"}

    def shown(entries):
        ranges = [
            {"start": hex(one.address), "end": hex(one.end - 1), "type": names[one.kind]} for one in entries if one.size
        ]
        return facts_file(case, e820=ranges)

    last = max((one for one in own if one.kind == 1), key=lambda one: one.address)
    cut = E820Entry(last.address, last.size - (2 << 20), 1)
    reserved = [cut if one is last else one for one in own] + [E820Entry(cut.end, 2 << 20, 2)]
    with ExitStack() as stack:
        acceptance = judge_acceptance(case.plan(stack, resumer_facts=shown(reserved)))
    assert acceptance.refusal is None
    assert "/sys/firmware/memmap" in acceptance.remarks[0]
    assert f"{cut.end:#x}-{last.end - 1:#x} is reserved and was RAM" in acceptance.remarks[0]
    less = [cut if one is last else one for one in own]
    assert case.refusal(resumer_facts=shown(less)).test == "memory-map"


RAM = [(1, 0xA0), (0x100, 0x8000), (0x100000, 0x110000)]


@pytest.mark.parametrize(
    ("held", "lost"),
    [
        ([(1, 0x20), (0x100, 0x100)], None),
        ([(0xF0, 1)], None),  # measured: a hole beside memory has a struct page, and it loads
        ([(0, 4)], 0),
        ([(0x7F00, 0x200)], 0x8000),  # the hole of this machine is a section without memory
        ([(0x9000, 1)], 0x9000),
        ([(0x110000, 1)], 0x110000),  # measured: beyond the end, errno -14
        ([(0x10FFFF, 2)], 0x110000),
    ],
)
def test_frames_without_memory(held, lost):
    assert unloadable(held, RAM) == lost
    assert unloadable(held, []) is None
