"""The engine: open, read facts, plan, replay, judge, and put it all into a report."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from hibercheck.errors import MalformedImage
from hibercheck.handoff.facts import ResumerFacts, read_facts
from hibercheck.handoff.findings import Report
from hibercheck.handoff.judge import judge
from hibercheck.handoff.judgement import Judgement
from hibercheck.handoff.kernels import open_resumee, open_resumer
from hibercheck.handoff.measured import check_identity, with_facts
from hibercheck.handoff.options import CheckOptions
from hibercheck.handoff.plan import Plan, make_plan
from hibercheck.handoff.refusal import Acceptance, judge_acceptance
from hibercheck.handoff.refusal_measured import firmware_map, judge_measured, judge_ram_end, physical_pages
from hibercheck.handoff.reporting import make_report
from hibercheck.handoff.resumee import read_resumee
from hibercheck.handoff.resumer import space_of
from hibercheck.kernel.code.traits import traits_on_demand
from hibercheck.kernel.view import KernelView
from hibercheck.swsusp.image import Image, open_image

if TYPE_CHECKING:
    from hibercheck.dump.dump import Dump


_COPY_AGAIN = "copy the image again from the swap device, the whole of it"


def check(image: str, resumer: str, resumee: str, options: CheckOptions) -> Report:
    """Predict what becomes of the machine.

    Args:
        image: Path of the image.
        resumer: Path or release of the kernel that loads it.
        resumee: Path or release of the kernel that wrote it.
        options: The scenario and further inputs.

    Raises:
        HibercheckError: An input cannot be read, or does not belong to the others.
    """
    if options.execute:
        from hibercheck.handoff.execution import require_emulator  # noqa: PLC0415 - only --execute needs it

        require_emulator()
    with open_inputs(image, resumer, resumee, options) as (plan, acceptance, dump):
        if acceptance.refusal is not None:
            return make_report(plan, acceptance, None)
        replayed, judgement = _replay(plan, dump)
        measured = _by_memory(replayed, acceptance, judgement)
        return make_report(replayed, measured, None if measured.refusal is not None else judgement)


def _by_memory(plan: Plan, acceptance: Acceptance, judgement: Judgement) -> Acceptance:
    """Let the resumer's own memory decide whether it takes the image for one of its machine."""
    if judgement.memory is None or not judgement.memory.resumer.exact:
        return acceptance
    space = space_of(judgement.memory.resumer)
    return judge_measured(acceptance, plan.image, plan.traits, firmware_map(space), physical_pages(space))


@contextmanager
def open_inputs(
    image: str, resumer: str, resumee: str, options: CheckOptions
) -> Iterator[tuple[Plan, Acceptance, Dump | None]]:
    """Open the inputs of a check and work out its scenario; they are closed with the context."""
    with ExitStack() as stack:
        opened = stack.enter_context(open_image(image, resume_offset=options.resume_offset))
        if options.verify:
            _verify(opened)
        ours = stack.enter_context(open_resumer(resumer, options.resumer_symbols))
        theirs = (
            ours
            if _same(resumer, resumee, options)
            else stack.enter_context(open_resumee(resumee, options.resumee_symbols))
        )
        found = read_resumee(opened, theirs)
        options, facts = _collected(ours, options)
        plan = make_plan(opened, ours, traits_on_demand(ours), found, options, facts)
        acceptance = judge_acceptance(opened, plan.traits, found, plan.cmdline)
        if facts is not None:
            acceptance = judge_measured(acceptance, opened, plan.traits, facts.e820, None)
            acceptance = judge_ram_end(acceptance, found, plan.cmdline, facts.ram_end)
        yield plan, acceptance, _dump(stack, options)


def _verify(image: Image) -> None:
    """See that the whole image is sound.

    Raises:
        MalformedImage: It is not; the message is of the first damage.
    """
    result = image.verify()
    if not result.ok:
        raise MalformedImage(result.problems[0].removeprefix(f"{image.path}: "), path=image.path, advice=_COPY_AGAIN)


def _collected(resumer: KernelView, options: CheckOptions) -> tuple[CheckOptions, ResumerFacts | None]:
    """Read the resumer's facts file, if there is one, and let it fill in the options."""
    if options.resumer_facts is None:
        return options, None
    facts = read_facts(options.resumer_facts)
    check_identity(facts, resumer)
    return with_facts(options, facts), facts


def _replay(plan: Plan, dump: Dump | None) -> tuple[Plan, Judgement]:
    """Replay the handoff as the resumer parks its CPUs, or as a design does (``--park``)."""
    if plan.options.park is None:
        return plan, judge(plan, dump)
    from hibercheck.handoff.designs.replay import replay_under  # noqa: PLC0415 - the designs are rarely wanted

    replayed = replay_under(plan, dump)
    return replayed.plan, replayed.judgement


def _same(resumer: str, resumee: str, options: CheckOptions) -> bool:
    return resumer == resumee and options.resumer_symbols == options.resumee_symbols


def _dump(stack: ExitStack, options: CheckOptions) -> Dump | None:
    if options.resumer_memory is None:
        return None
    from hibercheck.dump.dump import open_dump  # noqa: PLC0415 - dumps are rare and their readers slow to load

    return stack.enter_context(open_dump(options.resumer_memory, registers=options.resumer_registers))
