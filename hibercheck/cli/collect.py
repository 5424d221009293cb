"""``hibercheck collect``: what the running kernel is like, for a check of what it would do as the resumer."""

from __future__ import annotations

import sys
from collections.abc import Mapping

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

READERS = "it takes root with CAP_SYS_RAWIO, kptr_restrict below 2 and no lockdown to confidentiality"
"""Who may read /proc/kcore and addresses in /proc/kallsyms (open_kcore(), kallsyms_show_value())."""


@click.command(cls=GroupedCommand, epilog=EPILOG)
@option("--script", group=OUTPUT, is_flag=True, help="Print a POSIX shell script that does the same, and stop.")
@shared("--output")
@option("--root", group=INPUTS, more=True, metavar="DIR", default="", help="Read DIR/proc and DIR/sys instead.")
@general_options
def command(script: bool, output: str | None, root: str, color: str) -> None:  # noqa: ARG001 - every command takes it
    """Write down what the running resumer is like, for --resumer-facts.

    It reads /proc and /sys: command line, CPUs, cpuidle driver, memory map, where the kernel lies; and of /proc/kcore,
    where root may read it (not under lockdown), the kernel's description of itself and the page tables that parked
    CPUs will walk, some 30 KiB. With these a check is as exact as with a dump, if the tables are the same when the
    kernel resumes; where they cannot be had, it says why on standard error. The script does not read /proc/kcore: a
    shell cannot walk page tables. Nothing is changed.
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

    What /proc/kcore does not give is said on standard error: a check does without it, and should be known to.

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
    facts = parse_facts(text, "the collected facts")
    more, problem_of_kcore = from_kcore(root.rstrip("/"), facts.present or frozenset())
    if problem_of_kcore:
        click.echo(f"hibercheck: without the kernel's page tables: {problem_of_kcore}", err=True)
    return json.dumps(json.loads(text, strict=False) | more, indent=2) + "\n"


def from_kcore(root: str, cpus: frozenset[int]) -> tuple[dict[str, dict[str, str]], str]:
    """Return what /proc/kcore gives, VMCOREINFO and frames of memory, and why if there are no frames.

    Args:
        root: Where proc is.
        cpus: CPUs that are present.
    """
    from pathlib import Path

    from hibercheck.dump.dump import open_dump
    from hibercheck.errors import HibercheckError
    from hibercheck.handoff.collecting import collect_frames, encode_frames, running_kernel

    path = f"{root}/proc/kcore"
    if not Path(path).exists():
        return {"vmcoreinfo": {}}, f"there is no {path} (the kernel lacks CONFIG_PROC_KCORE)"
    notes: Mapping[str, str] = {}
    try:
        with open_dump(path) as core, Path(f"{root}/proc/kallsyms").open(encoding="ascii", errors="replace") as symbols:
            notes = core.vmcoreinfo or {}
            kernel = running_kernel(core, notes, symbols)
            frames = collect_frames(kernel, cpus) if kernel is not None else {}
    except (HibercheckError, OSError, ValueError) as error:
        return {"vmcoreinfo": _described(notes)}, f"{error} ({READERS})"
    found = {"vmcoreinfo": _described(notes)}
    if not frames:
        return found, f"{path} and {root}/proc/kallsyms do not lead to them ({READERS})"
    return found | {"frames": encode_frames(frames)}, ""


def _described(notes: Mapping[str, str]) -> dict[str, str]:
    # KERNELOFFSET is hexadecimal without a prefix, the others are decimal
    prefix = {"KERNELOFFSET": "0x"}
    return {name: prefix.get(key, "") + notes[key] for key, name in KCORE_FACTS.items() if key in notes}
