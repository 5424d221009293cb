"""What is known of the resumer's machine: its command line, CPUs, features and memory, each with its sources."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from hibercheck.cpulist import format_cpu_list
from hibercheck.data import replace
from hibercheck.errors import MissingFact
from hibercheck.handoff.facts.arguments import words_of
from hibercheck.handoff.facts.cmdline import CommandLine, loader_part, parse_command_line, parse_running_line
from hibercheck.handoff.facts.cpufacts import FLAG_NAMES, FRED_FLAGS, CpuFeatures, Topology, cleared_by
from hibercheck.handoff.facts.modes import MODES, differing_parameters
from hibercheck.handoff.facts.resumee import Resumee
from hibercheck.handoff.facts.standing import Known, Standing
from hibercheck.handoff.scenario.bringup import found_by, is_alone, limited_to
from hibercheck.handoff.scenario.sources import (
    COLLECTED,
    DUMP,
    LOGGED,
    Asking,
    RunFact,
    Source,
    collected,
    given,
    in_dump,
    logged,
)
from hibercheck.kernel.view import KernelView

BY_COMMAND_LINE = "its command line"
CORES_SHOWN = 16
"""Cores that are listed one by one."""


def _same_meaning(ours: CommandLine, theirs: CommandLine) -> bool:
    return replace(ours, text="") == replace(theirs, text="")


def _of_resumee(asking: Asking) -> Known[CommandLine]:
    """Take what the boot loader passed to the resumee; what that has built in the resumer need not have."""
    resumee = asking.inputs.resumee
    if resumee.loader_line is None:
        return Known(_passed(asking, ""), Standing.USUAL, "default: the image does not tell the resumee's")
    return Known(_passed(asking, resumee.loader_line), Standing.INFERRED, "the resumee's, out of the image")


def _builtin(asking: Asking) -> tuple[str, bool]:
    """Return CONFIG_CMDLINE of the resumer, and whether it takes the place of the boot loader's line."""
    traits = asking.inputs.traits
    builtin = traits.builtin_cmdline.value or ""
    return builtin, bool(builtin and traits.builtin_cmdline_overrides.value)


def _passed(asking: Asking, text: str) -> CommandLine:
    """Understand what a boot loader passes to the resumer."""
    builtin, override = _builtin(asking)
    line = parse_command_line(text, builtin, override=override)
    more = from_bootconfig(asking, line)
    return parse_command_line(text, builtin, override=override, bootconfig=more) if more else line


def from_bootconfig(asking: Asking, line: CommandLine) -> str:
    """Return the parameters that the resumer takes from a bootconfig, of its initramfs or else of its own.

    One that cannot be understood is left aside, as the kernel does (setup_boot_config(), init/main.c).
    """
    reads, attached = asking.inputs.traits.bootconfig.value, asking.inputs.attached
    if reads == "no" or not (reads == "always" or line.bootconfig):
        return ""
    text = attached or embedded_bootconfig(asking.inputs.resumer)
    from hibercheck.host.bootconfig import kernel_parameters  # noqa: PLC0415 - few resumers have one

    try:
        return kernel_parameters(text)
    except ValueError as problem:
        asking.remark(f"the resumer's bootconfig is not taken: {problem}")
        return ""


def embedded_bootconfig(kernel: KernelView) -> str:
    """Return the bootconfig that a kernel has in itself (CONFIG_BOOT_CONFIG_EMBED), or ""."""
    start, end = kernel.symbol("embedded_bootconfig_data"), kernel.symbol("embedded_bootconfig_data_end")
    if start is None or end is None:
        return ""
    from hibercheck.host.bootconfig import MOST  # noqa: PLC0415 - as above

    if not 0 < end.address - start.address <= MOST:
        return ""
    try:
        return kernel.read(start.address, end.address - start.address).split(b"\0")[0].decode("utf-8", "replace")
    except MissingFact:
        return ""


def _line_in_dump(asking: Asking) -> Known[CommandLine] | None:
    dumped = asking.inputs.dumped
    return None if dumped is None else _running(asking, dumped.facts.command_line, DUMP)


