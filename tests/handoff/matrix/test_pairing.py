"""The scenario of a pair is a check's: the same plan, the same acceptance, the same conditions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hibercheck.cpulist import parse_cpu_list
from hibercheck.errors import UsageProblem
from hibercheck.handoff.matrix.pair import judge_pair
from hibercheck.handoff.matrix.pairing import options_of, pairing_of
from hibercheck.handoff.matrix.scenario import Machine, Settings, parse_scenario
from hibercheck.handoff.matrix.summary import ASKED_OF_RESUMEE, summary_of
from hibercheck.handoff.scenario.options import CheckOptions
from hibercheck.handoff.verdict.check import open_inputs
from hibercheck.handoff.verdict.findings import HARM, Verdict
from hibercheck.kernel.code.model import Trait
from hibercheck.kernel.code.traits import Traits
from hibercheck.kernel.kernel import open_kernel
from hibercheck.report.matrix import scenario_parts
from hibercheck.x86.cpu import ParkState
from tests.support.cases import options_of as options_of_case
from tests.support.matrix_settings import settings_of
from tests.support.unpacked import plain_path

KERNELS = ("small-current", "small-hlt", "v73-stock")


@pytest.fixture(scope="module")
def summaries():
    found = {}
    for name in KERNELS:
        with open_kernel(plain_path(f"kernels/{name}.vmlinux.xz")) as kernel:
            found[name] = summary_of(kernel)
    return found


def cells(ours, theirs, *scenarios, **machine):
    found = Machine(**machine)
    return judge_pair(ours, theirs, Settings(found, tuple(parse_scenario(text, found) for text in scenarios)))


def run_of(ours, theirs, scenario, **machine):
    found = Machine(**machine)
    parsed = parse_scenario(scenario, found)
    settings = Settings(found, (parsed,))
    return pairing_of(ours, theirs, parsed, settings, options_of(parsed, settings))


@pytest.mark.parametrize(
    ("ours", "theirs", "scenario", "reason"),
    [
        ("small-current", "v73-stock", "default", "does not know the zero-page flag"),
        ("small-current", "v73-stock", "a=;resumee=hibernate.compressor=lz4 ", "decompress LZ4"),
        ("v73-stock", "v73-stock", "a=nohibernate", "was booted with nohibernate"),
        ("v73-stock", "v73-stock", "a=hibernate=no hibernate=nocompress", "was booted with hibernate=no"),
        ("v73-stock", "v73-stock", "a=noresume", "does not resume by itself"),
        ("v73-stock", "v73-stock", "a=;resumee=acpi_sleep=s4_hwsig", "booted without acpi_sleep=s4_hwsig"),
        ("v73-stock", "v73-stock", "a=mem=1G;resumee=", "mem=1G on its command line"),
        ("v73-stock", "v73-stock", "a=;resumee=memmap=64M$512M", "the resumee was booted with memmap=64M$512M"),
        ("v73-stock", "v73-stock", "a=hugepages=1900", "has no room for the image"),
    ],
)
def test_what_a_check_refuses_a_matrix_refuses(summaries, ours, theirs, scenario, reason):
    (cell,) = cells(summaries[ours], summaries[theirs], scenario)
    assert cell.verdict is Verdict.REFUSED
    assert reason in cell.reason


@pytest.mark.parametrize(
    "scenario",
    [
        "a=acpi_sleep=s4_hwsig", "a=mem=1G", "a=memmap=64M$512M", "a=hibernate=nocompress",
        "a=hibernate.compressor=lz4", "a=;resumee=hibernate=nocompress",
    ],
)  # fmt: skip
def test_what_both_were_told_is_no_refusal(summaries, scenario):
    (cell,) = cells(summaries["v73-stock"], summaries["v73-stock"], scenario)
    assert cell.verdict is Verdict.SAFE


def test_a_kernel_without_lz4_never_writes_it(summaries):
    """6.1 has no hibernate.compressor=: it compresses by LZO whatever that says."""
    (cell,) = cells(summaries["small-current"], summaries["small-current"], "a=hibernate.compressor=lz4")
    assert cell.verdict is not Verdict.REFUSED


@pytest.mark.parametrize(
    ("name", "scenario", "started"),
    [("small-current", "a=maxcpus=2", "0-1"), ("v73-stock", "a=maxcpus=2", "0,2"),
     ("v73-stock", "a=maxcpus=2 cpuhp.parallel=0", "0-1"), ("v73-stock", "a=nr_cpus=2", "0-1"),
     ("v73-stock", "a=possible_cpus=3", "0-2"), ("v73-stock", "a=nolapic", "0")],
)  # fmt: skip
def test_cpus_are_started_as_the_kernels_code_has_it(summaries, name, scenario, started):
    plan = run_of(summaries[name], summaries[name], scenario).plan
    assert plan.bringup.booted == parse_cpu_list(started)


def told_at_its_build(plain, line, *, overrides=False):
    """Return a kernel with a command line built in."""
    traits = plain.traits.replaced(
        builtin_cmdline=Trait("builtin_cmdline", line),
        builtin_cmdline_overrides=Trait("builtin_cmdline_overrides", overrides),
    )
    kind = f"{line} {overrides}"
    return replace(plain, traits=traits, kind=kind, kind_as_resumee=kind)


def test_a_built_in_command_line_counts(summaries):
    plain = summaries["small-hlt"]
    told = told_at_its_build(plain, "nosmt")
    assert not run_of(plain, plain, "default").plan.bringup.siblings_down
    assert run_of(told, plain, "default").plan.bringup.siblings_down == {1, 3}
    assert run_of(plain, told, "a=quiet;resumee=quiet").plan.resumee.smt_disabled


@pytest.mark.parametrize(("line", "has"), [
    ("nosmp", "0"), ("nolapic", "0"), ("acpi=off", "0"), ("nr_cpus=2", "0-1"), ("possible_cpus=3", "0-2"),
    ("maxcpus=1", "0-3"),
])  # fmt: skip
@pytest.mark.parametrize("overrides", [False, True])
def test_a_scenario_of_many_kernels_takes_no_cpu_offline_that_one_leaves_out(summaries, line, has, overrides):
    """Such a kernel ended a whole matrix, and it was told of options that nobody had given."""
    plain, present = summaries["small-hlt"], parse_cpu_list(has)
    told = told_at_its_build(plain, line, overrides=overrides)
    listed = "a=;offline=1,3;resumee-offline=2,3;resumee-online=3"
    asked = run_of(told, plain, listed).plan
    assert asked.bringup.present == present
    assert asked.options.resumer_offline == {1, 3} & present
    asked = run_of(plain, told, listed).plan
    assert (asked.options.resumer_offline, asked.options.resumee_online) == ({1, 3}, {3} & present)
    assert not asked.resumee.frozen & {2, 3}


@pytest.mark.parametrize(
    "scenario", ["a=nosmp;offline=1", "a=nr_cpus=2;offline=3", "a=;resumee=nosmp;resumee-online=1"]
)
def test_a_scenario_whose_own_line_leaves_the_cpu_out_is_refused(summaries, scenario):
    for kernel in (summaries["small-hlt"], told_at_its_build(summaries["small-hlt"], "nosmp")):
        with pytest.raises(UsageProblem, match="names CPU"):
            run_of(kernel, kernel, scenario)


def test_five_levels_need_a_kernel_a_cpu_and_no_word_against_it(summaries):
    ours = summaries["v73-stock"]
    five = ours.traits.la57.value
    assert run_of(ours, ours, "default").run.resumer_levels == 4
    assert run_of(ours, ours, "default", la57=True).run.resumer_levels == (5 if five else 4)
    (cell,) = cells(ours, ours, "a=no5lvl;resumee=", la57=True)
    assert (cell.verdict is Verdict.FATAL) is bool(five)


@pytest.mark.parametrize("name", ["fatal", "safe", "benign", "latent", "no-overlap", "same-build", "paging-mode"])
def test_a_measured_pair_is_parked_as_the_check_of_its_image_has_it(name, committed):
    case = committed(name)
    settings = settings_of(case, case["image"], case["resumee"])
    with open_kernel(case["resumer"]) as ours, open_kernel(case["resumee"]) as theirs:
        kernels = summary_of(ours), summary_of(theirs)
    (scenario,) = settings.scenarios
    found = pairing_of(*kernels, scenario, settings, options_of(scenario, settings)).plan
    with open_inputs(case["image"], case["resumer"], case["resumee"], options_of_case(case["args"])) as (plan, _, _):
        assert [(one.cpu, one.state, one.why) for one in found.parked] == [
            (one.cpu, one.state, one.why) for one in plan.parked
        ]
        assert (found.reinitialised, found.levels) == (plan.reinitialised, plan.levels)
        assert found.resumee.frozen == plan.resumee.frozen


SCENARIOS = (
    "default", "nosmt", "offline-core", "offline-primary", "fix=nokaslr;offline=2-3", "max=maxcpus=2",
    "bugs=mitigations=auto,nosmt", "sig=acpi_sleep=s4_hwsig", "lz=hibernate.compressor=lz4", "acpi=acpi=off",
    "clear=;resumee=clearcpuid=monitor", "huge=hugepages=700", "no=noresume", "lock=lockdown=integrity",
)  # fmt: skip


def test_each_condition_is_what_its_scenario_comes_to(summaries):
    """What is named to judge so leads to the verdict that is named."""
    proved = set()
    for ours in summaries.values():
        for text in SCENARIOS:
            (cell,) = cells(ours, summaries["small-current"], text)
            for one in cell.conditions:
                whole = text if "=" in text else {"default": "default=", "nosmt": "nosmt=nosmt"}.get(text)
                if whole is None:
                    whole = f"x=;offline={'2-3' if text == 'offline-core' else '2'}"
                (other,) = cells(ours, summaries["small-current"], f"{whole}{scenario_parts(one)}")
                assert (other.outcome, other.verdict) == (one.outcome, one.verdict)
                assert other.verdict is not cell.verdict
                proved.add(one.id)
    assert {"idle-driver", "hw-sig", "resume"} <= proved


def test_strict_is_the_worst_of_them(summaries):
    (cell,) = cells(summaries["v73-stock"], summaries["v73-stock"], "offline-core")
    assert cell.verdict is Verdict.SAFE
    assert cell.strict is max((one.verdict for one in cell.conditions), key=HARM.index)
    assert cell.strict is not Verdict.SAFE


class Watched(Traits):
    """Traits that note which of them are asked for."""

    def __init__(self, plain):
        self.noted = set()
        super().__init__(None, {one.name: one for one in plain}, plain.park_loops)

    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        if isinstance(found, Trait):
            self.noted.add(name)
        return found


def test_the_key_of_a_resumee_has_all_that_a_scenario_asks_of_it(summaries):
    """A trait that is asked for and is not part of the key would be another kernel's."""
    asked = set()
    for number, plain in enumerate(summaries.values()):
        for text in SCENARIOS:
            traits, kind = Watched(plain.traits), f"{number} {text}"
            ours = replace(plain, kind=kind, kind_as_resumee=kind)
            cells(ours, replace(ours, traits=traits), text)
            asked |= traits.noted
    assert {"nosmt_resume_targets", "compressors"} <= asked <= {*ASKED_OF_RESUMEE}


