"""The catalogue of rules: what each finding means, why it kills, what to do about it.

An identifier, once published, never changes its meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from hibercheck.data import dataclass
from hibercheck.handoff.verdict.findings import Level


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Attributes:
        id: Stable identifier, ``HC201``.
        name: Name in words, stable as well.
        level: Weight it has unless the finding itself weighs less (an overwrite with the same bytes is a note).
        summary: One line.
        meaning: What was found, when this rule is.
        why: What it does to the machine.
        remedy: What can be done.
        references: Commits, manuals, threads.
    """

    id: str
    name: str
    level: Level
    summary: str
    meaning: str
    why: str
    remedy: str
    references: tuple[str, ...]

    @property
    def advice(self) -> str:
        """The first sentence of its remedy, without the full stop: what a finding advises."""
        return self.remedy.partition(". ")[0].rstrip(".")


_SDM_MWAIT = "Intel SDM volume 2, MWAIT: the events that end it"
_SDM_HLT = "Intel SDM volume 2, HLT; volume 3, auto HALT restart"
_SDM_DF = "Intel SDM volume 3A, interrupt 8 (#DF): a fault during its delivery is a shutdown, which resets a PC"
_HLT_2016 = 'commit 406f992e4a37 ("x86 / hibernate: Use hlt_play_dead() when resuming from hibernation", in v4.8)'
_NOSMT = "commit ec527c318036 (\"x86/power: Fix 'nosmt' vs hibernation triple fault during resume\", in v5.2)"
_CORE_ONLINE = (
    'commit 2066f00e5b2d ("x86/topology: Implement topology_is_core_online() to address SMT regression", in v6.17)'
)
_MWAIT_LINE = 'commit f9c9987bf52f ("x86/smp: Use dedicated cache-line for mwait_play_dead()", in v6.5)'
_INIT_REVERT = 'commit fbe1bf1e5ff1 ("Revert \\"x86/smp: Put CPUs into INIT on shutdown if possible\\"", in v6.6)'

