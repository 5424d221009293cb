"""Print the SBOM of a release (CycloneDX 1.5): what the wheel needs at run time, as `.ci/requirements.txt` pins it."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_PINNED = re.compile(r"([A-Za-z0-9._-]+)==([^\s;\\]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def plain(name: str) -> str:
    """Return a project's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(text: str) -> dict[str, dict[str, Any]]:
    """Read what pip-compile wrote: version, hashes, and who asked for it, by name."""
    found: dict[str, dict[str, Any]] = {}
    current: dict[str, Any] = {}
    for line in text.splitlines():
        start = _PINNED.match(line)
        if start is not None:
            current = found[plain(start[1])] = {"version": start[2], "hashes": [], "via": []}
        elif (digest := _HASH.search(line)) is not None:
            current["hashes"].append(digest[1])
        elif line.startswith("    # ") and current:
            asked = line.removeprefix("    #").replace("via", "", 1) if "# via" in line else line.removeprefix("    #")
            current["via"] += [plain(asked.split()[0])] if asked.split() else []
    return found


def bom(project: dict[str, Any], version: str, packages: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Make the document of the packages that the project, or one that it needs, asks for."""
    wanted = {plain(re.split(r"[<>=!~; \[]", text)[0]) for text in project["dependencies"]}
    while True:
        more = {name for name, one in packages.items() if wanted.intersection(one["via"])} - wanted
        if not more:
            break
        wanted |= more
    components = [
        {
            "type": "library",
            "name": name,
            "version": packages[name]["version"],
            "purl": f"pkg:pypi/{name}@{packages[name]['version']}",
            "hashes": [{"alg": "SHA-256", "content": digest} for digest in packages[name]["hashes"]],
        }
        for name in sorted(wanted & packages.keys())
    ]
    own = {"type": "application", "name": "hibercheck", "version": version, "purl": f"pkg:pypi/hibercheck@{version}"}
    own["licenses"] = [{"license": {"id": project["license"]}}]  # type: ignore[assignment]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": own},
        "components": components,
    }


def main() -> None:
    """Print it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    source = (ROOT / "hibercheck" / "__init__.py").read_text(encoding="utf-8")
    version = re.search(r'^__version__ = "(.+)"$', source, re.MULTILINE)[1]  # type: ignore[index]
    packages = pinned((ROOT / ".ci" / "requirements.txt").read_text(encoding="utf-8"))
    print(json.dumps(bom(project, version, packages), indent=2))  # noqa: T201 - that is what it is for


main()
