"""What is known of where the resumer is loaded and how it pages, each with its sources."""

from __future__ import annotations

from hibercheck.addresses import LOAD_ALIGNMENT, PAGE_SHIFT, START_KERNEL_MAP
from hibercheck.errors import MissingFact, UsageProblem
from hibercheck.handoff.facts.cpufacts import FRED_FLAGS
from hibercheck.handoff.facts.e820 import ram_runs
from hibercheck.handoff.facts.standing import Known, Standing
from hibercheck.handoff.scenario.known_loading import MEMORY_MAP
from hibercheck.handoff.scenario.known_machine import BY_COMMAND_LINE, COMMAND_LINE, FEATURES
from hibercheck.handoff.scenario.measured import kaslr_offset, phys_base
from hibercheck.handoff.scenario.sources import COLLECTED, DUMP, Asking, RunFact, Source, collected, derived, given
from hibercheck.kernel import ikconfig
from hibercheck.numbers import either

_LA57_BITS = 57


def linked_at(asking: Asking) -> int:
    """Return where the resumer's text would lie with a physical displacement of 0."""
    return asking.inputs.resumer.require("_text").address - START_KERNEL_MAP


def _fixed(asking: Asking) -> bool:
    """Tell whether neither of the resumer's places is random.

    Raises:
        MissingFact: Whether its load address is random cannot be read.
    """
    random, log = asking.inputs.traits.randomize_base, asking.inputs.logged
    if log is not None and log.kaslr_off and not asking.supposed:
        return True
    if not asking.need(COMMAND_LINE).value.kaslr or random.value is False:
        return True
    if random.value is None:
        raise MissingFact(
            f"whether the resumer's load address is random cannot be read: {random.reason}",
            path=asking.inputs.resumer.path,
            advice="say nokaslr in --resumer-cmdline if it is not",
        )
    return False


def _address_in_dump(asking: Asking) -> Known[int | None] | None:
    dumped = asking.inputs.dumped
    return None if dumped is None else Known(linked_at(asking) + dumped.space.phys_base, Standing.MEASURED, DUMP)


def _address_in_facts(asking: Asking) -> Known[int | None] | None:
    facts = asking.inputs.collected
    found = None if facts is None else phys_base(facts, asking.inputs.resumer)
    if found is None:
        return None
    _remark_place(asking, linked_at(asking) + found)
    return Known(linked_at(asking) + found, Standing.MEASURED, COLLECTED)


def _remark_place(asking: Asking, address: int) -> None:
    """Say that a kernel without KASLR was collected at an address at which nothing explains it."""
    resumee = asking.inputs.resumee
    explained = (linked_at(asking), resumee_address(asking))
    if asking.need(COMMAND_LINE).value.kaslr or address in explained:
        return
    if not resumee.booted_by_efi and not resumee.booted_by_kexec:
        asking.remark(
            f"the resumer was collected at {address:#x}, though it has nokaslr on its command line: it lies at "
            f"{explained[0]:#x} then, unless its boot loader or kexec puts it elsewhere; collect it on the boot that "
            "resumes"
        )


def resumee_address(asking: Asking) -> int | None:
    """Return where the resumee lies, if it had ``nokaslr``: a boot loader, a firmware or kexec put it there."""
    resumee = asking.inputs.resumee
    if resumee.command_line is None or resumee.parameters.kaslr:
        return None
    return resumee.kernel.require("_text").address - START_KERNEL_MAP + resumee.space.phys_base


def _given_address(asking: Asking) -> int | None:
    """Return the address that was given, if the machine has room for the kernel there.

    Raises:
        UsageProblem: It has not.
    """
    address, machine = asking.options.resumer_phys_base, asking.known(MEMORY_MAP)
    if address is None or machine is None:
        return address
    text, end = asking.inputs.resumer.require("_text").address, asking.inputs.resumer.symbol("_end")
    last = address + max(0 if end is None else end.address - text - 1, 0)
    if not any(
        first <= address >> PAGE_SHIFT and last >> PAGE_SHIFT < stop for first, stop in ram_runs(machine.value.entries)
    ):
        raise UsageProblem(
            f"--resumer-phys-base puts the resumer at {address:#x}-{last:#x}, where not all is RAM "
            f"(memory map: {machine.source})",
            advice="`hibercheck image --map` lists what the machine has",
        )
    return address


