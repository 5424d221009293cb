"""The part of the SARIF 2.1.0 schema (OASIS) that the report uses, re-expressed: names, types, requirements, ranges.

Objects are closed here as they are there, so that a misspelt property fails.
"""

from __future__ import annotations

from typing import Any


def _object(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


_TEXT = {"type": "string"}
_BAG = {"type": "object"}  # propertyBag: anything, with "tags" as a list of strings
_LEVEL = {"enum": ["none", "note", "warning", "error"]}
_MESSAGE = _object({"text": _TEXT, "markdown": _TEXT, "id": _TEXT, "arguments": _list(_TEXT)}, "text")
_MULTIFORMAT = _object({"text": _TEXT, "markdown": _TEXT, "properties": _BAG}, "text")
_RULE = _object(
    {
        "id": _TEXT,
        "name": _TEXT,
        "shortDescription": _MULTIFORMAT,
        "fullDescription": _MULTIFORMAT,
        "help": _MULTIFORMAT,
        "helpUri": {"type": "string", "format": "uri"},
        "defaultConfiguration": _object({"enabled": {"type": "boolean"}, "level": _LEVEL}),
        "properties": _BAG,
    },
    "id",
)
_ARTIFACT = _object(
    {"uri": {"type": "string", "pattern": r"^[!-~]+$"}, "uriBaseId": _TEXT, "index": {"type": "integer"}}
)
_LOCATION = _object(
    {
        "physicalLocation": _object({"artifactLocation": _ARTIFACT}, "artifactLocation"),
        "logicalLocations": _list(_object({"name": _TEXT, "fullyQualifiedName": _TEXT, "kind": _TEXT})),
    }
)
_RESULT = _object(
    {
        "ruleId": _TEXT,
        "ruleIndex": {"type": "integer", "minimum": -1},
        "kind": {"enum": ["notApplicable", "pass", "fail", "review", "open", "informational"]},
        "level": _LEVEL,
        "message": _MESSAGE,
        "locations": _list(_LOCATION),
        "partialFingerprints": {"type": "object", "additionalProperties": _TEXT},
        "suppressions": _list(
            _object(
                {
                    "kind": {"enum": ["inSource", "external"]},
                    "status": {"enum": ["accepted", "underReview", "rejected"]},
                    "justification": _TEXT,
                },
                "kind",
            )
        ),
        "properties": _BAG,
    },
    "message",
)
_RUN = _object(
    {
        "tool": _object(
            {
                "driver": _object(
                    {
                        "name": _TEXT,
                        "version": _TEXT,
                        "semanticVersion": _TEXT,
                        "informationUri": {"type": "string", "format": "uri"},
                        "rules": _list(_RULE) | {"uniqueItems": True},
                    },
                    "name",
                )
            },
            "driver",
        ),
        "invocations": _list(
            _object(
                {"executionSuccessful": {"type": "boolean"}, "exitCode": {"type": "integer"}}, "executionSuccessful"
            )
        ),
        "columnKind": {"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
        "results": _list(_RESULT),
        "properties": _BAG,
    },
    "tool",
)
SARIF = _object(
    {"$schema": {"type": "string", "format": "uri"}, "version": {"const": "2.1.0"}, "runs": _list(_RUN)},
    "version",
    "runs",
)
