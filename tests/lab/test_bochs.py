"""Bochs as a machine of the lab: its events as records, its orders, its configuration; no machine is started here."""

from __future__ import annotations

import gzip
import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from tests.lab import records
from tests.lab.bochs import build, chance, events, guest
from tests.lab.bochs.machine import Run, count, model
from tests.lab.bochs.rows import FOUR, LARGE, asleep, stock
from tests.lab.bochs.run import BochsLab, dump_path, groups, image_path, offline_of, unfit, variant
from tests.lab.errors import LabError
from tests.lab.experiment import Experiment, Side
from tests.lab.kernels import Kernels
from tests.lab.machine import Machine
from tests.lab.run import unfit as unfit_for_qemu

LINE = 0x13520000
STATE = {"event": "state", "rip": 1, "rsp": 2, "cr3": 0x1A0A000, "hint": 0}


def a_run(*rows: dict) -> list[dict]:
    """Three CPUs parked, and what comes then."""
    states = [("active", -1), ("hlt", -1), ("mwait", LINE), ("mwait", LINE + 64)]
    return [
        {"event": "phase", "phase": "parked"},
        *({**STATE, "cpu": cpu, "state": state, "line": line} for cpu, (state, line) in enumerate(states)),
        {"event": "phase", "phase": "copy"},
        *rows,
    ]


def wake(cpu: int, by: str = "store", copy: int = 1873, phase: str = "copy") -> dict:
    return {"event": "wakes", "cpu": cpu, "by": by, "copy": copy, "phase": phase, "address": LINE, "storer": 0}


def parks(cpu: int) -> dict:
    return {"event": "parks", "cpu": cpu, "in": "mwait", "copy": 1873, "phase": "copy", "rip": 1, "line": LINE}


def fault(cpu: int, vector: int, *, third: bool = False) -> dict:
    return {"event": "exception", "cpu": cpu, "vector": vector, "third": third, "copy": 9, "rip": 1}


def test_a_cpu_that_is_woken_and_parks_again():
    found = events.course(
        [
            *a_run(wake(2), parks(2)),
            {"event": "phase", "phase": "resumee", "copies": 6230},
            wake(2, "init", 7000, "resumee"),
            {"event": "init", "cpu": 2, "parked": True, "phase": "resumee"},
            {"event": "init", "cpu": 2, "parked": False, "phase": "resumee"},
            {"event": "end", "why": "quit"},
        ]
    )
    assert [(one.cpu, one.state, one.line) for one in found.parked] == [
        (1, "hlt", None),
        (2, "mwait", LINE),
        (3, "mwait", LINE + 64),
    ]
    assert [(one.cpu, one.by, one.copy, one.again) for one in found.wakes] == [
        (2, "store", 1873, True),
        (2, "init", 7000, False),
    ]
    assert (found.copies, found.inits, found.strayed, found.reset, found.end) == (6230, (2,), (), None, "quit")
    assert found.reduced() == {
        "copies": 6230,
        "parked": [[1, "hlt"], [2, "mwait", LINE >> 12], [3, "mwait", LINE >> 12]],
        "wakes": [[2, "store", 1873, "copy", True]],
        "init": [2],
    }


def test_a_cpu_that_dies_in_the_copy():
    fetches = {"event": "fetches", "cpu": 3, "rip": 5, "address": 0x1032459, "copy": 4208, "phase": "copy"}
    walks = {"event": "walks", "cpu": 3, "level": 1, "address": 0x1A0A008, "copy": 4208, "phase": "copy"}
    end = {"event": "reset", "cpu": 0, "phase": "copy", "copy": 4208}
    rows = [wake(3), wake(3, "delay", 4208), fetches, walks, fault(3, 14), fault(3, 8), fault(3, 14, third=True), end]
    found = events.course(a_run(*rows))
    assert [(one.by, one.again) for one in found.wakes] == [("delay", False)]  # the store alone began the delay
    assert [(one.cpu, one.what, one.copy) for one in found.differs] == [(3, "fetch", 4208), (3, "walk", 4208)]
    assert found.reset == events.Reset(3, (14, 8, 14), 4208, "copy")
    assert found.strayed == (3,)
    assert found.copies == 0
    assert found.reduced()["reset"] == [3, [14, 8, 14], 4208, "copy"]


def test_a_store_whose_delay_never_ended_is_a_wake_to_come():
    found = events.course(a_run(wake(2)))
    assert [(one.by, one.again) for one in found.wakes] == [("store", False)]


