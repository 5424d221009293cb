"""cpuidle drivers, and intel_idle's tables as the file has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hibercheck.kernel.code.idle import IntelIdle, intel_idle_for
from hibercheck.kernel.code.model import IdleModel, IdleState, IdleTables
from hibercheck.kernel.code.traits import traits_on_demand
from hibercheck.kernel.kernel import open_kernel
from tests.support.unpacked import plain_path

KERNELS = Path(__file__).resolve().parents[3] / "fixtures" / "kernels"


def functions(*names):
    return "".join(f"fn {name}\n ret\nend {name}\n" for name in names)


@pytest.mark.parametrize(
    ("extra", "value"),
    [
        (functions("intel_idle_init", "acpi_processor_driver_init", "haltpoll_init"),
         ("intel_idle:builtin", "acpi_idle:builtin", "haltpoll:builtin")),
        (functions("start_kernel", "acpi_idle_enter", "__request_module"),
         ("intel_idle:absent", "acpi_idle:builtin", "haltpoll:module?")),
        (functions("start_kernel"), ("intel_idle:absent", "acpi_idle:absent", "haltpoll:absent")),
        (functions("intel_idle_init", "acpi_idle_enter"), None),
    ],
    ids=["all", "modules", "none", "unknown"],
)  # fmt: skip
def test_drivers(made, extra, value):
    assert made.traits(extra=extra).idle_drivers.value == value


def state(name, hint, flags, latency):
    """A struct cpuidle_state; an empty name ends the table."""
    enter = "hlt_play_dead" if name else "0"
    return (
        f' .ascii "{name}"\n .zero {48 - len(name)}\n .quad 0, 0\n'
        f" .long {hint << 24 | flags:#x}, {latency}, 0, 0\n .quad {enter}, 0, 0\n"
    )


def tables(models):
    """intel_idle_ids of models that share two tables of states."""
    deep = state("C1", 0, 0, 2) + state("C6", 0x20, 0, 133) + state("C10", 0x60, 8, 2600) + state("", 0, 0, 0)
    return f"""
{functions("start_kernel", "intel_idle_init")}
.data
.balign 8
deep: {deep}
shallow: {state("C1", 1, 0, 3)}{state("", 0, 0, 0)}
cpu_deep: .quad deep, 0
 .byte 0, 1, 0, 0, 0, 0, 0, 0
cpu_acpi: .quad shallow, 0
 .byte 0, 1, 1, 0, 0, 0, 0, 0
.globl intel_idle_ids, intel_mwait_ids
intel_idle_ids:
{models}
.text
"""


MODERN = """
 .word 0, 6, 60, 0, 0, 0, 0, 0
 .quad cpu_deep
 .word 0, 6, 63, 0x10, 0, 0, 0, 0
 .quad cpu_acpi
 .zero 24
intel_mwait_ids:
 .word 0, 0, 0, 0, 0x83, 0, 0, 0
 .quad 0
 .zero 24
"""
OLD = """
 .word 0, 6, 60, 0
 .quad cpu_deep
 .word 0, 6, 63, 0x83
 .quad cpu_acpi
 .zero 16
