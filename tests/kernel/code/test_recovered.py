"""A kernel that lists only its code says the same as the whole one: its data are found by the code that uses them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hibercheck.handoff.facts.kernels import looked_up, open_resumer
from hibercheck.kernel.code.dataless import lacks_data, supplement
from hibercheck.kernel.code.facts import facts_of
from hibercheck.kernel.code.traits import read_traits
from hibercheck.kernel.kernel import open_kernel
from tests.support.text_only import write_text_symbols
from tests.support.unpacked import plain_path

KERNELS = Path(__file__).resolve().parents[3] / "fixtures" / "kernels"
PAGES = ("init_top_pgt", "level4_kernel_pgt", "level3_kernel_pgt", "level2_kernel_pgt", "level2_fixmap_pgt", "gdt_page")
MASKS = ("__cpu_online_mask", "__cpu_present_mask", "boot_cpu_data", "mwait_cpu_dead", "__per_cpu_start", "_end")
TABLES = ("intel_idle_ids", "intel_mwait_ids", "def_idts", "early_pf_idts", "linux_banner")
SOMETIMES = ("apic", "cpu_number", "__start___jump_table", "__stop___jump_table")


@pytest.fixture(scope="module", params=["small-hlt", "mid-current", "v73-stock"])
def whole(request, tmp_path_factory):
    """A kernel, and the symbols of its code."""
    with open_kernel(plain_path(f"kernels/{request.param}.vmlinux.xz")) as kernel:
        yield kernel, str(write_text_symbols(kernel, tmp_path_factory.mktemp(request.param) / "System.map"))


@pytest.fixture
def both(whole):
    """The whole kernel, and itself with symbols of its code only, to which those of its data are added."""
    kernel, symbols = whole
    with open_kernel(kernel.path, symbols=symbols) as bare:
        yield kernel, bare


def without_names(loops):
    """Loops without the names of data that they touch, which only the whole kernel has."""
    return [replace(loop, touches=tuple(replace(touch, symbol=None) for touch in loop.touches)) for loop in loops]


def test_traits_are_the_same(both):
    whole, bare = (read_traits(kernel) for kernel in both)
    for one, other in zip(whole, bare, strict=True):
        assert other.value == one.value, f"{one.name}: {other.reason}"
    assert without_names(bare.park_loops) == without_names(whole.park_loops)


def test_what_was_found_is_where_it_is(both):
    whole, bare = both
    assert lacks_data(bare)
    assert not lacks_data(whole)
    looked_up(bare)
    for name in (*PAGES, *MASKS, *TABLES):
        assert bare.require(name).address == whole.require(name).address, name
    for name in SOMETIMES:
        assert bare.symbol(name) is None or bare.require(name).address == whole.require(name).address, name
    assert bare.banner == whole.banner


def test_a_kernel_that_lists_its_data_is_left_as_it_is(whole):
    kernel, _ = whole
    supplement(kernel)
    assert not kernel.supplemented


def test_what_a_table_has_is_not_replaced(both):
    _, bare = both
    own = bare.require("native_play_dead")
    bare.supplement({"native_play_dead": replace(own, address=own.address + 1), "other": own})
    assert bare.require("native_play_dead") == own
    assert bare.require("other") == own


def test_code_that_uses_nothing_known_gives_nothing(made):
    with open_kernel(made.path(strip=("init_task", "smp_ops", "mwait_cpu_dead"))) as kernel:
        supplement(kernel)
        assert kernel.supplemented
        for name in ("init_top_pgt", "smp_ops", "boot_cpu_data_", "__start___jump_table", "def_idts"):
            assert kernel.symbol(name) is None
        traits = read_traits(kernel)
    assert traits.rescue_needs_node.value is None or traits.rescue_needs_node.value is False


def test_without_data_symbols_a_rescue_that_may_ask_for_the_node_is_unknown(made):
    parts = {"strip": ("init_task", "smp_ops", "__cpu_online_mask")}
    assert made.traits(**parts).rescue_needs_node.value is None


def test_an_init_that_may_be_one_is_unknown_without_the_apic(made):
    sends = "fn helper\n mov $0x4500, %eax\n call *%rax\n ret\nend helper\n"
    common = "fn play_dead_common\n ret\nend play_dead_common\n"
    resume = "fn resume_play_dead\n jmp hlt_play_dead\nend resume_play_dead\n"
    arch = "fn swsusp_arch_resume\n call helper\n ret\nend swsusp_arch_resume\n"
    parts = {"resume": "", "common": common + resume, "hibernation": arch, "extra": sends}
    bare = made.traits(strip=("apic", "init_task", "smp_ops"), **parts)
    assert bare.sends_init.value is None
    assert made.traits(**parts).sends_init.value is False


def test_facts_of_a_kernel_that_lists_only_its_code_serve_as_well(both, tmp_path):
    _, bare = both
    looked_up(bare)
    path = tmp_path / "kernel.json"
    path.write_text(json.dumps(facts_of(bare)))
    with open_resumer(str(path), None) as facts:
        assert read_traits(facts) == read_traits(bare)
        assert facts.require("init_top_pgt").address == bare.require("init_top_pgt").address


def test_facts_without_data_are_left_as_they_are(made, tmp_path):
    with open_kernel(
        made.path(strip=("init_task", "smp_ops", "_end"), extra=".globl _text\n.set _text, 0xffffffff81000000\n")
    ) as kernel:
        document = facts_of(kernel)
    path = tmp_path / "kernel.json"
    path.write_text(json.dumps(document))
    with open_resumer(str(path), None) as facts:
        assert lacks_data(facts)
        assert facts.symbol("init_top_pgt") is None
