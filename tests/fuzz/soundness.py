"""Damage may not make a hazard look safe.

Measured cases that end badly are checked again and again, each time with a byte or a block of the image, of a kernel or
of the dump damaged: in the places that the check reads (`tests.fuzz.trace`; elsewhere nothing could happen), in their
tables, and anywhere.  Each run must end in the same outcome, in one that decides less, or in an error.  It may end in a
better one only where the byte is one that decides (`tests.fuzz.decisive`), and those are counted one by one.
"""

from __future__ import annotations

import json
import random
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hibercheck.errors import HibercheckError
from hibercheck.handoff.verdict.check import check
from hibercheck.handoff.verdict.findings import Verdict
from tests.fuzz import decisive
from tests.fuzz.mutate import Patch, Region
from tests.fuzz.seeds import Copy, cases, unpack
from tests.fuzz.targets_image import image_regions
from tests.fuzz.trace import traced
from tests.support.cases import options_of

BAD = {verdict.value for verdict in (Verdict.FATAL, Verdict.RISK, Verdict.LATENT, Verdict.REFUSED)}
GOOD = {verdict.value for verdict in (Verdict.SAFE, Verdict.BENIGN)}


class Copies:
    """Private copies of inputs, one of each file.

    Args:
        directory: Where they go.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._made: dict[Path, Copy] = {}

    def of(self, source: Path) -> Copy:
        """The copy of a file."""
        source = source.resolve()
        if source not in self._made:
            place = self._directory / str(len(self._made))
            place.mkdir()
            self._made[source] = Copy(source, place)
        return self._made[source]


class Measured:
    """A measured case with private copies of its inputs.

    Args:
        case: The case, or the name of one of the fixtures.
        copies: Where the copies are; or a directory for them.
        memory: Whether to give the resumer's dump too.
        find: Where a file of the case is.
    """

    def __init__(self, case: dict[str, Any] | str, copies: Copies | Path, *, memory: bool = False, find=unpack) -> None:
        if isinstance(case, str):
            case = next(one for one in cases() if one["name"] == case)
        if isinstance(copies, Path):
            directory = copies / f"{case['name']}{'-memory' if memory else ''}"
            directory.mkdir()
            copies = Copies(directory)
        self.name = f"{case['name']} with memory" if memory else case["name"]
        keys = ["image", "resumer", "resumee"] + (["memory"] if memory else [])
        self.copies = {key: copies.of(find(case[key])) for key in keys}
        more = {"resumer_memory": str(self.copies["memory"].path)} if memory else {}
        self.options = options_of(case["args"], **more)
        self.paths = tuple(str(self.copies[key].path) for key in keys[:3])

    def verdict(self) -> str:
        """The verdict of a check, ``error``, or which other exception it ends in, which none may."""
        try:
            return check(*self.paths, self.options).verdict.value
        except HibercheckError:
            return "error"
        except Exception as error:  # noqa: BLE001 - the point of it all
            where = traceback.extract_tb(error.__traceback__)[-1]
            return f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}"


def damageable(case: Measured) -> dict[str, list[Region]]:
    """For each input, the places worth damaging: what a check of the whole case reads, and the image's tables."""
    trace = traced(case.verdict)
    found = {}
    for key, copy in case.copies.items():
        regions = trace.regions(str(copy.path))
        if key == "image":
            regions += image_regions(copy.path)
        found[key] = regions
    return found


@dataclass
class Tally:
    """What became of the damages.

    Attributes:
        counts: How many ended in each verdict, by input and the verdict without damage.
        decided: Damages that made it better rightly, by why.
        misled: Damages that made a hazard look survivable: case, input, region, patch, verdict.
    """

    counts: Counter = field(default_factory=Counter)
    decided: Counter = field(default_factory=Counter)
    misled: list[tuple[str, str, str, Patch, str]] = field(default_factory=list)

    def add(self, case: Measured, key: str, region: str, patch: Patch, before: str, after: str) -> None:
        """Count one damage."""
        self.counts[key, before, after] += 1
        better = (before in BAD and after in GOOD) or (before == "fatal" and after == "latent")
        crashed = " at " in after
        if not better and not crashed:
            return
        why = None if crashed else decisive.reason(key, region)
        if why is not None:
            self.decided[why] += 1
        else:
            self.misled.append((case.name, key, region, patch, after))

    def __str__(self) -> str:
        decided = sum(self.decided.values())
        lines = [f"{sum(self.counts.values())} damages, {decided} of bytes that decide, {len(self.misled)} misleading"]
        lines += [f"  {number:6} {key}: {old} -> {new}" for (key, old, new), number in sorted(self.counts.items())]
        lines += [f"  {number:6} decide: {why}" for why, number in self.decided.most_common()]
        return "\n".join([*lines, *(line(*entry) for entry in self.misled)])


