"""What is known of the CPUs that run in the resumer: who was started, who is online, how a dead one is parked."""

from __future__ import annotations

from hibercheck.cpulist import cpu_phrase, format_cpu_list
from hibercheck.errors import Mismatch, MissingFact
from hibercheck.handoff.facts.cmdline import parse_command_line
from hibercheck.handoff.facts.cpufacts import MonitorLeaf
from hibercheck.handoff.facts.idle import IdleDriver
from hibercheck.handoff.facts.standing import Known, Standing
from hibercheck.handoff.scenario.bringup import Bringup, Order, bring_up, order_of, rescued_cpus, smt_is_off
from hibercheck.handoff.scenario.idle_outlook import Outlook, idle_choices, outlook, stays_away
from hibercheck.handoff.scenario.known_machine import BY_COMMAND_LINE, COMMAND_LINE, FEATURES, PRESENT, TOPOLOGY
from hibercheck.handoff.scenario.options import Idle, Mwait, Tlb
from hibercheck.handoff.scenario.park import idle_by_driver
from hibercheck.handoff.scenario.sources import (
    COLLECTED,
    DUMP,
    LOGGED,
    Asking,
    RunFact,
    Source,
    collected,
    derived,
    given,
    in_dump,
    logged,
)

_OFF = {"off", "forceoff"}
_SMT_OFF = {"disabled", "force-disabled"}


def _smt_in_dump(asking: Asking) -> Known[bool] | None:
    """Read cpu_smt_control, which the handoff sets to "enabled" (cpuhp_smt_enable(), kernel/cpu.c)."""
    dumped = asking.inputs.dumped
    if dumped is None or asking.supposed or dumped.facts.smt_control is None or dumped.facts.has_parked:
        return None
    return Known(dumped.facts.smt_control in _SMT_OFF, Standing.MEASURED, DUMP)


def _smt_by_count(asking: Asking) -> Known[bool] | None:
    """Tell by how many CPUs came up whether the CPU has the bugs for which the command line switches SMT off."""
    log, line = asking.inputs.logged, asking.need(COMMAND_LINE).value
    order = order_of(asking.inputs.traits, line) if line.max_cpus else Order.NUMBERS
    if log is None or asking.supposed or order is None or line.nosmt or not line.nosmt_if_bugs:
        return None
    present, topology = asking.need(PRESENT).value, asking.need(TOPOLOGY).value
    counts = {
        off: len(bring_up(present, topology, line, smt_off=off, by_hand=frozenset(), order=order).online)
        for off in (False, True)
    }
    fits = [off for off, count in counts.items() if count == log.brought_up]
    return Known(fits[0], Standing.MEASURED, LOGGED) if len(fits) == 1 else None


def _smt_by_command_line(asking: Asking) -> Known[bool]:
    line, topology = asking.need(COMMAND_LINE), asking.need(TOPOLOGY)
    features = asking.known(FEATURES)
    try:
        off = smt_is_off(line.value, topology.value, features.value if features else None)
    except MissingFact:
        return _smt_as_resumee(asking)
    needed = (line, topology) if features is None or not line.value.nosmt_if_bugs else (line, topology, features)
    return Known(off, derived(*needed), BY_COMMAND_LINE)


def _smt_as_resumee(asking: Asking) -> Known[bool]:
    """Whether the CPU has the bugs for which its command line switches SMT off, by what that did to the resumee."""
    resumee, line = asking.inputs.resumee, asking.need(COMMAND_LINE).value
    theirs = resumee.parameters
    if line.mitigations_off:  # what counts is the kernel's choice, and theirs may be another
        said = "an option of its command line that switches SMT off is taken to count beside mitigations=off"
        return Known(True, Standing.USUAL, said)
    if theirs.nosmt_if_bugs == line.nosmt_if_bugs and not theirs.nosmt and resumee.smt_control is not None:
        return Known(resumee.smt_disabled, Standing.INFERRED, "the resumee's, which was told the same")
    return Known(True, Standing.USUAL, "its CPU is taken to have a bug for which the command line switches SMT off")