def test_kernels_that_differ_in_places_only_are_one_kind(summaries):
    assert summaries["small-current"].kind != summaries["small-hlt"].kind
    (first,) = cells(summaries["small-hlt"], summaries["small-hlt"], "nosmt")
    moved = replace(summaries["small-hlt"], end=summaries["small-hlt"].end + 4096, path="moved")
    (again,) = cells(moved, summaries["small-hlt"], "nosmt")
    assert first == again


def test_a_fact_of_a_scenario_is_the_checks_fact(summaries):
    """A CPU without MWAIT waits in HLT."""
    states = {
        one.state
        for one in run_of(summaries["small-hlt"], summaries["small-hlt"], "a=nosmt;fact=cpu-flags=-monitor").plan.parked
    }
    assert ParkState.MWAIT not in states
    assert CheckOptions().facts == ()


def verdicts(summaries, text):
    (found,) = cells(summaries["small-hlt"], summaries["small-hlt"], text)
    return found.verdict, found.rules


@pytest.mark.parametrize(("text", "lost"), [
    ("a=nokaslr;fact=cpu-flags=-smap", True), ("a=nokaslr;fact=cpu-flags=-xsave,+pcid", True),
    ("a=nokaslr nosmap;fact=cpu-flags=-smap", False), ("a=nokaslr;resumee=nokaslr nosmap;fact=cpu-flags=-smap", False),
    ("a=nokaslr;fact=cpu-flags=+smap", False), ("a=nokaslr;fact=cpu-flags=-monitor", False), ("a=nokaslr", False),
])  # fmt: skip
def test_what_the_resumee_uses_and_the_resumers_cpu_lacks_is_fatal(summaries, text, lost):
    """As in a check: HC406."""
    assert (verdicts(summaries, text) == (Verdict.FATAL, ("HC406",))) is lost