"""
DEEP = (IdleState("C1", 0, 2, True), IdleState("C6", 0x20, 133, True), IdleState("C10", 0x60, 2600, False))
SHALLOW = (IdleState("C1", 1, 3, True),)


def test_tables(made):
    found = made.traits(extra=tables(MODERN)).intel_idle
    assert found.value == IdleTables(
        (
            IdleModel(0, 6, 60, 0, 0, False, 0),
            IdleModel(0, 6, 63, 0x10, 0, True, 1),
            IdleModel(0, None, None, 0, 0x83, True, None),
        ),
        (DEEP, SHALLOW),
    )
    trait = made.traits(extra=tables(OLD)).intel_idle
    assert trait.value is not None, trait.reason
    old = trait.value
    assert old.models == (IdleModel(0, 6, 60, 0, 0, False, 0), IdleModel(0, 6, 63, 0, 0x83, True, 1))
    assert old.tables == (DEEP, SHALLOW)


@pytest.mark.parametrize(
    "models",
    [" .word 77, 6, 60, 0, 0, 0, 0, 0\n .quad cpu_deep\n .zero 24\n", " .zero 24\n", " .quad 1, 2, 3, 4, 5\n"],
)
def test_what_is_no_table_is_unknown(made, models):
    found = made.traits(extra=tables(models)).intel_idle
    assert found.value is None
    assert "cannot be read" in found.reason


def test_where_the_driver_is_absent_there_are_no_tables(made):
    assert made.traits(extra=functions("start_kernel")).intel_idle.value == IdleTables((), ())
    assert made.traits().intel_idle.value is None


@pytest.mark.parametrize(
    ("family", "model", "flags", "other", "expected"),
    [
        (6, 60, {"monitor"}, {}, IntelIdle(True, False, DEEP)),
        (6, 60, {"fpu"}, {}, None),
        (6, 63, {"monitor"}, {}, IntelIdle(True, True, SHALLOW)),
        (6, 63, {"monitor"}, {"stepping": 4}, IntelIdle(True, True, SHALLOW)),
        (6, 63, {"monitor"}, {"stepping": 2}, IntelIdle(False, True, ())),
        (6, 9, {"monitor"}, {}, IntelIdle(False, True, ())),
        (6, 60, {"monitor"}, {"sub_states": (0, 1, 1, 1, 1, 1, 1, 1)}, IntelIdle(True, False, DEEP)),
        (6, 60, {"monitor"}, {"sub_states": (0, 1, 0, 0, 0, 0, 0, 0)}, IntelIdle(True, False, DEEP[:1])),
        (6, 60, {"monitor"}, {"sub_states": (0,) * 8}, IntelIdle(True, False, ())),
        (6, 60, {"monitor"}, {"vendor": 2}, None),
        (25, 1, {"monitor"}, {"vendor": 2}, None),
    ],
)
def test_what_it_does_on_a_cpu(made, family, model, flags, other, expected):
    known = made.traits(extra=tables(MODERN)).intel_idle.value
    assert intel_idle_for(known, family, model, flags, **other) == expected


def test_the_deepest_state_is_the_last_that_may_be_entered():
    assert IntelIdle(True, False, DEEP).deepest == DEEP[1]
    assert IntelIdle(False, True, ()).deepest is None


HASWELL = [("C1", 2), ("C1E", 10), ("C3", 33), ("C6", 133), ("C7s", 166), ("C8", 300), ("C9", 600), ("C10", 2600)]


@pytest.mark.parametrize("name", ["mid-current", "v73-stock"])
def test_the_latencies_of_haswell(name):
    """drivers/idle/intel_idle.c, hsw_cstates: the same since v3.10."""
    with open_kernel(plain_path(f"kernels/{name}.vmlinux.xz")) as kernel:
        found = intel_idle_for(traits_on_demand(kernel).intel_idle.value, 6, 60, {"monitor"})
    assert [(one.name, one.latency) for one in found.states] == HASWELL
    assert found.deepest == IdleState("C10", 0x60, 2600, True)
    assert (found.listed, found.acpi) == (True, False)


def model(vendor=0, family=6, number=60, steppings=0, table=0, acpi=False):
    return IdleModel(vendor, family, number, steppings, 0, acpi, table)


def hint(value):
    return IdleState("C", value, 1, True)


@pytest.mark.parametrize(("models", "cpu", "expected"), [
    # by each of what identifies it
    ((model(),), {}, 0), ((model(vendor=2),), {}, None), ((model(vendor=2),), {"vendor": 2}, 0),
    ((model(vendor=None),), {"vendor": 9}, 0), ((model(family=7),), {}, None), ((model(family=None),), {}, 0),
    ((model(number=61),), {}, None), ((model(number=None),), {}, 0),
    # steppings: a bit for each, none for every one
    ((model(steppings=1),), {"stepping": 0}, 0), ((model(steppings=1),), {"stepping": 1}, None),
    ((model(steppings=2),), {"stepping": 1}, 0), ((model(steppings=0x8000),), {"stepping": 15}, 0),
    ((model(steppings=0x7FFF),), {"stepping": 15}, None), ((model(steppings=4),), {}, 0),
    # the first that fits
    ((model(number=61), model(table=1)), {}, 1), ((model(table=1), model()), {}, 1),
    ((model(table=None), model()), {}, ()),
    ((), {}, None),
])  # fmt: skip
def test_which_model_a_cpu_is(models, cpu, expected):
    known = IdleTables(models, ((hint(0),), (hint(0x20),)))
    found = intel_idle_for(known, 6, 60, {"monitor", "fpu"}, **cpu)
    if expected is None:
        assert found is None
    else:
        assert found.states == (known.tables[expected] if isinstance(expected, int) else expected)
        assert (found.listed, found.acpi) == (bool(found.states), not found.states)


@pytest.mark.parametrize("acpi", [False, True])
def test_what_acpi_has_to_do_with_it(acpi):
    known = IdleTables((model(acpi=acpi),), ((hint(0),),))
    assert intel_idle_for(known, 6, 60, {"monitor"}) == IntelIdle(True, acpi, (hint(0),))


@pytest.mark.parametrize(("value", "number"), [(0, 1), (1, 1), (0x0F, 1), (0x10, 2), (0x60, 7), (0xE0, 15), (0xF0, 0)])
def test_the_state_that_a_hint_is_of(value, number):
    """SDM volume 2, MWAIT: bits 7-4 are the C-state less one, and 1111b is C0."""
    known = IdleTables((model(),), ((hint(value),),))
    for count in (7, 8, 16):
        for at in range(count):
            subs = [0] * count
            subs[at] = 1
            found = intel_idle_for(known, 6, 60, {"monitor"}, sub_states=subs)
            assert bool(found.states) is (at == number)
            assert found.listed


def test_the_deepest_of_which_some_may_be_entered():
    states = [IdleState(str(n), n << 4, n, usable) for n, usable in enumerate((True, False, True, False))]
    assert IntelIdle(True, False, tuple(states)).deepest == states[2]
    assert IntelIdle(True, False, tuple(states[:2])).deepest == states[0]
    assert IntelIdle(True, False, tuple(states[1:2])).deepest is None


def row(vendor, family, number, steppings=0, feature=0, data="cpu_deep"):
    return f" .word {vendor}, {family}, {number}, {steppings}, {feature}, 0, 0, 0\n .quad {data}\n"


END = " .zero 24\n"


@pytest.mark.parametrize(("rows", "expected"), [
    (row(15, 6, 60), [(15, 6, 60)]), (row(16, 6, 60), None), (row(0xFFFF, 6, 60), [(None, 6, 60)]),
    (row(0xFFFE, 6, 60), None), (row(0, 0, 60), [(0, None, None)]), (row(0, 6, 0), [(0, 6, 0)]),
    (row(0, 6, 60, data=0), [(0, 6, 60)]),
    (row(0, 6, 60, data="0xffffffff80000000"), None),  # no such table in the file
    (row(0, 6, 60) + row(16, 6, 61), None), (row(0, 6, 60) * 511, [(0, 6, 60)] * 511),
    (row(0, 6, 60) * 513, [(0, 6, 60)] * 512),
], ids=str)  # fmt: skip
def test_rows_of_the_table_of_models(made, rows, expected):
    value = made.value(
        "intel_idle", extra=tables(rows + END + "intel_mwait_ids:\n" + row(0, 0, 0, feature=0x83, data=0) + END)
    )
    if expected is None:
        assert value is None
    else:
        assert [(one.vendor, one.family, one.model) for one in value.models] == [*expected, (0, None, None)]


def states_of(made, text):
    deep = f"{functions('start_kernel', 'intel_idle_init')}.data\n.balign 8\ndeep:\n{text}"
    ids = f"cpu_deep: .quad deep, 0, 0\n.globl intel_idle_ids\nintel_idle_ids:\n{row(0, 6, 60)}{END}.text\n"
    value = made.value("intel_idle", extra=deep + ids)
    return None if value is None else list(value.tables[0])


@pytest.mark.parametrize(("text", "expected"), [
    (state("C1", 0xFF, 0, 7) + state("", 0, 0, 0), [IdleState("C1", 0xFF, 7, True)]),
    (state("C1", 1, 0xFFFFF7, 7) + state("", 0, 0, 0), [IdleState("C1", 1, 7, True)]),
    (state("C1", 1, 8, 0xFFFFFFFF) + state("", 0, 0, 0), [IdleState("C1", 1, 0xFFFFFFFF, False)]),
    (state("C123456789012345", 1, 0, 7) + state("", 0, 0, 0), [IdleState("C123456789012345", 1, 7, True)]),
    (state("C", 1, 0, 7).replace("C", "C\\0D", 1) + state("", 0, 0, 0), None),
    (state("C\t", 1, 0, 7) + state("", 0, 0, 0), None),
    (state("C1", 1, 0, 7).replace("hlt_play_dead", "0xffffffff7fffffff") + state("", 0, 0, 0), None),
    (state("C1", 1, 0, 7).replace("hlt_play_dead", "0xffffffff80000000") + state("", 0, 0, 0),
     [IdleState("C1", 1, 7, True)]),
    (state("", 0, 0, 0), []), (state("C1", 1, 0, 7) * 20, [IdleState("C1", 1, 7, True)] * 16),
], ids=str)  # fmt: skip
def test_states_of_a_table(made, text, expected):
    assert states_of(made, text) == expected


@pytest.mark.parametrize(("driver", "name", "modular"), [
    ("intel_idle", "intel_idle_init", False), ("acpi_idle", "acpi_processor_driver_init", True),
    ("acpi_idle", "acpi_idle_enter", True), ("haltpoll", "haltpoll_init", True),
])  # fmt: skip
def test_each_driver_by_each_of_its_functions(made, driver, name, modular):
    every = ("intel_idle", "acpi_idle", "haltpoll")
    found = made.value("idle_drivers", extra=functions("start_kernel", name))
    assert found == tuple(f"{one}:{'builtin' if one == driver else 'absent'}" for one in every)
    found = made.value("idle_drivers", extra=functions("start_kernel", "__request_module"))
    assert (f"{driver}:module?" in found) is modular
