"""What would change the verdict is named, has a sign in the inputs, and is proved by the arguments that it names."""

from __future__ import annotations

import json
import mmap
import struct
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import pytest

from hibercheck.handoff.acceptance.alternatives import acceptance_alternatives
from hibercheck.handoff.scenario.alternatives import KINDS, Alternative
from hibercheck.handoff.scenario.options import CheckOptions
from hibercheck.handoff.verdict.check import check
from hibercheck.handoff.verdict.conditions import Decided, vary
from hibercheck.handoff.verdict.findings import HARM, Outcome, Verdict
from hibercheck.kernel.code.facts import facts_of
from hibercheck.report import gate
from hibercheck.report.gate import Exit
from tests.support.cases import options_of
from tests.support.made_inputs import made_image, made_plan
from tests.support.opened import opened
from tests.support.unpacked import copied

FACTS = Path(__file__).parent.parent / "facts" / "small-current-kaslr.json"
PAGE = 4096


def with_boot_params(image, kernel, target, *, loader=None, efi=False):
    """Copy an uncompressed image whose kernel was started otherwise: type_of_loader, and a UEFI's signature."""
    from hibercheck.handoff.facts.resumee import read_resumee  # noqa: PLC0415 - only here
    from hibercheck.swsusp.image import open_image  # noqa: PLC0415 - only here

    with open_image(image) as whole:
        space = read_resumee(whole, opened(kernel)).space
        physical = space.physical(space.address("boot_params"))
        index = whole.pfns.data_index(physical // PAGE)
        number = 1 + whole.info.pages - whole.info.image_pages - 1 + index
    with changing(copied(image, target)) as data:
        place = stored(data)[number] * PAGE + physical % PAGE
        assert data[place + 0x202 : place + 0x206] == b"HdrS"
        if loader is not None:
            data[place + 0x210] = loader
        if efi:
            data[place + 0x1C0 : place + 0x1C4] = b"EL64"
    return str(target)


@contextmanager
def changing(path):
    """Give the contents of a file, to be changed in place."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        yield data


def stored(data):
    """Return where each page of an uncompressed stream is stored."""
    found, following = [], struct.unpack_from("<Q", data, PAGE - 32)[0]
    while following:
        entries = struct.unpack_from("<512Q", data, following * PAGE)
        found += [entry for entry in entries[:511] if entry]
        following = entries[511]
    return found


class Given:
    """A check, and the same with more arguments."""

    def __init__(self, image, resumer, resumee, *arguments):
        self.files, self.arguments = (image, *map(self.kernel, (resumer, resumee))), arguments

    @staticmethod
    def kernel(path):
        """Open what is committed once; facts made by a test are its own."""
        return opened(path) if path.endswith(".vmlinux") else path

    def report(self, *more):
        return check(*self.files, options_of([*self.arguments, *more]))


def words(condition):
    """The arguments that a condition names, as a command line has them."""
    return [word for argument in condition.settle for word in argument if word]


@pytest.fixture
def given(committed, tmp_path):
    """Return a function that gives one of the checks below."""
    latent, benign, safe = (committed(name) for name in ("latent", "benign", "safe"))
    v73 = committed("lz4-zero-pages")["resumer"]
    offline = ("--resumer-cmdline", "nokaslr", "--fact", "cpus=0-3", "--resumer-offline", "2,3")
    facts = tmp_path / "facts.json"
    changed = {"kallsyms": [], "iomem": [], "cmdline": "nokaslr nosmt", "cpuinfo": cpuinfo(without="monitor")}
    facts.write_text(json.dumps(json.loads(FACTS.read_text()) | changed))
    kexec = {"loader": 0xD0}

    def started(name, **how):
        return with_boot_params(latent["image"], latent["resumee"], tmp_path / name, **how)

    def without_cpuidle():
        """A resumee that was told to do without: what it saw says nothing of the resumer's driver."""
        image = tmp_path / "cpuidle.bin"
        with changing(copied(latent["image"], image)) as data:
            place = -1
            while (place := data.find(b"iomem=relaxed", place + 1)) >= 0:
                data[place : place + 13] = b"cpuidle.off=1"
        return str(image)

    def open_place(image):
        return Given(image, benign["resumer"], latent["resumee"], "--resumer-cmdline", "nokaslr nosmt")

    return {
        "idle-driver": lambda: Given(without_cpuidle(), v73, latent["resumee"], *offline),
        "mwait-exits": lambda: Given(without_cpuidle(), v73, latent["resumee"], *offline),
        "load-address": lambda: open_place(started("kexec.bin", **kexec)),
        "smt": lambda: Given(
            *(safe["image"], benign["resumer"], safe["resumee"]),
            *("--resumer-cmdline", "nokaslr mds=full,nosmt", "--spurious-mwait"),
        ),
        "cpu-features": lambda: Given(
            *(committed("fatal")["image"], safe["resumer"], committed("fatal")["resumee"]),
            *("--resumer-facts", str(facts), "--spurious-mwait"),
        ),
        "modes": lambda: Given(
            *(safe[name] for name in ("image", "resumer", "resumee")),
            *("--resumer-cmdline", "nokaslr nosmt mem_encrypt=on", "--spurious-mwait"),
        ),
        "bootconfig": lambda: Given(
            *(safe["image"], reading_bootconfig(safe["resumer"], tmp_path / "reads.json"), safe["resumee"]),
            *("--resumer-cmdline", "nokaslr nosmt bootconfig", "--spurious-mwait"),
        ),
    }


def reading_bootconfig(kernel, target):
    """Write the facts of a kernel as if it were built with CONFIG_BOOT_CONFIG."""
    document = facts_of(opened(kernel))
    document["traits"]["bootconfig"]["value"] = "if asked for"
    target.write_text(json.dumps(document))
    return str(target)


def cpuinfo(without):
    lines = json.loads(FACTS.read_text())["cpuinfo"]
    return [" ".join(word for word in line.split(" ") if word != without) for line in lines]


@pytest.mark.parametrize("kind", ["idle-driver", "mwait-exits", "load-address", "bootconfig", "modes"])
def test_a_condition_is_proved_by_its_arguments(given, kind):
    case = given[kind]()
    report = case.report()
    assert kind in {condition.id for condition in report.conditions}
    for condition in report.conditions:
        proved = case.report(*words(condition))
        assert (proved.outcome, proved.verdict) == (condition.outcome, condition.verdict), condition.id
        assert (proved.outcome, proved.verdict) != (report.outcome, report.verdict), condition.id


def test_a_bootconfig_that_may_forbid_resuming_counts_with_strict(given):
    report = given["bootconfig"]().report()
    assert report.verdict is Verdict.SAFE
    assert [(one.id, one.outcome) for one in report.conditions] == [("bootconfig", Outcome.REFUSED)]
    judged = [gate.judge(report, strict=strict) for strict in (False, True)]
    assert [one.exit_status for one in judged] == [Exit.PASSED, Exit.FAILED]
    assert judged[1].reason.startswith("if condition bootconfig holds")


def test_kernels_that_may_differ_in_a_mode_of_the_machine_do_not_pass_with_strict(given):
    report = given["modes"]().report()
    assert [(one.id, one.outcome) for one in report.conditions] == [("modes", Outcome.UNDETERMINED)]
    judged = [gate.judge(report, strict=strict) for strict in (False, True)]
    assert [one.exit_status for one in judged] == [Exit.PASSED, Exit.UNDETERMINED]


def test_the_worst_comes_first_and_each_kind_once(given):
    for make in given.values():
        conditions = make().report().conditions
        harms = [HARM.index(condition.verdict) for condition in conditions]
        assert harms == sorted(harms, reverse=True)
        assert len({condition.id for condition in conditions}) == len(conditions)
        assert all(name in KINDS for condition in conditions for name in condition.id.split("+"))
        assert all(condition.reason and condition.how for condition in conditions)


def test_how_a_cpu_is_parked_comes_from_the_resumers_own_drivers(given):
    """The resumee used no driver; the resumer has intel_idle, which knows this CPU, and cores offline by hand."""
    report = given["idle-driver"]().report()
    found = next(one for one in report.assumptions if one.name == "idle-driver")
    assert (found.value, found.source) == ("mwait", "its intel_idle, which knows this CPU")
    assert (report.outcome, report.verdict) == (Outcome.MAY_RESET, Verdict.RISK)
    by_id = {condition.id: condition for condition in report.conditions}
    assert by_id["idle-driver"].verdict is Verdict.LATENT
    assert by_id["mwait-exits"].verdict is Verdict.FATAL


def test_a_kernel_that_kexec_started_may_lie_anywhere(given, committed):
    """Without that sign the place is where the kernel is linked, and there is nothing to say."""
    case = given["load-address"]()
    condition = next(one for one in case.report().conditions if one.id == "load-address")
    assert "kexec" in condition.reason
    latent = committed("latent")
    plain = Given(latent["image"], committed("benign")["resumer"], latent["resumee"], *case.arguments)
    assert "load-address" not in {one.id for one in plain.report().conditions}


def test_uefi_puts_a_kernel_without_kaslr_where_there_is_room(committed, tmp_path):
    """The resumee's place, without KASLR as well, shows where that is; here it lies where it is linked."""
    latent = committed("latent")
    image = with_boot_params(latent["image"], latent["resumee"], tmp_path / "efi.bin", efi=True)
    arguments = ("--resumer-cmdline", "nokaslr nosmt")
    report = Given(image, committed("benign")["resumer"], latent["resumee"], *arguments).report()
    assert "load-address" not in {one.id for one in report.conditions}


def test_what_is_given_is_not_varied(given):
    case = given["idle-driver"]()
    settled = case.report("--resumer-idle", "mwait")
    assert "idle-driver" not in {condition.id for condition in settled.conditions}


@pytest.mark.parametrize("name", ["safe", "same-build", "no-overlap", "benign", "lz4-zero-pages", "refused"])
def test_what_has_no_sign_is_no_condition(predict, name):
    assert predict(name).conditions == ()


def test_with_a_dump_nothing_is_left_open(predict):
    assert predict("fatal", memory=True).conditions == ()
    assert predict("random-address", memory=True).conditions == ()


def test_facts_of_another_cpu_are_judged_both_ways(given):
    """What was collected has no MONITOR, and the image's CPU has it: one of them is of another machine."""
    report = given["cpu-features"]().report()
    assert any("what the resumer's CPU can do" in warning for warning in report.warnings)
    for condition in report.conditions:
        proved = given["cpu-features"]().report(*words(condition))
        assert (proved.outcome, proved.verdict) == (condition.outcome, condition.verdict)
        assert "--what-if" in words(condition)


def test_so_many_cpus_that_not_everything_is_judged(given):
    case = given["idle-driver"]()
    files = case.files
    many = options_of(["--resumer-cmdline", "nokaslr", "--fact", "cpus=0-1023", "--resumer-offline", "2,3"])
    report = check(*files, many)
    assert any("not judged: there are too many CPUs" in warning for warning in report.warnings)
    assert isinstance(many, CheckOptions)


def test_two_that_only_together_change_the_verdict_are_one_condition():
    """Who is parked how and whether the image is loaded are about different things: both are judged at once."""
    line = "noresume acpi=off"
    plans = partial(made_plan, image=made_image())

    def judged(options):
        both = options.resumer_cmdline == line and {"resume", "cpus"} <= {name for name, _ in options.facts}
        outcome, verdict = (Outcome.RESETS, Verdict.FATAL) if both else (Outcome.RESUMES, Verdict.SAFE)
        return Decided(plans(**{one.name: getattr(options, one.name) for one in fields(options)}), outcome, verdict)

    usual = judged(CheckOptions(resumer_cmdline=line))
    (found,) = vary(usual, judged, acceptance_alternatives).conditions
    assert (found.id, found.verdict) == ("cpus+resume", Verdict.FATAL)
    assert found.settle == (("--fact", "cpus=0-3"), ("--fact", "resume=user"))


@pytest.mark.parametrize("cpus", [4, 64, 300, 301, 1024])
def test_conditions_cost_at_most_twice_the_check_itself(cpus):
    """Counted in judgements of single CPUs; below 300 CPUs they are few milliseconds, and the check is its reading."""
    usual = made_plan(image=made_image(), facts=(("cpus", f"0-{cpus - 1}"),))
    judged = []

    def judge_with(options):
        judged.append(options)
        return Decided(usual, Outcome.RESUMES, Verdict.SAFE)

    def very_many(plan):
        for kind in ("load-address", "resume"):  # about different things, so that each pair is one more
            for number in range(200):
                options = replace(plan.options, wake_latency=number + (kind == "resume") * 200)
                yield Alternative(kind, "a fact", "a value", "a sign", options, ())

    found = vary(Decided(usual, Outcome.RESUMES, Verdict.SAFE), judge_with, very_many)
    assert len(usual.parked) == cpus - 1
    assert found.left_out > 0
    assert len(judged) == len(set(judged)) >= 2
    assert len(judged) * len(usual.parked) <= max(600, 2 * len(usual.parked))