SMT_OFF = RunFact[bool](
    "smt-off",
    "whether the resumer runs with SMT off",
    (
        Source(_smt_in_dump),
        collected(lambda facts: None if facts.smt_control is None else facts.smt_control in _OFF, of_run=True),
        logged(lambda log: log.smt_off, of_run=True),
        Source(_smt_by_count),
        given("--fact smt=", lambda asking: None if "smt" not in asking.given else asking.given["smt"] == "off"),
        Source(_smt_by_command_line),
    ),
    show=lambda off: "yes" if off else "no",
    option="--fact smt=",
    detail=True,
)


def by_itself(asking: Asking, by_hand: frozenset[int] = frozenset()) -> Known[Bringup]:
    """Start the resumer's CPUs as its command line and its code have it.

    Raises:
        UsageProblem: A CPU said to be offline is not there, or is the boot CPU.
        MissingFact: Nothing tells the machine's CPUs.
    """
    line, present, smt = asking.need(COMMAND_LINE), asking.need(PRESENT), asking.need(SMT_OFF)
    topology = asking.need(TOPOLOGY).value
    # an order that cannot be read matters only to maxcpus=, and is varied there
    order = order_of(asking.inputs.traits, line.value) if line.value.max_cpus else None
    found = bring_up(
        present.value, topology, line.value, smt_off=smt.value, by_hand=by_hand, order=order or Order.NUMBERS
    )
    return Known(found, derived(line, present, smt), BY_COMMAND_LINE)


def _booted_by_itself(asking: Asking) -> Known[frozenset[int]]:
    found = by_itself(asking, asking.options.resumer_offline)
    return Known(found.value.booted | asking.options.resumer_offline, found.standing, found.source)


BOOTED = RunFact[frozenset[int]](
    "booted",
    "the CPUs that the resumer has started at least once",
    (
        in_dump(lambda facts: facts.booted, of_run=True),
        collected(lambda facts: facts.booted, of_run=True),
        given("--fact booted=", lambda asking: asking.given.get("booted")),
        Source(_booted_by_itself),
    ),
    show=format_cpu_list,
    option="--fact booted=",
    detail=True,
)


def _online_in_dump(asking: Asking) -> Known[frozenset[int]] | None:
    """Return who was online as the resume began: by the time of the dump it may have parked them for the handoff."""
    dumped = asking.inputs.dumped
    if dumped is None or asking.supposed or dumped.facts.online is None or dumped.facts.frozen is None:
        return None
    return Known(dumped.facts.online | dumped.facts.frozen, Standing.MEASURED, DUMP)


def _online_by_itself(asking: Asking) -> Known[frozenset[int]]:
    found, by_hand = by_itself(asking, asking.options.resumer_offline), asking.need(BY_HAND)
    booted = asking.need(BOOTED).value
    return Known(found.value.online & booted, derived(found, by_hand), found.source)


ONLINE = RunFact[frozenset[int]](
    "online",
    "the CPUs that are online in the resumer when it resumes",
    (
        Source(_online_in_dump),
        collected(lambda facts: facts.online, of_run=True),
        Source(_online_by_itself),
    ),
    show=format_cpu_list,
    option="--resumer-offline",
    detail=True,
)


def _told_offline(asking: Asking) -> frozenset[int]:
    """Return what ``--resumer-offline`` names, but for siblings that are down already.

    A CPU that the kernel does not start by itself has been started by hand before.
    """
    told = asking.options.resumer_offline
    if not told:
        return told
    own = by_itself(asking, told).value
    down, never = told & own.siblings_down, told & own.never_booted
    if down:
        asking.remark(f"--resumer-offline names {cpu_phrase(down)}, down already, as SMT is off")
    if never:
        asking.remark(
            f"--resumer-offline names {cpu_phrase(never)}, which the resumer does not start by itself: somebody is "
            "taken to have started what is named, and taken it offline"
        )
    return told - down


