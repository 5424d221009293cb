"""The preflight: read the system, and judge each of its boot entries."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, cast

from hibercheck.data import dataclass, replace
from hibercheck.errors import HibercheckError, InputProblem
from hibercheck.handoff.acceptance.alternatives import acceptance_alternatives
from hibercheck.handoff.acceptance.refusal import Acceptance, judge_acceptance
from hibercheck.handoff.facts.cmdline import CommandLine, loader_part, parse_command_line, parse_running_line
from hibercheck.handoff.facts.kernels import looked_up, open_resumer
from hibercheck.handoff.facts.resumer_facts import ResumerFacts
from hibercheck.handoff.matrix.expected import ExpectedImage
from hibercheck.handoff.matrix.pair import Cell
from hibercheck.handoff.matrix.scenario import IMAGE_SHARE, Machine, Settings
from hibercheck.handoff.preflight.answers import NOT_ASKED, Answer, Preflight, Row, RowVerdict, Step
from hibercheck.handoff.preflight.expected import Session, expected_image, expected_resumee
from hibercheck.handoff.preflight.find import would_find
from hibercheck.handoff.preflight.survive import ONE, judge_survival
from hibercheck.handoff.preflight.waiting import waiting_image
from hibercheck.handoff.scenario.options import CheckOptions
from hibercheck.handoff.scenario.plan import Plan, make_plan
from hibercheck.handoff.scenario.sources import Inputs
from hibercheck.handoff.verdict.conditions import Decided, Varied, vary
from hibercheck.handoff.verdict.findings import Condition, Outcome, Verdict
from hibercheck.handoff.verdict.rules import RULES
from hibercheck.host.bootconfig import of_system
from hibercheck.host.entries import BootEntry, boot_entries
from hibercheck.host.initramfs import Initramfs, read_initramfs
from hibercheck.host.location import Target, hibernate_location, is_running, least_image, memory_in_use, target
from hibercheck.host.swap import swap_uuids
from hibercheck.host.tree import inside, is_there, line_of
from hibercheck.kernel.cache import KernelCache, content_key
from hibercheck.kernel.code.traits import Traits, traits_on_demand
from hibercheck.kernel.kernel import Kernel
from hibercheck.kernel.locate import installed, locate

if TYPE_CHECKING:
    from hibercheck.swsusp.image import Image

_INSTALL = "install it again, or start what is installed before you hibernate"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a preflight is asked.

    Attributes:
        root: ``/``, or where the system is.
        facts: What the running kernel told of itself; None where nothing runs.
        resumee: The kernel that would hibernate, by path or release; None to find it.
        machine: The machine of a system that does not run.
        options: The scenario of every entry, but for its command line.
        image_share: What part of memory the image covers; None to go by /sys/power/image_size.
        cache: Where facts of kernels are kept; None to keep none.
        notes: What the caller has to tell of ``facts``.
    """

    root: Path
    facts: ResumerFacts | None = None
    resumee: str | None = None
    machine: Machine = Machine()
    options: CheckOptions = CheckOptions()
    image_share: float | None = None
    cache: KernelCache | None = None
    notes: tuple[str, ...] = ()


def preflight(asked: Asked) -> Preflight:
    """Say of each boot entry whether it would find, load and survive the image that a hibernation now would write.

    Raises:
        UsageProblem: ``resumee`` names several kernels.
        InputProblem: The system has no boot entries that can be read, or ``resumee`` no kernel.
    """
    root = asked.root
    entries = boot_entries(root)
    if not entries:
        raise InputProblem(
            "has no boot entries that are known (Boot Loader Specification, unified kernel images, grub.cfg)",
            path=str(root),
            advice="name the root directory of another system (--root DIR)"
            if os.geteuid() == 0
            else "run it as root: /boot and the ESP are often readable by root only",
        )
    least = least_image(root)
    place = target(root, least=least)
    place = _unwilling(asked, place)
    with ExitStack() as stack:
        kernels = _Kernels(stack, asked)
        warnings: list[str] = [*place.doubts, *asked.notes]
        session = _session(asked, kernels, entries, least, warnings)
        share = _share(asked)
        rows = tuple(_Entry(one, asked, place, session, kernels, share, warnings).row() for one in entries)
        _note_location(root, warnings)
        return Preflight(
            root=str(root),
            running=asked.facts is not None,
            resumee=_release(asked, session),
            resumee_kernel=None if session is None else session.kernel.path,
            resumee_command_line=None if session is None else session.line.text,
            target=place.where,
            image_share=share,
            rows=rows,
            warnings=tuple(warnings),
            waiting=waiting_image(root, swap_uuids(root, entries), _files(place)),
        )