def _line_in_facts(asking: Asking) -> Known[CommandLine] | None:
    facts = asking.inputs.collected
    return None if facts is None else _running(asking, facts.command_line, COLLECTED)


def _line_in_log(asking: Asking) -> Known[CommandLine] | None:
    log = asking.inputs.logged
    return None if log is None or asking.supposed else _running(asking, log.command_line, LOGGED)


def _running(asking: Asking, text: str | None, source: str) -> Known[CommandLine] | None:
    """Understand the line that the resumer itself has while it runs: what it has built in is part of that."""
    if text is None:
        return None
    builtin, override = _builtin(asking)
    rest, more = _without_bootconfig(asking, text)
    return Known(parse_running_line(rest, builtin, override=override, bootconfig=more), Standing.MEASURED, source)


def _without_bootconfig(asking: Asking, text: str) -> tuple[str, str]:
    """Part a running kernel's line into what follows the parameters of a bootconfig, and these."""
    builtin, override = _builtin(asking)
    more = from_bootconfig(asking, parse_running_line(text, builtin, override=override))
    return (text.removeprefix(f"{more} "), more) if more and text.startswith(f"{more} ") else (text, "")


def _given_line(asking: Asking) -> CommandLine | None:
    """Understand the line that the user gives, or what is appended to the one that is known otherwise."""
    text, more = asking.options.resumer_cmdline, asking.options.resumer_cmdline_add
    if text is None and not more:
        return None
    return _passed(asking, f"{_known_line(asking) if text is None else text} {more or ''}".strip())


def _known_line(asking: Asking) -> str:
    """Return what the boot loader passed, by the run that was measured or else by the resumee's."""
    inputs = asking.inputs
    dumped = None if inputs.dumped is None else inputs.dumped.facts
    told = next((one.command_line for one in (dumped, inputs.collected, inputs.logged) if one is not None), None)
    if told is None:
        return inputs.resumee.loader_line or ""
    builtin, override = _builtin(asking)
    return loader_part(_without_bootconfig(asking, told)[0], builtin, override=override) or ""


COMMAND_LINE = RunFact[CommandLine](
    "command-line",
    "the resumer's command line",
    (
        Source(_line_in_dump),
        Source(_line_in_facts),
        Source(_line_in_log),
        given("--resumer-cmdline", _given_line),
        Source(_of_resumee),
    ),
    show=lambda line: line.text or "(empty)",
    option="--resumer-cmdline",
    same=_same_meaning,
)


def _measured_modes(asking: Asking) -> Iterator[tuple[Mapping[str, bool], str]]:
    """Yield what was seen of the machine's modes while the resumer ran, the most trusted first."""
    inputs = asking.inputs
    if inputs.dumped is not None and not asking.supposed:
        yield inputs.dumped.facts.modes, DUMP
    if inputs.collected is not None and not asking.supposed:
        yield inputs.collected.modes, COLLECTED
    if inputs.logged is not None and not asking.supposed:
        yield inputs.logged.modes, LOGGED


def _modes_seen(asking: Asking) -> Known[tuple[str, ...]] | None:
    """Compare what was measured of the resumer with what the image has; None where that settles nothing."""
    seen = list(_measured_modes(asking))
    if not seen:
        return None
    theirs = asking.inputs.resumee.modes
    ours = {name: (state, source) for modes, source in reversed(seen) for name, state in modes.items()}
    apart = [name for name in MODES if name in ours and name in theirs and ours[name][0] != theirs[name]]
    if not apart and not modes_told_apart(asking).keys() <= (ours.keys() & theirs.keys()):
        return None
    source = ours[apart[0]][1] if apart else seen[0][1]
    return Known(tuple(apart), Standing.MEASURED, source)


def _modes_given(asking: Asking) -> tuple[str, ...] | None:
    said = asking.given.get("modes")
    return None if said is None else () if said == "same" else tuple(modes_told_apart(asking)) or (UNNAMED,)