def _taken_in_dump(asking: Asking) -> Known[frozenset[int]] | None:
    online = _online_in_dump(asking)
    return None if online is None else _taken(asking, online.value, DUMP, rescued=True)


def _taken_in_facts(asking: Asking) -> Known[frozenset[int]] | None:
    facts = asking.inputs.collected
    if facts is None or facts.online is None or asking.supposed:
        return None
    return _taken(asking, facts.online, COLLECTED, rescued=False)


def _taken(asking: Asking, online: frozenset[int], source: str, *, rescued: bool) -> Known[frozenset[int]]:
    """Return the CPUs that are offline though nothing but a hand explains it.

    A dump taken once CPUs are parked no longer tells those that the rescue has brought back, so that what is given
    stands where it fits.
    """
    told = _told_offline(asking)
    if told and rescued:
        expected = by_itself(asking, told).value
        if expected.online | rescue(asking, expected) == online:
            return Known(told, Standing.MEASURED, source)
    own, booted = by_itself(asking).value, asking.need(BOOTED)
    once = own.online | (booted.value - own.siblings_down)
    if booted.standing is Standing.MEASURED:  # who was never started was not taken offline
        once &= booted.value
    return Known((once - online) & asking.need(PRESENT).value, Standing.MEASURED, source)


def started(asking: Asking) -> Bringup:
    """Put together which CPUs the resumer has and which of them run when it resumes.

    Raises:
        Mismatch: What was measured cannot be.
        UsageProblem: A CPU said to be offline is not there, or is the boot CPU.
        MissingFact: Nothing tells the machine's CPUs, or whether they are rescued.
    """
    present, online, by_hand = (asking.need(fact).value for fact in (PRESENT, ONLINE, BY_HAND))
    boot_cpu = min(present, default=0)
    source = asking.need(ONLINE).source
    if boot_cpu not in online:
        raise Mismatch(f"CPU {boot_cpu}, which is the one that resumes, is offline ({source})", path=asking.blamed)
    if not online <= present:
        raise Mismatch(
            f"the resumer has {cpu_phrase(online - present)} online ({source}), but not among its CPUs, "
            f"{format_cpu_list(present)} ({asking.need(PRESENT).source})",
            path=asking.blamed,
        )
    _threads_agree(asking)
    _line_agrees(asking)
    _log_agrees(asking)
    once = asking.need(BOOTED)
    own = by_itself(asking, asking.options.resumer_offline)
    if once.standing is Standing.GIVEN and not own.standing.is_open and once.value != own.value.booted:
        asking.remark(
            f"{once.option} says that it has started {cpu_phrase(once.value)}; by its command line it starts "
            f"{cpu_phrase(own.value.booted)}"
        )
    if once.source == source and once.standing is Standing.MEASURED and not online <= once.value:
        raise Mismatch(
            f"contradicts itself: it has {cpu_phrase(online - once.value)} online, and never started, as "
            f"it has started {cpu_phrase(once.value)}",
            path=asking.blamed,
        )
    booted = (asking.need(BOOTED).value | online | by_hand) & present
    down = booted - online - by_hand
    return Bringup(
        present=present, boot_cpu=boot_cpu, booted=booted, online=online, siblings_down=down, by_hand=by_hand
    )


def _threads_agree(asking: Asking) -> None:
    """See that no two threads of a core are online where SMT is off (cpu_bootable(), kernel/cpu.c).

    Raises:
        Mismatch: They are, by what was collected at one time.
    """
    online, off = asking.need(ONLINE), asking.need(SMT_OFF)
    if not (off.value and off.source == online.source == COLLECTED):
        return
    both = [cpus for cpus in asking.need(TOPOLOGY).value.cores() if len(online.value.intersection(cpus)) > 1]
    if both:
        raise Mismatch(
            f"contradicts itself: SMT is off, and CPUs {format_cpu_list(online.value.intersection(both[0]))} of one "
            "core are online",
            path=asking.blamed,
            advice="collect it again, on the boot that is to resume",
        )