def _files(place: Target) -> frozenset[tuple[str, int]]:
    """Return where a swap file is, by the names of the device that it is on."""
    if not place.offset:
        return frozenset()
    device = () if place.device is None else (f"/dev/{place.device.name}",)
    return frozenset((name, place.offset) for name in (*place.names, *device))


def _unwilling(asked: Asked, place: Target) -> Target:
    """Say that nothing is written, where the running kernel does not hibernate."""
    facts, power = asked.facts, asked.root / "sys/power"
    if place.problem or facts is None:
        return place
    if is_there(power / "state", asked.root) and not is_there(power / "disk", asked.root):
        problem = "the running kernel was built without hibernation: there is no /sys/power/disk"
        return replace(place, problem=problem, advice="run a kernel with CONFIG_HIBERNATION")
    if facts.hibernation is not False:
        return place
    why = f"locked down ({facts.lockdown})" if facts.lockdown not in {None, "none"} else "/sys/power/disk is [disabled]"
    problem = f"the running kernel does not hibernate: {why}"
    return replace(place, problem=problem, advice="see lockdown, Secure Boot, nohibernate, memfd_secret()")


def _share(asked: Asked) -> float:
    """Return what part of memory an image covers: /sys/power/image_size of it, or all that is in use if that is less.

    hibernate_preallocate_memory() frees memory until the image is no larger than image_size (kernel/power/snapshot.c).
    """
    if asked.image_share is not None:
        return asked.image_share
    size, memory = line_of(asked.root / "sys/power/image_size", asked.root), memory_in_use(asked.root)
    total, free = memory.get("MemTotal", 0), memory.get("MemFree")
    if asked.facts is None or not total or free is None or size is None or not size.isdigit() or len(size) > 18:
        return IMAGE_SHARE
    return round(min(max(min(int(size), total - free) / total, 0.01), 1.0), 2)


def _note_location(root: Path, warnings: list[str]) -> None:
    """Tell of a HibernateLocation that is left over: systemd removes it when it resumes."""
    found = hibernate_location(root)
    if found is None or not is_running(root):
        return
    where = f"UUID={found.uuid}, page {found.offset}" if found.offset else f"UUID={found.uuid}"
    warnings.append(
        f"the EFI variable HibernateLocation is set ({where}, by kernel {found.kernel or 'unknown'}): "
        "an earlier image was not resumed"
    )


class _Kernels:
    """Kernels by their files, each opened and read once."""

    def __init__(self, stack: ExitStack, asked: Asked) -> None:
        self._stack = stack
        self._asked = asked
        self._known: dict[Path, Kernel | HibercheckError] = {}

    def at(self, path: Path) -> Kernel:
        """Return the kernel of a file.

        Raises:
            HibercheckError: It cannot be read.
        """
        found = self._known.get(path)
        if found is None:
            try:
                found = self._open(path)
            except HibercheckError as error:
                found = error
            self._known[path] = found
        if isinstance(found, HibercheckError):
            raise found
        return found

    def found(self, path: Path) -> Kernel:
        """Return the kernel of a file that nobody named: where a pipe lies instead, nobody writes to it.

        Raises:
            HibercheckError: It cannot be read, or is a pipe.
        """
        if path.is_fifo():
            raise InputProblem("is a pipe", path=str(path), advice="put the kernel there again")
        return self.at(path)

    def live(self) -> Kernel | None:
        """Return the kernel that runs, out of its memory; None where that cannot be read."""
        from hibercheck.handoff.preflight.live import live_kernel  # noqa: PLC0415 - where no file is the right one

        return live_kernel(self._asked.root, self._stack)

    def _open(self, path: Path) -> Kernel:
        cache, name = self._asked.cache, str(path)
        key = None if cache is None else content_key(name)
        kept = None if cache is None or key is None else cache.get(key, name)
        if kept is not None:
            return self._stack.enter_context(looked_up(kept))
        kernel = self._stack.enter_context(open_resumer(name, None))
        if cache is not None and key is not None:
            cache.put(key, kernel)
        return kernel


