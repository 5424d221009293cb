"""A Python for the guest: as much of this one as ``hibercheck collect`` imports, and hibercheck."""

from __future__ import annotations

import json
import py_compile
import re
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import hibercheck
from tests.lab.errors import LabError

Entry = tuple[str, int, bytes, tuple[int, int]]
"""Name, mode, content and device number, as :func:`tests.lab.initramfs.newc` takes them."""
HOME = f"lib/python{sys.version_info.major}.{sys.version_info.minor}"
WRAPPER = """#!/bin/sh
export PYTHONHOME=/ PYTHONUTF8=1 LD_LIBRARY_PATH=/lib
exec /bin/python3 -S -c 'from hibercheck.cli.main import main; main()' "$@"
"""
TRACE = """
import json, sys
sys.argv[0] = "hibercheck"
from hibercheck.cli.main import main
try:
    main()
except SystemExit as end:
    if end.code:
        raise
specified = {name: getattr(one, "__spec__", None) for name, one in sys.modules.items()}
own = {name: sys.modules[name] for name, spec in specified.items() if getattr(spec, "name", name) == name}
print(json.dumps({name: getattr(one, "__file__", None) for name, one in own.items()}))
"""
ALWAYS = ("encodings.ascii", "encodings.latin_1", "encodings.cp437")
"""Codecs, which are imported by name and by need."""


def imported() -> dict[str, Path]:
    """The modules that ``hibercheck collect`` loads from files, found by running it on a made-up root.

    Raises:
        LabError: It fails.
    """
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "proc").mkdir()
        (root / "proc/kcore").write_bytes(core())
        (root / "proc/kallsyms").write_text("ffffffff81000000 T _text\n")
        arguments = ["collect", "--root", name, "-o", str(root / "facts")]
        run = subprocess.run([sys.executable, "-c", TRACE, *arguments], capture_output=True, text=True, check=False)
    if run.returncode:
        raise LabError(f"hibercheck collect fails here: {run.stderr[-200:]}")
    found = {module: Path(file) for module, file in json.loads(run.stdout).items() if file and module != "__main__"}
    library = Path(json.__file__).parents[1]
    found |= {module: library / (module.replace(".", "/") + ".py") for module in ALWAYS}
    return found


def changed() -> float:
    """When hibercheck's code was changed last, in seconds since 1970."""
    return max(path.stat().st_mtime for path in Path(hibercheck.__file__).parent.rglob("*") if path.is_file())


def core() -> bytes:
    """The smallest ELF core that hibercheck reads: a page of memory."""
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = struct.pack("<16sHHIQQQIHHHHHH", ident, 4, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 7, 4096, 0, 0, 4096, 4096, 4096)
    return (header + load).ljust(8192, b"\0")


def entries() -> list[Entry]:
    """What is added to the initramfs: interpreter, libraries, modules (compiled), and the ``hibercheck`` command.

    Raises:
        LabError: This Python cannot be copied.
    """
    files: dict[str, bytes] = {"bin/hibercheck": WRAPPER.encode()}
    interpreter = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    programs = [interpreter]
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for module, path in imported().items():
            inside = f"{HOME}/{module.replace('.', '/')}"
            if path.suffix == ".py":
                inside += "/__init__" if path.name == "__init__.py" else ""
                files[f"{inside}.pyc"] = compiled(path, place / "module.pyc")
            else:
                files[inside + ".so"] = path.read_bytes()
                programs.append(path)
            if module == "hibercheck.cli.collect":
                files[f"{HOME}/hibercheck/cli/collect.sh"] = path.with_name("collect.sh").read_bytes()
        for library in (interpreter, *libraries(programs)):
            files[f"lib/{library.name}"] = stripped(library, place / "stripped")
    files["bin/python3"] = files.pop(f"lib/{interpreter.name}")
    loader = [name for name in files if name.startswith("lib/ld-linux")]
    files |= {f"lib64/{Path(name).name}": files.pop(name) for name in loader}
    directories = {str(parent) for name in files for parent in Path(name).parents if str(parent) not in (".", "bin")}
    return [
        *((name, stat.S_IFDIR | 0o755, b"", (0, 0)) for name in sorted(directories)),
        *((name, stat.S_IFREG | 0o755, content, (0, 0)) for name, content in sorted(files.items())),
    ]


def program_entries(program: Path) -> list[Entry]:
    """A program of this machine and the libraries that it needs.

    Raises:
        LabError: It is not here.
    """
    if not program.exists():
        raise LabError(f"no {program} here")
    out = [(f"bin/{program.name}", stat.S_IFREG | 0o755, program.read_bytes(), (0, 0))]
    for library in libraries([program]):
        place = "lib64" if library.name.startswith("ld-linux") else "lib"
        out.append((f"{place}/{library.name}", stat.S_IFREG | 0o755, library.resolve().read_bytes(), (0, 0)))
    return out


def compiled(path: Path, target: Path) -> bytes:
    """A module's code, which the guest takes without looking for the source."""
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(path), str(target), dfile=path.name, doraise=True, invalidation_mode=mode)
    return target.read_bytes()


def libraries(programs: Iterable[Path]) -> list[Path]:
    """The shared libraries that programs need, the loader included, by the names under which they are looked for.

    Raises:
        LabError: There is no ldd.
    """
    try:
        run = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=False)
    except OSError as error:
        raise LabError("no ldd here") from error
    found = re.findall(r"(?:=> |^\s*)(/\S+) \(0x", run.stdout, re.MULTILINE)
    return sorted({Path(name) for name in found})


def stripped(path: Path, target: Path) -> bytes:
    """A library without its debugging information, if there is a tool for that."""
    if shutil.which("strip") is None:
        return path.read_bytes()
    subprocess.run(["strip", "--strip-debug", "-o", target, path.resolve()], check=True, capture_output=True)
    return target.read_bytes()