UNNAMED = "unnamed"
"""What is said of modes that no command line names."""

MACHINE_MODES = RunFact[tuple[str, ...]](
    "modes",
    "in which modes of the machine the two kernels differ",
    (
        Source(_modes_seen),
        given("--fact modes=", _modes_given),
        Source(lambda _: Known((), Standing.USUAL, "default: one machine, of one firmware")),
    ),
    show=lambda names: named_modes(names) if names else None,
    option="--fact modes=",
    detail=True,
)
"""x2APIC, interrupt remapping, IOMMU, memory encryption: names of `hibercheck.handoff.facts.modes.MODES`."""


def named_modes(names: Iterable[str]) -> str:
    """Return modes in words."""
    return " and ".join(MODES[name].what if name in MODES else "one that is not named" for name in names)


def modes_told_apart(asking: Asking) -> dict[str, tuple[str, ...]]:
    """Return the modes that the two command lines do not have alike, each with the parameters that say so.

    Not those where the image shows that the resumee is in the state that the resumer is told to be in.
    """
    ours, resumee = asking.need(COMMAND_LINE).value.text, asking.inputs.resumee
    if resumee.command_line is None:
        return {}
    found = differing_parameters(ours, resumee.command_line)
    if "x2apic" in found and "nox2apic" in words_of(ours) and resumee.modes.get("x2apic") is False:
        del found["x2apic"]
    return found


def settle_modes(asking: Asking) -> tuple[str, str] | None:
    """Return what nobody knows of kernels that differ in a mode of the machine, and what to do; None where they agree.

    No emulator that handoffs were measured on has interrupt remapping or memory encryption, nor does Linux use x2APIC
    there: what becomes of it was never measured.
    """
    names = asking.need(MACHINE_MODES).value
    if not names:
        return None
    what = f"what becomes of a machine whose kernels differ in {named_modes(names)} (measured on none)"
    return what, "give both kernels the same parameters for it"


def settle_local_apic(asking: Asking) -> tuple[str, str] | None:
    """Return what is not known of a resumee that left the local APIC alone, and what to do; None where it did not.

    Without a local APIC a kernel takes interrupts as firmware has set it up (virtual wire), and its resume sets up the
    8259 alone.  A resumer with one masks that way, and disables the APIC before the copy (lapic_suspend(),
    arch/x86/kernel/apic/apic.c): in QEMU 6.1, 6.12 and 7.3 hung, as no timer came.  The other way round all resumed.
    So does a kernel with ``acpi=off`` that finds no MP table.
    """
    line, resumee = asking.need(COMMAND_LINE).value, asking.inputs.resumee
    theirs = resumee.parameters
    left_alone = theirs.lapic_off or (theirs.acpi_off and resumee.without_local_apic)
    if line.lapic_off or not left_alone or (line.acpi_off and not theirs.lapic_off):
        return None
    word = "nolapic" if theirs.lapic_off else "acpi=off"
    what = f"what becomes of a resumee with {word} after a resumer that sets the local APIC up (in QEMU it hangs)"
    return what, f"give both kernels {word}, or none"


def bootconfig_unseen(asking: Asking) -> str | None:
    """Return why parameters may come from a bootconfig that nobody has seen, or None where nothing says so.

    The sign of it is ``bootconfig`` on the line, which a kernel without CONFIG_BOOT_CONFIG does not know, or a kernel
    built with CONFIG_BOOT_CONFIG_FORCE, as one with a bootconfig of its own is by default (init/Kconfig).  A line that
    was measured has what it adds.
    """
    line, reads = asking.need(COMMAND_LINE), asking.inputs.traits.bootconfig.value
    if line.standing is Standing.MEASURED or reads == "no" or asking.inputs.attached is not None:
        return None
    if line.value.bootconfig:
        return "the resumer's command line has bootconfig"
    return "the resumer reads a bootconfig without a parameter" if reads == "always" else None


