"""Many pairs of kernels as a gate has them: each a case that passes, fails or is not decided, in the formats of CI."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hibercheck.data import dataclass, replace
from hibercheck.errors import UsageProblem
from hibercheck.files.text import read_whole
from hibercheck.handoff.diff import Difference
from hibercheck.handoff.matrix.pair import Cell
from hibercheck.handoff.matrix.table import Matrix
from hibercheck.handoff.verdict.findings import HARM, Verdict
from hibercheck.numbers import is_version
from hibercheck.report import github, junit, ktap, sarif, words
from hibercheck.report.cases import Case, Status
from hibercheck.report.fingerprint import name_fingerprint
from hibercheck.report.gate import Exit
from hibercheck.report.markdown import cell as in_cell
from hibercheck.report.matrix import exit_status, labels, worst_status
from hibercheck.report.sanitise import one_line

FORMATS = ("junit", "ktap", "github", "markdown", "sarif", "gitlab")
SHOWN = 50
"""Pairs that a summary for people lists."""
MOST_RESULTS = 5000
"""Pairs that SARIF and GitLab's format list: GitHub takes 5,000 of a run and shows as many."""
_STATUS = {Exit.PASSED: Status.PASSED, Exit.FAILED: Status.FAILED, Exit.UNDETERMINED: Status.ERROR}
_EXIT = {Status.FAILED: Exit.FAILED, Status.ERROR: Exit.UNDETERMINED}
_FAILING = frozenset(_EXIT)

BASELINE_VERSION = 1
MAX_BASELINE = 1 << 28


@dataclass(frozen=True, slots=True)
class PairCase:
    """One pair in one scenario.

    Attributes:
        case: Its name, how it ends, and why.
        path: The resumer's file.
        verdict: The verdict that counts: with ``--strict`` that of the worst condition.
        warnings: What is told of how it was judged, such as alternatives that were not.
    """

    case: Case
    path: str
    verdict: Verdict
    warnings: tuple[str, ...] = ()


def of_matrix(matrix: Matrix, fail_on: str, *, refused_fails: bool, strict: bool) -> tuple[PairCase, ...]:
    """Return each pair as a case."""
    names = labels(matrix)
    return tuple(
        _case(
            f"{matrix.scenarios[scenario]}: {names[resumer]} resumes {names[resumee]}",
            matrix.members[resumer].path,
            cell,
            exit_status(cell.strict if strict else cell.verdict, fail_on, refused_fails=refused_fails),
            strict=strict,
        )
        for scenario, resumer, resumee, cell in matrix.pairs()
    )


def of_difference(difference: Difference, fail_on: str, *, refused_fails: bool, strict: bool) -> tuple[PairCase, ...]:
    """Return each pair as a case: only one that is worse than it was can fail."""
    found = []
    for pair in difference.pairs:
        verdict = pair.after.strict if strict else pair.after.verdict
        worse = pair.worse or (strict and pair.is_worse(strict=True))
        status = exit_status(verdict, fail_on, refused_fails=refused_fails) if worse else Exit.PASSED
        name = f"{pair.scenario}: {pair.resumer.release} resumes {pair.resumee.release}"
        was = str(pair.before.verdict) if pair.changed else ""
        found.append(_case(name, pair.resumer.path, pair.after, status, was=was, strict=strict))
    return tuple(found)


def _case(name: str, path: str, cell: Cell, status: Exit, *, strict: bool, was: str = "") -> PairCase:
    """Make a case; what only a condition makes worse has that for its reason."""
    verdict = cell.strict if strict else cell.verdict
    share = "" if cell.share is None else f" ({cell.share:.0%})"
    before = f" (it was {was})" if was else ""
    if verdict is cell.verdict:
        reason = one_line(f"{cell.verdict}{share}{before}: {cell.reason}")
    else:
        worst = next(one for one in cell.conditions if one.verdict is verdict and one.id not in cell.spared)
        why = f"{worst.fact}: {worst.value} ({worst.reason})"
        reason = one_line(f"{verdict} on condition {worst.id}{before}: {why}; without it {cell.verdict}")
    return PairCase(Case(one_line(name), _STATUS[status], reason, (reason,)), path, verdict, cell.warnings)


def status_of(cases: Sequence[PairCase]) -> Exit:
    """Return the exit status of a run of these."""
    return worst_status(map(exit_of, cases))


