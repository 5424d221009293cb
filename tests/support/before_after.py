"""What a change of the engine changes for its users: all commands on the fixtures, before and after.

    python -m tests.support.before_after OLD_CHECKOUT [--cases ../shared/cases/cases.json] [COMMAND ...]

runs each command in both trees (with the Python that runs this) on the same files and compares exit status and answer:
of JSON every member, of other answers each line.  Differences are shown by kind, each with the reason it was meant for,
as ``tests/support/before_after.md`` keeps them; one without a reason ends it with status 1.
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.before_after_reasons import REASONS

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "fixtures"

VARIANTS: tuple[tuple[str, ...], ...] = (
    (),
    ("--spurious-mwait",),
    ("--suppose", "nmi"),
    ("--suppose", "mce", "--suppose", "smi"),
    ("--resumer-cmdline", ""),
    ("--resumer-cmdline", "nokaslr nr_cpus=1", "--suppose", "mce"),
    ("--park", "hlt"),
    ("--park", "fixmap"),
    ("--park", "self-contained"),
    ("--timeline",),
)
"""What is added to the own arguments of a committed case."""

KERNELS = ("small-current", "small-hlt", "mid-current", "v73-stock")


class Command(NamedTuple):
    """One command line.

    Attributes:
        kind: The command's name.
        name: What to call this run of it.
        words: Its arguments, with files that both trees are given alike.
    """

    kind: str
    name: str
    words: tuple[str, ...]


class Files:
    """The fixtures, unpacked once."""

    def __init__(self, room: Path) -> None:
        self.room = room

    def __call__(self, path: Path | str) -> str:
        """Return the path of a file as it is before compression."""
        packed = FIXTURES / path
        if packed.suffix != ".xz":
            return str(packed)
        plain = self.room / packed.stem
        if not plain.exists():
            plain.write_bytes(lzma.decompress(packed.read_bytes()))
        return str(plain)


def checks(files: Files, cases: list[dict[str, Any]], variants: tuple[tuple[str, ...], ...]) -> Iterator[Command]:
    """Yield the checks of some cases."""
    for case in cases:
        inputs = [files(case["image"]), "--resumer", files(case["resumer"]), "--resumee", files(case["resumee"])]
        for more in variants:
            own = list(case["args"])
            if "--resumer-cmdline" in more and "--resumer-cmdline" in own:
                at = own.index("--resumer-cmdline")
                del own[at : at + 2]
            name = " ".join([case["name"], *more])
            yield Command("check", name, (*inputs, "--format", "json", *own, *more))
        if case.get("memory"):
            memory = ("--resumer-memory", files(case["memory"]), "--timeline")
            yield Command(
                "check", f"{case['name']} with its dump", (*inputs, "--format", "json", *case["args"], *memory)
            )


def others(files: Files) -> Iterator[Command]:
    """Yield every other command that answers by its inputs alone."""
    cases = json.loads((FIXTURES / "cases.json").read_text())["cases"]
    for path in sorted((FIXTURES / "images").iterdir()):
        for more in ((), ("--verify",)):
            yield Command("image", path.name, ("image", files(path), *more, "--format", "json"))
    kernels = [FIXTURES / "kernels" / f"{name}.vmlinux.xz" for name in KERNELS]
    for path in [*kernels, *sorted((FIXTURES / "compilers").glob("*.xz"))]:
        yield Command("kernel", path.name, ("kernel", files(path), "--format", "json"))
    for old, new in ((0, 1), (0, 2), (2, 3)):
        pair = files(kernels[old]), files(kernels[new])
        yield Command("diff", f"{KERNELS[old]} {KERNELS[new]}", ("diff", *pair, "--format", "json"))
    for scenario in ("default", "nosmt", "live=nokaslr;offline=2;idle=mwait"):
        words = ("matrix", *map(files, kernels), "--no-cache", "--scenario", scenario, "--format", "json")
        yield Command("matrix", scenario, words)
    for case in cases:
        inputs = (files(case["image"]), "--resumer", files(case["resumer"]), "--resumee", files(case["resumee"]))
        yield Command("designs", case["name"], ("designs", *inputs, *case["args"], "--format", "json"))
    yield Command("rules", "rules", ("rules",))
    yield Command("explain", "HC201", ("explain", "HC201"))
    yield Command("schema", "schema", ("schema",))


def answer(tree: Path, command: Command, room: str) -> dict[str, Any]:
    """Run a command in a tree; return all that its answer says, by member, with ROOM for where its files are."""
    done = subprocess.run(
        [sys.executable, "-m", "hibercheck", *command.words],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree), "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
    )
    found: dict[str, Any] = {"exit status": done.returncode}
    out, errors = (text.replace(room, "ROOM") for text in (done.stdout, done.stderr))
    try:
        return found | dict(members(resolved(json.loads(out)), ""))
    except ValueError:
        said = out if done.returncode in {0, 1} else errors
        return found | {f"line {number}": line for number, line in enumerate(said.splitlines())}


def resolved(document: Any) -> Any:
    """Put a matrix's verdicts where their numbers are: which number a verdict has says nothing."""
    if isinstance(document, dict) and {"cells", "rows"} <= document.keys():
        cells = document.pop("cells")
        for row in document["rows"]:
            row["cells"] = [[cells[number] for number in line] for line in row["cells"]]
    return document


