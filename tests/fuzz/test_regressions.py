"""Inputs that were found by fuzzing, each made small and with the error that it must end in."""

import json
import shutil
import struct
from dataclasses import replace

import pytest

from hibercheck.cpulist import parse_cpu_list
from hibercheck.dump.dump import open_dump
from hibercheck.errors import HibercheckError, MalformedDump, MalformedKernel, Mismatch, MissingFact, UsageProblem
from hibercheck.handoff.facts.arguments import parse_size
from hibercheck.handoff.facts.cmdline import parse_command_line
from hibercheck.handoff.facts.e820 import E820Entry
from hibercheck.handoff.facts.kernels import open_resumer
from hibercheck.handoff.facts.resumer_facts import parse_facts
from hibercheck.handoff.replay.places import classes_of
from hibercheck.handoff.scenario.options import CheckOptions
from hibercheck.handoff.scenario.plan import Placement
from hibercheck.handoff.verdict.check import check, open_inputs
from hibercheck.handoff.verdict.findings import Finding, Level, Outcome, Place, Verdict
from hibercheck.kernel.code.traits import traits_on_demand
from hibercheck.kernel.kernel import open_kernel
from hibercheck.report import suppressions
from hibercheck.report.fingerprint import fingerprints
from hibercheck.swsusp.pfns import MAX_PFN, PfnList
from tests.fuzz.mutate import Patch
from tests.fuzz.seeds import unpack
from tests.fuzz.soundness import Measured
from tests.fuzz.targets_dump import LISTING
from tests.support import elf_writer

DIGITS = "9" * 5000
"""Python refuses to turn so many digits into a number, with a ValueError."""


def test_a_cpu_number_of_thousands_of_digits_in_a_register_listing(tmp_path):
    (tmp_path / "raw").write_bytes(bytes(4096))
    (tmp_path / "registers").write_text(LISTING.replace("CPU#0", f"CPU#{DIGITS}").partition("RAX")[0])
    with pytest.raises(MalformedDump, match="holds no registers"):
        open_dump(str(tmp_path / "raw"), registers=str(tmp_path / "registers"))


@pytest.mark.parametrize("name", ["maxcpus", "nr_cpus", "possible_cpus", "mem"])
def test_a_number_of_thousands_of_digits_on_a_kernel_command_line(name):
    assert parse_command_line(f"{name}={DIGITS}").text
    assert parse_size(f"{DIGITS}E") is not None


def test_a_number_of_thousands_of_digits_in_a_list_of_cpus():
    with pytest.raises(ValueError, match="is not a CPU"):
        parse_cpu_list(f"0-{DIGITS}")


def test_a_number_of_thousands_of_digits_in_suppressions(tmp_path):
    (tmp_path / "s.toml").write_text(f"[[suppress]]\ncpu = {DIGITS}\n")
    with pytest.raises(UsageProblem, match="not TOML"):
        suppressions.load(str(tmp_path / "s.toml"))


@pytest.mark.parametrize("end", ["0x1" + "0" * 16, "0x0", "0xffffffffffffffff"])
def test_a_memory_map_beyond_64_bits_in_collected_facts(end):
    text = json.dumps({"hibercheck_facts": 1, "e820": [{"type": "System RAM", "start": "0x1000", "end": end}]})
    with pytest.raises(MalformedDump, match=r"e820 has a range|is not a hexadecimal number"):
        parse_facts(text, "facts.json")


def test_a_banner_of_two_lines_in_an_error():
    assert str(Mismatch("was collected on 'Linux \r\n6.1 \x85x'", path="facts.json")).splitlines() == [
        "facts.json: was collected on 'Linux  6.1  x'"
    ]


# Damage that made a measured reset look survivable: (case, with memory, input, offset, bytes, what it must come to).
MISLEADING = {
    "an MWAIT loop of zeros": ("fatal", False, "resumer", 0x232540, bytes(64), "undetermined"),
    "a jump over it that is none": (
        "fatal",
        False,
        "resumer",
        0x2324D0,
        bytes.fromhex("df7208ccc83b4395"),
        "undetermined",
    ),
    "a HLT before it": ("fatal", False, "resumer", 0x2324F4, b"\xf4", "undetermined"),
    "a dump with zeros for it": ("fatal", True, "memory", 0x1032000, bytes(4096), Mismatch),
}


@pytest.mark.parametrize("name", MISLEADING)
def test_damage_that_made_a_reset_look_survivable(name, tmp_path):
    case, memory, key, offset, data, expected = MISLEADING[name]
    measured = Measured(case, tmp_path, memory=memory)
    with measured.copies[key].damaged([Patch(offset, data)]):
        if isinstance(expected, str):
            assert check(*measured.paths, measured.options).outcome is Outcome(expected)
        else:
            with pytest.raises(expected) as caught:
                check(*measured.paths, measured.options)
            assert isinstance(caught.value, HibercheckError)
    assert measured.verdict() == Verdict.FATAL.value


