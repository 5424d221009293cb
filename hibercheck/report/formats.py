"""The formats a report can be had in; each renderer is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import MappingProxyType

from hibercheck.report.gate import Judged

TEXT = "text"

_MODULES = MappingProxyType(
    {
        "json": "hibercheck.report.json",
        "sarif": "hibercheck.report.sarif",
        "junit": "hibercheck.report.junit",
        "ktap": "hibercheck.report.ktap",
        "github": "hibercheck.report.github",
        "gitlab": "hibercheck.report.gitlab",
        "markdown": "hibercheck.report.markdown",
        "html": "hibercheck.report.page",
    }
)
NAMES = (TEXT, *_MODULES)
"""All formats; `TEXT` needs a console and is rendered by `hibercheck.report.text`."""


def renderer(name: str) -> Callable[[Judged], str]:
    """Return the function that renders a judged report in the format ``name`` (not `TEXT`).

    Raises:
        KeyError: There is no such format.
    """
    render: Callable[[Judged], str] = import_module(_MODULES[name]).render
    return render