def _session(
    asked: Asked, kernels: _Kernels, entries: tuple[BootEntry, ...], least: int, warnings: list[str]
) -> Session | None:
    """Find the kernel that would hibernate; None where its file is not to be had, which is told."""
    root, facts = asked.root, asked.facts
    if asked.resumee is not None:
        kernel = kernels.at(locate(asked.resumee, root))
    elif facts is None:
        try:
            kernel = kernels.found(_file(entries[0], root))
        except HibercheckError as error:
            warnings.append(f"the default entry's kernel cannot be read: {error}")
            return None
        warnings.append(
            f"the system is not running: it is assumed that its default entry, {entries[0].title}, hibernates"
        )
    else:
        found = _running_kernel(facts, kernels, entries, root)
        if found is None:
            found = kernels.live()
            if found is not None:
                what = f"the running kernel, {found.release}, is not installed any more as it was started"
                warnings.append(f"{what}: it was read out of its own memory (/proc/kcore)")
        if found is None:
            release = line_of(root / "proc/sys/kernel/osrelease", root)
            warnings.append(
                f"the running kernel, {release}, is not installed any more, or only another build of it; {_INSTALL}"
            )
            return None
        kernel = found
    traits = traits_on_demand(kernel)
    line, loader = _line(asked, entries[0], traits)
    return Session(kernel, traits, line, loader, facts, asked.machine, root, least)


def _line(asked: Asked, default: BootEntry, traits: Traits) -> tuple[CommandLine, str | None]:
    builtin, override = _builtin(traits)
    if asked.facts is None:
        return parse_command_line(default.command_line, builtin, override=override), default.command_line
    text = asked.facts.command_line or ""
    return parse_running_line(text, builtin, override=override), loader_part(text, builtin, override=override)


def _builtin(traits: Traits) -> tuple[str, bool]:
    """Return CONFIG_CMDLINE of a kernel, and whether it takes the place of what the boot loader passes."""
    builtin = traits.builtin_cmdline.value or ""
    return builtin, bool(builtin and traits.builtin_cmdline_overrides.value)


def _running_kernel(
    facts: ResumerFacts, kernels: _Kernels, entries: tuple[BootEntry, ...], root: Path
) -> Kernel | None:
    """Return the kernel that runs, out of a file with the same banner: a release may have been built anew since."""
    if facts.banner is None:
        return None
    release = line_of(root / "proc/sys/kernel/osrelease", root) or ""
    named = [_file(one, root) for one in entries if release and release in one.kernel.name + one.name]
    others = [_file(one, root) for one in entries if _file(one, root) not in named]
    for path in dict.fromkeys([*(installed(release, root) if release else ()), *named, *others]):
        try:
            kernel = kernels.found(path)
            if kernel.banner.strip() == facts.banner.strip():
                return kernel
        except HibercheckError:
            continue
    return None


def _file(entry: BootEntry, root: Path) -> Path:
    try:
        return inside(entry.kernel, root)
    except (OSError, ValueError):
        return entry.kernel


def _release(asked: Asked, session: Session | None) -> str | None:
    if session is not None:
        return session.kernel.release
    return line_of(asked.root / "proc/sys/kernel/osrelease", asked.root)


