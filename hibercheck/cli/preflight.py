"""``hibercheck preflight``: may this machine hibernate now."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from hibercheck.cli.options import GroupedCommand, general_options
from hibercheck.cli.shared import shared

if TYPE_CHECKING:
    from pathlib import Path

    from hibercheck.handoff.facts.resumer_facts import ResumerFacts
    from hibercheck.handoff.preflight.answers import Preflight
    from hibercheck.handoff.preflight.run import Asked
    from hibercheck.kernel.cache import KernelCache

MAX_COLLECTED = 64 << 20

EPILOG = """\b
Examples:
  hibercheck preflight                      as root, before systemctl hibernate
  hibercheck preflight --root /mnt --cpus 8 --format json

Exit status, by the entry that is started by default: 0 fine, 1 the image would
not be found, would be refused, or the machine reset; 2 usage, 3 bad input,
4 undetermined."""


@click.command(cls=GroupedCommand, epilog=EPILOG)
@shared("--root", "--resumee", "--resumer-cmdline-add", "--resumer-idle", "--fact")
@shared("--spurious-mwait", "--suppose", "--image-share")
@shared("--cpus", "--threads", "--vendor", "--mwait", "--la57", "--memory")
@shared("--format", "--output", "--quiet", "--width", "--fail-on", "--strict", "--cache-dir", "--no-cache")
@general_options
def command(**given: Any) -> int:
    """Say of each boot entry whether it would resume what hibernated now.

    Would it find the image, would its kernel load it, would the machine survive?  No image exists yet: of its contents
    only the running kernel's own text, tables and data are certain; the rest is chance.  With --root it judges a
    mounted system; --cpus and the like describe its machine.  It writes nothing but its cache.
    """
    from pathlib import Path

    from hibercheck.cli.output import opened_outputs, prepare_standard_streams
    from hibercheck.cli.stored import cache_of, directory_of
    from hibercheck.cli.waiting import waiting
    from hibercheck.data import replace
    from hibercheck.handoff.preflight.run import preflight
    from hibercheck.report.preflight import status

    prepare_standard_streams()
    root = Path(given["root"] or "/").absolute()
    cache = cache_of(given)
    facts, notes = _facts(root)
    with opened_outputs([given["output"]], [given["resumee"]], cache=directory_of(cache)) as opened:
        with waiting("reading the boot entries and their kernels", wanted=not given["quiet"]):
            shown = preflight(replace(_asked(given, root, facts, cache), notes=notes))
        opened.write(given["output"], [_render(shown, given)])
    return int(status(shown, given["fail_on"], strict=given["strict"]))


def _facts(root: Path) -> tuple[ResumerFacts | None, tuple[str, ...]]:
    """Collect what the running kernel tells, and why its memory does not; nothing where nothing runs."""
    import json
    from pathlib import Path

    from hibercheck.cli import collect
    from hibercheck.handoff.facts.resumer_facts import parse_facts
    from hibercheck.host.location import is_running

    if not is_running(root):
        return None, ()
    place = "" if root == Path("/") else str(root)
    if place:
        _require_plausible(root)
    script = Path(collect.__file__).with_name("collect.sh").read_text(encoding="utf-8")
    text = collect.run_script(script, place)
    facts = parse_facts(text, "the running kernel")
    more, problem = collect.from_kcore(place, facts.present or frozenset())
    notes = (f"the running kernel's memory was not read: {problem}",) if problem else ()
    return parse_facts(json.dumps(json.loads(text, strict=False) | more), "the running kernel"), notes


def _require_plausible(root: Path) -> None:
    """See that a shell can read what a system's proc has: files of procfs have no size, copies of them a small one.

    Raises:
        InputProblem: One is too large.
    """
    from hibercheck.cli.collect import COLLECTED
    from hibercheck.errors import InputProblem
    from hibercheck.host.tree import opened

    for name in COLLECTED:
        descriptor = opened(root / name, root)
        if descriptor is None:
            continue
        size = os.fstat(descriptor).st_size
        os.close(descriptor)
        if size > MAX_COLLECTED:
            raise InputProblem(
                f"is larger than {MAX_COLLECTED >> 20} MiB: no kernel shows so much", path=str(root / name)
            )


def _asked(given: dict[str, Any], root: Path, facts: ResumerFacts | None, cache: KernelCache | None) -> Asked:
    from hibercheck.handoff.matrix.scenario import Machine
    from hibercheck.handoff.preflight.run import Asked
    from hibercheck.handoff.scenario.options import CheckOptions

    machine = Machine(
        given["cpus"], int(given["threads"]), given["vendor"], given["mwait"], given["la57"], given["memory"]
    )
    options = CheckOptions(
        resumer_cmdline_add=given["resumer_cmdline_add"],
        resumer_idle=given["resumer_idle"],
        spurious_mwait=given["spurious_mwait"],
        suppose=frozenset(given["suppose"]),
        facts=tuple(given["facts"]),
    )
    return Asked(root, facts, given["resumee"], machine, options, given["image_share"], cache)


def _render(shown: Preflight, given: dict[str, Any]) -> str:
    from hibercheck.report import preflight

    if given["form"] == "json":
        return preflight.render(shown)
    from hibercheck.cli.output import as_text
    from hibercheck.report import preflight_text

    return as_text(
        lambda console: preflight_text.render(shown, console, brief=given["quiet"]),
        color=given["color"],
        width=given["width"],
        path=given["output"],
    )