def line(case: str, key: str, region: str, patch: Patch, after: str) -> str:
    """One misleading damage."""
    shown = patch.data.hex() if any(patch.data) and len(patch.data) <= 64 else f"{len(patch.data)} bytes"
    return f"  misled: {case}, {key} ({region}) at {patch.offset:#x}: {shown} -> {after}"


BLOCKS = (8, 64, 512, 4096)


def damage(random_: random.Random, copy: Copy, regions: Sequence[Region]) -> tuple[str, Patch]:
    """One damage: a bit, a byte, some zeros or ones, or a block of noise; mostly where something is read."""
    kinds = sorted({region.name for region in regions if region.size})
    kind = random_.choice(kinds) if kinds and random_.randrange(20) else "anywhere"
    region = random_.choice(
        [one for one in regions if one.name == kind and one.size] or [Region(kind, 0, copy.size, 1)]
    )
    place = region.offset + random_.randrange(max(1, region.size))
    how = random_.randrange(6)
    old = copy.read(place, 1)[0]
    if how < 2:
        return region.name, Patch(place, bytes([old ^ 1 << random_.randrange(8)]))
    if how == 2:
        return region.name, Patch(place, bytes([random_.randrange(256)]))
    if how == 3:
        return region.name, Patch(region.offset, random_.choice((b"\0", b"\xff")) * min(region.size, 4096))
    size = random_.choice(BLOCKS)
    place -= place % size
    return region.name, Patch(place, bytes(size) if how == 4 else random_.randbytes(size))


def bad_ones(copies: Copies, directory: Path, names: Sequence[str] = (), only: int | None = None) -> Iterator[Measured]:
    """The measured cases of a directory that end badly, or would in other circumstances.

    Args:
        copies: Where copies of their inputs go.
        directory: Where ``cases.json`` is.
        names: Names of cases; all if there are none.
        only: So many of them, those that reset first.
    """
    known = json.loads((directory / "cases.json").read_text(encoding="utf-8"))["cases"]
    known = [case for case in known if not names or case["name"] in names]
    if only is not None:
        random.Random(only).shuffle(known)
        known = sorted(known, key=lambda case: case["truth"]["outcome"] != "resets")[:only]
    for case in known:
        for memory in (False, True) if case.get("memory") else (False,):
            measured = Measured(case, copies, memory=memory, find=lambda name: unpack(name, directory))
            if measured.verdict() in BAD:
                yield measured


def survey(rounds: int, seed: int, place: Path, directories: Sequence[str], only: int | None = None) -> Tally:
    """Damage the measured cases of some directories, ``rounds`` times in all, and tell what misleads as it is found."""
    copies = Copies(place)
    measured = [case for one in directories for case in bad_ones(copies, Path(one), only=only)]
    print(f"{len(measured)} cases: {', '.join(case.name for case in measured)}", flush=True)
    return sample(rounds, seed, measured, lambda text: print(text, flush=True))


def sample(rounds: int, seed: int, measured: Sequence[Measured], tell: Callable[[str], None] = lambda _: None) -> Tally:
    """Damage cases, ``rounds`` times in all."""
    tally, random_ = Tally(), random.Random(seed)
    share, extra = divmod(rounds, len(measured))
    for number, case in enumerate(measured):
        before = case.verdict()
        places = list(damageable(case).items())
        for turn in range(share + (number < extra)):
            key, regions = places[turn % len(places)]
            name, patch = damage(random_, case.copies[key], regions)
            with case.copies[key].damaged([patch]):
                after = case.verdict()
            known = len(tally.misled)
            tally.add(case, key, name, patch, before, after)
            if len(tally.misled) > known:
                tell(line(*tally.misled[-1]))
    return tally
