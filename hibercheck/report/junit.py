"""A report as JUnit XML, which most CI systems show as test results."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from hibercheck.report.cases import Case, Status, cases
from hibercheck.report.gate import Judged
from hibercheck.report.sanitise import clean, one_line

KINDS = {
    Status.FAILED: "failure",
    Status.ERROR: "error",
    Status.EXPECTED: "skipped",
    Status.SKIPPED: "skipped",
}


def render(judged: Judged) -> str:
    """Return the whole document."""
    results = cases(judged)
    counts = {
        "tests": len(results),
        "failures": sum(case.status is Status.FAILED for case in results),
        "errors": sum(case.status is Status.ERROR for case in results),
    }
    skipped = sum(case.status in (Status.EXPECTED, Status.SKIPPED) for case in results)
    attributes = {"name": "hibercheck", **{name: str(count) for name, count in counts.items()}}
    root = ET.Element("testsuites", attributes)
    suite = ET.SubElement(root, "testsuite", attributes | {"skipped": str(skipped)})
    _properties(judged, suite)
    for case in results:
        _case(case, suite)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _properties(judged: Judged, suite: ET.Element) -> None:
    report = judged.report
    values = {
        "image": report.image.path,
        "resumer": report.resumer.release,
        "resumee": report.resumee.release,
        "outcome": str(report.outcome),
        "verdict": str(report.verdict),
    }
    properties = ET.SubElement(suite, "properties")
    for name, value in values.items():
        ET.SubElement(properties, "property", {"name": name, "value": one_line(value)})


def _case(case: Case, suite: ET.Element) -> None:
    element = ET.SubElement(suite, "testcase", {"classname": "hibercheck", "name": case.name})
    text = clean("\n".join(case.lines), keep="\n")
    kind = KINDS.get(case.status)
    if kind is not None:
        child = ET.SubElement(element, kind, {"message": case.reason})
        child.text = text
    elif text:
        ET.SubElement(element, "system-out").text = text
