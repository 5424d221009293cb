"""Two checkouts side by side, in one run: ``python -m tests.bench.compare OLD [NEW] [--runs N] [--only NAME]``.

Each round runs every command once in each checkout, in turns that alternate; what is compared is processor time, which
other work on the machine disturbs least.  The ratio is the median of the rounds' own ratios, with its quartiles: a
round compares what ran within seconds.  Answers of kernels are kept only in the rows that say so, which are as users
run a command for the second time.  This prints, and ends with status 1 where a ratio is above 1.05.
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.support.image_large import enlarge

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "fixtures"
SLOWER = 1.05
FRAMES = 1 << 16
KERNELS = 1000
CPUS = (1, 256)


KEPT = ", kernels read before"
"""What a row is called in which answers of kernels are kept."""
NOTHING_KEPT = {"HIBERCHECK_NO_CACHE": "1", "HIBERCHECK_DESIGNS_NO_CACHE": "1"}


def commands(room: Path, names: list[str], trees: tuple[Path, Path]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield (name, arguments) of the commands that are compared, on files that both checkouts read."""

    def unpacked(name: str) -> str:
        plain = room / Path(name).stem
        if not plain.exists():
            plain.write_bytes(lzma.decompress((FIXTURES / name).read_bytes()))
        return str(plain)

    image = unpacked("images/9c031ac5a1.bin.xz")
    kernels = (unpacked("kernels/small-hlt.vmlinux.xz"), "--resumee", unpacked("kernels/mid-current.vmlinux.xz"))
    handoff = (image, "--resumer", *kernels, "--resumer-cmdline", "nokaslr nosmt init_on_free=1", "--spurious-mwait")
    if "main" in names:
        yield "main", handoff
        yield f"main{KEPT}", handoff
    if "sweep" in names:
        sweep = (*handoff[:5], "--resumer-cmdline", "nosmt init_on_free=1", "--spurious-mwait")
        yield "sweep", sweep
        yield f"sweep{KEPT}", sweep
    if "dump" in names:
        yield "dump", (*handoff, "--resumer-memory", unpacked("memory/fatal.elf.xz"))
    if "verify" in names:
        for kind in ("lzo", "lz4"):
            path = room / f"verify.{kind}"
            enlarge(Path(image), path, frames=FRAMES, tiny=False, checksum=True, compressor=kind)
            yield f"image --verify, {kind}", ("image", str(path), "--verify")
    if "matrix" in names:
        # each checkout's own: what one writes, another version need not read
        program = "import sys; from pathlib import Path; from tests.bench.made_facts import write_facts as write\n"
        program += "write(Path(sys.argv[1]), int(sys.argv[2]))"
        for tree in trees:
            place = str(room / f"facts{trees.index(tree)}")
            command = [sys.executable, "-c", program, place, str(KERNELS)]
            subprocess.run(command, cwd=tree, env=os.environ | {"PYTHONPATH": str(tree)}, check=True)
        words = ("matrix", str(room / "facts{tree}"), "--no-cache", "--format", "json")
        yield f"matrix of {KERNELS} summaries", words
    if "designs" in names:
        for count in CPUS:
            facts = room / f"{count}.json"
            info = [line for cpu in range(count) for line in (f"processor : {cpu}", f"apicid : {cpu}")]
            document = {"hibercheck_facts": 1, "present": f"0-{count - 1}", "online": f"0-{count - 1}", "cpuinfo": info}
            facts.write_text(json.dumps(document))
            yield f"designs, {count} CPUs", ("designs", *handoff, "--resumer-facts", str(facts))


NAMES = ("main", "sweep", "dump", "verify", "matrix", "designs")


def used(tree: Path, words: tuple[str, ...], given: dict[str, str]) -> float:
    """Run a command in a checkout; return the processor time that it and its children took, in seconds.

    Args:
        tree: The checkout.
        words: The command's arguments.
        given: Environment variables for it.

    Raises:
        RuntimeError: It did not do its work, so that its time says nothing.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | given
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "hibercheck", *words],
        cwd="/",  # not in a checkout, whose pyproject.toml would be searched for a configuration
        env=environment | {"PYTHONPATH": str(tree)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in {0, 1}:
        raise RuntimeError(f"{tree}: {' '.join(words)[:200]}: exit status {done.returncode}: {done.stderr[-200:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    """Print the table; return 1 if the new checkout is slower in one of its rows."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.compare", description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path, nargs="?", default=ROOT)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--only", action="append", choices=NAMES, help="only this command; repeatable")
    given = parser.parse_args()
    old, new = given.old.resolve(), given.new.resolve()
    slower = False
    for tree in (old, new):
        # a checkout without byte code would pay for compiling it in every run
        subprocess.run([sys.executable, "-m", "compileall", "-q", tree / "hibercheck"], check=True)
    print(f"Processor time, medians of {given.runs} rounds.\n\n| | before, s | after, s | ratio | quartiles |")
    print("|---|--:|--:|--:|--:|", flush=True)
    with tempfile.TemporaryDirectory(prefix="hibercheck-bench-") as directory:
        for name, words in commands(Path(directory), given.only or list(NAMES), (old, new)):
            environment = {"XDG_CACHE_HOME": directory} | ({} if name.endswith(KEPT) else NOTHING_KEPT)
            rounds = []
            for number in range(given.runs + 1):
                order = (old, new) if number % 2 else (new, old)
                own = {
                    tree: tuple(word.replace("{tree}", str(n)) for word in words) for n, tree in enumerate((old, new))
                }
                took = {tree: used(tree, own[tree], environment) for tree in order}
                if number:  # the first one brings files into memory
                    rounds.append((took[old], took[new]))
            ratios = [after / before for before, after in rounds]
            low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
            first, second = (statistics.median(column) for column in zip(*rounds, strict=True))
            print(f"| {name} | {first:.3f} | {second:.3f} | {middle:.2f} | {low:.2f} to {high:.2f} |", flush=True)
            slower |= middle > SLOWER
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
