"""What the kernel command says: its traits in words and in order; rendered in `hibercheck.report.kernel_text`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hibercheck.kernel.code.model import IdtGate, ParkLoop, Touch, Trait
    from hibercheck.kernel.code.traits import Traits
    from hibercheck.kernel.kernel import Kernel

SECTIONS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    (
        "Before it loads an image",
        (
            ("hibernate_disable_hook", "parks CPUs by a hook of its own"),
            ("rescues_offline", "brings offline CPUs up first"),
            ("rescue_needs_primary", "but not where the core's primary thread is offline"),
            ("rescue_needs_node", "and not on an offline NUMA node"),
            ("freeze_order", "takes CPUs down in order"),
            ("replaces_play_dead", "parks them otherwise than usual"),
            ("resume_park", "parks them in"),
            ("sends_init", "sends them an INIT then"),
            ("init_targets", "to which CPUs"),
        ),
    ),
    (
        "When a CPU goes offline",
        (
            ("play_dead_order", "tries, in order"),
            ("other_play_dead", "elsewhere by"),
            ("enter_dead", "cpuidle drivers park it by"),
            ("mwait_vendor_check", "does not try MWAIT on"),
            ("monitored", "MWAIT monitors"),
            ("kick_value", "word that ends MWAIT in HLT"),
            ("rescans_dead_siblings", "parks SMT siblings anew once cpuidle is there"),
        ),
    ),
    ("After a resume", (("reparks_siblings_after_resume", "parks SMT siblings anew if SMT is off"),)),
    (
        "Which images it accepts",
        (
            ("zero_pages", "with pages of zeros left out"),
            ("compressors", "compressed by"),
            ("arch_record_magic", "with the arch record"),
            ("e820_check", "compares the memory map by"),
            ("hw_sig", "compares the hardware signature"),
        ),
    ),
    (
        "Where it is",
        (
            ("physical_start", "physical address without KASLR"),
            ("physical_align", "alignment of that"),
            ("randomize_base", "random load address"),
            ("randomize_memory", "random direct map"),
            ("la57", "can use 5-level paging"),
            ("pti", "page-table isolation built in"),
            ("idt_gates", "exceptions on stacks of their own"),
            ("fred", "can use FRED"),
            ("cea_size", "size of a CPU entry area"),
            ("cea_random", "at random places"),
        ),
    ),
)
"""Every trait, by question, with its label."""

_ONLY_IF = {
    "rescue_needs_primary": "rescues_offline",
    "rescue_needs_node": "rescues_offline",
    "init_targets": "sends_init",
}
"""Questions that only a yes to another one raises."""

_HEXADECIMAL = frozenset({"kick_value", "arch_record_magic", "physical_start", "physical_align", "cea_size"})


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
        """The traits by question, each with its label."""
        for title, rows in SECTIONS:
            yield title, tuple((label, getattr(self.traits, name)) for name, label in rows if self._applies(name))

    def _applies(self, name: str) -> bool:
        """Whether a question makes sense after the answers to those before."""
        premise = _ONLY_IF.get(name)
        return premise is None or getattr(self.traits, premise).value is not False

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
    from hibercheck.kernel.code.traits import read_traits  # noqa: PLC0415 - the labels above need no decoder

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


def words(trait: Trait[Any]) -> str:
    """A trait's value in words."""
    value = trait.value
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if trait.name == "idt_gates":
        return _gates(value)
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return hex(value) if trait.name in _HEXADECIMAL else str(value)


def _gates(gates: tuple[IdtGate, ...]) -> str:
    own = [f"vector {gate.vector} on IST {gate.ist}" for gate in gates if gate.ist]
    return ", ".join(own) or "none"


def touched(loop: ParkLoop) -> list[str]:
    """What a turn of a loop touches, each thing once, in words."""
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
