"""The subcommands' names and the help of the whole, without click: that would cost more than the help itself."""

from __future__ import annotations

DEFAULT = "check"
PREFIX = "HIBERCHECK"
"""Begins the names of variables of the environment."""
OWN_FILE, SHARED_FILE = "hibercheck.toml", "pyproject.toml"
"""Where a configuration is looked for."""

_TABLE = {  # in the order of the help
    "check": "Predict what becomes of the machine (the default command).",
    "image": "Show what is in a hibernation image, and verify it.",
    "export": "Write an image as a vmcore that crash and drgn open.",
    "kernel": "Show how a kernel parks CPUs and resumes, with evidence.",
    "designs": "Replay one handoff under every way to park a CPU.",
    "matrix": "Judge every pair of many kernels, as a heat map.",
    "preflight": "Say for each boot entry whether it would resume this session.",
    "cache": "Show or clear what is kept of kernels.",
    "collect": "Write down what the running resumer is like, for --resumer-facts.",
    "diff": "Show what changed in the handoff between two kernels.",
    "log": "Say what a kernel's log tells of a resume that failed.",
    "explain": "Explain a rule: what it means, why it kills, what to do.",
    "rules": "List all rules.",
    "schema": "Print the JSON schema of the report.",
    "completion": "Print a completion script for a shell.",
}


def summaries() -> dict[str, str]:
    """Return each subcommand's one-line summary; its module is ``hibercheck.cli.NAME`` and exports ``command``."""
    return dict(_TABLE)


_HEAD = """\
Usage: hibercheck IMAGE [--resumer KERNEL] [OPTIONS]  |  hibercheck COMMAND ...

Say, before anyone reboots, whether a hibernated machine survives being resumed
by another kernel (the resumer) than the one that hibernated (the resumee).
"""

_TAIL = """\
Example: hibercheck /dev/nvme0n1p3 --resumer /boot/vmlinuz-6.12.94-amd64
Options of the main job: hibercheck check --help; guides: man hibercheck.
Exit status: 0 fine, 1 fails or refused, 2 usage, 3 bad input, 4 undetermined.
"""


_LESSER = ("rules", "cache", "schema", "completion")
"""Commands that need no line of their own."""


def root_help() -> str:
    """Return the help of ``hibercheck`` itself: one screen of 24 lines of 80 columns."""
    rows = "".join(f"  {name:<10}  {line}\n" for name, line in _TABLE.items() if name not in _LESSER)
    rows += f"  and {', '.join(_LESSER)}\n"
    return f"{_HEAD}\nCommands:\n{rows}\n{_TAIL}"