def remark_bootconfig(asking: Asking) -> None:
    """Say that parameters may come from where nobody has seen the line that the kernel made of them."""
    reason = bootconfig_unseen(asking)
    if reason is not None:
        asking.remark(
            f"{reason}: a bootconfig at the end of its initramfs may add parameters, and was not looked at; give it "
            "(--resumer-initramfs), or --resumer-facts, which has the whole line"
        )


def _limited(asking: Asking, machine: frozenset[int] | None) -> frozenset[int] | None:
    """Apply the command line's limits to the CPUs that the resumer is said to have."""
    return (
        None
        if machine is None
        else limited_to(machine, asking.need(COMMAND_LINE).value, one_cpu=is_alone(asking.inputs.traits))
    )


def _found(asking: Asking, machine: frozenset[int]) -> frozenset[int]:
    """Return the CPUs of a machine that the resumer takes note of."""
    return found_by(machine, asking.need(COMMAND_LINE).value, one_cpu=is_alone(asking.inputs.traits))


def _machine_of_dump(asking: Asking) -> Known[frozenset[int]] | None:
    """For another run on a machine that was dumped: all that it has, as far as its command line lets it see them."""
    dumped = asking.inputs.dumped
    if not asking.supposed or dumped is None or dumped.facts.present is None:
        return None
    has = dumped.facts.present | (frozenset(dumped.facts.topology.apic_ids) if dumped.facts.topology else frozenset())
    has |= frozenset(range(dumped.machine_cpus or 0))
    return Known(_found(asking, has), Standing.MEASURED, DUMP)


def ignored_apic(kernel: KernelView, line: CommandLine) -> int | None:
    """Return the APIC id of the CPU that a kernel is told to ignore (``disable_cpu_apicid=``), if it obeys.

    generic_processor_info() did (arch/x86/kernel/apic/apic.c); since v6.9 CPUs are registered by
    topology_register_apic(), which knows nothing of it.
    """
    return line.ignored_apic if kernel.symbol("topology_register_apic") is None else None


def _machine_of_resumee(asking: Asking) -> Known[frozenset[int]]:
    """Take the machine that hibernated, with the CPUs that ``--resumer-offline`` names beyond its own.

    Whoever took such a CPU offline resumes on another machine; with ``acpi=off`` it was found in an MP table.  CPUs are
    numbered without gaps (topology_assign_cpunr(), arch/x86/kernel/cpu/topology.c).
    """
    resumee, named = asking.inputs.resumee, asking.options.resumer_offline
    machine = resumee.machine
    source = "the resumee's present CPUs, out of the image"
    if machine and not named <= machine:
        machine |= frozenset(range(max(named) + 1))
        source += f", and all up to CPU {max(named)}, which --resumer-offline names"
        if "cpus" not in asking.given:
            asking.remark(
                f"--resumer-offline names CPU {max(named)}, which the resumee did not have: the resumer is taken to "
                f"have CPUs {format_cpu_list(machine)}"
            )
    theirs, line = resumee.parameters, asking.need(COMMAND_LINE).value
    by_table = theirs.acpi_off and (len(resumee.present) > 1 or theirs.limits_cpus)
    finds = limited_to if by_table or named else found_by  # with acpi=off both find what an MP table lists
    found = finds(machine, line, one_cpu=is_alone(asking.inputs.traits))
    ids = {} if resumee.topology is None else resumee.topology.apic_ids
    ignored = None if line.ignored_apic is None else ignored_apic(asking.inputs.resumer, line)
    return Known(frozenset(cpu for cpu in found if not cpu or ids.get(cpu, -1) != ignored), Standing.INFERRED, source)


def _collected_machine(asking: Asking) -> Known[frozenset[int]] | None:
    facts = asking.inputs.collected
    if not asking.supposed or facts is None or facts.present is None:
        return None
    return Known(_found(asking, facts.present), Standing.MEASURED, COLLECTED)


