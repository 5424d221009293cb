"""What the resumer told of itself, put in the place of what is assumed; options that contradict it are refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hibercheck.addresses import START_KERNEL_MAP
from hibercheck.cpulist import format_cpu_list
from hibercheck.errors import Mismatch, UsageProblem
from hibercheck.handoff.bringup import Bringup
from hibercheck.handoff.cmdline import parse_command_line
from hibercheck.handoff.facts import ResumerFacts
from hibercheck.handoff.options import CheckOptions
from hibercheck.kernel.view import KernelView


def check_identity(facts: ResumerFacts, resumer: KernelView) -> None:
    """Refuse facts of another kernel.

    Raises:
        Mismatch: /proc/version is not the resumer's banner.
    """
    if facts.banner is not None and facts.banner.strip() != resumer.banner.strip():
        raise Mismatch(
            f"was collected on '{facts.banner.strip()}', not on '{resumer.banner.strip()}'",
            path=facts.path,
            advice="collect it on the resumer",
        )


def with_facts(options: CheckOptions, facts: ResumerFacts) -> CheckOptions:
    """Fill in the options that the facts decide.

    Raises:
        UsageProblem: An option says otherwise.
    """
    given, cmdline = options.resumer_cmdline, facts.command_line
    if given is not None and cmdline is not None:
        understood = [replace(parse_command_line(text), text="") for text in (given, cmdline)]
        _refuse(understood[0] != understood[1], "--resumer-cmdline", repr(given), repr(cmdline), facts)
    base, load = options.resumer_phys_base, facts.load_address
    if base is not None and load is not None:
        _refuse(base != load, "--resumer-phys-base", f"{base:#x}", f"{load:#x}", facts)
    return replace(
        options,
        resumer_cmdline=cmdline if cmdline is not None else given,
        resumer_phys_base=load if load is not None else base,
    )


def _refuse(contradicts: bool, option: str, given: str, measured: str, facts: ResumerFacts) -> None:
    if contradicts:
        raise UsageProblem(f"{option} says {given}, and {facts.path} {measured}", advice=f"leave {option} away")


def observe(facts: ResumerFacts, by_hand: frozenset[int], start: Callable[[frozenset[int]], Bringup]) -> Bringup:
    """Say which CPUs are online as the facts have it.

    Args:
        facts: The facts.
        by_hand: ``--resumer-offline``.
        start: Brings the CPUs up as the command line has it, with these taken offline by hand.

    Raises:
        UsageProblem: ``--resumer-offline`` says otherwise.
    """
    if facts.online is None:
        return start(by_hand)
    by_itself = start(frozenset())
    taken = by_itself.online - facts.online
    if by_itself.boot_cpu in taken:
        raise UsageProblem(f"has CPU {by_itself.boot_cpu}, which is the one that resumes, offline", path=facts.path)
    if by_hand:
        _refuse(
            by_hand != taken, "--resumer-offline", format_cpu_list(by_hand), format_cpu_list(taken) or "no CPU", facts
        )
    bringup = start(taken)
    brought = facts.online - bringup.online
    if not brought <= bringup.present:
        raise UsageProblem("has CPUs online that its own list of present CPUs lacks", path=facts.path)
    return replace(
        bringup,
        online=facts.online,
        booted=bringup.booted | brought,
        siblings_down=bringup.siblings_down - brought,
    )


def check_idle(option: str | None, measured: str | None, facts: ResumerFacts) -> None:
    """Refuse a ``--resumer-idle`` that is not what the resumer's driver does.

    Raises:
        UsageProblem: It is not.
    """
    if option is not None and measured is not None:
        _refuse(option != measured, "--resumer-idle", option, measured, facts)


def kaslr_offset(facts: ResumerFacts, resumer: KernelView) -> int | None:
    """Return the virtual KASLR offset, or None where the facts do not give it."""
    if facts.text_address is None:
        return facts.kernel_offset
    return facts.text_address - resumer.require("_text").address


def phys_base(facts: ResumerFacts, resumer: KernelView) -> int | None:
    """Return the physical displacement, or None where the facts do not give it."""
    if facts.load_address is None:
        return facts.phys_base
    return facts.load_address - (resumer.require("_text").address - START_KERNEL_MAP)
