"""A trait is one declaration, from which its symbols, its line in the report and its place in the facts follow."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from hibercheck.kernel.code.declared import SECTIONS, Declared
from hibercheck.kernel.code.model import IdleModel, IdleTables, IdtGate, Trait
from hibercheck.kernel.code.names import (
    ALLOCATORS,
    ANY_CODE,
    COMPLAINTS,
    COPIES,
    ELSEWHERE,
    NOISE,
    SAFE,
    TABLES,
    THUNKS,
)
from hibercheck.kernel.code.needed import MEMBERS, SIZES, SYMBOLS, TEXT
from hibercheck.kernel.code.readers import Readers
from hibercheck.kernel.code.traits import DECLARED, WANTED, Traits, read_traits
from hibercheck.kernel.kernel import open_kernel
from hibercheck.report.kernel import view, words
from hibercheck.x86.cpu import ParkState
from tests.support.made_states import park_loop
from tests.support.told_traits import MADE
from tests.support.unpacked import plain_path

FIXTURES = Path(__file__).resolve().parents[3] / "fixtures"
KERNELS = sorted([*FIXTURES.glob("compilers/*.xz"), *FIXTURES.glob("kernels/*.vmlinux.xz")])


@pytest.fixture(params=KERNELS, ids=lambda path: path.name.removesuffix(".vmlinux.xz"))
def kernel(request):
    with open_kernel(plain_path(request.param)) as opened:
        yield opened


def test_every_trait_has_a_line_under_one_heading(kernel):
    assert [one.name for one in read_traits(kernel)] == [one.name for one in DECLARED]
    shown = [(title, label) for title, rows in view(kernel).sections() for label, _ in rows]
    declared = [(one.section, one.label) for title in SECTIONS for one in DECLARED if one.section == title]
    assert [row for row in declared if row in shown] == shown
    assert len(set(declared)) == len(declared)


def test_a_trait_declares_the_symbols_that_reading_it_takes(kernel):
    read_each_alone(kernel)


@pytest.mark.parametrize("name", MADE)
def test_a_trait_declares_what_reading_it_takes_of_made_kernels(made, name):
    with open_kernel(made.path(**MADE[name])) as kernel:
        read_each_alone(kernel)


def read_each_alone(kernel):
    """Read each trait alone: what it asks for is declared with it, or with a trait that it is read from."""
    for declared in DECLARED:
        readers, asked = Readers(kernel, WANTED), set()
        find = readers.program.find
        readers.program.find = lambda name, find=find, asked=asked: asked.add(name) or find(name)
        traits = Traits(readers)
        getattr(traits, declared.name)
        allowed = {symbol.rstrip("*") for one in DECLARED if one.name in vars(traits) for symbol in one.symbols}
        assert asked <= allowed | ANY_CODE, declared.name
        assert not readers.program.undeclared


def test_reading_all_traits_asks_for_nothing_else(kernel):
    readers = Readers(kernel, WANTED)
    traits = Traits(readers)
    assert len([trait for trait in traits if trait.value is not None]) > 20
    assert traits.park_loops
    assert not readers.program.undeclared
    assert WANTED.names <= WANTED.candidates


def test_a_symbol_that_nobody_declared_is_found_all_the_same(made):
    program = made.program()
    assert program.find("nr_cpu_ids").name == "nr_cpu_ids"
    assert set(program.undeclared) == {"nr_cpu_ids"}


def test_a_trait_is_read_once_and_can_be_replaced(made):
    with open_kernel(made.path()) as kernel:
        traits = Traits(Readers(kernel, WANTED))
        first = traits.rescues_offline
        assert traits.rescues_offline is first
        other = traits.replaced(rescues_offline=replace(first, value=None))
        assert other.rescues_offline.value is None
        assert traits.rescues_offline is first
        assert other.freeze_order == traits.freeze_order
        assert other != traits
    with pytest.raises(LookupError, match="without a kernel"):
        _ = Traits(None, {}).la57


def test_loops_that_are_known_stay_with_a_trait_that_is_replaced():
    every = {declared.name: Trait(declared.name, None) for declared in DECLARED}
    other = Traits(None, every, (park_loop(),)).replaced(la57=Trait("la57", True))
    assert (other.la57.value, other.park_loops) == (True, (park_loop(),))
    assert other.freeze_order is every["freeze_order"]


def test_a_declared_commit_stands_where_a_value_was_read():
    class Some:
        readers = None
        known = Declared(int, SECTIONS[0], "known", lambda _, __: Trait("known", 1), commit="c")
        other = Declared(int, SECTIONS[0], "other", lambda _, __: Trait("other", 1, (), "d"), commit="c")
        unknown = Declared(int, SECTIONS[0], "unknown", lambda _, __: Trait("unknown", None), commit="c")

        def read(self, declared):
            return declared.read(self)

    some = Some()
    assert (some.known.commit, some.other.commit, some.unknown.commit) == ("c", "d", None)
    with pytest.raises(ValueError, match="not a section"):
        Declared(int, "elsewhere", "x", lambda _, __: Trait("x", 1))


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("la57", True, "yes"),
        ("la57", False, "no"),
        ("la57", None, "unknown"),
        ("physical_start", 0x1000000, "0x1000000"),
        ("play_dead_order", ("mwait", "hlt"), "mwait, hlt"),
        ("play_dead_order", (), "none"),
        ("freeze_order", "ascending", "ascending"),
    ],
)
def test_values_in_words(name, value, text):
    assert words(Trait(name, value)) == text


@pytest.mark.parametrize(("name", "value", "text"), [
    ("idt_gates", (), "none"),
    ("idt_gates", (IdtGate(2, 2, 0, "nmi"), IdtGate(13, 0, 0, "gp"), IdtGate(8, 1, 0, "df")),
     "vector 2 on IST 2, vector 8 on IST 1"),
    ("compressors", ("lzo:builtin", "lz4:module?"), "lzo built in, lz4 if its module is loaded"),
    ("compressors", ("lzo:builtin", "lz4:absent"), "lzo built in, lz4 not at all"),
    ("compressors", ("lzo:other",), "lzo other"),
    ("refuses_while", (), "nothing more"),
    ("refuses_while", ("locked down", "secret memory"), "locked down, secret memory is in use"),
    ("cea_size", 0x3B000, "0x3b000"),
    ("nosmt_resume_targets", "present", "all that are present"),
    ("nosmt_resume_targets", "online cores", "those of cores that are online"),
    ("intel_idle", IdleTables((IdleModel(0, 6, 1, 0, 0, False, 0), IdleModel(0, 6, 2, 0, 0, True, None)), ((),)),
     "1 CPU models and what ACPI says of others"),
    ("intel_idle", IdleTables((IdleModel(0, 6, 1, 0, 0, False, 0), IdleModel(0, 6, 2, 0, 0, False, 0)), ((),)), "2"),
])  # fmt: skip
def test_values_that_have_words_of_their_own(name, value, text):
    assert words(Trait(name, value)) == text


def test_traits_are_compared_by_their_values_and_loops():
    one, other = ({"la57": Trait("la57", value)} for value in (True, False))
    every = {declared.name: Trait(declared.name, None) for declared in DECLARED}
    assert Traits(None, every | one, ()) == Traits(None, every | one, ())
    assert Traits(None, every | one, ()) != Traits(None, every | other, ())
    assert Traits(None, every | one, ()) != Traits(None, every | one, (park_loop(),))
    assert Traits(None, every, ()) != 5


def test_loops_are_asked_for_by_role_kind_and_kick():
    native, kicked = replace(park_loop(), role="native"), replace(park_loop(), role="native", after_kick=True)
    halts = replace(park_loop(ParkState.HLT), role="resume")
    traits = Traits(None, {}, (native, kicked, halts))
    assert traits.loops("native") == traits.loops("native", "mwait") == (native,)
    assert traits.loops("native", after_kick=True) == (kicked,)
    assert traits.loops("native", "hlt") == traits.loops("resume", "mwait") == ()
    assert traits.loops("resume", "hlt") == (halts,)


UNSEEN = """
__freeze_secondary_cpus __request_module alloc_pages alloc_pages_noprof asm_fred_entrypoint_kernel
asm_fred_entrypoint_user builtin_cmdline compute_e820_crc32 cpu_tss cpumask_next crc32_le_arch crypto_alloc_shash
crypto_shash_digest cxl_mem_active disable_nonboot_cpus efi_set_secure_boot get_e820_md5 haltpoll_init ist_idts
kernel_stack lock_kernel_down lockdown_lsm_init lockdown_param native_x2apic_icr_write pcpu_hot
security_lock_kernel_down security_locked_down setup_boot_config sev_es_play_dead srcu_drive_gp
suspend_disable_secondary_cpus unpack_orig_pfns up_late_init xbc_init xen_pv_play_dead
__ubsan_handle_shift_out_of_bounds printk tboot_shutdown
"""
"""What is asked for and no committed kernel has: of other versions, or other configurations."""
UNSEEN_BY_HANDOFF = """
asm_fred_entrypoint_kernel asm_fred_entrypoint_user do_mce do_nmi fred_entry_from_kernel fred_exc_machine_check
fred_exc_nmi machine_check nmi
builtin_cmdline embedded_bootconfig_data embedded_bootconfig_data_end init_s4_sigcheck
intel_iommu_enabled irq_remapping_enabled kernel_locked_down node_data pcpu_hot pgtable_l5_enabled sme_me_mask
srcu_drive_gp swapper_pg_dir up_late_init x2apic_mode x86_hyper_type
"""


@pytest.fixture(scope="module")
def symbols():
    """Every symbol of the committed kernels."""
    found = set()
    for path in KERNELS:
        with open_kernel(plain_path(path)) as opened:
            found |= {one.name for one in opened.source}
    return found


def test_every_symbol_that_is_asked_for_is_one_of_some_kernel(symbols):
    """A name that is misspelt is found in none."""
    assert WANTED.names - symbols == set(UNSEEN.split())
    assert set(SYMBOLS) - symbols == set(UNSEEN_BY_HANDOFF.split())
    assert TEXT - symbols <= set(UNSEEN_BY_HANDOFF.split())
    assert symbols >= THUNKS
    every = {*COMPLAINTS, *NOISE, *TABLES, *COPIES, *ALLOCATORS, *ELSEWHERE, SAFE}
    assert every - symbols <= set(UNSEEN.split())


PACKAGE = FIXTURES.parent / "hibercheck"


@pytest.fixture(scope="module")
def asked():
    """Every text by which the package may ask a kernel for something, and the words of it."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        if path.name != "needed.py":
            nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
            said = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}  # docstrings
            texts = {
                node.value
                for node in nodes
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said
            }
            found |= texts | {word for text in texts for word in text.split()}
    return found


