"""Where the facts of a run come from: sources in order of trust, and what it means when two of them disagree.

The facts themselves are declared in `hibercheck.handoff.scenario.known`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from hibercheck.data import dataclass, replace
from hibercheck.errors import Mismatch, MissingFact
from hibercheck.handoff.facts.resumee import Resumee
from hibercheck.handoff.facts.space import KernelSpace
from hibercheck.handoff.facts.standing import Known, Standing
from hibercheck.handoff.scenario.options import CheckOptions
from hibercheck.kernel.code.traits import Traits, traits_on_demand
from hibercheck.kernel.view import CodeView, KernelView
from hibercheck.swsusp.image import Image

if TYPE_CHECKING:
    from hibercheck.handoff.facts.logged import LogFacts
    from hibercheck.handoff.facts.pending import PendingCopies
    from hibercheck.handoff.facts.resumer_facts import ResumerFacts
    from hibercheck.handoff.facts.running import RunningKernelFacts

T = TypeVar("T")
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class InDump:
    """The resumer in a dump of its memory.

    Attributes:
        path: The dump, as the user named it.
        space: Its address space.
        facts: What its memory says of its run.
        copies: The frames that it has still to copy; all scenarios of a check share the list, which is long.
        machine_cpus: How many CPUs the machine has, where an emulator gave the registers of all; else None.
    """

    path: str
    space: KernelSpace
    facts: RunningKernelFacts
    copies: PendingCopies
    machine_cpus: int | None = None


@dataclass(frozen=True, slots=True)
class Inputs:
    """What was given to a check, opened and read.

    Attributes:
        image: The image.
        resumer: The resumer's kernel.
        traits: What its code does.
        resumee: The resumee.
        collected: What the resumer told of itself, or None.
        dumped: The resumer in a dump, or None.
        logged: What its kernel's log says, or None.
        attached: The bootconfig at the end of its initramfs: "" where it has none, None where that was not looked at.
    """

    image: Image
    resumer: KernelView
    traits: Traits
    resumee: Resumee
    collected: ResumerFacts | None = None
    dumped: InDump | None = None
    logged: LogFacts | None = None
    attached: str | None = None

    @property
    def measured(self) -> bool:
        """Whether anything of the resumer's own run was given."""
        return self.dumped is not None or self.collected is not None or self.logged is not None

    @property
    def resumee_traits(self) -> Traits:
        """What the resumee's code does, read when it is asked for."""
        kernel = self.resumee.kernel
        # only data is read of most resumees, but each was opened as a kernel whose code can be read
        return self.traits if kernel is self.resumer else traits_on_demand(cast(CodeView, kernel))

    def supposed(self, options: CheckOptions) -> bool:
        """Whether options tell of another run than the one that was measured, on the same machine (``--what-if``)."""
        return options.what_if and self.measured


@dataclass(frozen=True, slots=True)
class Source(Generic[T]):
    """One place where a fact may be found.

    Attributes:
        read: Returns what is known there, or None.
        is_option: Whether it is something that the user said of the run; with ``--what-if`` that comes first.
    """

    read: Callable[[Asking], Known[T] | None]
    is_option: bool = False


