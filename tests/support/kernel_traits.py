"""Write the table of what real kernels do: fixtures/kernel-traits.json.

    python tests/support/debian_kernels.py KERNELS --debug
    python tests/support/bundled_kernel.py KERNELS libkrunfw.so PACKAGE VERSION
    tests/lab/kernels/variants.sh KERNELS SOURCE
    python tests/support/kernel_traits.py KERNELS fixtures/kernel-traits.json

Reads every kernel below the directory and those of fixtures/kernels, vmlinuz and vmlinux alike, puts their rows in
place of those that the table has of them, and refuses to write a table in which the two files of one kernel differ.
They may in one thing: CONFIG_PHYSICAL_ALIGN is in the vmlinuz's setup header and, before 6.12, nowhere in a vmlinux.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from hibercheck.kernel.code.codec import encode
from hibercheck.kernel.code.traits import Traits, read_traits
from hibercheck.kernel.kernel import Kernel, open_kernel

_IN_SETUP_HEADER = "physical_align"

OPTIONS = (
    "CONFIG_ACPI_PROCESSOR",
    "CONFIG_BOOT_CONFIG",
    "CONFIG_CC_OPTIMIZE_FOR_SIZE",
    "CONFIG_CMDLINE",
    "CONFIG_CMDLINE_BOOL",
    "CONFIG_CRYPTO_LZ4",
    "CONFIG_CRYPTO_LZO",
    "CONFIG_CXL_BUS",
    "CONFIG_HALTPOLL_CPUIDLE",
    "CONFIG_HIBERNATION",
    "CONFIG_HOTPLUG_CPU",
    "CONFIG_HOTPLUG_PARALLEL",
    "CONFIG_INTEL_IDLE",
    "CONFIG_KALLSYMS_ABSOLUTE_PERCPU",
    "CONFIG_KALLSYMS_ALL",
    "CONFIG_KALLSYMS_BASE_RELATIVE",
    "CONFIG_LOCK_DOWN_IN_EFI_SECURE_BOOT",
    "CONFIG_MITIGATION_PAGE_TABLE_ISOLATION",
    "CONFIG_PAGE_TABLE_ISOLATION",
    "CONFIG_PGTABLE_LEVELS",
    "CONFIG_PHYSICAL_ALIGN",
    "CONFIG_RANDOMIZE_BASE",
    "CONFIG_RANDOMIZE_MEMORY",
    "CONFIG_SECRETMEM",
    "CONFIG_SECURITY_LOCKDOWN_LSM",
    "CONFIG_X86_FRED",
)
"""Options of the configuration that a trait can be held to."""


def kernels_below(directory: Path) -> list[Path]:
    """Every kernel file of a package unpacked below a directory, in order of its path."""
    return sorted(
        path
        for package in directory.glob("linux-*/")
        for path in package.rglob("vmlinu[xz]*")
        if path.is_file() and not path.is_symlink()
    )


_LAB, _BARE = "tests/lab/kernels/build.sh", "tests/lab/kernels/bare.sh"
COMMITTED = {
    "small-current": ("linux-source-6.1", "6.1.192-2", _LAB),
    "small-hlt": ("linux-source-6.1", "6.1.192-2", _LAB),
    "mid-current": ("linux-source-6.1", "6.1.192-2", _LAB),
    "kcore-hlt": ("linux-source-6.1", "6.1.192-2", _LAB),
    "v73-stock": ("linux-source-7.3", "7.3.4-1~bpo13+1", _LAB),
    "bare-prepended": ("linux-source-6.12", "6.12.117-1~deb12u1", _BARE),
}
"""Where the kernels of fixtures/kernels come from: the source's package and version, and what built them."""


def committed_kernels(fixtures: Path) -> list[Path]:
    """The files of those."""
    paths = [fixtures / "kernels" / f"{name}{form}" for name in COMMITTED for form in (".bzImage", ".vmlinux.xz")]
    return [path for path in paths if path.exists()]


