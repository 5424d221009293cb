"""What the resumer does with its CPUs before it overwrites memory: ``hibernate_resume_nonboot_cpu_disable``."""

from __future__ import annotations

from functools import cached_property

from hibercheck.errors import MissingFact
from hibercheck.kernel.code import commits
from hibercheck.kernel.code.disasm import Decoded, Flow
from hibercheck.kernel.code.model import Evidence, Trait
from hibercheck.kernel.code.program import Function, Program
from hibercheck.kernel.code.values import absent, calls_to, closure, low32, quote, quote_call, references, stores

HOOK = "hibernate_resume_nonboot_cpu_disable"

_KERNEL_TEXT = (1 << 33) - 1
"""Top 33 bits of an address in the kernel mapping (0xffffffff80000000 and above)."""

# Interrupt command register: delivery mode INIT is 5 in bits 8-10; level, trigger, destination mode and shorthand vary
# (SDM volume 3, section 11.6.1).
_ICR_MODE, _ICR_INIT, _ICR_OTHER = 0x700, 0x500, 0xCF000 | 0x800
_X2APIC_ICR = 0x830

_TAKE_DOWN = (
    "freeze_secondary_cpus",
    "__freeze_secondary_cpus",
    "disable_nonboot_cpus",
    "suspend_disable_secondary_cpus",
)

_MASKS = (("present", "__cpu_present_mask"), ("possible", "__cpu_possible_mask"), ("online", "__cpu_online_mask"))


