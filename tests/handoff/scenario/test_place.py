"""How CPUs are parked by what is read of the resumer: kicked ones, and those in a place outside the kernel."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hibercheck.handoff.designs.own import judge_own
from hibercheck.handoff.replay.fate import Doubt, Fate
from hibercheck.handoff.replay.judge import judge
from hibercheck.handoff.scenario.park import ParkRules, park_all
from hibercheck.handoff.scenario.plan import make_plan
from hibercheck.handoff.verdict.check import open_inputs
from hibercheck.kernel.code.model import Trait
from hibercheck.x86.cpu import ParkState
from tests.support.cases import options_of
from tests.support.made_traits import made_traits

PLACE = ("hlt", "GDT", "IDT", "page tables", "stack", "frames of no image")
WORD = 0x1122334455667788


def parked(plan, **traits):
    made = plan.traits.replaced(**{name: Trait(name, value) for name, value in traits.items()})
    return park_all(ParkRules(made, plan.features, plan.idle), plan.bringup, plan.rescued)


def with_place(plan, values=PLACE, *, word=0, takes_over=None, **options):
    """The same scenario with a resumer, and if wanted a resumee, that has a place for parked CPUs."""
    traits = plan.traits.replaced(
        resume_park=Trait("resume_park", "place"),
        own_place=Trait("own_place", values),
        park_announcement=Trait("park_announcement", word),
    )
    inputs = replace(plan.inputs, traits=traits)
    if takes_over is not None:
        theirs = {"park_announcement": word, "takes_parked_over": takes_over}
        own = plan.inputs.resumee_traits.replaced(**{name: Trait(name, value) for name, value in theirs.items()})
        plan.resumee.kernel.traits = own  # as a kernel that is known by its facts has them
    return make_plan(inputs, replace(plan.options, **options))


def test_an_offline_cpu_stays_in_mwait_unless_it_is_kicked(judged):
    plan, _ = judged("fatal", memory=False)
    (one,) = parked(plan)
    assert one.left_behind
    assert one.state is ParkState.MWAIT
    (one,) = parked(plan, kicks_offline=True)
    assert one.left_behind
    assert one.state is ParkState.HLT
    assert one.loop.after_kick
    assert one.loop.kind == "hlt"
    assert "told to halt" in one.why


@pytest.mark.parametrize(("kicks", "state"), [(True, ParkState.HLT), (False, ParkState.MWAIT)])
def test_a_cpu_in_the_loop_of_a_cpuidle_driver_is_kicked_too(judged, kicks, state):
    plan, _ = judged("fatal", memory=False)
    native = [loop for loop in plan.traits.park_loops if loop.role == "native"]
    loops = [replace(loop, role="cpuidle", driver=driver) for driver in ("acpi_idle", "intel_idle") for loop in native]
    said = {"play_dead_order": ("cpuidle", "hlt"), "rescans_dead_siblings": True, "kicks_offline": kicks}
    traits = made_traits(loops, **said)
    (one,) = park_all(ParkRules(traits, plan.features, "mwait"), plan.bringup, plan.rescued)
    assert one.left_behind
    assert one.state is state
    assert one.loop.role == "cpuidle"
    assert one.loop.after_kick is kicks
    assert ("told to halt" in one.why) is kicks


def test_a_kick_of_which_nothing_is_known_leaves_it_open(judged):
    plan, _ = judged("fatal", memory=False)
    (one,) = parked(plan, kicks_offline=None)
    assert one.state is ParkState.RUNNING
    assert "leave MWAIT" in one.unsettled.fact


def test_a_place_outside_the_kernel_is_no_loop_of_it(judged):
    plan, _ = judged("latent", memory=False)
    (one,) = parked(plan, resume_park="place", own_place=PLACE)
    assert one.in_place
    assert one.state is ParkState.HLT
    assert one.loop is None
    assert "page tables of its own" in one.why
    (one,) = parked(plan, resume_park="place", own_place=("hlt", "paging off"))
    assert "paging off" in one.why


def test_the_copy_does_not_reach_it(judged):
    plan, _ = judged("latent", memory=False)
    plan = with_place(plan, suppose=frozenset())
    (ap,) = judge_own(plan, None).aps
    assert ap.fate in {Fate.UNTOUCHED, Fate.STAYS_PARKED}


def test_a_resumee_that_knows_nothing_of_it_may_reuse_its_frames(judged):
    plan, _ = judged("latent", memory=False)
    plan = with_place(plan)
    assert plan.options.suppose == {"nmi"}
    (ap,) = judge_own(plan, None).aps
    assert ap.ruling.fate is Fate.DIES
    assert ap.ruling.doubt is Doubt.REUSED


@pytest.mark.parametrize("takes_over", [True, False])
def test_a_resumee_that_is_told_of_it_starts_its_cpus(judged, takes_over):
    plan, _ = judged("latent", memory=False)
    plan = with_place(plan, word=WORD, takes_over=takes_over)
    assert plan.announced is takes_over
    assert (1 in plan.reinitialised) is takes_over
    (ap,) = judge_own(plan, None).aps
    assert (ap.ruling.fate is Fate.DIES) is not takes_over


def test_frames_that_nobody_vouches_for_leave_it_open(judged):
    plan, _ = judged("latent", memory=False)
    plan = with_place(plan, tuple(one for one in PLACE if one != "frames of no image"))
    (ap,) = judge_own(plan, None).aps
    assert ap.ruling.fate is Fate.UNKNOWN
    assert "whether the image has the frames" in ap.missing[0]


def test_tables_that_nobody_saw_leave_it_open(judged):
    plan, _ = judged("latent", memory=False)
    plan = with_place(plan, tuple(one for one in PLACE if one != "page tables"))
    (ap,) = judge_own(plan, None).aps
    assert "by which page tables" in ap.missing[0]


@pytest.mark.parametrize("frame", [0, 1 << 40])
def test_a_line_in_a_frame_that_the_code_names_is_overwritten_where_the_image_has_that(judged, frame):
    plan, _ = judged("fatal", memory=False, spurious_mwait=False)
    frame = frame or next(pfn for first, length in plan.image.pfns.runs() for pfn in range(first, first + length))
    traits = plan.traits.replaced(
        monitored=Trait("monitored", "fixmap:0xffffffffff5fe000"), monitored_frame=Trait("monitored_frame", (frame,))
    )
    plan = make_plan(replace(plan.inputs, traits=traits), plan.options)
    (ap,) = judge(plan, None).aps
    assert ap.line is (frame in plan.image.pfns)


@pytest.mark.parametrize("withheld", [False, True])
def test_the_copy_does_not_write_to_a_line_whose_frame_is_kept_from_images(judged, committed, withheld):
    """Measured in Bochs: what the image has for it goes there as it is loaded; no store of the copy woke the CPU."""
    plan, _ = judged("fatal", memory=False, spurious_mwait=False)
    frame = next(pfn for first, length in plan.image.pfns.runs() for pfn in range(first, first + length))
    kept = {"line_withheld": Trait("line_withheld", withheld)}
    fixed = {"monitored": Trait("monitored", "fixmap:0xffffffffff5fe000"), "monitored_frame": Trait("frame", (frame,))}
    plan = make_plan(replace(plan.inputs, traits=plan.traits.replaced(**fixed, **kept)), plan.options)
    (ap,) = judge(plan, None).aps
    assert ap.line is not withheld
    case = committed("fatal")  # and the same where a dump shows the line
    options = options_of(case["args"], resumer_memory=case["memory"], spurious_mwait=False)
    with open_inputs(case["image"], case["resumer"], case["resumee"], options) as (measured, _, dump):
        inputs = replace(measured.inputs, traits=measured.traits.replaced(**kept))
        (ap,) = judge(replace(measured, inputs=inputs), dump).aps
        assert ap.line is not withheld


def test_code_that_was_not_followed_is_named_with_what_stood_in_the_way(judged):
    """Of a design that the readers do not know no kernel's symbols tell more: the user can say which it is."""
    plan, _ = judged("latent", memory=False)
    why = "the code that it copies ends in a loop in which none of the instructions wait"
    traits = plan.traits.replaced(
        resume_park=Trait("resume_park", None, reason=why),
        own_place=Trait("own_place", None, reason=why),
    )
    (one,) = park_all(ParkRules(traits, plan.features, plan.idle), plan.bringup, plan.rescued)
    assert one.state is ParkState.RUNNING
    assert one.unsettled.fact == f"what the resumer's play_dead does at resume ({why})"
    assert one.unsettled.supply.startswith("--park DESIGN")
    traits = traits.replaced(own_place=Trait("own_place", ()))
    (one,) = park_all(ParkRules(traits, plan.features, plan.idle), plan.bringup, plan.rescued)
    assert one.unsettled.supply == "a vmlinux with symbols"


