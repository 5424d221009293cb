"""The engine: open, read facts, plan, replay, judge, and put it all into a report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from hibercheck.data import replace
from hibercheck.errors import MalformedImage
from hibercheck.handoff.acceptance.alternatives import acceptance_alternatives
from hibercheck.handoff.acceptance.refusal import Acceptance, judge_acceptance
from hibercheck.handoff.facts.kernels import open_resumee, open_resumer
from hibercheck.handoff.facts.resumee import Resumee, read_resumee
from hibercheck.handoff.replay.judge import judge
from hibercheck.handoff.replay.judgement import Judgement
from hibercheck.handoff.scenario.measured import check_boot, check_dump, check_facts
from hibercheck.handoff.scenario.options import CheckOptions
from hibercheck.handoff.scenario.plan import DEFAULT_PHYS_BITS, Plan, make_plan
from hibercheck.handoff.scenario.sources import InDump, Inputs
from hibercheck.handoff.verdict.conditions import Decided, Varied, vary
from hibercheck.handoff.verdict.decide import decide
from hibercheck.handoff.verdict.findings import Outcome, Report, Verdict
from hibercheck.handoff.verdict.reporting import make_report
from hibercheck.kernel.code.traits import traits_on_demand
from hibercheck.kernel.kernel import Kernel
from hibercheck.kernel.view import KernelView
from hibercheck.swsusp.image import Image, open_image

if TYPE_CHECKING:
    from hibercheck.dump.dump import Dump
    from hibercheck.handoff.facts.logged import LogFacts
    from hibercheck.handoff.facts.resumer_facts import ResumerFacts
    from hibercheck.kernel.cache import KernelCache


_COPY_AGAIN = "copy the image again from the swap device, the whole of it"


def check(
    image: str,
    resumer: Kernel | str,
    resumee: Kernel | str | None,
    options: CheckOptions,
    cache: KernelCache | None = None,
) -> Report:
    """Predict what becomes of the machine.

    Args:
        image: Path of the image.
        resumer: Path or release of the kernel that loads it, or that kernel, which stays open.
        resumee: The same of the kernel that wrote it; None to read it out of the image.
        options: The scenario and further inputs.
        cache: Where answers of kernels are kept that are given by path; None to keep none.

    Raises:
        HibercheckError: An input cannot be read, or does not belong to the others.
    """
    if options.execute:
        from hibercheck.handoff.replay.execution import require_emulator  # noqa: PLC0415 - only --execute needs it

        require_emulator()
    with open_inputs(image, resumer, resumee, options, cache) as (plan, acceptance, dump):
        replayed, judgement = _judged(plan, acceptance, dump)
        report = make_report(replayed, acceptance, judgement)
        found = conditions(plan, dump, (report.outcome, report.verdict))
        return replace(report, conditions=found.conditions, warnings=(*report.warnings, *found.warnings))


def conditions(
    plan: Plan,
    dump: Dump | None,
    decided: tuple[Outcome, Verdict],
    replay: Callable[[Plan], Judgement] | None = None,
) -> Varied:
    """Judge what could be otherwise of a scenario, on the same inputs.

    Args:
        plan: The scenario.
        dump: A dump of the resumer, or None.
        decided: What the scenario comes to.
        replay: Replays a scenario whose image is loaded; by default as the check itself does.
    """

    def judge_with(options: CheckOptions) -> Decided:
        other = make_plan(plan.inputs, options)
        loads = judge_acceptance(other)
        if replay is None:
            _, judgement = _judged(other, loads, dump)
        else:
            judgement = None if loads.refusal is not None else replay(other)
        return Decided(other, *decide(loads, judgement))

    return vary(Decided(plan, *decided), judge_with, acceptance_alternatives)


def _judged(plan: Plan, acceptance: Acceptance, dump: Dump | None) -> tuple[Plan, Judgement | None]:
    """Replay the handoff, unless the image is refused."""
    return (plan, None) if acceptance.refusal is not None else _replay(plan, dump)


@contextmanager
def open_inputs(
    image: str,
    resumer: Kernel | str,
    resumee: Kernel | str | None,
    options: CheckOptions,
    cache: KernelCache | None = None,
) -> Iterator[tuple[Plan, Acceptance, Dump | None]]:
    """Open the inputs of a check and work out its scenario; they are closed with the context."""
    with ExitStack() as stack:
        opened = stack.enter_context(open_image(image, resume_offset=options.resume_offset, resume=options.resume))
        if options.verify:
            _verify(opened)
        ours = resumer
        if isinstance(ours, str):
            ours = stack.enter_context(open_resumer(ours, options.resumer_symbols, cache))
        theirs = ours if _same(resumer, resumee, options) else resumee
        found = _resumee(stack, opened, theirs, options, cache)
        collected, dump = _collected(ours, options), _dump(stack, options)
        dumped = None if dump is None else _in_dump(dump, ours, opened, found)
        inputs = Inputs(
            opened, ours, traits_on_demand(ours), found, collected, dumped, _logged(ours, options), _attached(options)
        )
        if collected is not None:
            check_boot(collected, ours, found)
        if dumped is not None and not inputs.supposed(options):
            check_dump(dumped, opened, found)
        plan = make_plan(inputs, options)
        yield plan, judge_acceptance(plan), dump


def _verify(image: Image) -> None:
    """See that the whole image is sound.

    Raises:
        MalformedImage: It is not; the message is of the first damage.
    """
    result = image.verify()
    if not result.ok:
        raise MalformedImage(result.problems[0].removeprefix(f"{image.path}: "), path=image.path, advice=_COPY_AGAIN)


def _collected(resumer: KernelView, options: CheckOptions) -> ResumerFacts | None:
    """Read the resumer's facts file, if there is one."""
    if options.resumer_facts is None:
        return None
    from hibercheck.handoff.facts.resumer_facts import read_facts  # noqa: PLC0415 - few checks are given one

    facts = read_facts(options.resumer_facts)
    check_facts(facts, resumer)
    return facts


