"""A report as JSON: for programs, so nothing in it is only prose, and every name stays what it is.

Addresses, PFNs' tables and page-table entries are strings of hexadecimal digits with ``0x``, because JSON's numbers
are doubles in most readers; PFNs, counts and CPU numbers are numbers.  `hibercheck schema` prints the schema.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from hibercheck import __version__
from hibercheck.handoff.findings import (
    CpuReport,
    Evidence,
    Finding,
    FrameUse,
    ImageSummary,
    KernelSummary,
    Place,
    ScenarioSummary,
    Share,
)
from hibercheck.handoff.rules import RULES
from hibercheck.report.fingerprint import fingerprints
from hibercheck.report.gate import Judged, Mark
from hibercheck.x86.paging import Step, Walk

SCHEMA_VERSION = 1
"""Grows by one when a reader of the former version could be misled; new members do not change it."""


def render(judged: Judged) -> str:
    """Return the whole document, ending in a newline; the same run gives the same bytes."""
    return json.dumps(to_dict(judged), indent=2, ensure_ascii=True) + "\n"


def to_dict(judged: Judged) -> dict[str, Any]:
    """Return the report and the gate's decision as plain JSON values."""
    return {
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": "hibercheck", "version": __version__},
        "outcome": str(judged.report.outcome),
        "verdict": str(judged.report.verdict),
        "headline": judged.report.headline,
        "gate": {
            "fail_on": judged.fail_on,
            "effective_verdict": str(judged.effective),
            "passed": judged.passed,
            "exit_status": int(judged.exit_status),
            "reason": judged.reason,
        },
        **_body(judged),
        "warnings": [*judged.report.warnings, *judged.warnings],
    }


def _body(judged: Judged) -> dict[str, Any]:
    report = judged.report
    prints = fingerprints(report.findings)
    return {
        "findings": [
            _finding(finding, mark, fingerprint)
            for (finding, mark), fingerprint in zip(judged.marked, prints, strict=True)
        ],
        "cpus": [_cpu(cpu) for cpu in report.cpus],
        "image": _image(report.image),
        "resumer": _kernel(report.resumer),
        "resumee": _kernel(report.resumee),
        "scenario": _scenario(report.scenario),
        "assumptions": [dataclasses.asdict(assumption) for assumption in report.assumptions],
        "missing": [dataclasses.asdict(missing) for missing in report.missing],
        "share": _share(report.share),
        "timeline": [dataclasses.asdict(event) for event in report.timeline],
    }


def _address(value: int | None) -> str | None:
    return None if value is None else f"{value:#x}"


def _finding(finding: Finding, mark: Mark | None, fingerprint: str) -> dict[str, Any]:
    return {
        "rule": finding.rule,
        "name": RULES[finding.rule].name if finding.rule in RULES else finding.rule,
        "level": finding.level.name.lower(),
        "cpu": finding.cpu,
        "role": finding.role,
        "message": finding.message,
        "resumer": _place(finding.resumer),
        "resumee": _place(finding.resumee),
        "evidence": [_evidence(evidence) for evidence in finding.evidence],
        "advice": finding.advice,
        "fingerprint": fingerprint,
        "mark": None if mark is None else {"kind": mark.kind, "reason": mark.reason},
    }


def _place(place: Place) -> dict[str, Any]:
    return {"virtual": _address(place.virtual), "physical": _address(place.physical), "symbol": place.symbol}


def _evidence(evidence: Evidence) -> dict[str, Any]:
    return {
        "title": evidence.title,
        "address": _address(evidence.address),
        "before": None if evidence.before is None else evidence.before.hex(),
        "after": None if evidence.after is None else evidence.after.hex(),
        "walk": None if evidence.walk is None else _walk(evidence.walk),
        "lines": list(evidence.lines),
    }


def _walk(walk: Walk) -> dict[str, Any]:
    fault = walk.fault
    return {
        "address": _address(walk.address),
        "access": str(walk.access),
        "cr3": _address(walk.cr3),
        "steps": [_step(step) for step in walk.steps],
        "physical": _address(walk.physical),
        "page_size": walk.page_size,
        "fault": None
        if fault is None
        else {"vector": fault.vector, "error_code": fault.error_code, "reason": fault.reason},
        "unknown_pfn": walk.unknown_pfn,
    }


def _step(step: Step) -> dict[str, Any]:
    return {
        "level": step.level,
        "table": _address(step.table),
        "index": step.index,
        "entry": f"{step.entry:#018x}",
    }


def _cpu(cpu: CpuReport) -> dict[str, Any]:
    return {
        "cpu": cpu.cpu,
        "apic_id": cpu.apic_id,
        "boot_cpu": cpu.boot_cpu,
        "state": cpu.state,
        "why": cpu.why,
        "loop": cpu.loop,
        "rip": _address(cpu.rip),
        "cr3": _address(cpu.cr3),
        "wakes": list(cpu.wakes),
        "footprint": [_frame(use) for use in cpu.footprint],
        "fate": str(cpu.fate),
        "sentence": cpu.sentence,
        "executed": cpu.executed,
    }


def _frame(use: FrameUse) -> dict[str, Any]:
    return {
        "role": use.role,
        "virtual": _address(use.virtual),
        "pfn": use.pfn,
        "resumer": use.resumer,
        "overwritten": use.overwritten,
        "resumee": use.resumee,
        "same": use.same,
    }


def _image(image: ImageSummary) -> dict[str, Any]:
    return {
        "path": image.path,
        "compressor": image.compressor,
        "pages": image.pages,
        "zero_pages": image.zero_pages,
        "runs": [list(run) for run in image.runs],
        "ram_pages": image.ram_pages,
        "cr3": _address(image.cr3),
        "jump_address": _address(image.jump_address),
        "jump_address_phys": _address(image.jump_address_phys),
        "consumed": image.consumed,
    }


def _kernel(kernel: KernelSummary) -> dict[str, Any]:
    return {
        "path": kernel.path,
        "release": kernel.release,
        "banner": kernel.banner,
        "build_id": kernel.build_id,
        "load_address": _address(kernel.load_address),
        "kaslr_offset": _address(kernel.kaslr_offset),
        "paging_levels": kernel.paging_levels,
        "command_line": kernel.command_line,
        "traits": dict(kernel.traits),
    }


def _scenario(scenario: ScenarioSummary) -> dict[str, Any]:
    return {
        "cpus": list(scenario.cpus),
        "boot_cpu": scenario.boot_cpu,
        "offline_by_hand": list(scenario.offline_by_hand),
        "rescued": list(scenario.rescued),
        "supposed": list(scenario.supposed),
        "spurious_mwait": scenario.spurious_mwait,
        "memory": scenario.memory,
    }


def _share(share: Share | None) -> dict[str, Any] | None:
    return None if share is None else {"failing": share.failing, "placements": share.placements, "of": share.of}