@dataclass(frozen=True, slots=True)
class RunFact(Generic[T]):
    """One fact of a run of the resumer, declared.

    Attributes:
        name: Stable name, as programs have it.
        what: What it is about, as in ``the resumer's command line``.
        sources: Where it may be found, the most trusted first.
        show: Its value in words, or None where there is nothing to show.
        option: The option that says otherwise.
        same: Whether two values say the same; None where something else compares them.
        of_machine: Whether it is a property of the machine, which may have changed between two boots.  The resumee's is
            then compared too, and what two kernels saw of it may both be true; of a run's own doings only one is.
        detail: Whether only a verbose report shows it.
        lazy: Whether it is found only if something rests on it: it takes reading much of a kernel.
        on_demand: Whether it is found, and shown, only if something asks for it: of most runs it decides nothing.
    """

    name: str
    what: str
    sources: tuple[Source[T], ...]
    show: Callable[[T], str | None]
    option: str | None = None
    same: Callable[[T, T], bool] | None = lambda ours, theirs: ours == theirs
    of_machine: bool = False
    detail: bool = False
    lazy: bool = False
    on_demand: bool = False

    @property
    def compared(self) -> frozenset[Standing]:
        """The standings of which a value is held against a better one."""
        inferred = {Standing.INFERRED} if self.of_machine else set()
        return frozenset({Standing.MEASURED, Standing.GIVEN, *inferred})


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Two sources that say different things of one fact, both of which may be true.

    Attributes:
        fact: The fact's name.
        text: Both values with their sources, in one clause.
        other: The value that was not taken, as its source has it.
    """

    fact: str
    text: str
    other: Any


class Asking:
    """The facts of one run, each found when it is asked for.

    Args:
        inputs: What was given.
        options: What the user says of the run.
    """

    def __init__(self, inputs: Inputs, options: CheckOptions) -> None:
        self.inputs = inputs
        self.options = options
        self.given = options.given
        self.disagreements: list[Disagreement] = []
        self.remarks: dict[str, None] = {}
        self._known: dict[str, Known[Any] | None] = {}

    @property
    def supposed(self) -> bool:
        """Whether the run is another than the one that was measured, on the same machine."""
        return self.inputs.supposed(self.options)

    def remark(self, text: str) -> None:
        """Note something about what was given that the user should know."""
        self.remarks[text] = None

    def known(self, fact: RunFact[T]) -> Known[T] | None:
        """Return a fact, or None where no source has it.

        Raises:
            Mismatch: Two sources contradict each other.
        """
        if fact.name not in self._known:
            self._known[fact.name] = None  # a source that asks for its own fact gets nothing
            self._known[fact.name] = self._find(fact)
        return self._known[fact.name]

    def value(self, fact: RunFact[T]) -> T | None:
        """Return what a fact is, or None where that is not known."""
        found = self.known(fact)
        return None if found is None else found.value

    def need(self, fact: RunFact[T]) -> Known[T]:
        """Return a fact that nothing can be said without.

        Raises:
            MissingFact: No source has it.
        """
        found = self.known(fact)
        if found is None:
            raise MissingFact(f"{fact.what} is not known")
        return found

    def _find(self, fact: RunFact[T]) -> Known[T] | None:
        sources = fact.sources
        if self.options.what_if:
            sources = tuple(sorted(sources, key=lambda source: not source.is_option))
        found = [known for source in sources if (known := source.read(self)) is not None]
        if not found:
            return None
        best = found[0]
        if not (self.options.what_if and best.standing is Standing.GIVEN):
            self._compare(fact, best, found[1:])
        return best if best.option is not None else replace(best, option=fact.option)

    def _compare(self, fact: RunFact[T], best: Known[T], others: list[Known[T]]) -> None:
        """Hold the value that is taken against what else was measured or given."""
        if fact.same is None:
            return
        for other in others:
            if other.value is None or other.standing not in fact.compared or fact.same(best.value, other.value):
                continue
            if best.standing is Standing.GIVEN and other.standing.is_open:
                continue  # the user has said that it is otherwise
            values = [f"{fact.show(one.value)} ({one.option if one.option else one.source})" for one in (best, other)]
            text = f"{fact.what}: {' and '.join(values)}"
            if not fact.of_machine or other.standing is Standing.GIVEN:
                advice = _advice(other, what_if=self.options.what_if)
                raise Mismatch(f"what was given contradicts itself on {text}", path=self.blamed, advice=advice)
            self.disagreements.append(Disagreement(fact.name, f"two sources differ on {text}", other.value))

    @property
    def blamed(self) -> str | None:
        """Return the file that the user took from the resumer."""
        if self.inputs.dumped is not None:
            return self.inputs.dumped.path
        if self.inputs.collected is not None:
            return self.inputs.collected.path
        return self.inputs.logged.path if self.inputs.logged is not None else None

    def __iter__(self) -> Iterator[tuple[str, Known[Any]]]:
        """Yield the facts that were asked for and found."""
        return iter([(name, known) for name, known in self._known.items() if known is not None])


def _advice(other: Known[Any], *, what_if: bool) -> str:
    if other.standing is Standing.GIVEN and what_if:
        return f"leave out {other.option or 'that option'}: where the resumer was measured, that cannot be otherwise"
    if other.standing is Standing.GIVEN:
        return f"leave out {other.option or 'that option'}, or add --what-if to judge a run that was not measured"
    return "take both on the same boot"


def derived(*knowns: Known[Any]) -> Standing:
    """Return the standing of what follows from facts by a kernel's rules: the weakest of theirs, at best read."""
    return max(Standing.READ, *(known.standing for known in knowns), key=lambda standing: standing.rank)


DUMP, COLLECTED, LOGGED = "its memory dump", "collected on the resumer", "its kernel's log"


def _measured(
    source: str, given: Callable[[Inputs], S | None], read: Callable[[S], T | None], *, of_run: bool
) -> Source[T]:
    def found(asking: Asking) -> Known[T] | None:
        facts = given(asking.inputs)
        value = read(facts) if facts is not None and not (of_run and asking.supposed) else None
        return None if value is None else Known(value, Standing.MEASURED, source)

    return Source(found)


def in_dump(read: Callable[[RunningKernelFacts], T | None], *, of_run: bool = False) -> Source[T]:
    """Return a source that is the resumer's own memory.

    Args:
        read: Takes it from there.
        of_run: Whether it came of how that run was started, so that another (``--what-if``) may differ in it.
    """
    return _measured(DUMP, lambda inputs: None if inputs.dumped is None else inputs.dumped.facts, read, of_run=of_run)


def collected(read: Callable[[ResumerFacts], T | None], *, of_run: bool = False) -> Source[T]:
    """Return a source that is a facts file; the arguments are those of `in_dump`."""
    return _measured(COLLECTED, lambda inputs: inputs.collected, read, of_run=of_run)


def logged(read: Callable[[LogFacts], T | None], *, of_run: bool = False) -> Source[T]:
    """Return a source that is the kernel's log; the arguments are those of `in_dump`."""
    return _measured(LOGGED, lambda inputs: inputs.logged, read, of_run=of_run)


def given(option: str, read: Callable[[Asking], T | None]) -> Source[T]:
    """Return a source that is what the user says."""

    def found(asking: Asking) -> Known[T] | None:
        value = read(asking)
        return None if value is None else Known(value, Standing.GIVEN, "given", option)

    return Source(found, is_option=True)