def test_a_memory_map_that_cannot_be_read_does_not_make_a_random_place_safe(tmp_path):
    measured = Measured("random-address", tmp_path)
    assert measured.verdict() == Verdict.RISK.value
    kernel = measured.copies["resumee"]
    name = kernel.path.read_bytes().index(b"\0e820_table_firmware\0")
    with kernel.damaged([Patch(name + 1, b"E")]):
        report = check(*measured.paths, measured.options)
    assert report.verdict is Verdict.UNDETERMINED
    assert "memory map" in report.headline


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ((), "has no place for"),
        (((0, 0x200000, 1),), "has no place for"),
        (((0, 1 << 30, 2),), "has no place for"),
        (((0, 1 << 63, 1), (1 << 63, (1 << 64) - 1, 1)), None),
        (tuple((0, 1 << 50, 1) for _ in range(4096)), "more than"),
    ],
)
def test_a_memory_map_that_no_machine_has_ends_in_time(tmp_path, entries, why):
    measured = Measured("random-address", tmp_path)
    with open_inputs(*measured.paths, measured.options) as (plan, _, _):
        resumee = replace(plan.resumee, e820=tuple(E820Entry(*entry) for entry in entries))
        # under KASLR, whatever the case's own command line says
        swept = replace(plan, inputs=replace(plan.inputs, resumee=resumee), placement=Placement(None, None))
        if why is None:  # above the image nothing is copied, so that those places need not be looked at
            assert classes_of(swept, 4)
            why = "more than"
        with pytest.raises(MissingFact, match=why):
            classes_of(replace(swept, inputs=replace(swept.inputs, image=_Reaching(plan.image))), 4)


class _Reaching:
    """An image that claims the highest frame there can be."""

    def __init__(self, image):
        self.frame = image.frame
        self.pfns = PfnList()
        self.pfns.append_page(struct.pack("<512Q", 5, MAX_PFN, *[(1 << 64) - 1] * 510))


def test_a_symbol_of_lone_surrogates_has_a_fingerprint():
    finding = Finding("HC201", Level.ERROR, 1, "park loop", "x", resumer=Place(1, 2, "\udc80"))
    assert len(set(fingerprints([finding, finding]))) == 2


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("_text", 0), ("_text", 0x7FFFFFFF81000000), ("_end", (1 << 64) - 1), ("_end", 0), ("init_top_pgt", 1 << 63),
        ("level2_kernel_pgt", 0xFFFFFFFF81000008), ("level3_kernel_pgt", 0xFFFFFFFF00000000),
        ("__cpu_present_mask", 0x1000), ("x86_cpu_to_apicid", 0xFFFF000000000000),
    ],
)  # fmt: skip
def test_a_symbol_where_no_kernel_has_it(tmp_path, name, address):
    symbols = {one.name: one for one in elf_writer.SYMBOLS}
    for other in ("init_top_pgt", "level2_kernel_pgt", "level3_kernel_pgt", "__cpu_present_mask", "x86_cpu_to_apicid"):
        symbols[other] = elf_writer.Sym(other, elf_writer.TEXT + 0x1000, 1, 2, 0, 1)
    symbols["_end"] = elf_writer.Sym("_end", elf_writer.TEXT + (1 << 28), 1, 2, 0, 1)
    (tmp_path / "good").write_bytes(elf_writer.write_kernel(list(symbols.values())))
    open_resumer(str(tmp_path / "good"), None).close()
    symbols[name] = elf_writer.Sym(name, address, 1, 2, 0, 1)
    (tmp_path / "bad").write_bytes(elf_writer.write_kernel(list(symbols.values())))
    with pytest.raises(MalformedKernel, match="where no kernel has it"):
        open_resumer(str(tmp_path / "bad"), None)


def test_a_kernel_whose_call_of_cpuidle_is_not_seen(tmp_path):
    """One byte of the name changed: it was taken for a kernel that parks in HLT, which nothing wakes."""
    kernel = tmp_path / "vmlinux"
    shutil.copy(unpack("kernels/small-current.vmlinux.xz"), kernel)
    with open_resumer(str(kernel), None) as whole:
        assert traits_on_demand(whole).play_dead_order.value == ("mwait", "cpuidle", "hlt")
    data = kernel.read_bytes()
    kernel.write_bytes(data.replace(b"\0cpuidle_play_dead\0", b"\0cpuidle_play_dEad\0"))
    with open_resumer(str(kernel), None) as damaged:
        order = traits_on_demand(damaged).play_dead_order
    assert order.value is None
    assert "nothing was seen to call cpuidle_play_dead" in order.reason


@pytest.mark.parametrize(
    ("symbol", "trait", "why"),
    [
        ("level4_kernel_pgt", "la57", "the number of levels can vary"),
        ("kaslr_get_random_long", "randomize_base", "the direct map's address is random"),
    ],
)
def test_a_symbol_whose_absence_contradicts_another(tmp_path, symbol, trait, why):
    kernel = tmp_path / "vmlinux"
    data = unpack("kernels/small-current.vmlinux.xz").read_bytes()
    kernel.write_bytes(data.replace(b"\0%s\0" % symbol.encode(), b"\0%s\0" % symbol.upper().encode()))
    with open_resumer(str(kernel), None) as damaged:
        found = getattr(traits_on_demand(damaged), trait)
    assert found.value is None
    assert why in found.reason


def test_a_resumer_whose_rescue_cannot_be_read_is_named(tmp_path):
    kernel = tmp_path / "vmlinux"
    data = bytearray(unpack("kernels/small-hlt.vmlinux.xz").read_bytes())
    with open_kernel(str(unpack("kernels/small-hlt.vmlinux.xz"))) as whole:
        code = whole.read(whole.require("hibernate_resume_nonboot_cpu_disable").address, 48)
    place = data.index(code)
    data[place + 4 : place + 16] = b"\x06" * 12  # PUSH ES, which 64-bit mode has not
    kernel.write_bytes(data)
    image = unpack("images/9c031ac5a1.bin.xz")
    resumee = unpack("kernels/mid-current.vmlinux.xz")
    report = check(str(image), str(kernel), str(resumee), CheckOptions(resumer_cmdline="nokaslr nosmt"))
    assert report.verdict is Verdict.UNDETERMINED
    assert any("whether the resumer rescues offline CPUs cannot be read" in one.fact for one in report.missing)