def _address_by_command_line(asking: Asking) -> Known[int | None]:
    if _fixed(asking):
        theirs = resumee_address(asking)
        if theirs is None:
            return Known(linked_at(asking), Standing.USUAL, "fixed: no KASLR")
        moved = asking.inputs.resumee.space.phys_base
        if not moved:
            return Known(linked_at(asking), Standing.INFERRED, "fixed: no KASLR, as the resumee is")
        return Known(theirs, Standing.INFERRED, "where the resumee lies, which had no KASLR either")
    return Known(None, asking.need(COMMAND_LINE).standing, "no nokaslr on its command line")


LOAD_ADDRESS = RunFact[int | None](
    "load-address",
    "the resumer's load address",
    (
        Source(_address_in_dump),
        Source(_address_in_facts),
        given("--resumer-phys-base", _given_address),
        Source(_address_by_command_line),
    ),
    show=lambda address: "random" if address is None else f"{address:#x}",
    option="--resumer-phys-base",
)


def _offset_in_dump(asking: Asking) -> Known[int | None] | None:
    dumped = asking.inputs.dumped
    return None if dumped is None else Known(dumped.space.kaslr_offset, Standing.MEASURED, DUMP)


def _offset_in_facts(asking: Asking) -> Known[int | None] | None:
    facts = asking.inputs.collected
    found = None if facts is None else kaslr_offset(facts, asking.inputs.resumer)
    return None if found is None else Known(found, Standing.MEASURED, COLLECTED)


def _offset_by_command_line(asking: Asking) -> Known[int | None] | None:
    standing = asking.need(COMMAND_LINE).standing
    if _fixed(asking):
        measured = _offset_in_dump(asking) or _offset_in_facts(asking)
        if asking.supposed and measured is not None and measured.value:  # of another run only the line is obeyed
            asking.remark(
                f"nokaslr is not obeyed: the resumer is judged where it was measured ({measured.source}), with its "
                f"virtual addresses moved by {measured.value:#x}"
            )
            return None
        return Known(0, standing, "no KASLR")
    return Known(None, standing, "no nokaslr on its command line")


KASLR_OFFSET = RunFact[int | None](
    "kaslr-offset",
    "how far KASLR moves the resumer's virtual addresses",
    (Source(_offset_in_dump), Source(_offset_in_facts), Source(_offset_by_command_line)),
    show=lambda offset: "random" if offset is None else f"{offset:#x}",
    option="--resumer-cmdline",
    detail=True,
)


def _alignment_in_kernel(asking: Asking) -> Known[int] | None:
    if asking.inputs.dumped is not None:  # which shows where it lies
        return None
    found = asking.inputs.traits.physical_align
    if found.value is None or not sensible_alignment(found.value):
        return None
    return Known(found.value, Standing.READ, found.evidence[0].symbol if found.evidence else "its file")


def _alignment_beside(asking: Asking) -> Known[int] | None:
    """Read it in the configuration that lies beside the kernel."""
    kernel = asking.inputs.resumer
    found = None if asking.inputs.dumped is not None else ikconfig.beside(kernel.path, kernel.release)
    try:
        value = either(found[1]["CONFIG_PHYSICAL_ALIGN"]) if found is not None else 0
    except (KeyError, ValueError):
        return None
    return Known(value, Standing.READ, found[0]) if found is not None and sensible_alignment(value) else None


def _usual_alignment(asking: Asking) -> Known[int] | None:
    if asking.inputs.dumped is not None:
        return None
    return Known(LOAD_ALIGNMENT, Standing.USUAL, "the least on x86-64, which most kernels have")


def sensible_alignment(value: int) -> bool:
    """Whether CONFIG_PHYSICAL_ALIGN can be that: a power of two from 2 to 16 MiB (arch/x86/Kconfig)."""
    return LOAD_ALIGNMENT <= value <= LARGEST_ALIGNMENT and not value & value - 1