def members(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield every member of a JSON document that has a value, by its path."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from members(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value:
        for number, inner in enumerate(value):
            yield from members(inner, f"{path}[{place_of(inner, number)}]")
    else:
        yield path, value


NAMES = ("rule", "cpu", "fact", "name", "id", "design", "known", "role", "virtual", "title")
"""Members by which elements of lists are known again, wherever in the list they are."""


def place_of(element: Any, number: int) -> str:
    """Return what an element of a list is known by: what it is about, or its number."""
    if not isinstance(element, dict):
        return str(number) if isinstance(element, list) else re.sub(r"[\[\].]", "", str(element))
    names = [str(element[name]) for name in NAMES if isinstance(element.get(name), str | int)]
    return re.sub(r"[\[\].]", "", " ".join(names)) or str(number)


def kind_of(path: str) -> str:
    """Return a path without what tells elements apart, and an answer's line without its number."""
    return re.sub(r"\[[^]]*\]", "[]", re.sub(r"^line \d+$", "a line", path))


def parents(path: str) -> Iterator[str]:
    """Yield a path's beginnings, the shortest first, and itself."""
    yield from (path[: found.start()] for found in re.finditer(r"[.\[]", path))
    yield path


def whole(path: str, other: set[str]) -> str:
    """Return the largest part that another answer does not have, of which a path is a member."""
    return next(one for one in parents(path) if one not in other)


def differences(before: dict[str, Any], after: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return what differs, by kind, with the first of each kind as (before, after)."""
    found: dict[str, tuple[Any, Any]] = {}
    parts = [{one for path in answer for one in parents(path)} for answer in (before, after)]
    for path in {**before, **after}:
        old, new = before.get(path, ...), after.get(path, ...)
        if old is ... and path not in parts[0]:
            found.setdefault(f"{kind_of(whole(path, parts[0]))} is new", (old, new))
        elif new is ... and path not in parts[1]:
            found.setdefault(f"{kind_of(whole(path, parts[1]))} is gone", (old, new))
        elif old is not ... and new is not ... and old != new:
            found.setdefault(kind_of(path), (old, new))
    return found


def reason_for(command: str, kind: str, old: Any, new: Any) -> str | None:
    """Name the reason of a difference, or None."""
    for commands, kinds, values, reason in REASONS:
        if (
            re.fullmatch(commands, command)
            and re.fullmatch(kinds, kind)
            and (values is None or (values[0] in {old, "*"} and values[1] in {new, "*"}))
        ):
            return reason
    return None


def main() -> int:
    """Print the kinds of differences; return 1 if one has no reason."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("--cases", type=Path, help="more cases, with their files beside")
    parser.add_argument("commands", nargs="*", metavar="COMMAND", help="only these")
    given = parser.parse_args()
    kinds: dict[tuple[str, str, str | None], list[tuple[str, Any, Any]]] = {}
    runs = 0
    with tempfile.TemporaryDirectory() as room:
        files = Files(Path(room))
        wanted = list(checks(files, json.loads((FIXTURES / "cases.json").read_text())["cases"], VARIANTS))
        wanted += others(files)
        if given.cases is not None:
            further = json.loads(given.cases.read_text())["cases"]
            for case in further:
                case |= {
                    role: str(given.cases.parent.resolve() / case[role]) for role in ("image", "resumer", "resumee")
                }
                case.pop("memory", None)
            wanted += checks(files, further, ((),))
        for command in wanted:
            if given.commands and command.kind not in given.commands:
                continue
            runs += 1
            print(f"{command.kind} {command.name}", file=sys.stderr, flush=True)
            before, after = (answer(tree, command, room) for tree in (given.old.resolve(), ROOT))
            for kind, (old, new) in differences(before, after).items():
                reason = reason_for(command.kind, kind, old, new)
                kinds.setdefault((command.kind, kind, reason), []).append((command.name, old, new))
    print(f"{runs} commands; what differs, by the reason.\n")
    for reason in sorted({reason for _, _, reason in kinds}, key=lambda one: (one is not None, one)):
        print(f"## {reason or 'NOT EXPLAINED'}\n")
        for (name, kind, why), found in sorted(kinds.items(), key=lambda one: one[0][:2]):
            if why == reason:
                first, old, new = found[0]
                print(f"- `{name}`: `{kind}` in {len(found)}, as {first}: {shown(old)} -> {shown(new)}")
        print()
    return 1 if any(reason is None for _, _, reason in kinds) else 0


def shown(value: Any) -> str:
    """Show a value shortly."""
    return "nothing" if value is ... else repr(value)[:80]


if __name__ == "__main__":
    sys.exit(main())
