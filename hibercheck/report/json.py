"""A report as JSON: for programs, so nothing in it is only prose, and every name stays what it is.

Addresses, PFNs' tables and page-table entries are strings of hexadecimal digits with ``0x``, because JSON's numbers
are doubles in most readers; PFNs, counts and CPU numbers are numbers.  `hibercheck schema` prints the schema.

What many CPUs share is there once: ``frames`` and ``evidence`` are lists, into which CPUs and findings point by number;
CPUs of which everything else is the same, and findings that are, are one entry with the number of each in ``cpus``.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from hibercheck import __version__
from hibercheck.handoff.acceptance.refusal import NAMES, Refusal
from hibercheck.handoff.facts.session import rfc3339
from hibercheck.handoff.facts.standing import Assumption
from hibercheck.handoff.verdict.findings import (
    Condition,
    CpuReport,
    Evidence,
    Finding,
    FrameUse,
    ImageSummary,
    KernelSummary,
    LineOwner,
    MissingFactNote,
    NotExamined,
    Place,
    ScenarioSummary,
    Share,
)
from hibercheck.handoff.verdict.rules import RULES
from hibercheck.report.conditions import settled
from hibercheck.report.gate import Judged, Mark
from hibercheck.report.grouped import alike_cpus, alike_findings
from hibercheck.report.words import in_words, taken_for_granted
from hibercheck.x86.paging import Step, Walk

T = TypeVar("T")

SCHEMA_VERSION = 2
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
        "usual_outcome": None if judged.report.usual_outcome is None else str(judged.report.usual_outcome),
        "headline": judged.report.headline,
        "gate": {
            "fail_on": judged.fail_on,
            "strict": judged.strict,
            "effective_verdict": str(judged.effective),
            "passed": judged.passed,
            "exit_status": int(judged.exit_status),
            "reason": judged.reason,
        },
        **_body(judged),
        "warnings": [*judged.report.warnings, *judged.warnings],
    }


class _Shared(Generic[T]):
    """A list in which what is equal is once.

    Args:
        written: Makes the JSON value of one.
    """

    def __init__(self, written: Callable[[T], dict[str, Any]]) -> None:
        self.values: list[dict[str, Any]] = []
        self._written = written
        self._places: dict[T, int] = {}

    def place(self, one: T) -> int:
        """Return the number of one in the list, where it is put if it is not there."""
        if one not in self._places:
            self._places[one] = len(self.values)
            self.values.append(self._written(one))
        return self._places[one]


def _body(judged: Judged) -> dict[str, Any]:
    report = judged.report
    frames, evidence = _Shared(_frame), _Shared(_evidence)
    return {
        "findings": [
            _finding(*found[0], evidence, [finding.cpu for finding, _, _ in found if finding.cpu is not None])
            for found in alike_findings(judged)
        ],
        "evidence": evidence.values,
        "cpus": [_cpu(cpus, frames) for cpus in alike_cpus(report.cpus)],
        "frames": frames.values,
        "image": _image(report.image),
        "resumer": _kernel(report.resumer),
        "resumee": _kernel(report.resumee),
        "scenario": _scenario(report.scenario),
        "conditions": [_condition(condition, mark) for condition, mark in judged.conditions],
        "assumptions": [_assumption(assumption) for assumption in report.assumptions],
        "taken_for_granted": taken_for_granted(report),
        "missing": [*map(_missing, report.missing), *map(_unexamined, report.unexamined)],
        "share": _share(report.share),
        "refusal": None if report.refusal is None else _refusal(report.refusal),
        "timeline": [dataclasses.asdict(event) for event in report.timeline],
    }


def _missing(missing: MissingFactNote) -> dict[str, Any]:
    """Return what the verdict lacks."""
    return {"fact": missing.fact, "supply": missing.supply, "rules": [], "cpus": []}


def _unexamined(note: NotExamined) -> dict[str, Any]:
    """Return what only some rules lack, whichever the verdict."""
    return {"fact": in_words(note), "supply": note.supply, "rules": list(note.rules), "cpus": list(note.cpus)}


def _refusal(refusal: Refusal) -> dict[str, Any]:
    return {
        "test": refusal.test,
        "reason": refusal.reason,
        "errno": refusal.errno,
        "error": None if refusal.errno is None else NAMES[refusal.errno],
        "log": list(refusal.log),
        "keeps_image": refusal.keeps_image,
        "advice": refusal.advice,
    }


def _address(value: int | None) -> str | None:
    return None if value is None else f"{value:#x}"


def _condition(condition: Condition, mark: Mark | None) -> dict[str, Any]:
    return {**settled(condition), "mark": None if mark is None else {"kind": mark.kind, "reason": mark.reason}}


def _assumption(assumption: Assumption) -> dict[str, Any]:
    return {
        "name": assumption.name,
        "fact": assumption.fact,
        "value": assumption.value,
        "standing": None if assumption.standing is None else str(assumption.standing),
        "source": assumption.source,
        "option": assumption.option,
    }


def _finding(
    finding: Finding, mark: Mark | None, fingerprint: str, shared: _Shared[Evidence], cpus: list[int]
) -> dict[str, Any]:
    return {
        "rule": finding.rule,
        "name": RULES[finding.rule].name if finding.rule in RULES else finding.rule,
        "level": finding.level.name.lower(),
        "cpu": finding.cpu,
        "cpus": cpus,
        "role": finding.role,
        "message": finding.message,
        "resumer": _place(finding.resumer),
        "resumee": _place(finding.resumee),
        "evidence": [shared.place(evidence) for evidence in finding.evidence],
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


def _cpu(cpus: Sequence[CpuReport], frames: _Shared[FrameUse]) -> dict[str, Any]:
    cpu = cpus[0]
    return {
        "cpu": cpu.cpu,
        "cpus": [one.cpu for one in cpus],
        "apic_id": cpu.apic_id,
        "apic_ids": [one.apic_id for one in cpus],
        "boot_cpu": cpu.boot_cpu,
        "state": cpu.state,
        "why": cpu.why,
        "loop": cpu.loop,
        "rip": _address(cpu.rip),
        "cr3": _address(cpu.cr3),
        "wakes": list(cpu.wakes),
        "footprint": [frames.place(use) for use in cpu.footprint],
        "fate": str(cpu.fate),
        "sentence": cpu.sentence,
        "when": cpu.when,
        "cause": cpu.cause,
        "doubt": cpu.doubt,
        "timing": None if cpu.timing is None else dataclasses.asdict(cpu.timing),
        "line": None if cpu.owner is None else _line(cpu.owner),
        "exposure": list(cpu.exposure),
        "exposure_unknown": list(cpu.exposure_unknown),
        "lent": list(cpu.lent),
        "executed": cpu.executed,
    }


def _line(owner: LineOwner) -> dict[str, Any]:
    return {
        "physical": _address(owner.physical),
        "size": owner.size,
        "use": owner.use,
        "names": list(owner.names),
        "cpu": owner.cpu,
        "writes": owner.writes,
        "sentence": owner.sentence,
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
        "written": None if image.written is None else rfc3339(image.written),
        "node": image.node,
        "boot_id": image.boot_id,
        "swap_uuid": image.swap_uuid,
        "swap_label": image.swap_label,
        "partition": image.partition,
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
        "size": kernel.size,
    }


def _scenario(scenario: ScenarioSummary) -> dict[str, Any]:
    return {
        "cpus": list(scenario.cpus),
        "boot_cpu": scenario.boot_cpu,
        "offline_by_hand": list(scenario.offline_by_hand),
        "rescued": list(scenario.rescued),
        "supposed": list(scenario.supposed),
        "spurious_mwait": scenario.spurious_mwait,
        "mwait_spins": scenario.mwait_spins,
        "memory": scenario.memory,
    }


def _share(share: Share | None) -> dict[str, Any] | None:
    if share is None:
        return None
    places = [{"first": _address(first), "count": count, "fails": fails} for first, count, fails in share.places]
    return {
        "failing": share.failing,
        "placements": share.placements,
        "of": share.of,
        "places": places,
        "step": share.step,
    }
