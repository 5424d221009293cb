"""All benchmarks in one command: ``python -m tests.bench --image I --resumer R --resumee E > table.md``.

Contenders run in turns in one process tree; the figures are medians.  What is not installed is left out, and said so.
Ratios are of processor time, which other work on the machine disturbs least.  No figure is asserted: this prints.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import lzma
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from hibercheck.files.compression import FORMATS
from hibercheck.kernel.kernel import open_kernel
from hibercheck.swsusp.export import export
from hibercheck.swsusp.image import open_image
from tests.bench import programs
from tests.bench.made_facts import write_facts
from tests.bench.measure import Used, command, in_turns, python, table
from tests.bench.rates import rates
from tests.bench.rates import table as rates_table
from tests.lab.kernels import debug_units
from tests.support.image_large import enlarge

ROOT = Path(__file__).resolve().parent.parent.parent
SCENARIO = ("--resumer-cmdline", "nokaslr", "--spurious-mwait", "--suppose", "nmi")
FRAMES_PER_GIB = 1 << 18
VERIFY_FRAMES = 1 << 18


class Bench:
    """The inputs, and one method for each table.

    Args:
        given: The command line.
        room: A directory for made inputs.
    """

    def __init__(self, given: argparse.Namespace, room: Path) -> None:
        self.image, self.resumer, self.resumee = given.image, given.resumer, given.resumee
        self.compressed = given.vmlinuz
        self.runs = given.runs
        self.room = room
        self.missing: list[str] = []

    def _check(self, image: Path, *more: object) -> tuple[str, ...]:
        return command(image, "--resumer", self.resumer, "--resumee", self.resumee, *SCENARIO, *more)

    def _plain(self, *more: object) -> tuple[str, ...]:
        """Return the main command as most will give it, without a scenario."""
        return command(self.image, "--resumer", self.resumer, "--resumee", self.resumee, *more)

    def _installed(self, module: str) -> bool:
        there = importlib.util.find_spec(module) is not None
        if not there:
            self.missing.append(module)
        return there

    def _on_path(self, name: str) -> bool:
        there = shutil.which(name) is not None
        if not there:
            self.missing.append(name)
        return there

    def main_command(self) -> str:
        """The main command beside what lists the same kernels' symbols: nm sorts them, which is half of its time."""
        both = (self.resumer, self.resumee)
        kept = "--cache-dir", self.room / "kept"
        contenders = {
            "`nm -p R; nm -p E`": [("nm", "-p", one) for one in both],
            "`readelf -sW R; readelf -sW E`": [("readelf", "-sW", one) for one in both],
            "`nm R; nm E`": [("nm", one) for one in both],
            "`hibercheck I --resumer R --resumee E`": [self._check(self.image, *kept)],
            "the same without options": [self._plain(*kept)],
            "the same, `-q`": [self._check(self.image, "-q", *kept)],
            "the same, `--format json`": [self._check(self.image, "--format", "json", *kept)],
            "kernels never read before": [self._check(self.image, "--no-cache")],
            "the same without options, kernels never read before": [self._plain("--no-cache")],
            "the same, `-q`, kernels never read before": [self._check(self.image, "-q", "--no-cache")],
        }
        sizes = " and ".join(f"{Path(one).stat().st_size >> 20} MiB" for one in (self.resumer, self.resumee))
        return table(
            "The main command", f"R and E have {sizes}.", in_turns(contenders, self.runs), next(iter(contenders))
        )

    def start_up(self) -> str:
        """What is paid before anything is read."""
        contenders = {
            "`python -c pass`": [python("pass")],
            "`hibercheck --version`": [command("--version")],
            "`hibercheck --help`": [command("--help")],
            "`hibercheck check --help`": [command("check", "--help")],
            "`hibercheck rules`": [command("rules")],
        }
        return table("Start-up", "", in_turns(contenders, self.runs), next(iter(contenders)))

    def verify(self) -> Iterator[str]:
        """``image --verify`` beside the decompressor alone, and beside the tools of each format."""
        for kind in ("lzo", "lz4"):
            path = self._enlarged(kind)
            contenders = {
                f"the {kind} decompressor alone": [python(programs.BARE, path)],
                "`hibercheck image --verify`": [command("image", path, "--verify")],
            }
            tool = {"lzo": "lzop", "lz4": "lz4"}[kind]
            if self._on_path(tool):
                packed = self.room / f"contents.{kind}"
                self._pack(tool, path, packed)
                contenders[f"`{tool} -t`, the same contents"] = [(tool, "-t", str(packed))]
            note = f"{VERIFY_FRAMES >> 8} MiB of memory in the image, checksum included; hibercheck with its start-up."
            yield table(f"Verifying ({kind})", note, in_turns(contenders, self.runs), next(iter(contenders)))

    def rates(self) -> Iterator[str]:
        """``verify`` and ``export`` in one process, where threads and not processes are what is compared."""
        shared = Path("/dev/shm")  # noqa: S108 - memory, so that hibercheck is measured and not the disk
        for kind in ("lzo", "lz4"):
            path = self._enlarged(kind)
            with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as memory:
                volume, measured = rates(path, {"memory": Path(memory), "disk": self.room}, self.runs)
            yield rates_table(kind, volume, measured)

    def _enlarged(self, kind: str) -> Path:
        """Return an image of `VERIFY_FRAMES` of real contents, compressed so."""
        path = self.room / f"verify.{kind}"
        if not path.exists():
            image = Path(self.image)
            enlarge(image, path, frames=VERIFY_FRAMES, tiny=False, checksum=True, compressor=kind)
        return path

    def _pack(self, tool: str, image: Path, packed: Path) -> None:
        """Compress the contents of an image with the command line tool."""
        contents = self.room / "contents"
        with contents.open("wb") as stream:
            subprocess.run(python(programs.CONTENTS, image), stdout=stream, check=True)
        with packed.open("wb") as stream:
            subprocess.run([tool, "-1", "-c", str(contents)], stdout=stream, stderr=subprocess.DEVNULL, check=True)
        contents.unlink()

    def symbols(self) -> str:
        """Thirty symbols out of the resumer."""
        contenders = {
            "`nm`": [("nm", self.resumer)],
            "hibercheck": [python(programs.SYMBOLS, self.resumer)],
        }
        if self._installed("elftools"):
            contenders["pyelftools"] = [python(programs.ELFTOOLS, self.resumer)]
        if self._installed("lief"):
            contenders["LIEF"] = [python(programs.LIEF, self.resumer)]
        return table("Thirty symbols", "", in_turns(contenders, min(self.runs, 3)), "`nm`")

    def kallsyms(self) -> str:
        """The same out of a kernel without a symbol table."""
        stripped = self.room / "stripped"
        subprocess.run(["objcopy", "--strip-all", self.resumer, str(stripped)], check=True)
        contenders = {"hibercheck": [python(programs.SYMBOLS, stripped)]}
        if self._on_path("vmlinux-to-elf"):
            contenders["vmlinux-to-elf"] = [("vmlinux-to-elf", str(stripped), str(self.room / "whole"))]
        return table("Thirty symbols of a stripped kernel", "", in_turns(contenders, 3), "hibercheck")

    def vmlinuz(self) -> Iterator[str]:
        """The same out of compressed kernels, which are opened and decompressed first."""
        for path in self.compressed:
            contenders = {"hibercheck": [python(programs.SYMBOLS, path)]}
            if self._on_path("vmlinux-to-elf"):
                contenders["vmlinux-to-elf"] = [("vmlinux-to-elf", path, str(self.room / "whole"))]
            note = f"{Path(path).stat().st_size >> 20} MiB, {_payload(path)}."
            yield table(f"Thirty symbols of {Path(path).name}", note, in_turns(contenders, 3), "hibercheck")

    def debuggers(self) -> str:
        """A whole check of a committed image beside what one would open it in otherwise, to the first answer."""
        fixtures = ROOT / "fixtures"
        image, resumer = fixtures / "images" / "b65f345bef.bin.xz", fixtures / "kernels" / "small-hlt.vmlinux.xz"
        core, kernel, quit_ = (self.room / name for name in ("core", "with-types", "quit"))
        with open_image(str(image)) as opened:
            export(opened, str(core))
        for name in ("vmlinux", "debug"):
            packed = fixtures / "kernels" / f"small-current.{name}.xz"
            (self.room / name).write_bytes(lzma.decompress(packed.read_bytes()))
        debug_units.write(debug_units.read(self.room / "debug"), kernel, base=self.room / "vmlinux")
        quit_.write_text("log\nquit\n")
        plain = [self.room / name for name in ("image", "resumer")]
        for packed, path in zip((image, resumer), plain, strict=True):
            path.write_bytes(lzma.decompress(packed.read_bytes()))
        check = (plain[0], "--resumer", plain[1])
        contenders = {
            "`hibercheck I --resumer R`": [command(*check, "--cache-dir", self.room / "kept")],
            "the same, kernels never read before": [command(*check, "--no-cache")],
        }
        if self._installed("drgn"):
            contenders["drgn, the kernel's release"] = [python(programs.DRGN, core, kernel)]
        if self._on_path("crash"):
            contenders["`crash`, the log"] = [
                ("crash", "--no_kmem_cache", "-s", "-i", *map(str, (quit_, kernel, core)))
            ]
        note = "crash and drgn read the core that `hibercheck export` makes of I, and a vmlinux with some types."
        return table("Debuggers", note, in_turns(contenders, self.runs), next(iter(contenders)))

    def walk(self) -> str:
        """Translations through one set of page tables, in memory."""
        contenders = {"hibercheck": [python(programs.WALK)], "the tables only": [python(programs.TABLES)]}
        if self._installed("volatility3"):
            contenders["volatility3, Intel32e"] = [python(programs.VOLATILITY)]
        note = f"{programs.TRANSLATIONS} translations of 4 KiB pages; ours keep every step and check every bit."
        return table("Page walks", note, in_turns(contenders, self.runs), "hibercheck")

    def growth_of_memory(self) -> str:
        """The main command on machines with more memory, all of it in the image."""
        rows: dict[str, Used] = {}
        for size in (1, 4, 16, 64):
            path = enlarge(Path(self.image), self.room / "large", frames=size * FRAMES_PER_GIB)
            name = f"{size} GiB, {path.stat().st_size >> 20} MiB of image"
            rows |= in_turns({name: [self._check(path, "--no-cache")]}, 3)
            path.unlink()
        return table("Growth: memory of the machine", "Runs of 16 frames.", rows, next(iter(rows)))

    def growth_of_cpus(self) -> str:
        """The main command with more CPUs to park."""
        rows: dict[str, Used] = {}
        for count in (1, 16, 64, 256, 1024):
            facts = self.room / f"{count}.json"
            info = [line for cpu in range(count) for line in (f"processor : {cpu}", f"apicid : {cpu}")]
            document = {"hibercheck_facts": 1, "present": f"0-{count - 1}", "online": f"0-{count - 1}", "cpuinfo": info}
            facts.write_text(json.dumps(document))
            rows |= in_turns({f"{count} CPUs": [self._check(self.image, "--resumer-facts", facts, "--no-cache")]}, 3)
        return table("Growth: CPUs", "All but one are parked and replayed.", rows, next(iter(rows)))

    def growth_of_matrix(self) -> str:
        """``matrix`` with more kernels: every one resumes every other."""
        rows: dict[str, Used] = {}
        for count in (1, 10, 100, 1000):
            directory = self.room / f"facts{count}"
            write_facts(directory, count)
            rows |= in_turns({f"{count} kernels, {count**2} pairs": [command("matrix", directory, "--no-cache")]}, 1)
        return table(
            "Growth: a matrix",
            "Of facts files; one worker a CPU, whose times are added.",
            rows,
            next(iter(rows)),
        )