def provenance(kernel: Path, directory: Path) -> dict[str, str]:
    """The package that a kernel came from, and its version; of one that was built, also how."""
    name, _, _ = kernel.name.partition(".")
    if name in COMMITTED:
        package, version, made = COMMITTED[name]
        return {"package": package, "version": version, "made": f"{made} OUTPUT SOURCE {name}"}
    package = kernel.relative_to(directory).parts[0]
    told = directory / package / "provenance.json"
    if told.exists():
        found: dict[str, str] = json.loads(told.read_text())
        return found
    (deb,) = directory.glob(f"{package}_*.deb")
    _, version, _ = deb.name.split("_")
    return {"package": package.removesuffix("-dbg"), "version": version}


def identity(row: dict[str, Any]) -> str:
    """What tells the kernel of a row from others: its build id, or where it came from."""
    return row["build_id"] or f"{row['package']} {row['version']}"


def configuration(kernel: Kernel) -> dict[str, str] | None:
    """The options that are on in the configuration beside a vmlinuz, or in the kernel; None without a configuration."""
    image = Path(kernel.path)
    path = image.with_name(image.name.replace("vmlinuz", "config", 1))
    if not path.exists() or path == image:
        return (
            None if kernel.config is None else {name: kernel.config[name] for name in OPTIONS if name in kernel.config}
        )
    pairs = (line.split("=", 1) for line in path.read_text().splitlines() if line.startswith(OPTIONS))
    return {name: value.strip('"') for name, value in pairs if name in OPTIONS}


def summary(traits: Traits) -> dict[str, Any]:
    """The values of the traits, and of the loops what tells them apart."""
    values = {trait.name: encode(trait.value) for trait in traits if trait.name not in ("idt_gates", "intel_idle")}
    tables = traits.intel_idle.value
    values["intel_idle"] = None if tables is None else [len(tables.models), len(tables.tables)]
    values["ist"] = {str(gate.vector): gate.ist for gate in traits.idt_gates.value or () if gate.ist}
    values["unknown"] = {trait.name: trait.reason for trait in traits if trait.value is None}
    values["park_loops"] = [
        f"{loop.role}{f' {loop.driver}' if loop.driver else ''} {loop.kind} {loop.symbol} {loop.start:#x}-{loop.end:#x}"
        f"{' kicked' if loop.after_kick else ''}"
        for loop in traits.park_loops
    ]
    return values


def row(kernel: Kernel, directory: Path) -> dict[str, Any]:
    """One kernel's row of the table."""
    return {
        **provenance(Path(kernel.path), directory),
        "release": kernel.release,
        "build_id": kernel.build_id,
        "traits": summary(read_traits(kernel)),
        "config": configuration(kernel),
    }


def agreed(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any] | None:
    """The traits of two files of one kernel, or None where they differ."""
    best = one if one[_IN_SETUP_HEADER] is not None else other
    excused = {_IN_SETUP_HEADER: best[_IN_SETUP_HEADER], "unknown": best["unknown"]}
    same = {**one, **excused} == {**other, **excused}
    return best if same and set(one["unknown"]) ^ set(other["unknown"]) <= {_IN_SETUP_HEADER} else None


def main() -> int:
    """Refresh the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="where tests/support/debian_kernels.py put the kernels")
    parser.add_argument("table", type=Path, help="the JSON file to write")
    arguments = parser.parse_args()
    old = json.loads(arguments.table.read_text()) if arguments.table.exists() else []
    rows: dict[str, dict[str, Any]] = {}
    read = {identity(one): set(one["read"]) for one in old}
    for path in (*kernels_below(arguments.directory), *committed_kernels(arguments.table.parent)):
        with open_kernel(str(path)) as kernel:
            found = row(kernel, arguments.directory)
        key = identity(found)
        if key in rows:
            merged = agreed(rows[key]["traits"], found["traits"])
            if merged is None:
                print(f"{path}: differs from the other file of {found['release']}", file=sys.stderr)
                return 1
            found["traits"] = merged
            found["config"] = found["config"] or rows[key]["config"]
        rows[key] = found
        read.setdefault(key, set()).add("vmlinux" if "vmlinux" in path.name else "vmlinuz")
        print(f"{found['release']}: {path.name}", file=sys.stderr)
    every = {identity(one): one for one in old} | rows
    table = sorted(
        ({**found, "read": sorted(read[key])} for key, found in every.items()),
        key=lambda one: (one["release"], one["package"]),
    )
    arguments.table.write_text(json.dumps(table, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
