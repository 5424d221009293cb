"""What the kernel command says: its traits in words and in order; rendered in `hibercheck.report.kernel_text`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hibercheck.kernel.code.declared import SECTIONS, Declared
from hibercheck.kernel.code.traits import DECLARED, Traits, read_traits

if TYPE_CHECKING:
    from hibercheck.kernel.code.model import ParkLoop, Touch, Trait
    from hibercheck.kernel.kernel import Kernel

_BY_NAME = {one.name: one for one in DECLARED}


@dataclass(frozen=True, slots=True)
class KernelView:
    """Everything the command shows of a kernel.

    Attributes:
        path: The file, as the user named it.
        banner: The kernel's banner.
        release: Its release.
        build_id: Its build id, or None.
        symbols: Where its symbols come from, and how many there are; None if it is known by facts only.
        traits: Its traits.
    """

    path: str
    banner: str
    release: str
    build_id: str | None
    symbols: tuple[str, int] | None
    traits: Traits

    def sections(self) -> Iterator[tuple[str, tuple[tuple[str, Trait[Any]], ...]]]:
        """Yield the traits by question, each with its label."""
        for title in SECTIONS:
            rows = [one for one in DECLARED if one.section == title and self._applies(one)]
            yield title, tuple((one.label, getattr(self.traits, one.name)) for one in rows)

    def _applies(self, trait: Declared[Any]) -> bool:
        """Whether a question makes sense after the answers to those before."""
        return trait.only_if is None or getattr(self.traits, trait.only_if).value not in (False, "", ())

    def loops(self) -> list[tuple[ParkLoop, list[str]]]:
        """Each park loop once, with who parks there."""
        found: dict[tuple[int, str], tuple[ParkLoop, list[str]]] = {}
        for loop in self.traits.park_loops:
            _, who = found.setdefault((loop.wait, loop.kind), (loop, []))
            who.append(users(loop))
        return list(found.values())


def view(kernel: Kernel) -> KernelView:
    """Gather what there is to show.

    Raises:
        MissingFact: The kernel has no banner.
    """
    source = getattr(kernel, "source", None)
    return KernelView(
        path=kernel.path,
        banner=kernel.banner,
        release=kernel.release,
        build_id=kernel.build_id,
        symbols=None if source is None else (source.origin, len(source)),
        traits=read_traits(kernel),
    )


def users(loop: ParkLoop) -> str:
    """Who parks in a loop, in words."""
    if loop.role == "resume":
        text = "CPUs taken down for the resume"
    elif loop.role == "native":
        text = "CPUs taken offline"
    else:
        text = f"CPUs taken offline under {loop.driver}"
    return f"{text}, told to leave MWAIT" if loop.after_kick else text


def label(name: str) -> str:
    """Return what a trait is about, in the words of the report; after what it adds to, where it does."""
    one = _BY_NAME.get(name)
    if one is None:
        return name
    return one.label if one.only_if in {None, name} else f"{_BY_NAME[one.only_if].label}, {one.label}"


def section(name: str) -> str:
    """Return the heading under which a trait is shown."""
    return _BY_NAME[name].section if name in _BY_NAME else "Behaviour"


def words(trait: Trait[Any]) -> str:
    """Return a trait's value in words; of one that this version does not know as it is."""
    one = _BY_NAME.get(trait.name)
    return str(trait.value) if one is None else one.words(trait.value)


def touched(loop: ParkLoop) -> list[str]:
    """Return what a turn of a loop touches, each thing once, in words."""
    return list(dict.fromkeys(_touch(touch) for touch in loop.touches))


def _touch(touch: Touch) -> str:
    place = touch.symbol or (f"{touch.address:#x}" if touch.address is not None else None)
    if touch.kind == "text":
        return f"fetches {place}"
    if touch.kind == "io":
        return f"reads the port in {touch.register}" if touch.address is None else f"reads port {touch.address:#x}"
    verb = "stores to" if touch.access == "write" else "reads"
    if touch.kind == "stack":
        return f"{verb} the stack"
    if touch.kind == "line":
        return f"{verb} the monitored line ({touch.register})"
    if place is None:
        place = f"{touch.displacement:#x}({touch.register})" if touch.displacement else f"({touch.register})"
    return f"{verb} {'per-CPU ' if touch.kind == 'percpu' else ''}{place}"