def test_with_acpi_off_the_resumee_too_has_one_cpu(summaries):
    """The others are where firmware left them, as with nosmp."""
    run = run_of(summaries["small-hlt"], summaries["small-hlt"], "a=acpi=off")
    assert run.plan.resumee.present == {0}
    assert {one.state for one in run.plan.parked} == {ParkState.NEVER_BOOTED}


@pytest.mark.parametrize("line", ["acpi=off", "nosmp acpi=off"])
def test_the_cpus_of_the_machine_are_known_though_a_resumee_does_not_find_them(summaries, line):
    run = run_of(summaries["small-hlt"], summaries["small-hlt"], f"a=;resumee={line}")
    assert (run.plan.resumee.present, run.plan.missing) == ({0}, ())
    assert {one.state for one in run.plan.parked} == {ParkState.HLT}


@pytest.mark.parametrize(
    ("alone", "parallel", "unknown"),
    [
        (None, None, ("whether the resumee is built for one CPU",)),
        (None, False, ()),
        (True, None, ()),
        (False, None, ()),
    ],
)
def test_a_resumee_that_may_be_built_for_one_cpu_is_not_taken_to_start_the_others(summaries, alone, parallel, unknown):
    plain = summaries["small-hlt"]
    told = {"one_cpu": Trait("one_cpu", alone), "parallel_bringup": Trait("parallel_bringup", parallel)}
    resumee = replace(plain, traits=plain.traits.replaced(**told), kind_as_resumee=f"{alone} {parallel}")
    assert run_of(plain, resumee, "a=").run.unknown == unknown