PRESENT = RunFact[frozenset[int]](
    "cpus",
    "the resumer's CPUs",
    (
        in_dump(lambda facts: facts.present, of_run=True),
        Source(_machine_of_dump),
        collected(lambda facts: facts.present, of_run=True),
        logged(lambda log: log.present, of_run=True),
        Source(_collected_machine),
        given("--fact cpus=", lambda asking: _limited(asking, asking.given.get("cpus"))),
        Source(_machine_of_resumee),
    ),
    show=format_cpu_list,
    option="--fact cpus=",
    of_machine=True,
)


def renumbered(asking: Asking) -> dict[int, int]:
    """Return the resumer's number of each of the resumee's CPUs; empty where nothing says that it is another.

    By the APIC ids, where both kernels' were read.  A CPU that the resumer takes no note of follows its own.
    """
    resumee, dumped = asking.inputs.resumee, asking.inputs.dumped
    seen = asking.inputs.collected if dumped is None else dumped.facts
    topology = None if seen is None or asking.supposed else seen.topology
    if seen is None or topology is None or seen.present is None or resumee.topology is None:
        return {}
    ours = {cpu: apic for cpu, apic in topology.apic_ids.items() if cpu in seen.present}
    theirs = {cpu: apic for cpu, apic in resumee.topology.apic_ids.items() if cpu in resumee.present}
    if all(ours[cpu] == theirs[cpu] for cpu in ours.keys() & theirs.keys()):
        return {}
    numbers = {apic: cpu for cpu, apic in ours.items()}
    for _, apic in sorted(theirs.items()):
        numbers.setdefault(apic, max(numbers.values(), default=-1) + 1)
    return {cpu: numbers[apic] for cpu, apic in theirs.items()}


def _topology(asking: Asking) -> Known[Topology] | None:
    """Take the best topology, and complete it where it lacks a CPU that is present."""
    inputs = asking.inputs
    ranked = [
        (inputs.dumped.facts.topology if inputs.dumped else None, Standing.MEASURED, DUMP),
        (inputs.collected.topology if inputs.collected else None, Standing.MEASURED, COLLECTED),
        (inputs.resumee.topology, Standing.INFERRED, "the resumee's, out of the image"),
    ]
    found = [(topology, standing, source) for topology, standing, source in ranked if topology is not None]
    if not found:
        alone = asking.known(PRESENT)
        if alone is None or alone.standing.is_open or len(alone.value) > 1:
            return None
        return Known(Topology({}, 0, frozenset()).continued(alone.value), alone.standing, alone.source)  # with no other
    topology, standing, source = found[0]
    present, known = asking.need(PRESENT).value, topology.apic_ids
    for other, _, where in found[1:]:
        seen = inputs.resumee.present if other is inputs.resumee.topology else other.apic_ids.keys()
        common = present & topology.apic_ids.keys() & seen
        numbers = renumbered(asking) if other is inputs.resumee.topology else {}
        if topology.among(common) != other.among(common):
            asking.remark(
                f"two sources differ on {TOPOLOGY.what}: {_show_cores(topology)} ({source}) and "
                f"{_show_cores(other)} ({where})"
            )
        if present - known.keys():  # who has not seen all CPUs may not have seen that a core has several
            topology = replace(topology, smt_shift=max(topology.smt_shift, other.smt_shift))
        ids = other.apic_ids
        if numbers:
            known = {cpu: apic for cpu, apic in known.items() if cpu in present}
            ids = {number: ids[cpu] for cpu, number in numbers.items()}
        known = known | {cpu: apic for cpu, apic in ids.items() if cpu not in known}
    if known != topology.apic_ids:
        topology = topology.extended(known)
    beyond = present - known.keys()
    if not beyond:
        return Known(topology, standing, source)
    more = f"{source}; CPUs {format_cpu_list(beyond)} are taken to follow the others"
    return Known(topology.continued(beyond), Standing.USUAL, more)


def _show_cores(topology: Topology) -> str:
    """List the CPUs of each core; of many the first and the last."""
    cores = [format_cpu_list(core) for core in topology.cores()]
    if len(cores) <= CORES_SHOWN:
        return "; ".join(cores)
    return f"{'; '.join(cores[:3])}; ...; {cores[-1]} ({len(cores)} cores)"


