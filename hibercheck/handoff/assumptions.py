"""What a check takes for granted, where each fact comes from, and which option changes it."""

from __future__ import annotations

from hibercheck.cpulist import format_cpu_list
from hibercheck.handoff.bringup import Bringup
from hibercheck.handoff.cmdline import CommandLine
from hibercheck.handoff.facts import ResumerFacts
from hibercheck.handoff.findings import Assumption
from hibercheck.handoff.options import CheckOptions
from hibercheck.handoff.resumee import Resumee
from hibercheck.swsusp.image import Image

COLLECTED = "collected on the resumer"


def scenario_assumptions(
    options: CheckOptions,
    resumee: Resumee,
    cmdline: CommandLine,
    idle: str | None,
    bringup: Bringup,
    facts: ResumerFacts | None,
) -> tuple[Assumption, ...]:
    """Say what is assumed of the resumer's command line, its CPUs and its cpuidle driver."""
    found = [
        Assumption(
            "the resumer's command line",
            cmdline.text or "(empty)",
            source_of(
                facts is not None and facts.command_line is not None,
                options.resumer_cmdline is not None,
                "the resumee's, out of the image",
            ),
            "--resumer-cmdline",
        ),
        Assumption(
            "the resumer's CPUs",
            format_cpu_list(bringup.present),
            source_of(
                facts is not None and facts.present is not None, False, "the resumee's present CPUs, out of the image"
            ),
            "--resumer-cmdline nr_cpus=",
        ),
        Assumption(
            "CPUs taken offline by hand in the resumer",
            format_cpu_list(bringup.by_hand) or "none",
            source_of(facts is not None and facts.online is not None, bool(options.resumer_offline), "default"),
            "--resumer-offline",
        ),
    ]
    if idle is not None:
        theirs = f"the resumee's driver ({resumee.idle.name or 'none'})" if resumee.idle else "command line"
        source = source_of(facts is not None and facts.idle is not None, bool(options.resumer_idle), theirs)
        found.append(Assumption("how the resumer's cpuidle driver parks a dead CPU", idle, source, "--resumer-idle"))
    return tuple(found)


def image_assumption(image: Image, *, verified: bool) -> Assumption:
    """Say why the image is taken to be undamaged: a check reads the pages that it asks for, and no others.

    The resumer compares the checksum, where there is one, and refuses an image that fails it: `Image.crc32`.
    """
    if image.crc32 is None:
        return Assumption("the image's data", "as they were written", "it has no checksum to tell")
    if verified:
        return Assumption("the image's data", "undamaged", "its checksum is right")
    return Assumption("the image's data", "undamaged", "its checksum was not compared", "--verify")


def source_of(collected: bool, given: bool, otherwise: str) -> str:
    """Say where a fact comes from: the resumer itself, an option, or what stands in for both."""
    return COLLECTED if collected else "given" if given else otherwise