def _logged(resumer: KernelView, options: CheckOptions) -> LogFacts | None:
    """Read the log of the resumer's boot, if there is one."""
    if options.resumer_log is None:
        return None
    from hibercheck.handoff.facts.logged import read_log_facts  # noqa: PLC0415 - likewise

    facts = read_log_facts(options.resumer_log)
    check_facts(facts, resumer)
    return facts


def _attached(options: CheckOptions) -> str | None:
    """Return the bootconfig of the resumer's initramfs, if that was given."""
    if options.resumer_initramfs is None:
        return None
    from hibercheck.host.bootconfig import of_file  # noqa: PLC0415 - few checks are given one

    return of_file(options.resumer_initramfs)


def _in_dump(dump: Dump, resumer: KernelView, image: Image, resumee: Resumee) -> InDump:
    """Find the resumer in a dump, and read what its memory says of its run."""
    from hibercheck.handoff.facts.pending import PendingCopies  # noqa: PLC0415 - as in _dump()
    from hibercheck.handoff.facts.running import read_running  # noqa: PLC0415
    from hibercheck.handoff.memory.exact import open_resumer as find_resumer  # noqa: PLC0415

    bits = (resumee.features.physical_bits if resumee.features else None) or DEFAULT_PHYS_BITS
    space = find_resumer(dump, resumer, dump.path, bits).space
    return InDump(dump.path, space, read_running(space), PendingCopies(space, len(image.pfns)), dump.machine_cpus)


def _replay(plan: Plan, dump: Dump | None) -> tuple[Plan, Judgement]:
    """Replay the handoff as the resumer parks its CPUs, or as a design does (``--park``)."""
    if plan.options.park is None and not any(parked.in_place for parked in plan.parked):
        return plan, judge(plan, dump)
    if plan.options.park is None:
        from hibercheck.handoff.designs.own import judge_own  # noqa: PLC0415 - no released kernel has such a place

        return plan, judge_own(plan, dump)
    from hibercheck.handoff.designs.replay import replay_under  # noqa: PLC0415 - the designs are rarely wanted

    replayed = replay_under(plan, dump)
    return replayed.plan, replayed.judgement


def _resumee(
    stack: ExitStack, image: Image, named: Kernel | str | None, options: CheckOptions, cache: KernelCache | None
) -> Resumee:
    """Read the resumee with the kernel that was named, or with the one that is in the image."""
    if named is None:
        from hibercheck.handoff.facts.embedded import find_resumee  # noqa: PLC0415 - where no kernel file was given

        found = find_resumee(image, options.resumee_symbols)
        return replace(read_resumee(image, stack.enter_context(found.kernel)), remarks=found.remarks)
    if isinstance(named, str):
        named = stack.enter_context(open_resumee(named, options.resumee_symbols, cache))
    return read_resumee(image, named)


def _same(resumer: Kernel | str, resumee: Kernel | str | None, options: CheckOptions) -> bool:
    return resumer == resumee and options.resumer_symbols == options.resumee_symbols


def _dump(stack: ExitStack, options: CheckOptions) -> Dump | None:
    if options.resumer_memory is None:
        return None
    from hibercheck.dump.dump import open_dump  # noqa: PLC0415 - dumps are rare and their readers slow to load

    return stack.enter_context(open_dump(options.resumer_memory, registers=options.resumer_registers))
