"""Everything a kernel's code says about the handoff, each property with what it was read from.

A trait is declared here, once: a line of `Traits` says what it is called, how it is read, which symbols that takes, how
it is kept and how it is shown.  See `hibercheck.kernel.code.declared` for the parts of a declaration.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hibercheck.kernel.code import commits
from hibercheck.kernel.code.declared import Declared, declarations
from hibercheck.kernel.code.model import (
    Evidence,
    IdleTables,
    IdtGate,
    ParkKind,
    ParkLoop,
    ParkRole,
    Patch,
    Touch,
    Trait,
)
from hibercheck.kernel.code.names import (
    ALLOCATORS,
    COPIES,
    ELSEWHERE,
    ENTER_DEAD,
    ENTER_DEAD_CALLS,
    OF_ONE_CPU,
    OF_OTHER_CPUS,
    OTHER_PLAY_DEAD,
    SAFE,
    Wanted,
)
from hibercheck.kernel.kernel import Kernel
from hibercheck.kernel.view import CodeView

if TYPE_CHECKING:
    from hibercheck.kernel.code.readers import Readers

__all__ = ["Evidence", "IdtGate", "ParkLoop", "Patch", "Touch", "Trait", "Traits", "read_traits", "traits_on_demand"]


_LOAD, _OFFLINE, _RESUMED = "Before it loads an image", "When a CPU goes offline", "After a resume"
_ACCEPTS, _STARTS, _PLACE = "Which images it accepts", "How it starts", "Where it is"

_HOOK = ("hibernate_resume_nonboot_cpu_disable", "hibernation_restore", "swsusp_arch_resume", "swsusp_read", "smp_ops")
_TAKE_DOWN = (
    "freeze_secondary_cpus",
    "__freeze_secondary_cpus",
    "disable_nonboot_cpus",
    "suspend_disable_secondary_cpus",
)
_BRING_UP = ("cpuhp_smt_enable", "cpu_smt_control", "cpu_up*", "_cpu_up*", "bringup_hibernate_cpu*", "add_cpu*")
_MASKS = ("__cpu_online_mask", "__cpu_present_mask", "__cpu_possible_mask")
_ICR = ("native_apic_icr_write", "native_x2apic_icr_write", "apic_icr_write", "__SCT__apic_call_icr_write", "apic")
_PARK = (
    "native_play_dead",
    "mwait_play_dead*",
    *(f"{function}*" for function in ENTER_DEAD.values()),
    *ENTER_DEAD_CALLS,
    "mwait_cpu_dead",
    "cpu_number",
    "pcpu_hot",
    "_text",
)
_TASK = ("current_task", "cpu_current_top_of_stack", "kernel_stack", "cpu_tss", "cpu_tss_rw")
_DATA = ("init_task", "smp_ops")
_OTHERS = (*OF_OTHER_CPUS, "start_secondary*", *OF_ONE_CPU, *_DATA)
_MWAIT_LINE = (*_HOOK, *_PARK, *_TASK)


def _gates(gates: tuple[IdtGate, ...]) -> str:
    own = [f"vector {gate.vector} on IST {gate.ist}" for gate in gates if gate.ist]
    return ", ".join(own) or "none"


def _how(values: tuple[str, ...]) -> str:
    """``lzo:builtin``, ``lz4:module?`` in words."""
    said = {"builtin": "built in", "module?": "if its module is loaded", "absent": "not at all"}
    return ", ".join(f"{what} {said.get(how, how)}" for what, _, how in (value.partition(":") for value in values))


def _vetoes(values: tuple[str, ...]) -> str:
    return ", ".join(value if value == "locked down" else f"{value} is in use" for value in values) or "nothing more"


_TARGETS = {"present": "all that are present", "online cores": "those of cores that are online", "none": "none"}


def _tables(tables: IdleTables) -> str:
    listed = sum(1 for one in tables.models if one.table is not None)
    return f"{listed} CPU models and what ACPI says of others" if listed < len(tables.models) else str(listed)


class Traits:
    """The traits of one kernel.  A trait whose value is None is unknown; its ``reason`` says why.

    Args:
        readers: What reads a trait that is asked for.
        known: Traits that are known already, by name.
        park_loops: The loops that a CPU can be parked in, if known already.
    """

    hibernate_disable_hook = Declared(
        bool,
        _LOAD,
        "has a hook of its own that parks CPUs",
        lambda by, _: by.resume.exists(),
        symbols=(*_HOOK, "cpuhp_smt_enable"),
    )
    rescues_offline = Declared(
        bool,
        _LOAD,
        "brings offline CPUs up first",
        lambda by, _: by.resume.rescues(),
        symbols=(*_HOOK, *_TAKE_DOWN, *_BRING_UP),
        in_check=True,
    )
    rescue_needs_primary = Declared(
        bool,
        _LOAD,
        "but skips cores whose primary thread is offline",
        lambda by, _: by.needs_primary(),
        symbols=(
            *_HOOK,
            *_BRING_UP,
            *_MASKS,
            "topology_get_primary_thread",
            "cpuid_to_apicid",
            "x86_topo_system",
            "__cpu_primary_thread_mask",
        ),
        only_if="rescues_offline",
        in_check=True,
    )
    rescue_needs_node = Declared(
        bool,
        _LOAD,
        "and skips CPUs of offline NUMA nodes",
        lambda by, _: by.needs_node(),
        symbols=("cpuhp_smt_enable", "node_states", "__cpu_online_mask", *_DATA),
        only_if="rescues_offline",
    )
    freeze_order = Declared(
        str,
        _LOAD,
        "takes CPUs down in this order",
        lambda by, _: by.freeze_order(),
        symbols=(*_TAKE_DOWN, "__cpu_online_mask", "_find_next_bit", "find_next_bit", "cpumask_next"),
    )
    replaces_play_dead: Declared[bool] = Declared(
        bool,
        _LOAD,
        "parks them otherwise than CPU hotplug does",
        lambda by, _: by.resume.replaces(),
        symbols=(*_HOOK, *_PARK),
    )
    resume_park = Declared(
        str,
        _LOAD,
        "parks them in",
        lambda by, its: by.dead.resume_park(its.play_dead_order, its.replaces_play_dead, its.sends_init, its.own_place),
        symbols=(*_HOOK, *_PARK),
        in_check=True,
    )
    own_place: Declared[tuple[str, ...]] = Declared(
        tuple[str, ...],
        _LOAD,
        "in a place outside the kernel, with",
        lambda by, _: by.place.place(),
        only_if="own_place",
        symbols=(*_HOOK, *_PARK, *_TAKE_DOWN, *_BRING_UP, *COPIES, *ALLOCATORS, SAFE, *ELSEWHERE, "_etext", "_end"),
        compare=frozenset,
    )
    park_announcement: Declared[int] = Declared(
        int,
        _LOAD,
        "tells the image of it where the header has",
        lambda by, its: by.place.announcement(its.arch_record_magic.value),
        symbols=("arch_hibernation_header_save", "arch_hibernation_header_restore"),
        only_if="park_announcement",
        show=hex,
    )
    kicks_offline: Declared[bool] = Declared(
        bool,
        _LOAD,
        "tells offline CPUs in MWAIT to halt",
        lambda by, _: by.resume.kicks(),
        symbols=(*_HOOK, *_TAKE_DOWN, "smp_kick_mwait_play_dead"),
        only_if="kicks_offline",
    )
    sends_init: Declared[bool] = Declared(
        bool,
        _LOAD,
        "sends them an INIT then",
        lambda by, _: by.resume.sends_init(),
        symbols=(*_HOOK, *_TAKE_DOWN, *_BRING_UP, *_ICR, "restore_image"),
        in_check=True,
    )
    init_targets = Declared(
        str,
        _LOAD,
        "to which CPUs",
        lambda by, its: by.resume.init_targets(its.sends_init),
        symbols=_MASKS,
        only_if="sends_init",
    )

    play_dead_order: Declared[tuple[str, ...]] = Declared(
        tuple[str, ...],
        _OFFLINE,
        "tries, in order",
        lambda by, _: by.dead.order(),
        symbols=(*_HOOK, *_PARK),
        in_check=True,
    )
    other_play_dead = Declared(
        tuple[str, ...],
        _OFFLINE,
        "on other platforms by",
        lambda by, _: by.dead.others(),
        symbols=tuple(OTHER_PLAY_DEAD),
    )
    enter_dead = Declared(
        tuple[str, ...],
        _OFFLINE,
        "cpuidle drivers park it by",
        lambda by, _: by.dead.enter_dead(),
        symbols=_PARK,
        compare=frozenset,
    )
    mwait_vendor_check = Declared(
        tuple[str, ...],
        _OFFLINE,
        "does not try MWAIT on CPUs of",
        lambda by, _: by.dead.vendor_check(),
        symbols=(*_HOOK, *_PARK, "boot_cpu_data"),
    )
    monitored = Declared(str, _OFFLINE, "MWAIT monitors", lambda by, _: by.dead.monitored(), symbols=_MWAIT_LINE)
    monitored_frame: Declared[tuple[int, ...]] = Declared(
        tuple[int, ...],
        _OFFLINE,
        "which is in frame",
        lambda by, its: by.dead.monitored_frame(its.monitored),
        symbols=(*_MWAIT_LINE, "setup_arch", "native_set_fixmap", "__native_set_fixmap"),
        only_if="monitored_frame",
        show=lambda frames: ", ".join(map(hex, frames)),
    )
    line_withheld = Declared(
        bool,
        _OFFLINE,
        "which it keeps from images",
        lambda by, its: by.dead.line_withheld(its.monitored_frame),
        symbols=(*_MWAIT_LINE, "setup_arch", "register_nosave_region"),
        only_if="monitored_frame",
    )
    kick_value = Declared(
        int,
        _OFFLINE,
        "word that sends a CPU from MWAIT to HLT",
        lambda by, _: by.dead.kick_value(),
        symbols=(*_HOOK, *_PARK),
        commit=commits.KICK,
        show=hex,
    )
    rescans_dead_siblings = Declared(
        bool,
        _OFFLINE,
        "parks SMT siblings again once cpuidle is there",
        lambda by, _: by.rescans(),
        symbols=("arch_cpu_rescan_dead_smt_siblings", "cpuhp_smt_enable"),
        commit=commits.RESCAN,
    )

    idle_drivers: Declared[tuple[str, ...]] = Declared(
        tuple[str, ...],
        _OFFLINE,
        "cpuidle drivers",
        lambda by, _: by.idle.drivers(),
        symbols=(
            "intel_idle_init",
            "acpi_processor_driver_init",
            "acpi_idle_enter*",
            "haltpoll_init",
            "__request_module",
            "start_kernel",
            *_DATA,
        ),
        show=_how,
    )
    intel_idle = Declared(
        IdleTables,
        _OFFLINE,
        "intel_idle knows",
        lambda by, its: by.idle.intel_idle(its.idle_drivers),
        symbols=("intel_idle_ids", "intel_mwait_ids", *_DATA),
        show=_tables,
    )

    reparks_siblings_after_resume: Declared[bool] = Declared(
        bool,
        _RESUMED,
        "parks SMT siblings again if SMT is off",
        lambda by, _: by.reparks_siblings(),
        symbols=("arch_resume_nosmt", "arch_cpu_rescan_dead_smt_siblings", "cpuhp_smt_enable"),
        commit=commits.RESUME_RESCUE,
    )

    nosmt_resume_targets = Declared(
        str,
        _RESUMED,
        "to do so brings up, of offline CPUs,",
        lambda by, its: by.nosmt_targets(its.reparks_siblings_after_resume),
        symbols=(
            "cpuhp_smt_enable",
            "_cpu_up*",
            "cpu_up*",
            "__cpu_online_mask",
            "topology_get_primary_thread",
            "cpuid_to_apicid",
            "x86_topo_system",
            "__cpu_primary_thread_mask",
        ),
        only_if="reparks_siblings_after_resume",
        show=lambda value: _TARGETS.get(value, value),
    )

    takes_parked_over = Declared(
        bool,
        _RESUMED,
        "takes over CPUs that it is told of",
        lambda by, _: by.place.takes_over(),
        symbols=(
            "arch_resume_nosmt",
            "hibernation_snapshot",
            "arch_hibernation_header_save",
            "cpu_device_up",
            "_etext",
            "_end",
            "cpuhp_smt_disable",
            *_BRING_UP,
        ),
        only_if="park_announcement",
    )

    hibernation = Declared(
        bool,
        _ACCEPTS,
        "can hibernate and resume",
        lambda by, _: by.accepts.hibernation(),
        symbols=("hibernation_restore", "swsusp_arch_resume", "swsusp_read", "native_play_dead", "start_kernel"),
    )
    refuses_while: Declared[tuple[str, ...]] = Declared(
        tuple[str, ...],
        _ACCEPTS,
        "refuses all of them if",
        lambda by, _: by.accepts.refuses_while(),
        symbols=("hibernation_available", "security_locked_down", "secretmem_active", "cxl_mem_active"),
        show=_vetoes,
    )
    locked_down_by = Declared(
        tuple[str, ...],
        _ACCEPTS,
        "is locked down by",
        lambda by, its: by.accepts.locked_down_by(its.refuses_while),
        symbols=(
            "lockdown_param",
            "lock_kernel_down",
            "security_lock_kernel_down",
            "efi_set_secure_boot",
            "lockdown_lsm_init",
            "start_kernel",
        ),
        only_if="refuses_while",
    )
    zero_pages = Declared(
        bool,
        _ACCEPTS,
        "with pages of zeros left out",
        lambda by, _: by.accepts.zero_pages(),
        symbols=("snapshot_write_next", "unpack_orig_pfns*", "zero_bm"),
        commit=commits.ZERO_PAGES,
    )
    compressors = Declared(
        tuple[str, ...],
        _ACCEPTS,
        "compressed by",
        lambda by, _: by.accepts.compressors(),
        symbols=(
            "lzo_decompress_threadfn*",
            "decompress_threadfn*",
            "load_compressed_image*",
            "load_image_lzo*",
            "lzo1x_decompress_safe",
            "hib_comp_algo",
            "lzo_mod_init",
            "lz4_mod_init",
            "__request_module",
            "start_kernel",
        ),
        commit=commits.LZ4,
        since=2,
        show=_how,
        in_check=True,
    )
    arch_record_magic: Declared[int] = Declared(
        int,
        _ACCEPTS,
        "with the arch record",
        lambda by, _: by.accepts.record_magic(),
        symbols=("arch_hibernation_header_restore",),
        show=hex,
    )
    e820_check = Declared(
        str,
        _ACCEPTS,
        "compares the memory map by",
        lambda by, its: by.accepts.e820_check(its.arch_record_magic),
        symbols=(
            "arch_hibernation_header_restore",
            "crc32_le",
            "crc32_le_base",
            "crc32_le_arch",
            "compute_e820_crc32*",
            "get_e820_md5*",
            "crypto_alloc_shash",
            "crypto_shash_digest",
        ),
    )
    hw_sig = Declared(
        bool,
        _ACCEPTS,
        "compares the hardware signature",
        lambda by, _: by.accepts.hw_sig(),
        symbols=("swsusp_check", "swsusp_hardware_signature", *_DATA),
        commit=commits.HW_SIG,
    )

    one_cpu: Declared[bool] = Declared(
        bool,
        _STARTS,
        "runs on one CPU alone",
        lambda by, _: by.startup.one_cpu(),
        symbols=_OTHERS,
        only_if="one_cpu",
    )
    parallel_bringup = Declared(
        bool,
        _STARTS,
        "brings primary threads up before siblings",
        lambda by, _: by.startup.primaries_first(),
        symbols=(
            "bringup_nonboot_cpus",
            "cpuhp_bringup_cpus_parallel*",
            "arch_cpuhp_init_parallel_bringup",
            "__cpu_primary_thread_mask",
            "cpuhp_smt_enable",
            *_OTHERS,
        ),
        commit=commits.PARALLEL,
    )
    parallel_switch = Declared(
        bool,
        _STARTS,
        "unless cpuhp.parallel=0",
        lambda by, _: by.startup.switch(),
        symbols=("parallel_bringup_parse_param*", "start_kernel", *_DATA),
        only_if="parallel_bringup",
        commit=commits.PARALLEL,
    )
    builtin_cmdline = Declared(
        str,
        _STARTS,
        "built-in parameters",
        lambda by, _: by.startup.builtin_cmdline(),
        symbols=("builtin_cmdline", "setup_arch", "strlcpy", "strscpy", "sized_strscpy", *_DATA),
        show=lambda line: line or "none",
    )
    builtin_cmdline_overrides = Declared(
        bool,
        _STARTS,
        "which replace the boot loader's",
        lambda by, _: by.startup.overrides(),
        symbols=("builtin_cmdline", "setup_arch", "strlcpy", "strscpy", "sized_strscpy", "strlcat", *_DATA),
        only_if="builtin_cmdline",
    )
    bootconfig = Declared(
        str,
        _STARTS,
        "obeys parameters attached to the initramfs",
        lambda by, _: by.startup.bootconfig(),
        symbols=("xbc_init", "setup_boot_config*", "start_kernel", *_DATA),
    )

    physical_start = Declared(
        int,
        _PLACE,
        "physical address without KASLR",
        lambda by, _: by.layout.physical_start(),
        symbols=("_text", "startup_64", "_stext", *_DATA),
        show=hex,
    )
    physical_align = Declared(
        int,
        _PLACE,
        "alignment of that",
        lambda by, _: by.layout.physical_align(),
        symbols=("kernel_config_data", *_DATA),
        show=hex,
    )
    randomize_base = Declared(
        bool,
        _PLACE,
        "random load address",
        lambda by, _: by.layout.randomize_base(),
        symbols=("kaslr_get_random_long", "kernel_randomize_memory", "native_play_dead", "startup_64", *_DATA),
    )
    randomize_memory = Declared(
        bool,
        _PLACE,
        "random direct map",
        lambda by, _: by.layout.randomize_memory(),
        symbols=("kernel_randomize_memory", "native_play_dead", "startup_64", *_DATA),
    )
    la57 = Declared(
        bool,
        _PLACE,
        "can use 5-level paging",
        lambda by, _: by.layout.la57(),
        symbols=(
            "__p4d_alloc",
            "__pud_alloc",
            "level4_kernel_pgt",
            "pgdir_shift",
            "native_play_dead",
            "startup_64",
            *_DATA,
        ),
    )
    pti = Declared(
        bool,
        _PLACE,
        "page-table isolation built in",
        lambda by, _: by.layout.pti(),
        symbols=("pti_init", "native_play_dead", "startup_64", *_DATA),
        commit=commits.PTI,
    )
    idt_gates = Declared(
        tuple[IdtGate, ...],
        _PLACE,
        "exceptions on stacks of their own",
        lambda by, _: by.layout.idt_gates(),
        symbols=("early_idts", "early_pf_idts", "def_idts", "ist_idts", *_DATA),
        show=_gates,
        compare=lambda gates: frozenset((gate.vector, gate.ist) for gate in gates if gate.ist),
    )
    fred = Declared(
        bool,
        _PLACE,
        "can use FRED",
        lambda by, _: by.layout.fred(),
        symbols=("asm_fred_entrypoint_kernel", "native_play_dead", "startup_64", *_DATA),
    )
    fred_default = Declared(
        bool,
        _PLACE,
        "uses FRED unless fred=off",
        lambda by, _: by.fred.default(),
        symbols=("cpu_parse_early_param", "cmdline_find_option"),
        only_if="fred",
    )
    fred_stacks = Declared(
        tuple[int, ...],
        _PLACE,
        "FRED's stacks (levels, and where they end)",
        lambda by, _: by.fred.stacks(),
        symbols=("cpu_init_fred_exceptions", "cpu_init_fred_rsps", "cea_exception_stacks", "asm_fred_entrypoint_user"),
        only_if="fred",
        show=lambda values: ", ".join(map(hex, values)),
    )
    cea_size = Declared(
        int,
        _PLACE,
        "size of a CPU entry area",
        lambda by, _: by.layout.cea_size(),
        symbols=("get_cpu_entry_area", *_DATA),
        show=hex,
    )
    cea_random = Declared(
        bool,
        _PLACE,
        "CPU entry areas at random places",
        lambda by, _: by.layout.cea_random(),
        symbols=("_cea_offset", "get_cpu_entry_area", *_DATA),
        commit=commits.RANDOM_CEA,
    )

    def __init__(
        self,
        readers: Readers | None,
        known: Mapping[str, Trait[Any]] | None = None,
        park_loops: tuple[ParkLoop, ...] | None = None,
    ) -> None:
        self._readers = readers
        vars(self).update(known or {})
        if park_loops is not None:
            vars(self)["park_loops"] = park_loops

    @property
    def readers(self) -> Readers:
        """What reads the traits that are not known yet."""
        if self._readers is None:
            raise LookupError("these traits were given without a kernel to read further ones from")
        return self._readers

    def read(self, declared: Declared[Any]) -> Trait[Any]:
        """Read a trait that is not known yet."""
        return declared.read(self)

    @cached_property
    def park_loops(self) -> tuple[ParkLoop, ...]:
        """Every loop that a CPU can be parked in."""
        return self.readers.dead.park_loops

    def __iter__(self) -> Iterator[Trait[Any]]:
        """Yield the traits, in the order in which a report shows them (park loops are not traits)."""
        return (getattr(self, one.name) for one in DECLARED)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Traits):
            return NotImplemented
        return tuple(self) == tuple(other) and self.park_loops == other.park_loops

    __hash__ = None  # type: ignore[assignment]  # what is read on demand is not to be a key

    def replaced(self, **traits: Trait[Any]) -> Traits:
        """Return the same but for some traits, given by name."""
        known = {name: value for name, value in vars(self).items() if isinstance(value, Trait)}
        return Traits(self._readers, known | traits, vars(self).get("park_loops"))

    def loops(self, role: ParkRole, kind: ParkKind | None = None, *, after_kick: bool = False) -> tuple[ParkLoop, ...]:
        """Return the loops of one role, of one kind if given; those that only a kick leads to on request."""
        return tuple(
            loop
            for loop in self.of_role(role)
            if loop.role == role and kind in (None, loop.kind) and loop.after_kick == after_kick
        )

    def of_role(self, role: ParkRole) -> tuple[ParkLoop, ...]:
        """Return loops among which are all of one role; no others are read for it."""
        if self._readers is None or "park_loops" in vars(self):
            return self.park_loops
        return self._readers.dead.loops(role)


DECLARED = tuple(declarations(Traits))
"""Every trait, in the order in which a report shows them."""

WANTED = Wanted(name for one in DECLARED for name in one.symbols)
"""The symbols that they are read by."""


def traits_on_demand(kernel: CodeView) -> Traits:
    """Return a kernel's traits, each read out of its code when it is asked for: a check asks for half of them.

    Args:
        kernel: A kernel, open for as long as its traits are asked for; or facts read from one before.

    Returns:
        The traits; what could not be read is unknown in them, with the reason.
    """
    ready = getattr(kernel, "traits", None)
    if isinstance(ready, Traits):
        return ready
    # A kernel that remembers what it was asked before needs nothing of what reads code.
    from hibercheck.kernel.code.dataless import supplement  # noqa: PLC0415
    from hibercheck.kernel.code.readers import Readers  # noqa: PLC0415

    if isinstance(kernel, Kernel):
        supplement(kernel)
    return Traits(Readers(kernel, WANTED))


def read_traits(kernel: CodeView) -> Traits:
    """Read all of a kernel's traits out of its code.

    Args:
        kernel: An open kernel, or facts read from one before.

    Returns:
        The traits; what could not be read is unknown in them, with the reason.
    """
    traits = traits_on_demand(kernel)
    for one in DECLARED:
        getattr(traits, one.name)
    _ = traits.park_loops
    return traits
