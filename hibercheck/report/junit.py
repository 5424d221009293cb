"""A report as JUnit XML, which most CI systems show as test results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.etree import ElementTree as ET

from hibercheck.report.cases import Case, Status, cases
from hibercheck.report.gate import Judged
from hibercheck.report.sanitise import clean, one_line
from hibercheck.report.words import taken_for_granted

KINDS = {
    Status.FAILED: "failure",
    Status.ERROR: "error",
    Status.EXPECTED: "skipped",
    Status.SKIPPED: "skipped",
}


def render(judged: Judged) -> str:
    """Return the whole document."""
    warnings = [f"warning: {one_line(warning)}" for warning in (*judged.report.warnings, *judged.warnings)]
    return document(cases(judged), _properties(judged), warnings)


def document(results: Sequence[Case], properties: Mapping[str, str], warnings: Sequence[str] = ()) -> str:
    """Return a document of cases, with what they are of, and what is said of them all."""
    counts = {
        "tests": len(results),
        "failures": sum(case.status is Status.FAILED for case in results),
        "errors": sum(case.status is Status.ERROR for case in results),
    }
    skipped = sum(case.status in (Status.EXPECTED, Status.SKIPPED) for case in results)
    attributes = {"name": "hibercheck", **{name: str(count) for name, count in counts.items()}}
    root = ET.Element("testsuites", attributes)
    suite = ET.SubElement(root, "testsuite", attributes | {"skipped": str(skipped)})
    told = ET.SubElement(suite, "properties")
    for name, value in properties.items():
        ET.SubElement(told, "property", {"name": name, "value": one_line(value)})
    for case in results:
        _case(case, suite)
    if warnings:
        ET.SubElement(suite, "system-err").text = clean("\n".join(warnings), keep="\n")
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _properties(judged: Judged) -> dict[str, str]:
    report = judged.report
    values = {
        "image": report.image.path,
        "resumer": report.resumer.release,
        "resumee": report.resumee.release,
        "outcome": str(report.outcome),
        "verdict": str(report.verdict),
    }
    if report.usual_outcome is not None:
        values["usual_outcome"] = str(report.usual_outcome)
    if granted := taken_for_granted(report):
        values["taken_for_granted"] = granted
    return values


def _case(case: Case, suite: ET.Element) -> None:
    element = ET.SubElement(suite, "testcase", {"classname": "hibercheck", "name": case.name})
    text = clean("\n".join(case.lines), keep="\n")
    kind = KINDS.get(case.status)
    if kind is not None:
        child = ET.SubElement(element, kind, {"message": case.reason})
        child.text = text
    elif text:
        ET.SubElement(element, "system-out").text = text