@pytest.mark.parametrize(
    ("apic_ids", "kexec", "sends", "open_"),
    [
        ({0: 1, 1: 0}, True, True, True),  # the BSP is an AP, and an INIT would have it run the firmware
        ({0: 0, 1: 1}, True, True, False),  # kexec on the BSP, as ever
        ({0: 1, 1: 0}, False, True, False),  # firmware numbers them so
        ({0: 1, 1: 0}, True, False, False),  # nobody sends an INIT
    ],
)
def test_what_an_init_does_to_the_bsp_is_left_open(judged, apic_ids, kexec, sends, open_):
    """Seen in QEMU: after kexec with reboot=smp1 it ran the firmware, and the machine was reset with the next NMI."""
    plan, _ = judged("latent", memory=False, suppose=frozenset())
    topology = replace(plan.resumee.topology, apic_ids=apic_ids)
    resumee = replace(plan.resumee, booted_by_kexec=kexec, topology=topology)
    traits = plan.traits.replaced(
        resume_park=Trait("resume_park", "init" if sends else "hlt"),
        sends_init=Trait("sends_init", sends),
        init_targets=Trait("init_targets", "present"),
    )
    (one,) = make_plan(replace(plan.inputs, resumee=resumee, traits=traits), plan.options).parked
    assert (one.unsettled is not None) is open_
    assert not open_ or "BSP flag" in one.unsettled.fact