class _Entry:
    """One boot entry on its way to a row."""

    def __init__(
        self,
        entry: BootEntry,
        asked: Asked,
        place: Target,
        session: Session | None,
        kernels: _Kernels,
        share: float,
        warnings: list[str],
    ) -> None:
        self.entry, self.asked, self.place, self.session = entry, asked, place, session
        self.kernels, self.share, self.warnings = kernels, share, warnings

    @property
    def _text(self) -> str:
        """Its command line, with what is to be added to it."""
        return f"{self.entry.command_line} {self.asked.options.resumer_cmdline_add or ''}".strip()

    def row(self) -> Row:
        """Answer the three questions, each only if the one before was not answered with no."""
        root = self.asked.root
        try:
            kernel = self.kernels.found(_file(self.entry, root))
            release: str | None = kernel.release
            builtin, override = _builtin(traits_on_demand(kernel))
        except HibercheckError as error:
            kernel, release, builtin, override, unread = None, None, "", False, error
        line = parse_command_line(self._text, builtin, override=override)
        initramfs = read_initramfs(self.entry.initramfs, root)
        find = would_find(self.entry, line, initramfs, self.place, root)
        if find.answer is Answer.NO:
            return self._row(release, RowVerdict.NOT_FOUND, find)
        if kernel is None:
            step = Step(
                Answer.UNKNOWN, f"its kernel cannot be read: {unread}", "run this as root; see the entry's path"
            )
            return self._row(None, RowVerdict.UNDETERMINED, find, step)
        if self.session is None:
            text = "the kernel that would hibernate is not known: its file is not there, or cannot be read"
            return self._row(release, RowVerdict.UNDETERMINED, find, Step(Answer.UNKNOWN, text, _INSTALL))
        return self._judged(kernel, self.session, find, initramfs)

    def _row(
        self,
        release: str | None,
        verdict: RowVerdict,
        find: Step,
        load: Step = NOT_ASKED,
        survive: Step = NOT_ASKED,
        share: float | None = None,
        conditions: tuple[Condition, ...] = (),
    ) -> Row:
        entry = self.entry
        return Row(
            name=entry.name,
            title=entry.title,
            kernel=str(entry.kernel),
            release=release,
            command_line=self._text,
            source=str(entry.source),
            default=entry.default,
            verdict=verdict,
            share=share,
            find=find,
            load=load,
            survive=survive,
            conditions=conditions,
        )

    def _judged(self, kernel: Kernel, session: Session, find: Step, initramfs: Initramfs) -> Row:
        """Ask whether it loads the image and survives; what could be otherwise is judged too."""
        try:
            resumee = expected_resumee(session)
            image = expected_image(session, resumee)
            inputs = Inputs(cast("Image", image), kernel, traits_on_demand(kernel), resumee, attached=self._attached())
            plan = make_plan(inputs, self._options(inputs.traits, image, initramfs))
            judged = _Judge(self.asked, session, kernel, self.share)
            load, cell = judged.both(plan)
        except HibercheckError as error:
            step = Step(Answer.UNKNOWN, str(error), "run this as root")
            return self._row(kernel.release, RowVerdict.UNDETERMINED, find, step)
        varied = judged.varied(plan, load, cell)
        told = (*(one.text for one in plan.disagreements), *plan.remarks, *varied.warnings)
        self.warnings.extend(f"{self.entry.title}: {one}" for one in told)
        verdict = _verdict(load, cell)
        if find.answer is Answer.UNKNOWN and verdict not in {RowVerdict.REFUSED, RowVerdict.FATAL}:
            verdict = RowVerdict.UNDETERMINED
        survive = NOT_ASKED if cell is None else _survives(cell, plan)
        return self._row(
            kernel.release, verdict, find, load, survive, None if cell is None else cell.share, varied.conditions
        )

    def _attached(self) -> str | None:
        """Return the bootconfig that ends the entry's initramfs; None where that cannot be read."""
        return of_system(self.entry.initramfs[-1], self.asked.root) if self.entry.initramfs else ""

    def _options(self, traits: Traits, image: ExpectedImage, initramfs: Initramfs) -> CheckOptions:
        """Return the scenario with the entry's command line, and with what its initramfs has."""
        options = self.asked.options.with_line(self._text)
        told = {name for name, _ in options.facts}
        module = f"{image.compressor}:module?" in (traits.compressors.value or ())
        if image.compressor != "lz4" or not module or "lz4" in told or not self.entry.initramfs or initramfs.problem:
            return options
        value = "loaded" if "lz4" in initramfs.modules else "absent"
        return replace(options, facts=(*options.facts, ("lz4", value)))