class ResumeReader:
    """Reads the resume hook.

    Args:
        program: The kernel's code.
    """

    def __init__(self, program: Program) -> None:
        self.program = program

    @cached_property
    def hook(self) -> Function | None:
        """The hook's code, or None if the kernel has none."""
        return self.program.function_of(HOOK)

    @cached_property
    def has_hibernation(self) -> bool:
        """Whether the kernel can resume from an image at all."""
        return any(self.program.find(name) for name in ("hibernation_restore", "swsusp_arch_resume", "swsusp_read"))

    def _without_hook(self, name: str) -> Trait[bool]:
        """Return the answer where there is no hook: no, if the kernel hibernates; unknown if it does not."""
        if self.has_hibernation:
            return Trait(name, False, (absent(HOOK),))
        return Trait(name, None, (absent("hibernation_restore"),), reason="this kernel was built without hibernation")

    def _unreadable(self, name: str, function: Function) -> Trait[bool]:
        return Trait(name, None, reason=f"{function.name} could not be read to its end: {function.truncated}")

    def _address(self, *wanted: str) -> list[int | None]:
        return [self.program.address(name) for name in wanted]

    # -- the hook itself -------------------------------------------------------------------------------------------

    def exists(self) -> Trait[bool]:
        """Whether x86's own hook is there: it touches smp_ops or rescues; the weak default only disables CPUs."""
        name = "hibernate_disable_hook"
        if self.hook is None:
            return self._without_hook(name)
        touched = self._smp_ops_references(self.hook)
        rescued = calls_to(self.hook, self._address("cpuhp_smt_enable"))
        evidence = [quote(self.hook, node, "smp_ops") for node in touched[:1]]
        evidence += [quote_call(self.program, self.hook, address) for address in rescued[:1]]
        if evidence:
            return Trait(name, True, tuple(evidence), commits.RESUME_HLT)
        if self.hook.truncated:
            return self._unreadable(name, self.hook)
        calls = [quote_call(self.program, self.hook, address) for address in sorted(self.hook.calls())]
        return Trait(name, False, tuple(calls), commits.RESUME_HLT, "only the weak default that disables the CPUs")

    def _smp_ops_references(self, function: Function) -> list[Decoded]:
        symbol = self.program.find("smp_ops")
        return references(function, symbol.address, symbol.size or 128) if symbol else []

    def rescues(self) -> Trait[bool]:
        """Whether offline CPUs are brought up before all are parked: a call of cpuhp_smt_enable()."""
        name = "rescues_offline"
        if self.hook is None:
            return self._without_hook(name)
        stop = self._address(*_TAKE_DOWN, "cpuhp_smt_enable", "_cpu_up")
        for function in closure(self.program, [self.hook.entry], stop, 1):
            found = calls_to(function, self._address("cpuhp_smt_enable"))
            if found:
                evidence = (quote_call(self.program, function, found[0]),)
                return Trait(name, True, evidence, commits.RESUME_RESCUE)
            # Inlined (link-time optimisation): it sets cpu_smt_control and brings CPUs up.
            control, up = self._address("cpu_smt_control", "_cpu_up")
            brought = calls_to(function, [up])
            if brought and control is not None and references(function, control):
                evidence = (quote_call(self.program, function, brought[0]),)
                return Trait(name, True, evidence, commits.RESUME_RESCUE)
        if self.hook.truncated:
            return self._unreadable(name, self.hook)
        return Trait(name, False, (absent("cpuhp_smt_enable", f"{HOOK} does not call it"),), commits.RESUME_RESCUE)

    # -- the replacement -------------------------------------------------------------------------------------------

    @cached_property
    def slot(self) -> int | None:
        """Address of ``smp_ops.play_dead``."""
        ops = self.program.address("smp_ops")
        if ops is None:
            return None
        try:
            return ops + self.program.kernel.offset_of("smp_ops", "play_dead")
        except MissingFact:
            native = self.program.address("native_play_dead")
            words = (ops + 8 * index for index in range(24))
            return next((word for word in words if native and self.program.pointer(word) == native), None)

    @cached_property
    def native(self) -> int | None:
        """The play_dead that smp_ops holds from the start: ``native_play_dead``."""
        if self.slot is not None:
            pointer = self.program.pointer(self.slot)
            if pointer and pointer >> 31 == _KERNEL_TEXT:
                return pointer
        return self.program.address("native_play_dead")

    @cached_property
    def replacement(self) -> tuple[int, Evidence] | None:
        """The play_dead that the hook installs, and where it does."""
        if self.hook is None or self.slot is None:
            return None
        for store in stores(self.hook):
            if store.address == self.slot and store.value is not None and store.value >> 31 == _KERNEL_TEXT:
                note = f"smp_ops.play_dead = {self.program.name(store.value)}"
                return store.value, quote(self.hook, store.node, note)
        return None

    def replaces(self) -> Trait[bool]:
        """Whether the hook makes CPUs die another way than usual."""
        name = "replaces_play_dead"
        if self.hook is None:
            return self._without_hook(name)
        if self.replacement is not None:
            return Trait(name, True, (self.replacement[1],), commits.RESUME_HLT)
        if self.slot is None:
            return Trait(name, None, reason="smp_ops.play_dead could not be located (no smp_ops symbol, or no BTF)")
        if self.hook.truncated:
            return self._unreadable(name, self.hook)
        unknown = [store for store in stores(self.hook) if store.address == self.slot and store.value is None]
        # Two stores of unknown values: one could install, the other restore.  One is the restore.
        if len(unknown) > 1:
            return Trait(
                name,
                None,
                (quote(self.hook, unknown[0].node),),
                reason="it stores something unknown in smp_ops.play_dead",
            )
        what = "it saves and restores smp_ops.play_dead without replacing it" if unknown else "it does not store to it"
        return Trait(name, False, (absent("smp_ops.play_dead", what),), commits.RESUME_HLT)

    # -- the kick ---------------------------------------------------------------------------------------------------

    def kicks(self) -> Trait[bool]:
        """Whether CPUs that are offline already are told to leave MWAIT for HLT before the copy, as before kexec."""
        name = "kicks_offline"
        if self.hook is None:
            return self._without_hook(name)
        kick = self._address("smp_kick_mwait_play_dead")
        for function in closure(self.program, [self.hook.entry], [*self._address(*_TAKE_DOWN), *kick], 1):
            found = calls_to(function, kick)
            if found:
                return Trait(name, True, (quote_call(self.program, function, found[0]),), commits.KICK)
        if self.hook.truncated:
            return self._unreadable(name, self.hook)
        return Trait(name, False, (absent("smp_kick_mwait_play_dead", f"{HOOK} does not call it"),), commits.KICK)

    # -- INIT ------------------------------------------------------------------------------------------------------

    def sends_init(self) -> Trait[bool]:
        """Whether an INIT goes to the parked CPUs: an ICR command of that delivery mode on the way to the copy."""
        name = "sends_init"
        if not self.has_hibernation:
            return self._without_hook(name)
        scanned = self._init_candidates()
        for function in scanned:
            found = self._init_command(function)
            if found is not None:
                return Trait(name, True, found, commits.INIT_ON_SHUTDOWN, "mainline up to 7.3 did so only on shutdown")
        broken = next((function for function in scanned if function.truncated), None)
        if broken is not None:
            return self._unreadable(name, broken)
        silent = next((one for one in scanned if self._init_commands(one)), None)
        if silent is not None and self.program.address("apic") is None:
            reason = f"{silent.name} makes what may be an INIT command, and without its symbols the APIC is not known"
            return Trait(name, None, (quote(silent, self._init_commands(silent)[0], "INIT"),), reason=reason)
        if self.hook is None and not scanned:
            return Trait(name, None, reason="neither the hook nor swsusp_arch_resume could be found")
        read = ", ".join(function.name for function in scanned[:6]) + (" and others" if len(scanned) > 6 else "")
        return Trait(name, False, (absent(HOOK, f"no INIT command in {read}"),))

    def _init_candidates(self) -> list[Function]:
        """Return the functions between parking and the copy.  What brings CPUs up sends INITs too, and is not meant."""
        stop = self._address(*_TAKE_DOWN, "cpuhp_smt_enable", "_cpu_up", "cpu_up", "restore_image")
        arch = self.program.address("swsusp_arch_resume")
        functions = closure(self.program, [self.hook.entry] if self.hook else [], stop, 2)
        return functions + closure(self.program, [arch], stop, 1)

    def _init_command(self, function: Function) -> tuple[Evidence, ...] | None:
        """Evidence of an INIT command that the function writes to the APIC, or None."""
        commands = self._init_commands(function)
        if not commands:
            return None
        writers = self._address(
            "native_apic_icr_write", "native_x2apic_icr_write", "apic_icr_write", "__SCT__apic_call_icr_write"
        )
        direct = calls_to(function, writers)
        apic = self.program.address("apic")
        through = references(function, apic) if apic is not None else []
        if direct:
            return quote(function, commands[0], "INIT"), quote_call(self.program, function, direct[0])
        if through and any(node.flow is Flow.INDIRECT_CALL or self._calls_thunk(node) for node in function):
            return quote(function, commands[0], "INIT"), quote(function, through[0], "apic")
        if any(node.immediate == _X2APIC_ICR for node in function) and any(n.mnemonic == "wrmsr" for n in function):
            return (quote(function, commands[0], "INIT"),)
        return None

    @staticmethod
    def _init_commands(function: Function) -> list[Decoded]:
        return [n for n in function if n.immediate is not None and _is_init(low32(n.immediate)) and _moves(n)]

    def _calls_thunk(self, node: Decoded) -> bool:
        return node.flow is Flow.CALL and node.target is not None and self.program.is_thunk(node.target)

    def init_targets(self, sent: Trait[bool]) -> Trait[str]:
        """Which CPUs the INIT goes to: the mask that the sending function walks."""
        name = "init_targets"
        if not sent.value:
            return Trait(name, None, reason="no INIT is sent" if sent.value is False else sent.reason)
        for function in self._init_candidates():
            if self._init_command(function) is None:
                continue
            for label, mask in _MASKS:
                address = self.program.address(mask)
                found = references(function, address) if address is not None else []
                if found:
                    return Trait(name, label, (quote(function, found[0], mask),))
        return Trait(name, None, reason="the mask of CPUs it walks was not recognised")


def _is_init(command: int) -> bool:
    return command & _ICR_MODE == _ICR_INIT and not command & ~(_ICR_MODE | _ICR_OTHER)


def _moves(node: Decoded) -> bool:
    return node.mnemonic in ("mov", "or", "push")