_HC1 = (
    Rule(
        "HC101",
        "monitored line overwritten",
        Level.ERROR,
        "The image is copied over the cache line on which a CPU sleeps in MWAIT.",
        "The CPU is parked in MWAIT, waiting for a store into one cache line of the resumer: the idle task's flags "
        "in kernels before v6.5, the per-CPU variable mwait_cpu_dead since. The image has a page for the frame that "
        "holds this line.",
        "The boot CPU's copy is such a store: it wakes the CPU in the middle of the copy. Frames are copied from the "
        "highest down, so what lies above the line has been replaced by then, and what lies below it has not. "
        "Whether the CPU still finds its code and page tables depends on that, and on how long it takes to wake.",
        "Use a resumer that parks its CPUs by HLT before it copies, and that brings offline CPUs back first. "
        "Do not take CPUs offline in the initramfs before resuming.",
        (_SDM_MWAIT, _HLT_2016, _MWAIT_LINE),
    ),
    Rule(
        "HC102",
        "monitored line belongs to the resumee afterwards",
        Level.WARNING,
        "A CPU still sleeps in MWAIT on a line that is the resumee's after the handoff.",
        "The CPU survived the copy in MWAIT. The line it watches is a physical address, and the data at that address "
        "are now the resumee's, which knows nothing of the sleeper.",
        "Any store of the resumee to this line wakes the CPU, at any time after the handoff. The code and page "
        "tables that it then needs were the resumer's, and are gone. What the line holds in the resumee decides how "
        "soon that happens: some data are certainly written as it resumes, before it starts another CPU; free memory "
        "is written once it is allocated, whether the image holds it or not.",
        "Use a resumer that parks by HLT; bring the CPU online in the resumee, which takes it out of MWAIT by INIT.",
        (_SDM_MWAIT, _MWAIT_LINE),
    ),
)
_HC2 = (
    Rule(
        "HC201",
        "park loop overwritten with other bytes",
        Level.ERROR,
        "The instructions that a parked CPU executes when it wakes are replaced by others.",
        "A parked CPU executes a small loop: go to sleep, and when woken, go to sleep again. The image overwrites "
        "the frame that holds this loop, and the resumee has other bytes there.",
        "When the CPU wakes it continues in the middle of the resumee's code or data. It executes garbage in kernel "
        "mode with the resumer's registers: it corrupts memory or faults, and in the end the machine resets.",
        "Resume with the kernel build that hibernated, loaded at the same address, or with a resumer whose parked CPUs "
        "nothing can wake (wait-for-SIPI, or a reserved park page).",
        (_HLT_2016, _NOSMT, _SDM_MWAIT, _SDM_HLT),
    ),
    Rule(
        "HC202",
        "page-table walk diverges",
        Level.ERROR,
        "The page tables of a parked CPU are overwritten, and its addresses no longer lead where they did.",
        "A CPU's CR3 is a physical address. The image overwrites at least one of the tables on the way from it to "
        "what the CPU touches, and the walk through the new contents fails or ends at another place.",
        "The next fetch or load whose translation is not cached fails: a page fault, whose handler cannot be reached "
        "either, then a double fault, a triple fault, and a reset. What is cached decides when this happens, not "
        "whether.",
        "Resume with the kernel build that hibernated, loaded at the same address, or with a resumer that parks CPUs "
        "on page tables of their own, or where nothing can wake them.",
        (_HLT_2016, "Intel SDM volume 3A, 4-level and 5-level paging; 'Caching Translation Information'", _SDM_DF),
    ),
    Rule(
        "HC203",
        "exception path broken",
        Level.WARNING,
        "An NMI or a machine check cannot be delivered to a parked CPU: IDT, GDT, TSS, stack or handler are gone.",
        "Even in HLT with interrupts off a CPU takes NMIs and machine checks. To deliver one it reads the gate from "
        "its IDT, the code segment from its GDT, the stack from its TSS, and pushes to it; one of these accesses, "
        "through the CPU's own page tables, meets memory of the resumee.",
        "The exception faults while it is delivered: page fault, double fault, triple fault. The whole machine "
        "resets, perhaps long after the resume, at the first NMI (kdump, perf on a stuck CPU, sysrq-l, a microcode "
        "update) or #MC.",
        "Bring all CPUs online in the resumee once after the resume (echo 1 > /sys/devices/system/cpu/cpuN/online), or "
        "do not hibernate with CPUs offline.",
        ("Intel SDM volume 3A, 'Exception and Interrupt Handling in 64-bit Mode'", _SDM_DF, _SDM_HLT),
    ),
    Rule(
        "HC204",
        "data that steers the park loop overwritten",
        Level.ERROR,
        "A parked CPU reads data that the image has overwritten, and leaves its loop because of what it finds.",
        "A park loop looks at a few variables each time it is woken: whether it was told to halt, whether it is CPU "
        "0 and is to come back. The image overwrites them, and their new contents, which mean something else in the "
        "resumee, happen to tell the CPU to leave its loop.",
        "Even with its code and page tables intact the CPU leaves its loop: it runs code that was not meant for it, "
        "or waits in another place.",
        "Resume with a resumer that parks its CPUs by HLT before it copies, and that brings offline CPUs back first.",
        ("mwait_play_dead() and cond_wakeup_cpu0(), arch/x86/kernel/smpboot.c", _MWAIT_LINE, _SDM_MWAIT),
    ),
)
_HC3 = (
    Rule(
        "HC301",
        "offline CPU not rescued",
        Level.ERROR,
        "The resumer does not bring an offline CPU back online, and so does not park it safely.",
        "Before the copy the resumer parks its online CPUs in HLT. A CPU that was offline already stays where it has "
        "waited since it went offline, mostly in MWAIT, unless the resumer brings it up first. This resumer does "
        "not: either it never does, or it skips CPUs whose core's primary thread is offline.",
        "The CPU sleeps on memory that the image overwrites, and any store there wakes it.",
        "Let all CPUs be online when the resumer loads the image: take none offline by hand in the initramfs, and "
        "leave nosmt out of its command line. To leave CPUs out, boot it with maxcpus=: it never starts the CPUs "
        "beyond that number. After a kexec that does not help, because they may still wait in the kernel that ran "
        "before.",
        (_NOSMT, _CORE_ONLINE),
    ),
    Rule(
        "HC302",
        "CPU stays parked past the handoff",
        Level.WARNING,
        "A CPU that the resumee leaves offline stays parked in the resumer's memory for the whole uptime.",
        "The resumee re-initialises the CPUs that it froze when it hibernated. A CPU that was offline in it is not "
        "among them: it stays in the resumer's park loop, with the resumer's page tables and IDT, in memory that now "
        "is the resumee's.",
        "Nothing happens until something wakes the CPU: an NMI sent to all CPUs, a broadcast machine check, an SMI "
        "of the firmware. Then it executes whatever is in that memory at that time.",
        "Bring the CPU online once after the resume, or hibernate with all CPUs online.",
        ("kernel/cpu.c, thaw_secondary_cpus(): only frozen_cpus are brought up", _SDM_HLT),
    ),
    Rule(
        "HC303",
        "parked CPU stores into image memory",
        Level.ERROR,
        "A parked CPU writes to memory that is the resumee's after the copy.",
        "The park loop, or the way into an exception, stores to the stack or to per-CPU data. The frame is in the "
        "image, so after the copy the store changes the resumee's data.",
        "The machine need not crash at once: a word of the resumee's memory changes without its doing.",
        "Use a resumer whose park loop stores nothing (HLT), and see HC302 for CPUs that stay parked.",
        ("drivers/acpi/processor_idle.c, acpi_idle_play_dead(): pushes on the idle stack in each turn",),
    ),
)
_HC4 = (
    Rule(
        "HC401",
        "paging-mode mismatch",
        Level.ERROR,
        "Resumer and resumee do not use the same number of page-table levels.",
        "The last step of the resumer loads the resumee's CR3. CR4.LA57, which says how many levels that table has, "
        "stays as the resumer had it; one of the two kernels uses 5 levels and the other 4.",
        "At its next instruction the boot CPU reads the tables with the wrong number of levels and faults without a "
        "usable handler, and the machine resets. The image header does not record the mode, so the kernel does not "
        "refuse.",
        "Boot both kernels with no5lvl, or both without.",
        ("Intel SDM volume 3A, CR4.LA57", "arch/x86/power/hibernate_asm_64.S, restore_registers"),
    ),
    Rule(
        "HC402",
        "image will be refused",
        Level.ERROR,
        "The resumer will not load this image.",
        "Either the resumer resumes nothing at all, because it cannot hibernate, was told not to, or is locked down. "
        "Or this image does not pass one of its tests: of the firmware's hardware signature, the compressor, the "
        "version of the header, the checksum of the firmware's memory map, the machine's number of pages, the frame "
        "numbers (one has a flag that it does not know, or there is no memory at it), or the memory that is free to "
        "load it.",
        "Nothing is overwritten and nothing crashes: the machine boots afresh. A kernel that resumes nothing leaves "
        "the image where it is. One that reads the header puts the swap signature back before it tests anything, so "
        "that the hibernated session is lost.",
        "Resume with a kernel of the resumee's series or newer; keep firmware settings and memory size unchanged "
        "between hibernation and resume.",
        (
            "kernel/power/hibernate.c, hibernation_available(), software_resume()",
            "kernel/power/swap.c, swsusp_check(); kernel/power/snapshot.c, check_header(), unpack_orig_pfns()",
            "arch/x86/power/hibernate.c, arch_hibernation_header_restore()",
            'commit 005e8dddd497 ("PM: hibernate: don\'t store zero pages in the image file", in v6.6)',
        ),
    ),
    Rule(
        "HC403",
        "wrong resumee for this image",
        Level.ERROR,
        "The kernel given as the resumee did not write the image.",
        "The image holds the memory of the kernel that wrote it, with its banner. The kernel that was given has "
        "another banner.",
        "Whatever was said of the resumee would be about another kernel, so nothing is said.",
        "Give the kernel that the message names: the banner is compared as a whole, build number and date included.",
        ("init/version.c, linux_banner",),
    ),
    Rule(
        "HC404",
        "image damaged",
        Level.ERROR,
        "The image contradicts its own format.",
        "A length, a count, a checksum or a link of the image is wrong; the message says which and where.",
        "The kernel may load the image or refuse it; in either case it is not the memory that was saved.",
        "Copy the image again from the swap device, the whole of it; hibercheck image --verify FILE checks a copy.",
        ("kernel/power/swap.c, load_image(), load_compressed_image()",),
    ),
    Rule(
        "HC405",
        "file system used since the image was written",
        Level.WARNING,
        "A file system on the image's disk was mounted or written after the image was written.",
        "The resumee has the tables of its mounted file systems in memory, as they were when it hibernated. One of "
        "them was mounted since, by another system or after a boot with noresume: its superblock says so.",
        "The resumed kernel goes on with what it has in memory and writes it over what was changed since. Files are "
        "lost or hold the contents of others, and nobody notices until they are read. This has nothing to do with "
        "parked CPUs.",
        "Do not resume this image: boot with noresume, then throw it away by writing the swap signature anew (mkswap, "
        "with the UUID that the swap had). What was open and not saved in the session is lost.",
        (
            "Documentation/power/swsusp.rst: If you touch anything on disk between suspend and resume, kiss your data "
            "goodbye",
        ),
    ),
    Rule(
        "HC406",
        "CPU lacks what the resumee uses",
        Level.ERROR,
        "The resumee uses a feature of its CPU that the CPU under the resumer lacks.",
        "The image is resumed on another CPU model than that on which it was made. The resumee does not look at its "
        "CPU again: it loads the CR4 that it had and uses its page tables, and one of these needs a feature that "
        "this CPU lacks.",
        "A bit of CR4 that the CPU lacks raises a general protection fault, and a reserved bit in a page table a "
        "page fault. Either comes before the resumee can handle one, as its per-CPU data cannot be reached yet: the "
        "machine hangs or resets, and prints nothing. The image header does not record the CPU, so the kernel does "
        "not refuse.",
        "Resume on the CPU model that hibernated, or on one with the same features. Give a virtual machine the same "
        "CPU model. To move an image between machines, boot the kernel that will hibernate with clearcpuid= for each "
        "feature that the other machine lacks.",
        (
            "arch/x86/power/cpu.c, __restore_processor_state(): writes MSR_EFER and CR4 as they were saved",
            "Intel SDM volume 3A, control registers: a reserved bit of CR4",
        ),
    ),
)
_HC5 = (
    Rule(
        "HC501",
        "INIT-parked CPU and broadcast machine check",
        Level.WARNING,
        "A CPU waits for SIPI with machine checks disabled.",
        "INIT puts a CPU into wait-for-SIPI, where neither stores, nor NMIs, nor SMIs reach it. INIT also clears "
        "CR4.MCE.",
        "A machine check that is broadcast to all CPUs shuts the machine down if one of them has CR4.MCE clear. "
        "Firmware whose SMI handler waits for all CPUs may wait forever, which is why kernels no longer park CPUs by "
        "INIT at shutdown.",
        "Accept it for the short time until the resumee starts the CPU, or bring the CPU online once after the resume.",
        ("Intel SDM volume 3A, table of the state after INIT", _INIT_REVERT),
    ),
    Rule(
        "HC502",
        "parked CPU never sleeps deeply again",
        Level.NOTE,
        "A CPU parked by HLT or INIT keeps its package out of deep idle states.",
        "A CPU that the resumee leaves offline is in HLT or in wait-for-SIPI, not in a deep C-state.",
        "Nothing breaks, but the machine uses more power: the core, and with it the package, cannot enter its "
        "deepest states.",
        "Bring the CPU online and take it offline again in the resumee, which then parks it in its own way.",
        (
            'commit 4c529a4a7260 ("x86/smp: PM/hibernate: Split arch_resume_nosmt()", in v6.16)',
            "the changelog of 406f992e4a37, which mentions the power that this costs",
        ),
    ),
)
_HC6 = (
    Rule(
        "HC601",
        "reserved park page is in the image",
        Level.ERROR,
        "The page that was set aside for parked CPUs is overwritten by the image.",
        "A design that parks CPUs in reserved pages (a fixmap page, or self-contained code with its own page tables) "
        "needs frames that no image holds. The image has one of them.",
        "The reserved page protects nothing: parked CPUs are in the same danger as in the resumer's own code.",
        "The resumee must reserve the same frames, or the resumer must choose frames that this image does not hold.",
        ("Poimboeuf's and Lutomirski's proposals in the thread of ec527c318036 (linux-pm, May 2019)",),
    ),
    Rule(
        "HC701",
        "window between the copy and the INIT",
        Level.NOTE,
        "A parked CPU that woke between the copy and the resumee's INIT would run in memory that has been replaced.",
        "On every kernel so far the CPUs that the resumee will re-initialise stay parked for some milliseconds in "
        "memory that has already been replaced. An NMI, an SMI or a machine check in this window would wake them, "
        "and so would a store of the resumee to the line of one that sleeps in MWAIT (HC102).",
        "A rare event would have to come in this short time. The note is there so that nobody takes parking in HLT "
        "for perfectly safe.",
        "Nothing to do in practice. Parking in reserved pages or by INIT would close the window.",
        (_HLT_2016, _SDM_HLT),
    ),
)

RULES: Mapping[str, Rule] = MappingProxyType({rule.id: rule for rule in (*_HC1, *_HC2, *_HC3, *_HC4, *_HC5, *_HC6)})
"""All rules by identifier, in the order of their identifiers."""
