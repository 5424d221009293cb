"""``hibercheck collect``: what the running kernel is like, for a check of what it would do as the resumer."""

from __future__ import annotations

import sys

import click

from hibercheck.cli.options import GroupedCommand, general_options, option
from hibercheck.cli.shared import INPUTS, OUTPUT, shared

EPILOG = """\b
Examples:
  hibercheck collect -o facts.json         on the resumer, before it resumes
  hibercheck collect --script > collect.sh for an initramfs without Python:
  sh collect.sh > facts.json               there
  hibercheck image.bin --resumer a --resumee b --resumer-facts facts.json

Run it as root: without privileges the kernel shows addresses as zeros, and they count as not known."""

KCORE_FACTS = {
    "KERNELOFFSET": "kernel_offset",
    "NUMBER(phys_base)": "phys_base",
    "NUMBER(pgtable_l5_enabled)": "pgtable_l5_enabled",
    "NUMBER(sme_mask)": "sme_mask",
}
"""What is taken of VMCOREINFO (kernel/vmcore_info.c, arch/x86/kernel/vmcore_info_64.c), and its name in the file."""


@click.command(cls=GroupedCommand, epilog=EPILOG)
@option("--script", group=OUTPUT, is_flag=True, help="Print a POSIX shell script that does the same, and stop.")
@shared("--output")
@option("--root", group=INPUTS, more=True, metavar="DIR", default="", help="Read DIR/proc and DIR/sys instead.")
@general_options
def command(script: bool, output: str | None, root: str, color: str) -> None:  # noqa: ARG001 - every command takes it
    """Write down what the running resumer is like, for --resumer-facts.

    It reads /proc and /sys: command line, CPUs, cpuidle driver, memory map, where the kernel lies; and of /proc/kcore
    the kernel's description of itself. Nothing is changed.
    """
    from pathlib import Path

    text = Path(__file__).with_name("collect.sh").read_text(encoding="utf-8")
    written = text if script else collect(text, root)
    if output is None:
        sys.stdout.write(written)
        return
    from hibercheck.cli.output import write_file

    write_file(output, written)


def collect(script: str, root: str) -> str:
    """Run the script, add what only a program can read, and check that the result can be read again.

    Raises:
        InputProblem: There is no shell, or the script failed.
        MalformedDump: What it wrote is no facts file.
    """
    import json
    import os
    import subprocess

    from hibercheck.errors import InputProblem
    from hibercheck.handoff.facts import parse_facts

    try:
        run = subprocess.run(
            ["/bin/sh", "-s"],
            input=script.encode(),
            capture_output=True,
            env={**os.environ, "ROOT": root.rstrip("/"), "LC_ALL": "C"},
            check=False,
        )
    except OSError as error:
        raise InputProblem(f"cannot be run: {error.strerror}", path="/bin/sh") from error
    if run.returncode:
        problem = run.stderr.decode("utf-8", "replace").strip().splitlines()
        raise InputProblem(f"failed: {problem[-1] if problem else run.returncode}", path="/bin/sh")
    text = run.stdout.decode("utf-8", "replace")
    parse_facts(text, "the collected facts")
    found = json.loads(text, strict=False)
    found["vmcoreinfo"] = kernel_description(f"{root.rstrip('/')}/proc/kcore")
    return json.dumps(found, indent=2) + "\n"


def kernel_description(path: str) -> dict[str, str]:
    """Return what VMCOREINFO in /proc/kcore says; nothing where it may not be read (lockdown) or has none."""
    from hibercheck.dump.dump import open_dump
    from hibercheck.errors import HibercheckError

    try:
        with open_dump(path) as core:
            notes = core.vmcoreinfo or {}
    except HibercheckError:
        return {}
    # KERNELOFFSET is hexadecimal without a prefix, the others are decimal
    prefix = {"KERNELOFFSET": "0x"}
    return {name: prefix.get(key, "") + notes[key] for key, name in KCORE_FACTS.items() if key in notes}