def _line_agrees(asking: Asking) -> None:
    """Hold the CPUs that were collected against the command line of that boot.

    A hand may start what the line did not, but for siblings with ``nosmt=force`` (__store_smt_control(), kernel/cpu.c).

    Raises:
        Mismatch: Siblings run that no hand can have started.
    """
    facts, online, line = asking.inputs.collected, asking.need(ONLINE), asking.need(COMMAND_LINE)
    known = asking.need(PRESENT)
    limits = [count for count in (line.value.nr_cpus, line.value.possible_cpus) if count]
    if known.source == line.source and line.standing is Standing.MEASURED and limits and len(known.value) > min(limits):
        raise Mismatch(
            f"contradicts itself: it has {cpu_phrase(known.value)}, and its command line allows it {min(limits)}",
            path=asking.blamed,
            advice="take it again, on the boot that is to resume",
        )
    if facts is None or not online.source == line.source == COLLECTED:
        return
    present, topology, off = asking.need(PRESENT).value, asking.need(TOPOLOGY).value, _smt_by_command_line(asking)
    order = order_of(asking.inputs.traits, line.value) if line.value.max_cpus else Order.NUMBERS
    if order is None or (off.standing.is_open and line.value.nosmt_if_bugs and not line.value.nosmt):
        return  # what the line does is not known well enough
    own = bring_up(present, topology, line.value, smt_off=off.value, by_hand=frozenset(), order=order)
    siblings = online.value & own.siblings_down
    switched_on = off.value and facts.smt_control == "on"
    if switched_on or siblings:
        what = "SMT is on" if switched_on else f"the resumer has {cpu_phrase(siblings)} online"
        if line.value.nosmt_force:
            raise Mismatch(
                f"contradicts itself: {what}, and nosmt=force on its command line switches SMT off for good",
                path=asking.blamed,
                advice="collect it again, on the boot that is to resume",
            )
        asking.remark(f"{what} ({COLLECTED}), though the command line switches SMT off: somebody has switched it on")
    if later := online.value - own.online - own.siblings_down:
        asking.remark(
            f"the resumer has {cpu_phrase(later)} online ({COLLECTED}), which it does not start by itself: "
            "somebody has started what it does not"
        )


def _log_agrees(asking: Asking) -> None:
    """Hold how many CPUs came up, by the log of that boot, against those that its line and its code have it start.

    Raises:
        MissingFact: They are others, so that it is not known which were started and which are online.
    """
    log, line = asking.inputs.logged, asking.need(COMMAND_LINE).value
    if log is None or log.brought_up is None or asking.supposed:
        return
    if line.max_cpus and order_of(asking.inputs.traits, line) is None:
        return  # which it starts is not known well enough
    own, booted = by_itself(asking).value.online, asking.need(BOOTED)
    expected = own if booted.standing.is_open else own & booted.value
    if len(expected) == log.brought_up:
        return
    what = f"{log.brought_up} CPUs came up as the resumer booted ({LOGGED}), which would start CPUs"
    if asking.need(ONLINE).standing is Standing.MEASURED:
        asking.remark(f"{what} {format_cpu_list(expected)} by what else is known of it")
        return
    raise MissingFact(
        f"which CPUs run in the resumer: {what} {format_cpu_list(expected)} by what else is known of it",
        advice="--resumer-facts, or --fact booted= with those that it has started",
    )


