"""``hibercheck collect``: what the running kernel is like, for a check of what it would do as the resumer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import click

from hibercheck.cli.options import GroupedCommand, general_options, option
from hibercheck.cli.shared import OUTPUT, shared
from hibercheck.cli.terminal import say

EPILOG = """\b
Examples:
  hibercheck collect -o facts.json         on the resumer, before it resumes
  hibercheck collect --script > collect.sh for an initramfs without Python:
  sh collect.sh > facts.json               there
  hibercheck image.bin --resumer vmlinux --resumer-facts facts.json

Run it as root: without privileges the kernel shows addresses as zeros, and they count as not known."""

KCORE_FACTS = {
    "KERNELOFFSET": "kernel_offset",
    "NUMBER(phys_base)": "phys_base",
    "NUMBER(pgtable_l5_enabled)": "pgtable_l5_enabled",
    "NUMBER(sme_mask)": "sme_mask",
}
"""What is taken of VMCOREINFO (kernel/vmcore_info.c, arch/x86/kernel/vmcore_info_64.c), and its name in the file."""

COLLECTED = (
    *("proc/version", "proc/cmdline", "proc/cpuinfo", "proc/iomem", "proc/kallsyms", "proc/zoneinfo", "proc/meminfo"),
    *("proc/crypto", "proc/sys/kernel/osrelease", "proc/sys/kernel/modprobe", "var/log/dmesg", "sys/power/disk"),
    *("sys/kernel/security/lockdown", "sys/firmware/acpi/tables/FACS", "dev/cpu/0/cpuid"),
    "proc/sys/kernel/random/boot_id",
)
"""Files that the script reads."""

COLLECTED_UNDER = ("sys/devices/system/cpu", "sys/firmware/memmap")
"""Directories in which it reads some of the files: of each CPU, of each range of memory."""

PATIENCE = 120.0
"""Seconds for the script, which takes less than one."""

READERS = "it takes root with CAP_SYS_RAWIO, kptr_restrict below 2 and no lockdown to confidentiality"
"""Who may read /proc/kcore and addresses in /proc/kallsyms (open_kcore(), kallsyms_show_value())."""


@click.command(cls=GroupedCommand, epilog=EPILOG)
@option("--script", group=OUTPUT, is_flag=True, help="Print a POSIX shell script that does the same, and stop.")
@shared("--output", "--root")
@general_options
def command(script: bool, output: str | None, root: str | None, color: str) -> None:  # noqa: ARG001 - every command takes it
    """Write down what the running resumer is like, for --resumer-facts.

    It reads /proc, /sys and the kernel's log: command line, CPUs, cpuidle driver, memory map, where the kernel lies,
    whether it would resume at all; what CPUID says of MWAIT, if the module cpuid is loaded; and of /proc/kcore, where
    root may read it (not under lockdown), the kernel's description of itself and the page tables that parked CPUs will
    walk, some 30 KiB. With these a check is as exact as with a dump, if the tables are the same when the kernel
    resumes; where they cannot be had, it says why on standard error. The script does not read /proc/kcore: a shell
    cannot walk page tables. Nothing is changed.
    """
    from pathlib import Path

    from hibercheck.cli.output import opened_outputs

    text = Path(__file__).with_name("collect.sh").read_text(encoding="utf-8")
    with opened_outputs([output]) as outputs:
        outputs.write(output, [text if script else collect(text, root or "")])


def collect(script: str, root: str) -> str:
    """Run the script, add what only a program can read, and check that the result can be read again.

    What /proc/kcore does not give, and addresses that are hidden, are said on standard error: a check does without
    them, and should be known to.

    Raises:
        InputProblem: There is no shell, or the script failed.
        MalformedDump: What it wrote is not a facts file.
    """
    import json

    from hibercheck.handoff.facts.resumer_facts import parse_facts

    text = run_script(script, root)
    facts = parse_facts(text, "the collected facts")
    more, problem_of_kcore = from_kcore(root.rstrip("/"), facts.present or frozenset())
    if problem_of_kcore:
        say(f"hibercheck: without the kernel's page tables: {problem_of_kcore}")
    collected = json.loads(text, strict=False)
    hidden = [name for name in ("iomem", "kallsyms") if _is_hidden(collected.get(name) or ())]
    if hidden:
        files = " and ".join(f"{root.rstrip('/')}/proc/{name}" for name in hidden)
        say(f"hibercheck: {files} show zeros for all addresses, which count as not known: run it as root")
    return json.dumps(collected | more | _location(root), indent=2) + "\n"


def _is_hidden(lines: Iterable[str]) -> bool:
    """Tell whether lines of addresses have nothing but zeros for them: iomem without CAP_SYS_ADMIN, kallsyms."""
    addresses = [line.split()[0].replace("-", "") for line in lines if line.strip()]
    return bool(addresses) and not any(address.strip("0") for address in addresses)


def _location(root: str) -> dict[str, Any]:
    """Return where systemd says that an image is, as a member of the facts file; nothing where it does not."""
    from pathlib import Path

    from hibercheck.host.location import hibernate_location

    found = hibernate_location(Path(root or "/"))
    if found is None:
        return {}
    return {"hibernate_location": {"uuid": found.uuid, "offset": found.offset, "kernel": found.kernel}}


def run_script(script: str, root: str) -> str:
    """Return what the script prints.

    Raises:
        InputProblem: There is no shell, or the script failed.
        UsageProblem: A file that it reads is one of the outputs.
    """
    import os
    import subprocess

    from hibercheck.errors import InputProblem
    from hibercheck.files.inputs import note_named

    for name in COLLECTED:
        note_named(f"{root.rstrip('/')}/{name}")
    if root:  # nothing can be written to the kernel's own /sys by mistake: no output is made or replaced there
        for name in COLLECTED_UNDER:
            for place, _, files in os.walk(f"{root.rstrip('/')}/{name}"):
                for file in files:
                    note_named(f"{place}/{file}")
    try:
        run = subprocess.run(
            ["/bin/sh", "-s"],
            input=script.encode(),
            capture_output=True,
            env={"ROOT": root.rstrip("/"), "LC_ALL": "C"},  # nothing that makes a shell do more; PATH it sets itself
            check=False,
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired as error:
        raise InputProblem(f"has not collected anything in {PATIENCE:.0f} s", path="/bin/sh") from error
    except OSError as error:
        raise InputProblem(f"cannot be run: {error.strerror}", path="/bin/sh") from error
    if run.returncode:
        problem = run.stderr.decode("utf-8", "replace").strip().splitlines()
        raise InputProblem(f"failed: {problem[-1] if problem else run.returncode}", path="/bin/sh")
    return run.stdout.decode("utf-8", "replace")


def from_kcore(root: str, cpus: frozenset[int]) -> tuple[dict[str, Any], str]:
    """Return what /proc/kcore gives, VMCOREINFO, variables and frames of memory, and why if there are no frames.

    Args:
        root: Where proc is.
        cpus: CPUs that are present.
    """
    import os
    from pathlib import Path

    from hibercheck.dump.dump import open_dump
    from hibercheck.errors import HibercheckError
    from hibercheck.files.inputs import open_input
    from hibercheck.handoff.facts.collecting import collect_frames, collect_values, encode_frames, running_kernel

    path = f"{root}/proc/kcore"
    if not Path(path).exists():
        return {"vmcoreinfo": {}}, f"there is no {path} (the kernel lacks CONFIG_PROC_KCORE)"
    notes: Mapping[str, str] = {}
    values: dict[str, Any] = {}
    try:
        kallsyms = open_input(f"{root}/proc/kallsyms")
        with os.fdopen(kallsyms, encoding="ascii", errors="replace") as symbols, open_dump(path) as core:
            notes = core.vmcoreinfo or {}
            kernel = running_kernel(core, notes, symbols)
            frames = collect_frames(kernel, cpus) if kernel is not None else {}
            values = collect_values(kernel, cpus) if kernel is not None else {}
    except (HibercheckError, OSError, ValueError) as error:
        return {"vmcoreinfo": _described(notes)}, f"{error} ({READERS})"
    found = {"vmcoreinfo": _described(notes)}
    if not frames:
        return found, f"{path} and {root}/proc/kallsyms do not lead to them ({READERS})"
    return found | values | {"frames": encode_frames(frames)}, ""


def _described(notes: Mapping[str, str]) -> dict[str, str]:
    from hibercheck.files.vmcoreinfo import number

    found = {name: number(notes, key) for key, name in KCORE_FACTS.items()}
    forms = {"kernel_offset": hex}
    return {name: forms.get(name, str)(value) for name, value in found.items() if value is not None}
