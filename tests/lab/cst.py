"""Idle states for the guest: an SSDT with _CST, and what makes a stock kernel under TCG accept it.

QEMU has no _CST.  Its CPUID leaf 5 says (EDX 0) that no C-state has sub-states, so that the kernel refuses MWAIT states
(``acpi_processor_ffh_cstate_probe_cpu``), and TCG raises #GP for MWAIT with ECX=1, with which the kernel enters them.
The SSDT goes in through ``-acpitable``, on both sides lest the memory map differ; the two functions are patched in the
running guest.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

from tests.lab.errors import LabError
from tests.lab.kernels import Kernels, code_of

FFH = "ResourceTemplate () {{ Register (FFixedHW, 1, 2, {address:#x}, 1) }}"
"""An MWAIT state: bit width 1 (Intel), bit offset 2 (native C-state), the hint (Intel 302223, table 4)."""
SYSTEM_IO = "ResourceTemplate () {{ Register (SystemIO, 8, 0, {address:#x}, 1) }}"
IDLE_PORT = 0x9010
"""A port that no device of the machine answers; reading it changes nothing."""
STI_HLT_CLI_RET = bytes.fromhex("fbf4fac3")
"""Idle in HLT and come back with interrupts off, as the caller of an idle entry expects."""
KINDS = {
    "mwait": (FFH.format(address=0x00), FFH.format(address=0x10)),
    "port": (FFH.format(address=0x00), SYSTEM_IO.format(address=IDLE_PORT)),
}


def source(kind: str, cpus: int) -> str:
    """The SSDT in ASL: C1 and C2 for each CPU of QEMU's q35."""
    first, second = KINDS[kind]
    lines = ['DefinitionBlock ("", "SSDT", 2, "HIBERC", "CST", 1)', "{"]
    for cpu in range(cpus):
        path = f"\\_SB.CPUS.C{cpu:03X}"
        lines += [
            f"    External ({path}, DeviceObj)",
            f"    Scope ({path}) {{",
            "        Name (_CST, Package () { 2,",
            f"            Package () {{ {first}, 1, 1, 1000 }},",
            f"            Package () {{ {second}, 2, 10, 500 }} }})",
            "    }",
        ]
    return "\n".join([*lines, "}"]) + "\n"


def table(directory: Path, kind: str, cpus: int) -> Path:
    """Compile the SSDT (with iasl, of acpica-tools).

    Raises:
        LabError: iasl is missing or refuses it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"cst-{kind}-{cpus}.asl"
    path.write_text(source(kind, cpus))
    try:
        run = subprocess.run(["iasl", path], capture_output=True, text=True, check=False)
    except OSError as error:
        raise LabError(f"iasl (Debian: acpica-tools): {error}") from error
    if run.returncode:
        raise LabError(f"iasl refuses {path}: {run.stdout[-300:]}")
    return path.with_suffix(".aml")


def patches(kernels: Kernels, kernel: str) -> tuple[tuple[str, str], ...]:
    """What to write into a stock kernel so that it takes MWAIT states under TCG.

    Raises:
        LabError: The kernel has no such functions, or they look different.
    """
    probe, enter = "acpi_processor_ffh_cstate_probe_cpu", "acpi_processor_ffh_cstate_enter"
    symbols = kernels.symbols(kernel)
    if probe not in symbols or enter not in symbols:
        raise LabError(f"{kernel} has no {probe} or no {enter}")
    start = symbols[probe]
    listing = disassemble(code_of(kernels.vmlinux(kernel), start, 0x200), start)
    branch, size = branch_after_test(listing)
    return ((f"{probe}+{branch - start:#x}", "90" * size), (enter, STI_HLT_CLI_RET.hex()))


def disassemble(code: bytes, start: int) -> str:
    """Disassemble bytes with objdump."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(code)
        file.flush()
        line = ["objdump", "-D", "-b", "binary", "-m", "i386:x86-64", f"--adjust-vma={start:#x}", file.name]
        return subprocess.run(line, capture_output=True, text=True, check=True).stdout


def branch_after_test(listing: str) -> tuple[int, int]:
    """Address and size of the ``je`` after the test of the number of sub-states (``test $0xf``).

    Raises:
        LabError: There is none.
    """
    lines = listing.splitlines()
    for number, line in enumerate(lines[:-1]):
        if re.search(r"\ttest[bl]?\s+\$0xf,", line):
            near_or_short = r"(0f 84(?: [0-9a-f]{2}){4}|74 [0-9a-f]{2})"
            found = re.match(rf"\s*([0-9a-f]+):\s+{near_or_short}\s*\tje", lines[number + 1])
            if found:
                return int(found[1], 16), len(found[2].split())
    raise LabError("no test of the number of sub-states is to be seen")
