"""The image that is not written yet, and its resumee, as far as the machine that would write it tells.

They take the places of a real image and of what is read out of one, so that the resumer's tests and its scenario are
those of a check.  What nobody can know of it yet raises MissingFact.
"""

from __future__ import annotations

from pathlib import Path

from hibercheck.addresses import PAGE_SHIFT
from hibercheck.data import dataclass
from hibercheck.errors import MissingFact
from hibercheck.handoff.facts.cmdline import CommandLine, compressor_asked
from hibercheck.handoff.facts.cpufacts import Topology
from hibercheck.handoff.facts.e820 import e820_checksum
from hibercheck.handoff.facts.resumee import Resumee, leaves_cpus_out
from hibercheck.handoff.facts.resumer_facts import ResumerFacts
from hibercheck.handoff.facts.space import KernelSpace
from hibercheck.handoff.matrix.expected import ExpectedImage, Nothing
from hibercheck.handoff.matrix.pairing import started_of
from hibercheck.handoff.matrix.scenario import Machine
from hibercheck.handoff.scenario.measured import kaslr_offset, phys_base
from hibercheck.host.madt import apic_ids
from hibercheck.host.tree import data_of, is_there, line_of
from hibercheck.kernel.code.model import built_in
from hibercheck.kernel.code.traits import Traits
from hibercheck.kernel.kernel import Kernel
from hibercheck.x86.paging import PagingMode

_SMT = {
    "on": "enabled",
    "off": "disabled",
    "forceoff": "force-disabled",
    "notsupported": "not supported",
    "notimplemented": "not implemented",
}
"""/sys/devices/system/cpu/smt/control in the words of `SMT_CONTROL` (show_smt_control(), kernel/cpu.c)."""

_SECURE_BOOT_AT, _LOADER_AT = 0x1EC, 0x210  # struct boot_params, arch/x86/include/uapi/asm/bootparam.h
_KEXEC = 0xD
_SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


@dataclass(frozen=True, slots=True)
class Session:
    """What would hibernate.

    Attributes:
        kernel: Its kernel.
        traits: What its code does.
        line: Its command line.
        loader_line: What of it the boot loader passed; None where that cannot be told.
        facts: What it told of itself; None where it does not run.
        machine: The machine, where nothing runs on it.
        root: Where proc and sys are.
        least: Bytes that its image has at least.
    """

    kernel: Kernel
    traits: Traits
    line: CommandLine
    loader_line: str | None
    facts: ResumerFacts | None
    machine: Machine
    root: Path
    least: int


def expected_resumee(session: Session) -> Resumee:
    """Return what is known of the resumee.

    Raises:
        MissingFact: Which CPUs the machine has is not known.
    """
    facts, kernel, machine = session.facts, session.kernel, session.machine
    line = session.line
    if facts is None:
        bringup = started_of(machine, session.traits, line)
        return _resumee(
            session,
            line,
            present=bringup.present,
            online=bringup.online,
            topology=machine.topology,
            space=_space(kernel, 5 if machine.la57 and line.la57 and session.traits.la57.value else 4, 0, 0),
        )
    if facts.present is None or facts.online is None:
        raise MissingFact(
            "which CPUs the machine has cannot be read", path=str(session.root / "sys/devices/system/cpu")
        )
    levels = facts.levels or _levels(facts, line, session.traits)
    space = _space(kernel, levels, kaslr_offset(facts, kernel) or 0, phys_base(facts, kernel) or 0)
    topology = _topology(facts, session.root)
    if leaves_cpus_out(space, line):
        topology = _of_all(facts.present, topology, session.root)
    return _resumee(session, line, present=facts.present, online=facts.online, topology=topology, space=space)


def _space(kernel: Kernel, levels: int, offset: int, base: int) -> KernelSpace:
    return KernelSpace(kernel, Nothing(), PagingMode(levels=levels), 0, offset, base)


def _topology(facts: ResumerFacts, root: Path) -> Topology | None:
    """Return which CPUs share a core; None where that is not known of those that are offline.

    A CPU that is offline shows nothing of its core, but the firmware's table has its APIC id.  Without that: where
    there is no SMT it has a core of its own; with SMT off each core has one thread online, its primary, and those
    offline are the others: which belongs to which makes no difference then.
    """
    if facts.topology is not None or not facts.apic_ids or facts.present is None:
        return facts.topology
    control, known = (facts.smt_control or "").strip(), facts.apic_ids
    shift = 0 if control in {"notsupported", "notimplemented"} else max((facts.threads - 1).bit_length(), 1)
    offline = sorted(facts.present - known.keys())
    others = [apic for apic in apic_ids(root) if apic not in known.values()]
    if len(others) >= len(offline) and len(set(others)) == len(others):
        return Topology({}, shift, frozenset()).extended(known | dict(zip(offline, others, strict=False)))
    if shift == 0 and facts.threads == 1:
        return Topology({}, 0, frozenset()).extended(known).continued(frozenset(offline))
    if control not in {"off", "forceoff"} or len(offline) > len(known) or any(apic & 1 for apic in known.values()):
        return None
    siblings = {cpu: known[primary] + 1 for cpu, primary in zip(offline, sorted(known), strict=False)}
    return Topology({}, shift, frozenset()).extended(known | siblings)