def test_where_cpus_are_in_the_end_and_who_put_them_there():
    def state(cpu, name, hint=0):
        return {**STATE, "cpu": cpu, "state": name, "line": LINE, "hint": hint}

    started = {"event": "sipi", "cpu": 3, "vector": 0x99}
    last = [state(0, "hlt"), state(1, "hlt"), state(2, "wait-for-sipi"), state(3, "mwait", 0x60)]
    rows = [*a_run(), started, *last]
    found = events.course([*rows, {"event": "end", "why": "quit"}])
    assert found.resting({2, 3}) == [[2, "wait-for-sipi"], [3, "mwait", "resumee", 0x60]]
    assert found.resting({1}) == [[1, "hlt", "resumer"]]
    assert events.course([*rows, {"event": "end", "why": "limit"}]).resting({1, 2, 3}) == []  # not where they end


def test_the_cpus_that_a_guest_has_offline_are_those_it_does_not_name():
    assert offline_of("LAB back 0 online 0\nLAB alive online 0,2\n", 4) == {1, 3}
    assert offline_of("LAB back 0 online 0\n", 4) == frozenset()


def test_who_strays():
    fetches = {"event": "fetches", "cpu": 2, "rip": 5, "address": 1, "copy": 7, "phase": "resumee"}
    init = {"event": "init", "cpu": 2, "parked": True, "phase": "resumee"}
    assert events.course(a_run(wake(2), fetches)).strayed == (2,)  # runs on in the resumee's code
    assert events.course(a_run(wake(2), fetches, parks(2))).strayed == ()  # other bytes, the same end
    assert events.course(a_run(wake(2), fault(2, 2), parks(2))).strayed == ()  # an NMI from outside
    assert events.course(a_run(wake(2), fault(2, 6), parks(2))).strayed == (2,)
    assert events.course(a_run(init, fault(2, 14))).strayed == ()  # by then the resumee's own


def test_a_file_that_was_cut_off_is_read_as_far_as_it_goes(tmp_path: Path):
    path = tmp_path / "0.events"
    path.write_text("".join(json.dumps(row) + "\n" for row in a_run(wake(2), parks(2))) + '{"tick": 12, "ev')
    assert len(events.read(path).wakes) == 1
    assert events.read(tmp_path / "none").parked == ()


def test_the_guest_finds_its_orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    busybox = tmp_path / "busybox"
    busybox.write_bytes(b"\x7fELF")
    monkeypatch.setattr("tests.lab.bochs.guest.static_busybox", lambda: busybox)
    item = Experiment(
        "x", Side("a", offline=(2, 3)), Side("b"), machine=FOUR, image_size=None, fill_mib=40, fill_byte=0xCC
    )
    guest.initramfs(tmp_path / "initrd", item, "resumee")
    plain = gzip.decompress((tmp_path / "initrd").read_bytes())
    for word in (
        b"ROLE='resumee'",
        b"OFFLINE='2 3'",
        b"FILL='40'",
        b"FILL_BYTE='314'",
        b"IMAGE_SIZE=''",
        b"EVENTS='1 2 3'",
    ):
        assert word in plain


def test_one_image_and_one_resumer_serve_many_moments(tmp_path: Path):
    first = Experiment("x", Side("a"), Side("b"), machine=FOUR)
    later = replace(first, name="y", latency=900, tlb="cold", event="nmi")
    assert image_path(tmp_path, first) == image_path(tmp_path, later)
    assert dump_path(tmp_path, first) == dump_path(tmp_path, later)
    for other in (
        replace(first, churn_mib=99),
        replace(first, machine=LARGE),
        replace(first, resumee=Side("a", load=4096)),
    ):
        assert image_path(tmp_path, other) != image_path(tmp_path, first)
    assert dump_path(tmp_path, replace(first, resumer=Side("b", offline=(1,)))) != dump_path(tmp_path, first)
    assert groups([first, replace(first, resumer=Side("c")), later]) == [
        [first, later],
        [replace(first, resumer=Side("c"))],
    ]


def test_the_event_goes_to_those_whom_the_resumee_leaves_behind():
    item = Experiment("x", Side("a", offline=(2, 3), online=(2,)), Side("b"), machine=FOUR, event="nmi", latency=7)
    assert variant(4, item) == "4 7 warm nmi:3"
    assert variant(0, replace(item, resumee=Side("a"), event="smi", tlb="cold")) == "0 7 cold smi:1,2,3"
    assert variant(0, replace(item, event="none")) == "0 7 warm none"


def test_each_machine_says_what_it_cannot_do():
    plain = Experiment("x", Side("a"), Side("b"))
    unfit(plain)
    unfit_for_qemu(plain)
    for item in (
        replace(plain, swap_file=True),
        replace(plain, machine=Machine(disk="virtio")),
        replace(plain, resumer_machine=FOUR),
    ):
        with pytest.raises(LabError, match="not on Bochs"):
            unfit(item)
    for item in (replace(plain, latency=1), replace(plain, tlb="cold"), replace(plain, resumer=Side("b", load=1))):
        with pytest.raises(LabError, match="not on QEMU"):
            unfit_for_qemu(item)
    with pytest.raises(LabError, match="no such CPU"):
        model(Machine(cpu="EPYC"))


