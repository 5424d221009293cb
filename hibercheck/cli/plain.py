"""Command lines of the main job that say nothing that only click understands: most of them.

To import click, to declare the options and to parse by them takes a sixth more of a check whose kernels were read
before.  So words that can mean only one thing are read here: an image, kernels, texts and flags, where neither the
environment nor a configuration file says more.  Any other command line is click's, above all each that is wrong.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from hibercheck.cli.commands import DEFAULT, OWN_FILE, PREFIX, SHARED_FILE, summaries
from hibercheck.cli.job import FORMATS, Output
from hibercheck.cli.parameters import FLAGS, TEXTS, UNSET


def given_plainly(words: Sequence[str]) -> dict[str, Any] | None:
    """Return the parameters of ``check`` for a plain command line, as click would; None for any other."""
    if any(name.startswith(f"{PREFIX}_") for name in os.environ) or _is_configured():
        return None
    given = dict(UNSET)
    rest = iter(words[1:] if words[:1] == [DEFAULT] else words)
    for word in rest:
        if word in FLAGS:
            given[FLAGS[word]] = True
        elif word in TEXTS or word == "--format":
            value = next(rest, "")
            name = TEXTS.get(word, "outputs")
            if given[name] or not value or value.startswith("-") or (name == "outputs" and value not in FORMATS):
                return None
            given[name] = (Output(value),) if name == "outputs" else value
        elif word.startswith("-") or given["image"] is not None:
            return None
        else:
            given["image"] = word
    image = given["image"]
    # a command that is mistyped looks like an image that is not there
    return given if image is not None and image not in summaries() and os.path.exists(image) else None


def _is_configured() -> bool:
    """Whether a configuration file may be found: `hibercheck.cli.config` knows whether it is one."""
    try:
        directory = os.getcwd()
    except OSError:  # it was removed, and whether that matters is not for here
        return True
    while True:
        if any(os.path.lexists(os.path.join(directory, name)) for name in (OWN_FILE, SHARED_FILE)):
            return True
        above = os.path.dirname(directory)
        if above == directory:
            return False
        directory = above