def _of_all(present: frozenset[int], topology: Topology | None, root: Path) -> Topology | None:
    """Return which CPUs share a core where the running kernel may leave some out: None where it does, or may.

    Which of these share a core the firmware's table does not tell, and one that is left out shows nothing.
    """
    listed = apic_ids(root)
    if not 0 < len(set(listed)) <= len(present):
        return None
    return topology or Topology({}, 0, frozenset()).extended(dict(enumerate(listed)))


def _levels(facts: ResumerFacts, line: CommandLine, traits: Traits) -> int:
    capable = facts.features is not None and "la57" in facts.features.flags
    return 5 if capable and line.la57 and traits.la57.value else 4


def _resumee(
    session: Session,
    line: CommandLine,
    *,
    present: frozenset[int],
    online: frozenset[int],
    topology: Topology | None,
    space: KernelSpace,
) -> Resumee:
    facts, root = session.facts, session.root
    boot = data_of(root / "sys/kernel/boot_params/data", root) or b""
    firmware = None if facts is None or facts.firmware is None else facts.firmware
    features = session.machine.features if facts is None else facts.features
    smt = None if facts is None or facts.smt_control is None else _SMT.get(facts.smt_control.strip())
    guest = None if features is None else "hypervisor" in features.flags
    return Resumee(
        space=space,
        command_line=line.text,
        present=present,
        frozen=online - {min(present, default=0)},
        smt_control=smt if facts is not None else _smt_by_line(line, topology),
        topology=topology,
        features=features,
        idle=None if facts is None else facts.idle,
        e820=None if firmware is None else firmware.entries,
        e820_checksum=None if firmware is None else e820_checksum(firmware.entries),
        missing={},
        loader_line=session.loader_line,
        booted_by_efi=is_there(root / "sys/firmware/efi", root) if facts is not None else None,
        secure_boot=_secure_boot(root, boot),
        hypervisor=False if guest is False else None,
        booted_by_kexec=boot[_LOADER_AT] >> 4 == _KEXEC if len(boot) > _LOADER_AT else None,
    )


def _smt_by_line(line: CommandLine, topology: Topology | None) -> str | None:
    if topology is not None and topology.smt_shift == 0:
        return "not supported"
    return "disabled" if line.nosmt else "enabled"


def _secure_boot(root: Path, boot: bytes) -> bool | None:
    """Read the firmware's variable SecureBoot, or what the boot stub made of it (enum efi_secureboot_mode)."""
    variable = data_of(root / _SECURE_BOOT, root)
    if variable is not None and len(variable) == 5:  # four bytes of attributes
        return variable[4] == 1
    return {2: False, 3: True}.get(boot[_SECURE_BOOT_AT]) if len(boot) > _SECURE_BOOT_AT else None


def expected_image(session: Session, resumee: Resumee) -> ExpectedImage:
    """Return what is known of the image."""
    facts, traits, line = session.facts, session.traits, resumee.parameters
    pages = facts.pages if facts is not None else session.machine.memory >> PAGE_SHIFT
    if pages is None:
        raise MissingFact("how much memory the machine has cannot be read", path=str(session.root / "proc/zoneinfo"))
    magic = traits.arch_record_magic.value
    if magic is None:
        why = traits.arch_record_magic.reason
        raise MissingFact(f"which arch record it writes cannot be read: {why}", path=session.kernel.path)
    obeys = line.hardware_signature
    signature = facts.hw_signature if facts is not None and obeys and traits.hw_sig.value else None
    firmware = None if facts is None else facts.firmware
    return ExpectedImage(
        compressor=_compressor(session),
        hw_sig=signature,
        magic=magic,
        memory_map=firmware.entries if firmware is not None and firmware.source != "sysfs" else None,
        pages=pages,
        least=session.least >> PAGE_SHIFT,
        has_zero_flag=bool(traits.zero_pages.value),
    )


def _compressor(session: Session) -> str:
    """Say how the resumee would compress its image: by hibernate.compressor=, else the first that it has built in."""
    asked = compressor_asked(session.line.text)
    if asked == "none":
        return asked
    chosen = line_of(session.root / "sys/module/hibernate/parameters/compressor", session.root)
    known = built_in(session.traits.compressors.value or ())
    return chosen or asked or ("lzo" if "lzo" in known else next(iter(known), "lzo"))