def rescue(asking: Asking, bringup: Bringup) -> frozenset[int]:
    """Return the offline CPUs that the resumer brings back before the handoff.

    Raises:
        MissingFact: CPUs are offline, and whether they are rescued cannot be read.
    """
    if bringup.present == bringup.online or asking.inputs.traits.hibernation.value is False:
        return frozenset()
    traits, path = asking.inputs.traits, asking.inputs.resumer.path
    rescues, needs = traits.rescues_offline, traits.rescue_needs_primary
    if rescues.value is None:
        raise MissingFact(f"whether the resumer rescues offline CPUs cannot be read: {rescues.reason}", path=path)
    if rescues.value and needs.value is None:
        raise MissingFact(f"which offline CPUs the resumer rescues cannot be read: {needs.reason}", path=path)
    topology = asking.need(TOPOLOGY).value
    return rescued_cpus(bringup, topology, rescues=rescues.value, needs_primary=bool(needs.value))


BY_HAND = RunFact[frozenset[int]](
    "offline-by-hand",
    "CPUs taken offline by hand in the resumer",
    (
        Source(_taken_in_dump),
        Source(_taken_in_facts),
        given("--resumer-offline", lambda asking: _told_offline(asking) or None),
        Source(lambda _: Known(frozenset(), Standing.USUAL, "default")),
    ),
    show=lambda cpus: format_cpu_list(cpus) or "none",
    option="--resumer-offline",
)


def _idle_by(driver: IdleDriver | None, asking: Asking) -> Idle | None:
    if driver is None:
        return None
    return idle_by_driver(asking.need(COMMAND_LINE).value, driver, asking.inputs.traits)


def _idle_measured(asking: Asking, driver: IdleDriver | None, text: str | None, source: str) -> Known[Idle] | None:
    """Judge a driver that was seen in the resumer; in another run only if that makes the same choices."""
    found = _idle_by(driver, asking)
    own = parse_command_line(text or "")
    chosen = idle_choices(own)
    word = None if driver is None else stays_away(own, driver)
    if word is not None and driver is not None:
        raise Mismatch(
            f"contradicts itself: {driver.name} is its cpuidle driver, and stays away with {word} on the command line",
            path=asking.blamed,
            advice="take it again, on the boot that is to resume",
        )
    if found is None or (asking.supposed and chosen != idle_choices(asking.need(COMMAND_LINE).value)):
        return None
    return Known(found, Standing.MEASURED, source)


def _idle_in_dump(asking: Asking) -> Known[Idle] | None:
    dumped = asking.inputs.dumped
    return None if dumped is None else _idle_measured(asking, dumped.facts.idle, dumped.facts.command_line, DUMP)


def _idle_in_facts(asking: Asking) -> Known[Idle] | None:
    facts = asking.inputs.collected
    return None if facts is None else _idle_measured(asking, facts.idle, facts.command_line, COLLECTED)


def _idle_in_log(asking: Asking) -> Known[Idle] | None:
    log = asking.inputs.logged
    return None if log is None else _idle_measured(asking, log.idle, log.command_line, LOGGED)


def _mwait_states(monitor: MonitorLeaf) -> str:
    """Name the states of which leaf 5 counts sub-states; a model's driver may call them otherwise."""
    if not monitor.extended:
        return "none that CPUID.5 counts"
    return ", ".join(f"C{state}" for state, count in enumerate(monitor.sub_states) if count) or "none"


MWAIT_STATES = RunFact[MonitorLeaf](
    "mwait-states",
    "the states that MWAIT has",
    (collected(lambda facts: facts.monitor),),
    show=_mwait_states,
    of_machine=True,
    detail=True,
    on_demand=True,
)


def idle_outlook(asking: Asking) -> Outlook | None:
    """Say how the resumer's own drivers would park a dead CPU on this machine."""
    inputs = asking.inputs
    line, features = asking.need(COMMAND_LINE).value, asking.value(FEATURES)
    monitor = asking.value(MWAIT_STATES)
    resumee, theirs = inputs.resumee, inputs.resumee_traits
    emulated = is_emulated(asking)
    return outlook(line, inputs.resumer, inputs.traits, resumee, theirs, features, monitor, emulated=emulated)