@pytest.mark.parametrize(("line", "offline", "online", "fits"), [
    ("", (1, 2, 3), (), True), ("", (1, 3), (), False), ("", (1, 2, 3), (3,), False), ("", (), (), False),
    ("nosmt", (2,), (), True), ("nosmt", (), (), False), ("maxcpus=1", (), (), True), ("maxcpus=2", (), (), False),
    ("nr_cpus=2", (1,), (), True), ("nr_cpus=2", (), (), False), ("nosmp", (), (), True),
])  # fmt: skip
def test_in_qemu_an_smi_cannot_be_aimed_where_the_resumee_runs_several_cpus(line, offline, online, fits):
    """As in seed17-14, whose resumee runs three."""
    item = Experiment("x", Side("a", line, offline, online), Side("b"), machine=FOUR, event="smi")
    unfit_for_qemu(replace(item, event="nmi"))
    unfit_for_qemu(item, alone=True)
    with nullcontext() if fits else pytest.raises(LabError, match="not on QEMU: an SMI that hits"):
        unfit_for_qemu(item)


def test_the_machine_in_bochs_words(tmp_path: Path):
    assert count(FOUR) == "1:2:2"
    assert model(Machine(cpu="Skylake-Client,-hle,-rtm,+monitor,+la57")) == "corei7_haswell_4770, add_features=la57"
    bochs = build.Bochs(tmp_path, tmp_path, tmp_path)
    run = Run(bochs, FOUR, tmp_path, tmp_path / "k", tmp_path / "i", "nokaslr", tmp_path / "d", load=0x12E00000)
    assert run.environment()["LAB_LOAD"] == "0x12e00000"
    assert "LAB_VARIANTS" not in run.environment()
    assert "LAB_DUMP" not in run.environment()


def test_what_is_built_follows_the_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    before = build.fingerprints()
    assert build.fingerprints() == before
    (tmp_path / "hooks").mkdir()
    (tmp_path / "hooks" / "lab.h").write_text("1")
    monkeypatch.setattr(build, "HOOKS", tmp_path / "hooks")
    whole, hooks = build.fingerprints()
    assert whole != before[0]
    (tmp_path / "hooks" / "a.cc").write_text("1")
    assert build.fingerprints()[0] == whole
    assert build.fingerprints()[1] != hooks


def test_the_patch_is_of_text_that_its_source_has():
    text = build.PATCH.read_text()
    assert text.count("\n--- a/") + text.startswith("--- a/") == text.count("+++ b/") == 8


@pytest.mark.parametrize("number", range(40))
def test_draws_repeat_and_make_sense(number: int):
    item = chance.draw(7, number)
    assert item == chance.draw(7, number)
    unfit(item)
    model(item.machine)
    assert all(0 < cpu < item.machine.cpus for cpu in (*item.resumee.offline, *item.resumer.offline))
    assert 0 <= item.latency <= 4000


def test_a_scene_serves_its_moments():
    assert len(groups(chance.draw(7, number) for number in range(16))) <= 4


def test_designed_ones_have_names_of_their_own():
    found = [*asleep(), *stock()]
    assert len({item.name for item in found}) == len(found)
    for item in found:
        unfit(item)


def test_an_image_is_made_once_whoever_wants_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Two sittings in one work directory, or two threads of one."""
    made: list[Path] = []

    def hibernate(_lab: BochsLab, _experiment: Experiment, path: Path) -> None:
        made.append(path)
        time.sleep(0.2)
        path.write_bytes(b"")

    monkeypatch.setattr(BochsLab, "_hibernate", hibernate)
    labs = [BochsLab(tmp_path, Kernels((), tmp_path), build.Bochs(*[tmp_path] * 3)) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        found = set(pool.map(lambda lab: lab.image(next(asleep())), labs))
    assert found == {image_path(tmp_path, next(asleep()))} == set(made)
    assert len(made) == 1


def test_a_stock_kernel_that_hibernates_has_room_for_its_image():
    drawn = [chance.draw(41, number) for number in range(0, 240, 4)]
    stock_ones = [one for one in drawn if one.resumee.kernel.startswith("debian-")]
    assert len(stock_ones) > 9
    assert max(one.fill_mib for one in stock_ones) == chance.STOCK_FILL
    assert max(one.fill_mib for one in drawn) > chance.STOCK_FILL


def test_a_recorded_draw_is_drawn_again():
    recorded = [one.experiment for one in records.load(records.PLACE / "bochs.jsonl") if one.name.startswith("b41-")]
    assert len(recorded) > 100
    assert [chance.draw(41, int(one.name.removeprefix("b41-"))) for one in recorded] == recorded