def _payload(path: str) -> str:
    """How a bzImage is compressed, and how large its kernel is."""
    with open_kernel(path) as kernel:
        size = len(kernel.elf.data) >> 20
    data = Path(path).read_bytes()
    start = 512 * ((data[0x1F1] or 4) + 1) + int.from_bytes(data[0x248:0x24C], "little")
    form = next((one.name for one in FORMATS if data[start:].startswith(one.magic)), "unknown")
    return f"{form}, of {size} MiB"


TABLES: dict[str, Callable[[Bench], str | Iterator[str]]] = {
    "main": Bench.main_command,
    "start": Bench.start_up,
    "verify": Bench.verify,
    "rates": Bench.rates,
    "symbols": Bench.symbols,
    "kallsyms": Bench.kallsyms,
    "vmlinuz": Bench.vmlinuz,
    "debuggers": Bench.debuggers,
    "walk": Bench.walk,
    "memory": Bench.growth_of_memory,
    "cpus": Bench.growth_of_cpus,
    "matrix": Bench.growth_of_matrix,
}


def _whole(path: str) -> str:
    """Return a path that holds wherever a command runs."""
    return str(Path(path).resolve())


def main() -> None:
    """Print the tables that are asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--image", type=_whole, required=True, help="an image that E wrote, compressed")
    parser.add_argument("--resumer", type=_whole, required=True, metavar="R", help="a vmlinux, best with full DWARF")
    parser.add_argument("--resumee", type=_whole, required=True, metavar="E", help="another")
    parser.add_argument(
        "--vmlinuz", type=_whole, action="append", default=[], metavar="Z", help="a compressed kernel; repeatable"
    )
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=", ".join(TABLES))
    given = parser.parse_args()
    if unknown := set(given.tables) - set(TABLES):
        parser.error(f"no table {', '.join(sorted(unknown))}")
    # a command that has given up the right to write elsewhere does not write its byte code either
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(ROOT / "hibercheck")], check=True)
    with tempfile.TemporaryDirectory(prefix="hibercheck-bench-") as room:
        bench = Bench(given, Path(room))
        load = os.getloadavg()[0]
        print(
            f"Python {platform.python_version()}, {os.cpu_count()} CPUs, load {load:.1f} at the start; "
            f"medians of {given.runs} runs in turns.\n"
        )
        for name in given.tables or TABLES:
            made = TABLES[name](bench)
            for one in [made] if isinstance(made, str) else made:
                print(one, flush=True)
        if bench.missing:
            print(f"Not installed, so not compared: {', '.join(dict.fromkeys(bench.missing))}.")


if __name__ == "__main__":
    main()