def test_symbols_that_are_kept_are_those_that_are_asked_for(asked):
    assert set(SYMBOLS) - asked == set()
    assert asked >= TEXT


def test_members_that_are_kept_are_those_that_are_asked_for(asked):
    """The committed kernels have no types: what is kept is held to the names by which the package asks."""
    assert {name for pair in MEMBERS for name in pair} <= asked
    assert asked >= SIZES
    handoff = "\n".join(path.read_text(encoding="utf-8") for path in (PACKAGE / "handoff").rglob("*.py"))
    assert set(re.findall(r'offset_of\("(\w+)", "(\w+)"\)', handoff)) <= MEMBERS
    assert set(re.findall(r'size_of\("(\w+)"\)', handoff)) <= SIZES


def test_a_loop_is_native_and_without_a_kick_unless_it_is_said():
    loop = park_loop()
    assert (loop.role, loop.after_kick, loop.interrupts, loop.incomplete, loop.driver) == (
        "native", False, False, None, None,
    )  # fmt: skip


def test_fixtures_are_there():
    assert len(KERNELS) >= 10


def test_what_a_line_is_worth_only_with():
    """A line about what another trait says there is not one of is left out."""
    only_if = {one.name: one.only_if for one in DECLARED if one.only_if is not None}
    assert only_if == {
        **dict.fromkeys(("rescue_needs_primary", "rescue_needs_node"), "rescues_offline"),
        **{name: name for name in ("own_place", "park_announcement", "kicks_offline", "monitored_frame", "one_cpu")},
        "init_targets": "sends_init",
        "line_withheld": "monitored_frame",
        "nosmt_resume_targets": "reparks_siblings_after_resume",
        "takes_parked_over": "park_announcement",
        "locked_down_by": "refuses_while",
        "parallel_switch": "parallel_bringup",
        "builtin_cmdline_overrides": "builtin_cmdline",
        **dict.fromkeys(("fred_default", "fred_stacks"), "fred"),
    }


def test_which_traits_the_report_of_a_check_shows():
    assert [one.name for one in DECLARED if one.in_check] == [
        "rescues_offline", "rescue_needs_primary", "resume_park", "sends_init", "play_dead_order", "compressors",
    ]  # fmt: skip


def test_which_traits_have_another_form_in_older_summaries():
    assert {one.name: one.since for one in DECLARED if one.since != 1} == {"compressors": 2}


def test_loops_of_one_role_are_read_alone_unless_all_are_known():
    """Those of cpuidle's drivers take reading much of a kernel."""
    resume, native = replace(park_loop(), role="resume"), replace(park_loop(), role="native")
    asked = []

    def loops(role):
        asked.append(role)
        return (resume,)

    dead = SimpleNamespace(loops=loops, park_loops=(resume, native))
    traits = Traits(SimpleNamespace(dead=dead))
    assert traits.loops("resume") == (resume,)
    assert asked == ["resume"]
    assert traits.park_loops == (resume, native)
    assert (traits.loops("resume"), traits.loops("native")) == ((resume,), (native,))
    assert asked == ["resume"]
    assert Traits(None, {}, (native,)).loops("native") == (native,)
    with pytest.raises(LookupError):
        Traits(None, {}).loops("native")
