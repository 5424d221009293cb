"""What reads the traits of one kernel out of its code: `hibercheck.kernel.code.traits` says which reads what."""

from __future__ import annotations

from functools import cached_property

from hibercheck.kernel.code import rescue
from hibercheck.kernel.code.acceptance import AcceptanceReader
from hibercheck.kernel.code.deadcpu import DeadReader
from hibercheck.kernel.code.fred import FredReader
from hibercheck.kernel.code.idle import IdleReader
from hibercheck.kernel.code.layout import LayoutReader
from hibercheck.kernel.code.model import Trait
from hibercheck.kernel.code.names import Wanted
from hibercheck.kernel.code.place import PlaceReader
from hibercheck.kernel.code.program import Program
from hibercheck.kernel.code.resume import ResumeReader
from hibercheck.kernel.code.startup import StartupReader
from hibercheck.kernel.view import CodeView


class Readers:
    """What reads the traits of one kernel, each when it is asked for.

    Args:
        kernel: An open kernel.
        wanted: The symbols that they are read by.
    """

    def __init__(self, kernel: CodeView, wanted: Wanted) -> None:
        self.program = Program(kernel, wanted)
        self.resume = ResumeReader(self.program)
        self.dead = DeadReader(self.program, self.resume)
        self.accepts = AcceptanceReader(self.program)

    @cached_property
    def place(self) -> PlaceReader:
        """What reads where the hook parks CPUs, if not in the kernel."""
        return PlaceReader(self.program, self.resume, lambda: bool(self.dead.loops("resume")))

    @cached_property
    def layout(self) -> LayoutReader:
        """What reads where things are."""
        return LayoutReader(self.program, self.accepts.data_symbols())

    @cached_property
    def startup(self) -> StartupReader:
        """What reads how it starts."""
        return StartupReader(self.program, data_symbols=self.accepts.data_symbols())

    @cached_property
    def idle(self) -> IdleReader:
        """What reads its idle drivers."""
        return IdleReader(self.program, data_symbols=self.accepts.data_symbols())

    @cached_property
    def fred(self) -> FredReader:
        """What reads how it uses FRED."""
        return FredReader(self.program)

    # See `hibercheck.kernel.code.rescue` for each of these

    def needs_primary(self) -> Trait[bool]:
        """Whether a core is left alone whose primary thread is offline."""
        return rescue.needs_primary(self.program)

    def needs_node(self) -> Trait[bool]:
        """Whether CPUs of an offline node are left alone."""
        return rescue.needs_node(self.program, data_symbols=self.accepts.data_symbols())

    def freeze_order(self) -> Trait[str]:
        """In which order CPUs are taken down."""
        return rescue.freeze_order(self.program)

    def rescans(self) -> Trait[bool]:
        """Whether CPUs are looked for again."""
        return rescue.rescans(self.program)

    def reparks_siblings(self) -> Trait[bool]:
        """Whether siblings are parked again after a resume."""
        return rescue.reparks_siblings(self.program)

    def nosmt_targets(self, reparks: Trait[bool]) -> Trait[str]:
        """Which CPUs are brought up for that."""
        return rescue.nosmt_targets(self.program, reparks)
