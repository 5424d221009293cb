"""cpuidle drivers, and intel_idle's tables as the file has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hibercheck.kernel.code.idle import IntelIdle, intel_idle_for
from hibercheck.kernel.code.model import IdleModel, IdleState, IdleTables
from hibercheck.kernel.code.traits import traits_on_demand
from hibercheck.kernel.kernel import open_kernel

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
    with open_kernel(str(KERNELS / f"{name}.vmlinux.xz")) as kernel:
        found = intel_idle_for(traits_on_demand(kernel).intel_idle.value, 6, 60, {"monitor"})
    assert [(one.name, one.latency) for one in found.states] == HASWELL
    assert found.deepest == IdleState("C10", 0x60, 2600, True)
    assert (found.listed, found.acpi) == (True, False)
