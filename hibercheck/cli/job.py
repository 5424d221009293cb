"""The main job, however its command line was read: `hibercheck.cli.check` declares it, `hibercheck.cli.plain` knows it.

Nothing here needs click, with which a check takes a sixth more.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hibercheck.cli.terminal import say
from hibercheck.data import dataclass

if TYPE_CHECKING:
    from hibercheck.files.outputs import Outputs
    from hibercheck.handoff.scenario.options import CheckOptions
    from hibercheck.handoff.verdict.findings import Report
    from hibercheck.report.gate import Judged

FORMATS = ("text", "json", "sarif", "junit", "ktap", "github", "gitlab", "markdown", "html")


@dataclass(frozen=True, slots=True)
class Output:
    """One wanted output: a format, and the file it goes to (None: standard output)."""

    format: str
    path: str | None = None


def predict(given: dict[str, Any]) -> int:
    """Predict what becomes of the machine, write it, and return the exit status.

    Args:
        given: The parameters of ``check``, by name.
    """
    from hibercheck.cli.output import opened_outputs, prepare_standard_streams
    from hibercheck.cli.resumer import resolve
    from hibercheck.cli.stored import cache_of, directory_of
    from hibercheck.cli.waiting import waiting
    from hibercheck.handoff.api import check

    prepare_standard_streams()
    resolve(given)
    cache = cache_of(given)
    outputs = resolve_outputs(given["outputs"], given["output"])
    kept = [] if given["write_baseline"] is None else [given["write_baseline"]]
    with opened_outputs(
        [*(output.path for output in outputs), *kept], named_inputs(given), cache=directory_of(cache)
    ) as opened:
        with waiting("reading the image and both kernels, and replaying the handoff", wanted=not given["quiet"]):
            options = check_options(given)
            report = check(given["image"], given["resumer"], given["resumee"], options=options, cache=cache)
        judged = decide(report, given)
        if given["write_baseline"] is not None:
            from hibercheck.report import baseline

            opened.write(given["write_baseline"], [baseline.write(report)])
        emit(judged, outputs, given, opened)
        warn(judged, outputs, given)
    return int(judged.exit_status)


INPUT_FILES = frozenset(
    {
        *("image", "resumer", "resumee", "resumer_memory", "resumer_registers", "resumer_facts"),
        *("resumer_log", "resumer_initramfs", "resumer_symbols", "resumee_symbols", "baseline"),
    }
)


def named_inputs(given: dict[str, Any]) -> list[str | None]:
    """Return the files that the parameters name to be read."""
    return [*(given[name] for name in given if name in INPUT_FILES), *given.get("suppressions", ())]


def decide(report: Report, given: dict[str, Any]) -> Judged:
    """Apply suppressions, baseline and threshold to a report; what goes into a new baseline is known to it."""
    from hibercheck.report.gate import Mark, judge

    marks: tuple[Mark | None, ...] = (None,) * len(report.findings)
    spared: tuple[Mark | None, ...] = (None,) * len(report.conditions)
    warnings: tuple[str, ...] = ()
    if given["suppressions"]:
        import datetime

        from hibercheck.report import suppressions

        entries = [entry for path in given["suppressions"] for entry in suppressions.load(path)]
        applied = suppressions.apply(report, entries, datetime.datetime.now(tz=datetime.UTC).date())
        marks, spared, warnings = applied.marks, applied.condition_marks, applied.warnings
    if given["baseline"] is not None or given["write_baseline"] is not None:
        from hibercheck.report import baseline
    if given["baseline"] is not None:
        known = baseline.load(given["baseline"])
        marks, more = baseline.apply(report, known, marks, given["baseline"])
        spared = baseline.apply_to_conditions(report, known, spared, given["baseline"])
        warnings += more
    if given["write_baseline"] is not None:
        own = baseline.of_report(report)
        marks, _ = baseline.apply(report, own, marks, given["write_baseline"])
        spared = baseline.apply_to_conditions(report, own, spared, given["write_baseline"])
    return judge(
        report,
        fail_on=given["fail_on"],
        marks=marks,
        warnings=warnings,
        strict=given["strict"],
        condition_marks=spared,
    )


def check_options(given: dict[str, Any]) -> CheckOptions:
    """Build the engine's options from the command's parameters of the same names."""
    from hibercheck.handoff.scenario.options import CheckOptions

    # not dataclasses.fields(): from Python 3.13 on it loads inspect, which loads ast, dis and tokenize
    values = {name: given[name] for name in CheckOptions.__match_args__ if name in given}
    for name in ("resumer_offline", "resumee_online", "resumee_offline"):
        values[name] = values[name] or frozenset()
    values["facts"] = tuple(values["facts"])
    values["suppose"] = frozenset(values["suppose"])
    return CheckOptions(**values)


def resolve_outputs(outputs: Sequence[Output], path: str | None) -> tuple[Output, ...]:
    """Say where each wanted format goes; files come first and standard output last.

    Raises:
        click.UsageError: Two formats want standard output (or the file of ``-o``), or ``-o`` has none left.
    """
    wanted = tuple(outputs) or (Output("text"),)
    loose = [output for output in wanted if output.path is None]
    wrong = None
    if len(loose) > 1:
        wrong = f"{loose[0].format} and {loose[1].format} both go to one place; write FORMAT=FILE"
    elif path is not None and not loose:
        wrong = "-o has nothing to write: every format has a file of its own"
    if wrong is not None:
        from click import UsageError

        raise UsageError(wrong)
    placed = [Output(output.format, output.path or path) for output in wanted]
    return tuple(sorted(placed, key=lambda output: output.path is None))


def emit(judged: Judged, outputs: Sequence[Output], given: dict[str, Any], opened: Outputs) -> None:
    """Write every output."""
    for output in outputs:
        opened.write(output.path, [render(judged, output, given)])


def warn(judged: Judged, outputs: Sequence[Output], given: dict[str, Any]) -> None:
    """Say every warning on standard error too, unless the text at the terminal has just said it."""
    shown = any(output.format == "text" and output.path is None for output in outputs) and not given["quiet"]
    if shown and sys.stdout.isatty():
        return
    from hibercheck.report.sanitise import one_line

    for warning in (*judged.report.warnings, *judged.warnings):
        say(f"hibercheck: warning: {one_line(warning)}")


def render(judged: Judged, output: Output, given: dict[str, Any]) -> str:
    """Render one output as text for where it goes."""
    from hibercheck.report import formats

    if output.format == "github":
        from hibercheck.report import github

        return github.render(judged, notes=given["verbose"])
    if output.format != formats.TEXT:
        return formats.renderer(output.format)(judged)
    if given["quiet"] and not given["verbose"] and given["width"] is None:
        from hibercheck.cli.output import first_line
        from hibercheck.report.text_parts import STYLES
        from hibercheck.report.words import headline

        told, why = headline(judged.report)
        return first_line(told, why, STYLES[judged.report.verdict], color=given["color"], path=output.path)
    from hibercheck.cli.output import drawn, given_words, plain_or_console
    from hibercheck.report import text

    detail = text.Detail.choose(quiet=given["quiet"], verbose=given["verbose"])
    console = plain_or_console(output.path, color=given["color"], width=given["width"])
    return drawn(console, lambda to: text.render(judged, to, detail, given=given_words()))