TOPOLOGY = RunFact[Topology](
    "topology",
    "which of the resumer's CPUs share a core",
    (Source(_topology),),
    show=_show_cores,
    detail=True,
)


def _features_of_resumee(asking: Asking) -> Known[CpuFeatures] | None:
    """Return what the resumee saw of the CPU, but for what each kernel was told to clear."""
    resumee = asking.inputs.resumee
    if resumee.features is None:
        return None
    return Known(_as_told(asking, machine_features(resumee)), Standing.INFERRED, "the resumee's CPU, out of the image")


def machine_features(resumee: Resumee) -> CpuFeatures:
    """Return the features of the CPU that the resumee ran on, with those that it was told to clear.

    Nobody clears a feature that the CPU lacks.

    Raises:
        MissingFact: The image does not tell its features.
    """
    if resumee.features is None:
        raise MissingFact("the image does not tell the resumee's CPU")
    hidden = cleared_by(resumee.parameters)
    return replace(resumee.features, flags=resumee.features.flags | hidden)


def _as_told(asking: Asking, features: CpuFeatures) -> CpuFeatures:
    """Clear what the resumer's command line clears."""
    return replace(features, flags=features.flags - cleared_by(asking.need(COMMAND_LINE).value))


def _said_of_cpu(asking: Asking) -> Known[CpuFeatures] | None:
    """Apply ``--fact cpu-flags=`` and ``cpu-vendor=`` to what is known otherwise."""
    flags, vendor = asking.given.get("cpu-flags"), asking.given.get("cpu-vendor")
    if flags is None and vendor is None:
        return None
    inputs = asking.inputs
    of_dump = inputs.dumped.facts.features if inputs.dumped else None
    of_facts = inputs.collected.features if inputs.collected else None
    base = of_dump or of_facts or inputs.resumee.features
    if base is None:
        return None
    named = {FLAG_NAMES.get(name, name): is_on for name, is_on in (flags or {}).items()}
    found = (base.flags | {name for name, is_on in named.items() if is_on}) - {
        name for name, is_on in named.items() if not is_on
    }
    if vendor not in {None, base.vendor}:
        base = replace(base, vendor=vendor, family=None, model=None)  # of that one no model is known
    told = replace(base, flags=frozenset(found))
    option = "--fact cpu-vendor=" if flags is None else "--fact cpu-flags="
    return Known(_as_told(asking, told), Standing.GIVEN, "given", option)


def _shown_features(features: CpuFeatures) -> str:
    model = "" if features.family is None or features.model is None else f" {features.family}/{features.model}"
    wide = ", addresses of 57 bits" if features.virtual_bits == 57 and "la57" not in features.flags else ""
    return f"{features.vendor}{model}: {' '.join(sorted(features.flags)) or 'none of those that matter'}{wide}"


def _same_cpu(ours: CpuFeatures, theirs: CpuFeatures) -> bool:
    """Compare vendor, flags and, where both are known, model and width of addresses.

    Which kernel shows the flags of FRED is a choice of that kernel; so is how many bits of a physical address it keeps
    for memory encryption.
    """
    numbers = [(one.family, one.model, one.virtual_bits) for one in (ours, theirs)]
    agree = all(one == other or None in (one, other) for one, other in zip(*numbers, strict=True))
    return agree and (ours.vendor, ours.flags - FRED_FLAGS) == (theirs.vendor, theirs.flags - FRED_FLAGS)


FEATURES = RunFact[CpuFeatures](
    "cpu-features",
    "what the resumer's CPU can do",
    (
        in_dump(lambda facts: facts.features),
        collected(lambda facts: facts.features),
        Source(_said_of_cpu, is_option=True),
        Source(_features_of_resumee),
    ),
    show=_shown_features,
    option="--fact cpu-flags=",
    same=_same_cpu,
    of_machine=True,
    detail=True,
)