def test_of_a_build_for_one_cpu_the_resumee_too_has_one(summaries):
    plain = summaries["small-hlt"]
    traits = plain.traits.replaced(one_cpu=Trait("one_cpu", True))
    alone = replace(plain, traits=traits, kind="alone", kind_as_resumee="alone")
    assert run_of(plain, alone, "a=").plan.resumee.present == {0}
    run = run_of(alone, plain, "a=")
    assert run.plan.resumee.present == {0, 1, 2, 3}
    assert {one.state for one in run.plan.parked} == {ParkState.NEVER_BOOTED}
    listed = "a=;offline=1;resumee-offline=1,2;resumee-online=2"  # of which such a kernel knows nothing
    assert run_of(alone, plain, listed).plan.parked == run_of(alone, plain, "a=").plan.parked
    assert run_of(alone, plain, listed).plan.reinitialised == {2, 3}
    of_alone = run_of(plain, alone, listed).plan
    assert of_alone.bringup.by_hand == {1}
    assert not of_alone.reinitialised


def test_mwait_that_ends_is_a_fact_of_a_scenario_too(summaries):
    pair, plain = (summaries["v73-stock"], summaries["small-hlt"]), "a=nokaslr;offline=2,3;idle=mwait"
    assert run_of(*pair, f"{plain};fact=mwait=ends").plan.mwait_ends
    assert not run_of(*pair, plain).plan.mwait_ends
    (ends,), (sleeps,) = cells(*pair, f"{plain};fact=mwait=ends"), cells(*pair, plain)
    assert (ends.verdict, sleeps.verdict) == (Verdict.FATAL, Verdict.RISK)
