"""Hold the symbols recovered from Debian's vmlinuz against their System.map, and against vmlinux-to-elf.

    python tests/support/debian_kernels.py KERNELS --debug
    python tests/support/kernel_symbols.py KERNELS fixtures/kernel-symbols.json

Every vmlinuz below the directory is read as a user's would be; the System.map and the vmlinux come from the -dbg
package of the same release, where there is one.  Nothing is written if a recovered symbol is wrong.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from hibercheck.kernel.kernel import open_kernel

Symbols = Counter[tuple[int, str]]
_TIMEOUT = 600


def recovered(path: Path) -> tuple[str, Symbols, dict[tuple[int, str], str]]:
    """A kernel's release, its symbols as hibercheck reads them, and their letters."""
    with open_kernel(str(path)) as kernel:
        rows = [(symbol.address, symbol.name, symbol.letter) for symbol in kernel.source]
        return kernel.release, Counter(row[:2] for row in rows), {row[:2]: row[2] for row in rows}


def system_map(path: Path) -> tuple[Symbols, dict[tuple[int, str], str]]:
    """The symbols of a System.map, and their letters."""
    rows = [line.split() for line in path.read_text().splitlines()]
    return Counter((int(row[0], 16), row[2]) for row in rows), {(int(row[0], 16), row[2]): row[1] for row in rows}


def not_meant_for_kallsyms(name: str, letter: str) -> bool:
    """Whether scripts/kallsyms.c leaves a symbol out: its own tables, and absolute values of the linker's."""
    return name.startswith("kallsyms_") or letter in "aA"


def against_map(ours: Symbols, listed: Path, full: Path | None) -> dict[str, int]:
    """Compare with a System.map; what that leaves out (scripts/mksysmap) is looked up in the vmlinux's own table.

    Returns:
        ``same``: symbols with the same name and address.  ``left_out``: those of System.map that kallsyms never has.
        ``unlisted``: those that System.map leaves out and the vmlinux has.  ``missing`` and ``wrong``: the rest.
    """
    theirs, letters = system_map(listed)
    beyond = ours - theirs
    unlisted = beyond & recovered(full)[1] if beyond and full is not None else Counter()
    absent = theirs - ours
    missing = [one for one in absent if not not_meant_for_kallsyms(one[1], letters[one])]
    return {
        "same": (ours & theirs).total(),
        "left_out": absent.total() - len(missing),
        "unlisted": unlisted.total(),
        "missing": len(missing),
        "wrong": (beyond - unlisted).total(),
    }


def against_vmlinux_to_elf(ours: Symbols, path: Path) -> dict[str, int] | str:
    """Compare with what vmlinux-to-elf finds in the same file, or say why not."""
    tool = shutil.which("vmlinux-to-elf")
    if tool is None:
        return "not installed"
    with tempfile.TemporaryDirectory(prefix="vmlinux-to-elf-") as room:
        made = Path(room) / "vmlinux"
        try:
            subprocess.run([tool, path, made], check=True, capture_output=True, timeout=_TIMEOUT)
        except subprocess.CalledProcessError as error:
            return f"fails: {error.stderr.decode('utf-8', 'replace').strip().splitlines()[-1]}"
        except subprocess.TimeoutExpired:
            return f"takes over {_TIMEOUT} s"
        if not made.exists():
            return "writes nothing"
        theirs = recovered(made)[1]
    return {
        "same": (ours & theirs).total(),
        "only_here": (ours - theirs).total(),
        "only_there": (theirs - ours).total(),
    }


def beside(directory: Path, release: str, name: str) -> Path | None:
    """A file of a release's -dbg package."""
    places = (f"boot/{name}-{release}", f"lib/modules/{release}/{name}")
    package = directory / f"linux-image-{release}-dbg"
    return next((path for place in places if (path := package / "usr/lib/debug" / place).is_file()), None)


def row(path: Path, directory: Path) -> dict[str, Any]:
    """One kernel's row of the table."""
    release, ours, _ = recovered(path)
    listed, full = beside(directory, release, "System.map"), beside(directory, release, "vmlinux")
    return {
        "release": release,
        "kallsyms": ours.total(),
        "system_map": against_map(ours, listed, full) if listed else None,
        "vmlinux_to_elf": against_vmlinux_to_elf(ours, path),
    }


def main() -> int:
    """Refresh the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="where tests/support/debian_kernels.py put the kernels")
    parser.add_argument("table", type=Path, help="the JSON file to write")
    arguments = parser.parse_args()
    rows = []
    for path in sorted(arguments.directory.glob("linux-*/**/vmlinuz*")):
        if path.is_file() and not path.is_symlink():
            rows.append(row(path, arguments.directory))
            print(json.dumps(rows[-1]), file=sys.stderr)
    found = [one["system_map"] for one in rows if one["system_map"]]
    if any(one["missing"] or one["wrong"] for one in found):
        print("symbols differ from System.map: nothing is written", file=sys.stderr)
        return 1
    table = sorted(rows, key=lambda one: str(one["release"]))
    arguments.table.write_text("[\n" + ",\n".join(f" {json.dumps(one)}" for one in table) + "\n]\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
