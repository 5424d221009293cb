"""How a kernel's cpuidle driver parks a dead CPU, read from its memory."""

from __future__ import annotations

from hibercheck.data import dataclass
from hibercheck.errors import MissingFact
from hibercheck.handoff.facts.space import KernelSpace

_STATES_MAX = 10  # CPUIDLE_STATE_MAX, include/linux/cpuidle.h


@dataclass(frozen=True, slots=True)
class IdleDriver:
    """The cpuidle driver in use.

    Attributes:
        name: ``intel_idle``, ``acpi_idle``, ``haltpoll`` ..., or None when no driver is registered.
        enter_dead: Name of the function that parks a dead CPU in the deepest state that has one, or None.
        entry_method: For acpi_idle, how that state is entered: ``mwait``, ``halt`` or ``port``; None if not acpi_idle.
    """

    name: str | None
    enter_dead: str | None = None
    entry_method: str | None = None


def read_idle_driver(space: KernelSpace) -> IdleDriver:
    """Read ``cpuidle_curr_driver`` (drivers/cpuidle/driver.c) and its states.

    Raises:
        MissingFact: There is a driver, and its structures cannot be read.
    """
    symbol = space.kernel.symbol("cpuidle_curr_driver")
    if symbol is None:
        if space.kernel.symbol("cpuidle_play_dead") is None:
            return IdleDriver(None)  # built without CONFIG_CPU_IDLE
        raise MissingFact("cpuidle_curr_driver is not among the kernel's symbols")
    driver = space.variable("cpuidle_curr_driver")
    if driver == 0:
        return IdleDriver(None)
    name = space.string(space.number(driver), 64)
    deepest = _deepest_dead_state(space, driver)
    if deepest is None:
        return IdleDriver(name)
    index, function = deepest
    method = _acpi_method(space, index) if name == "acpi_idle" else None
    return IdleDriver(name, function, method)


def _deepest_dead_state(space: KernelSpace, driver: int) -> tuple[int, str] | None:
    """Return index and enter_dead function of the deepest state that has one, as cpuidle_play_dead() looks for it."""
    kernel = space.kernel
    states = driver + kernel.offset_of("cpuidle_driver", "states")
    count = space.number(driver + kernel.offset_of("cpuidle_driver", "state_count"), 4)
    size, enter_dead = kernel.size_of("cpuidle_state"), kernel.offset_of("cpuidle_state", "enter_dead")
    for index in range(min(count, _STATES_MAX) - 1, -1, -1):
        pointer = space.number(states + index * size + enter_dead)
        if pointer:
            found = kernel.nearest(pointer - space.kaslr_offset)
            return index, found[0].name if found else f"{pointer:#x}"
    return None


def _acpi_method(space: KernelSpace, index: int) -> str:
    """Return how acpi_idle enters a C-state: ACPI_CSTATE_SYSTEMIO 0, FFH 1, HALT 2 (include/acpi/processor.h)."""
    cx = space.number(space.percpu_address("acpi_cstate", 0) + 8 * index)
    method = space.number(cx + space.kernel.offset_of("acpi_processor_cx", "entry_method"), 1)
    if method > 2:
        raise MissingFact(f"the entry method of C-state {index} reads as {method}")
    return ("port", "mwait", "halt")[method]
