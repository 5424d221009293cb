"""Damage may not make a hazard look safe.

The measured cases that end in a reset are checked again and again, each time with a byte or a block of the image, of a
kernel or of the dump damaged: in the places that the check reads (elsewhere nothing could happen), in their tables, and
anywhere.  Each run must end in the same outcome, in one that decides less, or in an error.  It may end in ``resumes``
only where the byte is one that decides (`Exempt`), and those are listed one by one.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hibercheck.dump.source import Source as DumpSource
from hibercheck.errors import HibercheckError
from hibercheck.handoff.check import check
from hibercheck.handoff.findings import Outcome, Verdict
from hibercheck.kernel.elf import ElfFile
from hibercheck.kernel.kernel import open_kernel
from hibercheck.swsusp.source import Source as ImageSource
from hibercheck.swsusp.stream import Stream
from tests.fuzz.mutate import Patch, Region
from tests.fuzz.seeds import Copy, cases, unpack
from tests.fuzz.targets_image import image_regions
from tests.fuzz.targets_kernel import elf_regions
from tests.support.cases import options_of

PAGE = 4096


class Measured:
    """A measured case with private copies of its inputs.

    Args:
        name: The case's name.
        directory: Where the copies go.
        memory: Whether to give the resumer's dump too.
    """

    def __init__(self, name: str, directory: Path, *, memory: bool = False) -> None:
        case = next(case for case in cases() if case["name"] == name)
        self.name = f"{name} with memory" if memory else name
        directory = directory / self.name.replace(" ", "-")
        directory.mkdir()
        keys = ["image", "resumer", "resumee"] + (["memory"] if memory else [])
        copies = {case[key]: Copy(unpack(case[key]), directory) for key in keys}
        self.copies = {key: copies[case[key]] for key in keys}
        more = {"resumer_memory": str(self.copies["memory"].path)} if memory else {}
        self.options = options_of(case["args"], **more)
        self.paths = tuple(str(self.copies[key].path) for key in keys[:3])

    def outcome(self) -> str:
        """The outcome of a check, or ``error``."""
        try:
            report = check(*self.paths, self.options)
        except HibercheckError:
            return "error"
        return Verdict.RISK.value if report.verdict is Verdict.RISK else report.outcome.value


@contextmanager
def recording(reads: dict[str, set[tuple[int, int]]]) -> Iterator[None]:
    """Note which ranges of which files are read, by path."""
    page, read, dumped = Stream.page, ElfFile.read, DumpSource.read

    def of_image(self: Stream, number: int) -> bytes:
        storage = self.storage
        source: ImageSource = storage._source  # type: ignore[attr-defined]
        if hasattr(storage, "payload"):
            first = storage._starts[number // 32] if number // 32 < len(storage._starts) else None
            if first is None:
                storage.walk(number // 32)
                first = storage._starts[number // 32]
            end = storage._starts[number // 32 + 1] if number // 32 + 1 < len(storage._starts) else first + 1
            ranges = storage._map.ranges(first, end - first)
        else:
            ranges = storage._map.ranges(1 + number, 1)  # type: ignore[attr-defined]
        reads.setdefault(source.path, set()).update(ranges)
        return page(self, number)

    def of_kernel(self: ElfFile, address: int, size: int) -> bytes:
        place = self.file_range(address, size)
        if place is not None and place[1]:
            reads.setdefault(self.path, set()).add(place)
        return read(self, address, size)

    def of_dump(self: DumpSource, offset: int, size: int, what: str = "data") -> bytes:
        reads.setdefault(self.path, set()).add((offset, size))
        return dumped(self, offset, size, what)

    Stream.page, ElfFile.read, DumpSource.read = of_image, of_kernel, of_dump  # type: ignore[method-assign]
    try:
        yield
    finally:
        Stream.page, ElfFile.read, DumpSource.read = page, read, dumped  # type: ignore[method-assign]


def damageable(case: Measured) -> dict[str, list[Region]]:
    """For each input, the places worth damaging: tables, and what a check of the whole case reads."""
    reads: dict[str, set[tuple[int, int]]] = {}
    with recording(reads):
        case.outcome()
    found = {}
    for key, copy in case.copies.items():
        regions = [Region("read", offset, size, 1) for offset, size in sorted(reads.get(str(copy.path), ()))]
        if key == "image":
            regions += image_regions(copy.path)
        elif key != "memory":
            regions += elf_regions(copy.path.read_bytes())
            regions += park_code(copy.path)
        found[key] = regions
    return found


PARKING = ("native_play_dead", "hibernate_resume_nonboot_cpu_disable", "hlt_play_dead", "resume_play_dead", "smp_ops")


def park_code(path: Path) -> list[Region]:
    """Where the code is that decides how a kernel parks its CPUs."""
    with open_kernel(str(path)) as kernel:
        symbols = kernel.symbols(PARKING).values()
        places = [kernel.elf.file_range(symbol.address, symbol.size or 64) for symbol in symbols]
    return [Region("park code", place[0], place[1], 1) for place in places if place and place[1]]


@dataclass
class Tally:
    """What became of the damages.

    Attributes:
        counts: How many ended in each outcome, by case and input.
        misled: Damages that turned a reset into ``resumes``: case, input, region, patch.
    """

    counts: Counter = field(default_factory=Counter)
    misled: list[tuple[str, str, str, Patch]] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{sum(self.counts.values())} damages, {len(self.misled)} of them misleading"]
        lines += [f"  {number:6} {' / '.join(key)}" for key, number in sorted(self.counts.items())]
        return "\n".join([*lines, *(_line(*entry) for entry in self.misled)])


def _line(case: str, key: str, region: str, patch: Patch) -> str:
    shown = patch.data.hex() if any(patch.data) else f"{len(patch.data)} zeros"
    return f"  misled: {case}, {key} ({region}) at {patch.offset:#x}: {shown}"


def damage(random_: random.Random, copy: Copy, regions: Sequence[Region]) -> tuple[str, Patch]:
    """One damage: a bit, a byte, some zeros, or a block of noise; mostly where something is read."""
    kinds = sorted({region.name for region in regions if region.size})
    kind = random_.choice([*kinds, "read", "read", "park code", "anywhere"])
    region = random_.choice(
        [one for one in regions if one.name == kind and one.size] or [Region(kind, 0, copy.size, 1)]
    )
    place = region.offset + random_.randrange(max(1, region.size))
    kind = random_.randrange(4)
    old = copy.read(place, 1)[0]
    if kind == 0:
        return region.name, Patch(place, bytes([old ^ 1 << random_.randrange(8)]))
    if kind == 1:
        return region.name, Patch(place, bytes([random_.randrange(256)]))
    size = random_.choice((8, 64, 512, 4096))
    place -= place % size
    return region.name, Patch(place, bytes(size) if kind == 2 else random_.randbytes(size))


def sample(rounds: int, seed: int, directory: Path, names: Sequence[str] = ()) -> Tally:
    """Damage the cases that end in a reset, ``rounds`` times in all."""
    measured = [Measured(case["name"], directory) for case in cases() if case["truth"]["outcome"] == "resets"]
    measured += [
        Measured(case["name"], directory, memory=True)
        for case in cases()
        if case["truth"]["outcome"] == "resets" and case.get("memory")
    ]
    measured = [case for case in measured if not names or case.name in names]
    places = [
        (case, key, copy, regions)
        for case in measured
        for (key, regions), copy in zip(damageable(case).items(), case.copies.values(), strict=True)
    ]
    assert all(case.outcome() == Outcome.RESETS.value for case in measured)
    tally, random_ = Tally(), random.Random(seed)
    for number in range(rounds):
        case, key, copy, regions = places[number % len(places)]
        name, patch = damage(random_, copy, regions)
        with copy.damaged([patch]):
            outcome = case.outcome()
        tally.counts[case.name, key, outcome] += 1
        if outcome == Outcome.RESUMES.value:
            tally.misled.append((case.name, key, name, patch))
    return tally