def _idle_by_code(asking: Asking) -> Known[Idle] | None:
    found = idle_outlook(asking)
    return None if found is None else found.known


def _mwait_of_emulator(asking: Asking) -> Known[Mwait] | None:
    """Say what it does on an emulator's CPU.

    QEMU's TCG takes MWAIT for PAUSE where there are several CPUs (helper_mwait()); KVM shows a guest MWAIT only if it
    sleeps in it.
    """
    if asking.options.spurious_mwait or not is_emulated(asking):
        return None
    return Known("ends", Standing.INFERRED, "the CPU is virtual, of no hypervisor that a kernel knows: an emulator's")


def is_emulated(asking: Asking) -> bool:
    """Tell a virtual CPU of no hypervisor that a kernel knows which looks for them (x86_hyper_type)."""
    features, dumped, states = asking.value(FEATURES), asking.inputs.dumped, asking.value(MWAIT_STATES)
    if features is None or "hypervisor" not in features.flags or (states is not None and any(states.sub_states)):
        return False  # a CPU whose CPUID.5 counts states of MWAIT has those of a machine
    own = None if dumped is None else dumped.facts.hypervisor
    return (asking.inputs.resumee.hypervisor if own is None else own) is False


MWAIT = RunFact[Mwait](
    "mwait",
    "what MWAIT does",
    (
        given("--mwait-spins", lambda asking: "ends" if asking.options.mwait_spins else None),
        given("--fact mwait=", lambda asking: asking.given.get("mwait")),
        Source(_mwait_of_emulator),
    ),
    show=lambda mwait: "ends at once" if mwait == "ends" else "sleeps",
    option="--fact mwait=",
    on_demand=True,
)
"""Where nothing tells, it sleeps, as on the machine itself."""


def _tlb_of_wait(asking: Asking) -> Known[Tlb] | None:
    """Say what a wait that ends by itself leaves of the translations; a wake-up by a store may find either."""
    if asking.value(MWAIT) == "ends":
        return Known("warm", Standing.READ, "a CPU that never sleeps goes on using them")
    if not asking.options.spurious_mwait:
        return None
    features = asking.value(FEATURES)
    if features is not None and "hypervisor" in features.flags:
        why = "default on a virtual CPU, whose hypervisor or emulator ends MWAIT again and again"
        return Known("warm", Standing.USUAL, why)
    return Known("cold", Standing.USUAL, "default: the worst that the architecture allows")


TLB = RunFact[Tlb](
    "tlb",
    "which cached translations a CPU still has when it wakes",
    (given("--tlb", lambda asking: asking.options.tlb), Source(_tlb_of_wait)),
    show=lambda tlb: "all of them (a warm TLB)" if tlb == "warm" else "none (a cold TLB)",
    option="--tlb",
    detail=True,
)

IDLE = RunFact[Idle](
    "idle-driver",
    "how the resumer's cpuidle driver parks a dead CPU",
    (
        Source(_idle_in_dump),
        Source(_idle_in_facts),
        Source(_idle_in_log),
        given("--resumer-idle", lambda asking: asking.options.resumer_idle),
        Source(_idle_by_code),
    ),
    show=str,
    option="--resumer-idle",
    lazy=True,
)


def idle_driver(asking: Asking) -> str | None:
    """Name the driver that `IDLE` is about; None where it is not known, as where only a way to park was given."""
    known, inputs = asking.known(IDLE), asking.inputs
    if known is None or known.standing is Standing.GIVEN:
        return None
    seen = {
        DUMP: None if inputs.dumped is None else inputs.dumped.facts.idle,
        COLLECTED: None if inputs.collected is None else inputs.collected.idle,
        LOGGED: None if inputs.logged is None else inputs.logged.idle,
    }
    if known.source in seen:
        driver = seen[known.source]
        return None if driver is None else driver.name
    found = idle_outlook(asking)
    return None if found is None else found.driver
