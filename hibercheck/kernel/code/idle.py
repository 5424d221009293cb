"""Which cpuidle drivers a kernel has, and what intel_idle does on which CPU (drivers/idle/intel_idle.c)."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Sequence

from hibercheck.addresses import START_KERNEL_MAP
from hibercheck.data import dataclass
from hibercheck.errors import MissingFact
from hibercheck.kernel.code.model import Evidence, IdleModel, IdleState, IdleTables, Trait
from hibercheck.kernel.code.program import Program
from hibercheck.kernel.code.values import absent

_DRIVERS = (
    ("intel_idle", ("intel_idle_init",), False),
    ("acpi_idle", ("acpi_processor_driver_init", "acpi_idle_enter"), True),
    ("haltpoll", ("haltpoll_init",), True),
)
"""Each driver, functions of it, and whether it can be a module."""

# struct x86_cpu_id { __u16 vendor, family, model, steppings, feature, flags; kernel_ulong_t driver_data; } of
# include/linux/mod_devicetable.h; before e9d7144597b1 ("x86/cpu: Add a steppings field to struct x86_cpu_id", in v5.7)
# without steppings, and in 7.x with a type before driver_data.
_IDS = (struct.Struct("<HHHHH6xQ"), struct.Struct("<HHHHQ"))
_ANY_VENDOR = 0xFFFF
_VENDORS = 16
_MAX_MODELS = 512
_MAX_STATES = 16
"""CPUIDLE_STATE_MAX is 10."""

# struct idle_cpu { struct cpuidle_state *state_table; unsigned long auto_demotion_disable_flags; bool x, y, use_acpi; }
_USE_ACPI_AT = 18

# struct cpuidle_state { char name[16], desc[32]; s64 exit_latency_ns, target_residency_ns; unsigned int flags,
#   exit_latency; int power_usage; unsigned int target_residency; int (*enter)(); ... } of include/linux/cpuidle.h
_STATE_SIZE, _FLAGS_AT, _LATENCY_AT, _ENTER_AT = 104, 64, 68, 80
_UNUSABLE = 1 << 3
"""CPUIDLE_FLAG_UNUSABLE."""
_HINT_SHIFT = 24
"""flg2MWAIT(flags) is flags >> 24."""

_MWAIT = "monitor"
"""X86_FEATURE_MWAIT, as /proc/cpuinfo spells it."""
_INTEL = 0


class IdleReader:
    """Reads a kernel's idle drivers.

    Args:
        program: The kernel's code.
        data_symbols: Whether the symbols include data, so that absence of one means something.
    """

    def __init__(self, program: Program, *, data_symbols: bool) -> None:
        self.program = program
        self.data_symbols = data_symbols

    def drivers(self) -> Trait[tuple[str, ...]]:
        """Return the drivers, each with ``builtin``, ``module?`` (only if it is loaded) or ``absent``."""
        name = "idle_drivers"
        modules, starts = self.program.find("__request_module"), self.program.find("start_kernel")
        values, evidence = [], []
        for driver, functions, modular in _DRIVERS:
            symbol = next((found for one in functions if (found := self.program.find(one)) is not None), None)
            if symbol is not None:
                values.append(f"{driver}:builtin")
                evidence.append(Evidence(symbol.name, symbol.address, f"{driver} is built in"))
            elif starts is None:
                reason = f"the kernel's symbols lack what starts it, such as {functions[0]}"
                return Trait(name, None, (absent(functions[0]),), reason=reason)
            else:
                values.append(f"{driver}:{'module?' if modular and modules is not None else 'absent'}")
                evidence.append(absent(functions[0]))
        return Trait(name, tuple(values), tuple(evidence))

    def intel_idle(self, drivers: Trait[tuple[str, ...]]) -> Trait[IdleTables]:
        """intel_idle's tables of CPU models (``intel_idle_ids``) and of their states, out of the file's initial data.

        The kernel changes some at boot: it leaves out states of which CPUID.5 counts no sub-states, and adapts those of
        a few models (intel_idle_init_cstates_icpu()).
        """
        name = "intel_idle"
        if drivers.value is not None and "intel_idle:builtin" not in drivers.value:
            return Trait(name, IdleTables((), ()), drivers.evidence[:1], reason="intel_idle is not built in")
        ids = self.program.find("intel_idle_ids")
        if ids is None:
            why = "was not found" if self.data_symbols else "was not found: the kernel's symbols lack data"
            return Trait(name, None, (absent("intel_idle_ids"),), reason=f"intel_idle_ids {why}")
        evidence = [Evidence(ids.name, ids.address, "struct x86_cpu_id[]")]
        tables: dict[int, int] = {}
        states: list[tuple[IdleState, ...]] = []
        try:
            models = [self._model(row, tables, states) for row in self._rows(ids.address)]
            unlisted = self.program.find("intel_mwait_ids")
            if unlisted is not None:
                evidence.append(Evidence(unlisted.name, unlisted.address, "others, which take ACPI's _CST"))
                models += [self._model(row, tables, states) for row in self._rows(unlisted.address)]
        except MissingFact as missing:
            return Trait(name, None, tuple(evidence), reason=f"its tables cannot be read: {missing.message}")
        return Trait(name, IdleTables(tuple(models), tuple(states)), tuple(evidence))

    def _rows(self, address: int) -> list[tuple[int, ...]]:
        """Rows of a table of x86_cpu_id: vendor, family, model, steppings, feature, driver_data.

        Raises:
            MissingFact: It is not in the file, or has neither form.
        """
        for layout in _IDS:
            try:
                rows = list(self._rows_as(layout, address))
            except MissingFact:  # by the other layout it may end where the file does
                continue
            if rows and all(self._plausible(row) for row in rows):
                return [row if len(row) == 6 else (*row[:3], 0, *row[3:]) for row in rows]
        raise MissingFact(f"{address:#x} is not a table of CPU models", path=self.program.kernel.path)

    def _rows_as(self, layout: struct.Struct, address: int) -> Iterator[tuple[int, ...]]:
        for index in range(_MAX_MODELS):
            data = self.program.kernel.read(address + index * layout.size, layout.size)
            if not any(data):
                return
            yield layout.unpack(data)

    @staticmethod
    def _plausible(row: tuple[int, ...]) -> bool:
        vendor, data = row[0], row[-1]
        return (vendor < _VENDORS or vendor == _ANY_VENDOR) and (data == 0 or data >= START_KERNEL_MAP)

    def _model(self, row: tuple[int, ...], tables: dict[int, int], states: list[tuple[IdleState, ...]]) -> IdleModel:
        vendor, family, model, steppings, feature, data = row
        table, acpi = None, True
        if data:
            address, acpi = (
                self.program.kernel.read(data, 8),
                bool(self.program.kernel.read(data + self._acpi_at, 1)[0]),
            )
            place = int.from_bytes(address, "little")
            if place:
                if place not in tables:
                    tables[place] = len(states)
                    states.append(tuple(self._states(place)))
                table = tables[place]
        return IdleModel(
            None if vendor == _ANY_VENDOR else vendor,
            family or None,
            model if family else None,
            steppings,
            feature,
            acpi,
            table,
        )

    @property
    def _acpi_at(self) -> int:
        return self._offset("idle_cpu", "use_acpi", _USE_ACPI_AT)

    def _offset(self, struct_name: str, member: str, usual: int) -> int:
        try:
            return self.program.kernel.offset_of(struct_name, member)
        except MissingFact:
            return usual

    def _states(self, address: int) -> Iterator[IdleState]:
        try:
            size = self.program.kernel.size_of("cpuidle_state")
        except MissingFact:
            size = _STATE_SIZE
        flags_at = self._offset("cpuidle_state", "flags", _FLAGS_AT)
        latency_at = self._offset("cpuidle_state", "exit_latency", _LATENCY_AT)
        enter_at = self._offset("cpuidle_state", "enter", _ENTER_AT)
        for index in range(_MAX_STATES):
            data = self.program.kernel.read(address + index * size, size)
            if not any(data[enter_at : enter_at + 8]):
                return
            name = data[:16].split(b"\0", 1)[0].decode("ascii", "replace")
            if not name.isprintable() or int.from_bytes(data[enter_at : enter_at + 8], "little") < START_KERNEL_MAP:
                raise MissingFact(f"{address:#x} is not a table of idle states", path=self.program.kernel.path)
            flags, latency = (int.from_bytes(data[at : at + 4], "little") for at in (flags_at, latency_at))
            yield IdleState(name, flags >> _HINT_SHIFT, latency, not flags & _UNUSABLE)


@dataclass(frozen=True, slots=True)
class IntelIdle:
    """What intel_idle does on one CPU model, as far as the kernel's file tells.

    Attributes:
        listed: Whether it has states for the model itself, so that it binds whatever ACPI says.
        acpi: Whether it asks ACPI's _CST: beside its own states (which are then off unless _CST has them), or, where
            it is not ``listed``, for all of them; without a _CST that says MWAIT it does not bind then.
        states: Its own states for the model, the shallowest first; empty where it is not ``listed``.
    """

    listed: bool
    acpi: bool
    states: tuple[IdleState, ...]

    @property
    def deepest(self) -> IdleState | None:
        """The state in which a dead CPU is parked; None where ACPI decides."""
        return next((one for one in reversed(self.states) if one.usable), None)


def intel_idle_for(
    tables: IdleTables,
    family: int,
    model: int,
    flags: Collection[str],
    *,
    vendor: int = _INTEL,
    stepping: int | None = None,
    sub_states: Sequence[int] | None = None,
) -> IntelIdle | None:
    """Say whether intel_idle binds on a CPU, and to which states.

    Args:
        tables: The kernel's tables, of its trait ``intel_idle``.
        family: The CPU's family, as in /proc/cpuinfo.
        model: Its model, as in /proc/cpuinfo.
        flags: Its features, as in /proc/cpuinfo.
        vendor: X86_VENDOR_*; 0 is Intel.
        stepping: Its stepping; None matches every stepping.
        sub_states: How many of C0, C1 and so on CPUID.5 counts, eight numbers; None where that is not known: no state
            is left out then.

    Returns:
        What it does; None if it does not bind: it does not know the CPU, or MWAIT is missing.  Nor does it bind with
        ``intel_idle.max_cstate=0`` or ``idle=``, or where CPUID.5 lacks the extensions of MWAIT or any sub-states.
    """
    if _MWAIT not in flags:
        return None
    for one in tables.models:
        same = (
            one.vendor in (None, vendor)
            and one.family in (None, family)
            and one.model in (None, model)
            and (not one.steppings or stepping is None or one.steppings >> stepping & 1)
        )
        if same:
            own = tables.tables[one.table] if one.table is not None else ()
            states = own if sub_states is None else tuple(state for state in own if _counted(state, sub_states))
            return IntelIdle(bool(own), one.acpi or not own, states)
    return None


def _counted(state: IdleState, sub_states: Sequence[int]) -> bool:
    """Tell whether the CPU has a state: the hint's upper half is the number of the C-state less one."""
    number = (state.hint >> 4) + 1 & 0xF
    return number < len(sub_states) and sub_states[number] > 0
