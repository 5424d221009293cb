"""All that is read of a kernel's code, as text: values, what they were read from, commits, reasons, and loops."""

from __future__ import annotations

from difflib import unified_diff
from pathlib import Path

from hibercheck.kernel.code.idle import IdleTables
from hibercheck.kernel.code.traits import Traits, read_traits
from hibercheck.kernel.kernel import open_kernel
from tests.kernel.code.conftest import PARTS
from tests.kernel.code.test_acceptance import ALWAYS, ASKED, CRYPTO, LZO, SECURE_BOOT, functions
from tests.kernel.code.test_deadcpu import INTEL, MWAIT, NATIVE_NEW
from tests.kernel.code.test_fixmap_line import LEA, OWN, SETUP
from tests.kernel.code.test_idle import MODERN, OLD, tables
from tests.kernel.code.test_parkloops import ACPI, PEELED
from tests.kernel.code.test_place import (
    ALLOCATORS,
    BACK,
    ENTER,
    FLAT,
    HOOK,
    INBOX,
    LEAVE,
    LOOP,
    OBJECTS,
    PAGE,
    RELOAD,
    RESTORE,
    ROOM,
    SAVE,
    blob,
)
from tests.kernel.code.test_rescue import APICIDS, ASK, BRINGUP, INLINED, RESUMED, smt
from tests.kernel.code.test_rescue import LOOP as ALL_UP
from tests.kernel.code.test_resume import REPLACE, SEND_INIT, THUNKS, WRITE_ICR, hook
from tests.kernel.code.test_startup import (
    NO_DATA,
    NONE,
    NOT_INLINED,
    ONE_BY_ONE,
    PARALLEL,
    PREPENDED,
    REPLACED,
    SAYS,
    START,
    SWITCH,
)

TOLD = Path(__file__).resolve().parents[1] / "kernel" / "code" / "told"
PLACED = {"hook": HOOK, "resume": "", "leave": LEAVE, "room": ROOM, "page": PAGE, "objects": OBJECTS}
MADE = {
    "plain": {},
    "without data symbols": {"strip": ("init_task", "smp_ops")},
    "without hibernation": {"hook": "", "hibernation": "", "header": "", "snapshot": ""},
    "without hotplug": {"native": "", "data": PARTS["data"].replace("native_play_dead", "0")},
    "without rescue": {"smt": "", "hook": hook(REPLACE)},
    "weak hook": {"hook": hook(" xor %edi, %edi\n jmp freeze_secondary_cpus")},
    "unknown store": {
        "hook": hook(" mov %rax, smp_ops+0x10(%rip)\n mov %rbx, smp_ops+0x10(%rip)\n call cpuhp_smt_enable\n ret")
    },
    "cut short": {"hook": hook(" call cpuhp_smt_enable\n .byte 0x06\n ret")},
    "kicks": {
        "hook": hook(REPLACE.replace(" ret", " call smp_kick_mwait_play_dead\n ret")),
        "extra": functions("smp_kick_mwait_play_dead"),
    },
    "init": {"hook": hook(REPLACE.replace(" ret", SEND_INIT + " ret")), "extra": WRITE_ICR},
    "init by driver": {
        "hook": hook(
            " mov __cpu_online_mask(%rip), %rdi\n mov $0x4500, %edi\n mov apic(%rip), %rax\n call *8(%rax)\n ret"
        ),
        "extra": THUNKS,
    },
    "primary asked": {"smt": smt(ASK), "extra": RESUMED},
    "primary inlined": {"smt": smt(INLINED), "extra": APICIDS},
    "all brought up": {
        "hook": PARTS["hook"].replace(" movq $resume_play_dead", ALL_UP + " movq $resume_play_dead"),
        "smt": smt(ASK),
        "extra": BRINGUP + RESUMED.replace("cpuhp_smt_enable", "arch_cpu_rescan_dead_smt_siblings")
        + functions("arch_cpu_rescan_dead_smt_siblings"),
    },
    "intel_idle": {"native": NATIVE_NEW, "extra": MWAIT + INTEL + functions("start_kernel", "intel_idle_init")},
    "acpi_idle": {"extra": ACPI + functions("acpi_idle_enter", "__request_module")},
    "idle tables": {"extra": tables(MODERN)},
    "old idle tables": {"extra": tables(OLD)},
    "peeled": {
        "native": PARTS["native"].replace("1: mfence\n", PEELED + "1: mfence\n")
        .replace(" mwait\n mov (%rbp), %eax", " mwait\n9: mov (%rbp), %eax")
    },
    "fixmap": {"native": PARTS["native"].replace(OWN, LEA), "extra": SETUP},
    "place": {"allocators": f".text{ALLOCATORS}", "blob": blob(ENTER + RELOAD + LOOP), **PLACED},
    "place without paging": {"allocators": f".text{ALLOCATORS}", "blob": blob(ENTER + FLAT), **PLACED},
    "place not followed": {
        "allocators": f".text{ALLOCATORS}", "blob": blob(" test %rdi, %rdi\n je 1f\n1: hlt\n jmp 1b\n"), **PLACED
    },
    "takes over": {"header": RESTORE, "save": f".text{SAVE}", "back": BACK, "inbox": INBOX},
    "locked": {"extra": ASKED + functions("lockdown_param") + SECURE_BOOT + ALWAYS},
    "compressors": {"extra": CRYPTO + functions("lzo_mod_init", "start_kernel", "__request_module")},
    "lzo": {
        "extra": LZO + "fn lzo_decompress_threadfn\n call lzo1x_decompress_safe\n ret\nend lzo_decompress_threadfn\n"
    },
    "zero pages": {"snapshot": "fn snapshot_write_next\n btr $63, %rax\n ret\nend snapshot_write_next\n"},
    "old record": {"header": PARTS["header"].replace("0x23456789abcdef02", "0x23456789abcdef01")},
    "unknown record": {
        "header": PARTS["header"].replace("0x23456789abcdef02", "0x23456789abcdef03").replace(" call crc32_le\n", "")
    },
    "parallel": {"extra": PARALLEL + SWITCH},
    "parallel, not inlined": {"extra": NOT_INLINED},
    "one by one": {"extra": ONE_BY_ONE + START},
    "prepended": {"extra": PREPENDED + START},
    "prepended, without data symbols": {"extra": PREPENDED, "strip": NO_DATA},
    "replaced": {"extra": REPLACED},
    "no line": {"extra": NONE, "strip": NO_DATA},
    "bootconfig": {
        "extra": SAYS + "fn start_kernel\n mov $asked, %rdi\n lea forced(%rip), %rdi\n ret\nend start_kernel\n"
    },
}  # fmt: skip