class _Judge:
    """Judges a plan, and the same inputs with other options."""

    def __init__(self, asked: Asked, session: Session, kernel: Kernel, share: float) -> None:
        self.session, self.kernel = session, kernel
        self.settings = Settings(replace(asked.machine, memory=max(asked.machine.memory, 1)), ONE, image_share=share)

    def both(self, plan: Plan) -> tuple[Step, Cell | None]:
        """Return whether it loads the image, and what then becomes of the machine."""
        acceptance = judge_acceptance(plan)
        load = _loads(plan, acceptance)
        if load.answer is Answer.NO:
            return load, None
        return load, judge_survival(plan, self.kernel, self.session.kernel, self.session.traits, self.settings)

    def varied(self, plan: Plan, load: Step, cell: Cell | None) -> Varied:
        """Judge what could be otherwise."""

        def judge_with(options: CheckOptions) -> Decided:
            other = make_plan(plan.inputs, options)
            return Decided(other, *_decided(*self.both(other)))

        return vary(Decided(plan, *_decided(load, cell)), judge_with, acceptance_alternatives)


def _loads(plan: Plan, acceptance: Acceptance) -> Step:
    refusal = acceptance.refusal
    if refusal is not None:
        return Step(Answer.NO, f"it {refusal.reason}", refusal.advice, refusal.log, refusal.errno)
    unknown = [one for one in acceptance.unknown if one not in plan.missing]
    if unknown:
        return Step(Answer.UNKNOWN, f"{unknown[0][0]} is not known", f"give {unknown[0][1]}")
    return Step(Answer.YES, "it passes every test that its kernel makes, as far as they can be made now")


def _decided(load: Step, cell: Cell | None) -> tuple[Outcome, Verdict]:
    """Put both answers together, as `hibercheck.handoff.verdict.decide` does: what is certain comes first."""
    if cell is None:
        return Outcome.REFUSED, Verdict.REFUSED
    if cell.verdict is not Verdict.FATAL and load.answer is Answer.UNKNOWN:
        return Outcome.UNDETERMINED, Verdict.UNDETERMINED
    return cell.outcome, cell.verdict


def _verdict(load: Step, cell: Cell | None) -> RowVerdict:
    return RowVerdict(_decided(load, cell)[1].value)


def _survives(cell: Cell, plan: Plan) -> Step:
    answers = {
        Verdict.FATAL: Answer.NO,
        Verdict.REFUSED: Answer.NO,
        Verdict.RISK: Answer.PERHAPS,
        Verdict.UNDETERMINED: Answer.UNKNOWN,
    }
    advice = {
        Verdict.FATAL: "hibernate from the kernel that is started by default, or start this one instead; "
        "hibercheck designs shows what would help",
        Verdict.RISK: "start the kernel that runs now, or hibernate from this one; see hibercheck diff",
        Verdict.UNDETERMINED: "run this as root, or bring all CPUs online"
        if plan.missing
        else "install the kernel's debug package, or see hibercheck kernel",
    }.get(cell.verdict, "")
    if "HC301" in cell.rules:  # which helps whatever kernels there are
        advice = RULES["HC301"].advice
    return Step(answers.get(cell.verdict, Answer.YES), cell.reason, advice)