LARGEST_ALIGNMENT = 0x1000000

ALIGNMENT = RunFact[int](
    "load-alignment",
    "what the resumer's load address is a multiple of",
    (
        Source(_alignment_in_kernel),
        Source(_alignment_beside),
        given("--fact load-align=", lambda asking: asking.given.get("load-align")),
        Source(_usual_alignment),
    ),
    show=lambda size: f"{size >> 20} MiB",
    option="--fact load-align=",
    detail=True,
    lazy=True,
)
"""CONFIG_PHYSICAL_ALIGN, in bytes; it matters only where the load address is random."""


def _levels_in_dump(asking: Asking) -> Known[int] | None:
    dumped = asking.inputs.dumped
    return None if dumped is None else Known(dumped.space.mode.levels, Standing.MEASURED, DUMP)


def _levels_by_code(asking: Asking) -> Known[int] | None:
    """Decide by the command line, the code, and whether the CPU can use five levels."""
    line, la57 = asking.need(COMMAND_LINE), asking.inputs.traits.la57
    if not line.value.la57:
        return Known(4, line.standing, BY_COMMAND_LINE)
    if la57.value is False:
        return Known(4, Standing.READ, "its code")
    capable = _capable_of_la57(asking)
    if capable is None:
        return None
    if not capable.value:
        return Known(4, capable.standing, capable.source)
    return None if la57.value is None else Known(5, derived(line, capable), capable.source)


def _capable_of_la57(asking: Asking) -> Known[bool] | None:
    inputs, features = asking.inputs, asking.known(FEATURES)
    resumee = inputs.resumee
    theirs = "the resumee's CPU, out of the image"
    if features is not None and not features.standing.is_open:
        return Known("la57" in features.value.flags, features.standing, features.source)
    if resumee.levels == 5:
        return Known(True, Standing.INFERRED, theirs)
    if features is not None and features.value.virtual_bits is not None:
        return Known(features.value.virtual_bits == _LA57_BITS, features.standing, features.source)
    would_use = resumee.kernel.symbol("level4_kernel_pgt") is not None  # CONFIG_X86_5LEVEL
    if would_use and resumee.command_line is not None and resumee.parameters.la57:
        return Known(False, Standing.INFERRED, "the resumee would have had five")
    return None


LEVELS = RunFact[int](
    "paging-levels",
    "the resumer's levels of page tables",
    (
        Source(_levels_in_dump),
        collected(lambda facts: facts.levels, of_run=True),
        Source(_levels_by_code),
    ),
    show=str,
    option="--resumer-cmdline",
    detail=True,
)


def _fred(asking: Asking) -> Known[bool] | None:
    """Decide by the code, by what the CPU can do, and by the command line; None where the code was not read."""
    traits, features = asking.inputs.traits, asking.known(FEATURES)
    if features is not None and not features.value.flags & FRED_FLAGS:
        return Known(False, features.standing, features.source)
    if traits.fred.value is False:
        return Known(False, Standing.READ, "its code")
    if features is None:
        return None
    if features.standing is Standing.MEASURED:  # its own kernel's word, which hides the flag where it is not used
        return Known("fred" in features.value.flags, features.standing, features.source)
    line, default = asking.need(COMMAND_LINE), traits.fred_default.value
    if traits.fred.value is None or default is None:
        return None
    uses = line.value.fred != "off" if default else line.value.fred == "on"
    return Known(uses, derived(line, features), features.source)


FRED = RunFact[bool](
    "fred",
    "whether the resumer takes exceptions by FRED",
    (Source(_fred),),
    show=lambda uses: "yes: measured on no machine so far" if uses else None,
    option="--fact cpu-flags=",
    detail=True,
)


def takes_fred(known: Known[bool] | None, flags: frozenset[str]) -> bool:
    """Whether events are delivered by FRED, or may be: what the kernel does was then not read, nor where it leads."""
    return known.value if known is not None else bool(flags & FRED_FLAGS)