def told(traits: Traits) -> str:
    """Say all that is read."""
    lines = []
    for one in traits:
        value = one.value
        if isinstance(value, IdleTables):
            value = ([tuple(getattr(row, name) for name in row.__slots__) for row in value.models], value.tables)
        lines.append(f"{one.name} = {value!r}")
        lines += [f"    {it.symbol} {'-' if it.address is None else hex(it.address)} {it.text}" for it in one.evidence]
        lines += [f"    since {one.commit}"] if one.commit else []
        lines += [f"    {one.reason}"] if one.reason else []
    for loop in traits.park_loops:
        ranges = " ".join(f"{start:#x}-{end:#x}" for start, end in loop.ranges)
        places = " ".join(
            f"{at:#x}" for at in (loop.function_address, loop.start, loop.entry, loop.wait, loop.resume_at)
        )
        kinds = loop.line, loop.driver, loop.interrupts, loop.after_kick, loop.pushes, loop.incomplete
        lines.append(f"{loop.role} {loop.kind} {loop.symbol} via {' '.join(loop.via)}: {ranges}")
        lines += [f"    {places}", f"    {' '.join(map(str, kinds))}"]
        lines += [f"    {it.address:#x} {it.text}" for it in loop.instructions]
        for it in loop.touches:
            where = it.address, it.symbol, it.register, it.displacement, it.size
            lines.append(f"    {it.instruction:#x} {it.kind} {it.access} {' '.join(map(str, where))}")
        for patch in loop.patchable:
            variants = " ".join(one.hex() for one in patch.variants)
            lines.append(f"    {patch.start:#x}-{patch.end:#x} {patch.why} {variants}")
    return "\n".join(lines) + "\n"


def beside(plain: str, text: str) -> str:
    """Say in what one text differs from another."""
    return "".join(list(unified_diff(plain.splitlines(keepends=True), text.splitlines(keepends=True), n=0))[2:])


def told_of(path: str, **more: str) -> str:
    """Say all that is read of a kernel's file."""
    with open_kernel(path, **more) as kernel:
        return told(read_traits(kernel))