def exit_of(one: PairCase) -> Exit:
    """Return the exit status of a run of this pair alone."""
    return _EXIT.get(one.case.status, Exit.PASSED)


def counted(found: Mapping[Exit, int], whole: int) -> tuple[str, bool]:
    """Say how many pairs fail and how many are open, and whether none does either.

    Args:
        found: How many pairs there are of each status.
        whole: How many there are.
    """
    lost, open_ = found.get(Exit.FAILED, 0), found.get(Exit.UNDETERMINED, 0)
    if not lost and not open_:
        return f"{words.count(whole, 'pair')}, none fails.", True
    told = f"{lost:,} of {whole:,} pairs {'fails' if lost == 1 else 'fail'}"
    return told + (f", {open_:,} {'is' if open_ == 1 else 'are'} undetermined." if open_ else "."), False


def write_baseline(cases: Sequence[PairCase]) -> str:
    """Return the file of the baseline that knows every pair that does not pass."""
    known = {one.case.name: str(one.verdict) for one in cases if one.case.status in {*_FAILING, Status.EXPECTED}}
    return json.dumps({"hibercheck_pairs_baseline": BASELINE_VERSION, "pairs": known}, indent=1) + "\n"


def load_baseline(path: str) -> Mapping[str, Verdict]:
    """Read a baseline of pairs: the verdict of each that is known, by its name.

    Raises:
        InputProblem: It cannot be read.
        UsageProblem: It is not a baseline of pairs of this version.
    """
    content = read_whole(path, MAX_BASELINE, "a baseline")
    advice = "write one with --write-baseline of the same command"
    try:
        document = json.loads(content)
        version = document["hibercheck_pairs_baseline"]
        known = {str(name): Verdict(verdict) for name, verdict in document["pairs"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageProblem("not a baseline of pairs", path=path, advice=advice) from error
    if not is_version(version, BASELINE_VERSION):
        what = f"a baseline of pairs of version {version!r}, not {BASELINE_VERSION}"
        raise UsageProblem(what, path=path, advice="write it again")
    return known


def with_baseline(cases: Sequence[PairCase], known: Mapping[str, Verdict], name: str) -> tuple[PairCase, ...]:
    """Take the pairs that a baseline knows, and that are no worse than they were, for expected.

    Args:
        cases: The pairs.
        known: The baseline.
        name: What to call it.
    """

    def expected(one: PairCase) -> PairCase:
        before = known.get(one.case.name)
        if one.case.status not in _FAILING or before is None or HARM.index(one.verdict) > HARM.index(before):
            return one
        reason = one_line(f"baseline: known in {name}: {one.case.reason}")
        return replace(one, case=replace(one.case, status=Status.EXPECTED, reason=reason))

    return tuple(map(expected, cases))


def conclusion(cases: Sequence[PairCase]) -> str:
    """Say in one sentence how many pairs fail, and name the first."""
    failing = [one.case for one in cases if one.case.status in _FAILING]
    known = sum(one.case.status is Status.EXPECTED for one in cases)
    spared = f" {words.count(known, 'pair')} that would fail {'is' if known == 1 else 'are'} known." if known else ""
    if not failing:
        return f"{words.count(len(cases), 'pair')}, none fails.{spared}"
    first = next((case for case in failing if case.status is Status.FAILED), failing[0])
    told, _ = counted(Counter(map(exit_of, cases)), len(cases))
    return f"{told.removesuffix('.')}; the first: {first.name}: {first.reason}.{spared}"


def render(cases: Sequence[PairCase], form: str, title: str) -> str:
    """Return the pairs in one of `FORMATS`.

    Args:
        cases: The pairs.
        form: The format.
        title: What they are of, in words.
    """
    if form == "sarif":
        return json.dumps(to_sarif(cases), indent=2, ensure_ascii=True) + "\n"
    if form == "gitlab":
        return json.dumps(to_gitlab(cases), indent=2, ensure_ascii=True) + "\n"
    plain = [one.case for one in cases]
    if form == "junit":
        return junit.document(plain, {"of": title}, [f"warning: {warning}" for warning in _warnings(cases)])
    if form == "ktap":
        return ktap.document(plain, _warnings(cases))
    failing = [case for case in plain if case.status in _FAILING]
    if form == "github":
        return github.of_cases(failing, conclusion(cases), _warnings(cases))
    return "\n".join(_markdown(failing, conclusion(cases), title, _warnings(cases))) + "\n"


def _warnings(cases: Sequence[PairCase]) -> list[str]:
    """Return each warning once, with of how many pairs it is."""
    found = Counter(warning for one in cases for warning in one.warnings)
    return [one_line(f"{warning} ({words.count(number, 'pair')})") for warning, number in found.items()]


def _markdown(failing: Sequence[Case], told: str, title: str, warnings: Sequence[str]) -> Iterator[str]:
    yield f"## hibercheck: {in_cell(title)}"
    yield f"\n{in_cell(told)}"
    if failing:
        yield "\n| Pair | | Why |\n|---|---|---|"
    for case in failing[:SHOWN]:
        word = "fails" if case.status is Status.FAILED else "undetermined"
        yield f"| {in_cell(case.name)} | {word} | {in_cell(case.reason)} |"
    if len(failing) > SHOWN:
        yield f"\nand {len(failing) - SHOWN:,} more."
    yield from (f"\n> {in_cell(warning)}" for warning in warnings)


MEANINGS = {
    Verdict.FATAL: "The machine resets on every resume of this pair.",
    Verdict.RISK: "Whether the machine resets depends on what nobody can know before.",
    Verdict.LATENT: "The machine resumes, and a CPU stays parked in memory that is the resumee's.",
    Verdict.REFUSED: "The resumer does not load the image.",
    Verdict.UNDETERMINED: "A fact is missing that decides what becomes of the machine.",
    Verdict.BENIGN: "Frames of parked CPUs are overwritten with contents that leave them where they are.",
    Verdict.SAFE: "No parked CPU can run in memory that the image overwrites.",
}


def to_sarif(cases: Sequence[PairCase]) -> dict[str, Any]:
    """Return what does not pass as SARIF 2.1.0: a verdict is a rule, a pair a result."""
    verdicts = list(MEANINGS)
    listed = [one for one in cases if one.case.status in {*_FAILING, Status.EXPECTED}]
    results = []
    for one in listed[:MOST_RESULTS]:
        result: dict[str, Any] = {
            "ruleId": f"pair-{one.verdict}",
            "ruleIndex": verdicts.index(one.verdict),
            "level": "warning" if one.case.status is Status.ERROR else "error",
            "message": {"text": words.sentence(f"{one.case.name}: {one.case.reason}")},
            "locations": [sarif.file_location(one.path)],
            "partialFingerprints": {sarif.FINGERPRINT: _fingerprint(one)},
        }
        if one.case.status is Status.EXPECTED:
            result["suppressions"] = [{"kind": "external", "justification": one.case.reason}]
        results.append(result)
    rules = [
        {
            "id": f"pair-{verdict}",
            "name": f"Pair{str(verdict).capitalize()}",
            "shortDescription": {"text": f"Verdict of a pair of kernels: {verdict}."},
            "fullDescription": {"text": meaning},
            "help": {"text": meaning, "markdown": meaning},
            "defaultConfiguration": {"level": "warning" if verdict is Verdict.UNDETERMINED else "error"},
        }
        for verdict, meaning in MEANINGS.items()
    ]
    told = [{"level": "warning", "message": {"text": text}} for text in (*_left_out(listed), *_warnings(cases))]
    return sarif.log(rules, results, int(status_of(cases)), told, {"conclusion": conclusion(cases)})


def _left_out(listed: Sequence[PairCase]) -> Iterator[str]:
    if len(listed) > MOST_RESULTS:
        yield f"{len(listed) - MOST_RESULTS:,} pairs more do not pass and are not listed."


def to_gitlab(cases: Sequence[PairCase]) -> list[dict[str, Any]]:
    """Return what does not pass as GitLab's code quality has it; what a baseline knows is left out."""
    failing = [one for one in cases if one.case.status in _FAILING]
    return [
        {
            "description": f"{one.case.name}: {one.case.reason}",
            "check_name": f"pair-{one.verdict}",
            "fingerprint": _fingerprint(one),
            "severity": "critical" if one.case.status is Status.ERROR else "blocker",
            "location": {"path": one_line(one.path), "lines": {"begin": 1}},
        }
        for one in failing[:MOST_RESULTS]
    ]


def _fingerprint(one: PairCase) -> str:
    return name_fingerprint("pair", f"{one.case.name}\0{one.verdict}")
