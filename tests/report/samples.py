"""Made-up reports, one for each verdict, to see and to test the renderers with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from hibercheck.handoff.verdict.findings import (
    Assumption,
    Condition,
    CpuReport,
    Evidence,
    Fate,
    Finding,
    FrameUse,
    ImageSummary,
    KernelSummary,
    Level,
    LineOwner,
    MissingFactNote,
    NotExamined,
    Outcome,
    Place,
    Report,
    ScenarioSummary,
    Share,
    TimelineEvent,
    Verdict,
    WakeTiming,
)
from hibercheck.x86.paging import Access, Fault, Step, Walk

DUMP = "--resumer-memory DUMP"
IMAGE = ImageSummary(
    path="image.bin",
    compressor="lzo",
    pages=14_820,
    zero_pages=311,
    runs=((1, 150), (256, 896), (4096, 9500), (18_000, 4274), (32_000, 700)),
    ram_pages=32_768,
    cr3=0x3C6A000,
    jump_address=0xFFFFFFFF81C7B0C0,
    jump_address_phys=0x1C7B0C0,
)
RESUMER = KernelSummary(
    path="vmlinux-6.12",
    release="6.12.94+deb13-cloud-amd64",
    banner="Linux version 6.12.94+deb13-cloud-amd64 (debian-kernel@lists.debian.org) #1 SMP Debian 6.12.94-1",
    build_id="5be1e8b8b6d1d3e5b1f2d0a6c7a1b2c3d4e5f607",
    load_address=0x1000000,
    kaslr_offset=0,
    paging_levels=4,
    command_line="console=ttyS0 nokaslr",
    traits=(("brings offline CPUs back", "yes"), ("parks for the resume by", "hlt")),
)
RESUMEE = KernelSummary(
    path="vmlinux-6.1",
    release="6.1.0-50-cloud-amd64",
    banner="Linux version 6.1.0-50-cloud-amd64 (debian-kernel@lists.debian.org) #1 SMP Debian 6.1.176-1",
    build_id=None,
    load_address=0x1000000,
    kaslr_offset=0,
    paging_levels=4,
    command_line="console=ttyS0 panic=-1 nokaslr nosmt",
)
SCENARIO = ScenarioSummary(
    cpus=(0, 1), boot_cpu=0, offline_by_hand=(), rescued=(), supposed=(), spurious_mwait=True, memory=None
)
ASSUMPTIONS = (
    Assumption(
        "command line of the resumer", "console=ttyS0 nokaslr nosmt", "the resumee's, in the image", "--resumer-cmdline"
    ),
    Assumption("load address of the resumer", "0x1000000", "nokaslr", "--resumer-phys-base"),
    Assumption("MWAIT", "may end at any time", "asked for", "--spurious-mwait"),
)
BOOT_CPU = CpuReport(0, 0, True, "running", "", None, None, None, (), (), Fate.UNTOUCHED, "")
HLT_CPU = CpuReport(
    cpu=1,
    apic_id=1,
    boot_cpu=False,
    state="hlt",
    why="it was online and the resumer parks online CPUs by HLT",
    loop="hlt_play_dead+0x35",
    rip=0xFFFFFFFF81082ADF,
    cr3=0x1C10000,
    wakes=("NMI", "SMI", "machine check"),
    footprint=(
        FrameUse(
            "park loop", 0xFFFFFFFF81082AD5, 0x1082, "hlt_play_dead+0x2b", True, "ioapic_set_affinity+0x15", False
        ),
    ),
    fate=Fate.REINITIALISED,
    sentence="nothing wakes it before the resumee's INIT",
)
MWAIT_CPU = CpuReport(
    cpu=1,
    apic_id=1,
    boot_cpu=False,
    state="mwait",
    why="nosmt left it offline at boot and the resumer does not bring it back",
    loop="native_play_dead+0x89",
    rip=0xFFFFFFFF81062B99,
    cr3=0x1C10000,
    wakes=("store to its line", "NMI", "SMI", "machine check", "spurious exit"),
    footprint=(
        FrameUse(
            "park loop", 0xFFFFFFFF81062B79, 0x1062, "native_play_dead+0x69", True, "apply_microcode_amd+0x49", False
        ),
        FrameUse("page table 4", None, 0x1C10, "init_top_pgt", True, "initcall_level_names+0x10", False),
        FrameUse("page table 3", None, 0x1C14, "level3_kernel_pgt", True, "level3_kernel_pgt", True),
        FrameUse("monitored line", 0xFFFF888007B31240, 0x7B31, "mwait_cpu_dead", False, None, None),
        FrameUse("per-CPU data", 0xFFFF888007B19160, None, "cpu_number", None, None, None),
    ),
    fate=Fate.DIES,
    sentence="it wakes during the copy and executes apply_microcode_amd+0x49 of the resumee",
)
WALK = Walk(
    address=0xFFFFFFFF81062B99,
    access=Access.FETCH,
    cr3=0x1C10000,
    steps=(
        Step(4, 0x1C10000, 511, 0x0000000001C12067),
        Step(3, 0x1C12000, 510, 0x0000000001C13063),
        Step(2, 0x1C13000, 8, 0),
    ),
    fault=Fault(14, 0x10, "level 2 entry not present"),
)
GOOD_WALK = Walk(
    address=0xFFFFFFFF81062B99,
    access=Access.FETCH,
    cr3=0x1C10000,
    steps=(*WALK.steps[:2], Step(2, 0x1C13000, 8, 0x00000000010001E3)),
    physical=0x1062B99,
    page_size=0x200000,
)
LOOP_BEFORE = bytes.fromhex("0faef0480fae3b0faef04889d831c90f01c831c04889e90f01c98b43043dad1d174a")
LOOP_AFTER = bytes.fromhex("0faef0480fae3b4c89e24889de4889efe8b24c000085c00f8593000000488b4518ff")

HC201 = Finding(
    rule="HC201",
    level=Level.ERROR,
    cpu=1,
    role="park loop",
    message="the MWAIT loop of CPU 1 lies in a frame that the image overwrites with other bytes",
    resumer=Place(0xFFFFFFFF81062B79, 0x1062B79, "native_play_dead+0x69"),
    resumee=Place(0xFFFFFFFF81062B79, 0x1062B79, "apply_microcode_amd+0x49"),
    evidence=(Evidence("The loop's bytes", address=0x1062B79, before=LOOP_BEFORE, after=LOOP_AFTER),),
    advice="use a resumer that brings its offline CPUs back and parks them by HLT",
)
HC202 = Finding(
    rule="HC202",
    level=Level.ERROR,
    cpu=1,
    role="page table",
    message="the translation of the loop's address fails once the image has been copied",
    resumer=Place(None, 0x1C13000, "level2_kernel_pgt"),
    resumee=Place(0xFFFFFFFF81C13000, 0x1C13000, "initcall_level_names+0x10"),
    evidence=(Evidence("Before the copy", walk=GOOD_WALK), Evidence("After the copy", walk=WALK)),
    advice="see HC201",
)
HC203 = Finding(
    rule="HC203",
    level=Level.WARNING,
    cpu=1,
    role="IDT gate",
    message="an NMI cannot be delivered: IDT gate 2 is read through page tables that are the resumee's",
    resumer=Place(0xFFFFFE0000000020, None, "idt_table+0x20"),
    evidence=(
        Evidence(
            "Reading gate 2",
            walk=Walk(
                0xFFFFFE0000000020,
                Access.READ,
                0x1C10000,
                (Step(4, 0x1C10000, 508, 0),),
                fault=Fault(14, 0, "level 4 entry not present"),
            ),
        ),
        Evidence(
            "Then",
            lines=(
                "page fault: gate 14 is behind the same entry",
                "double fault: gate 8 too",
                "triple fault: the machine resets",
            ),
        ),
    ),
    advice="bring CPU 1 online once after the resume",
)
HC701 = Finding(
    rule="HC701",
    level=Level.NOTE,
    cpu=1,
    role="park loop",
    message="an NMI between the copy and the resumee's INIT would find the loop replaced",
    resumer=Place(0xFFFFFFFF81082ADF, 0x1082ADF, "hlt_play_dead+0x35"),
)


def _report(outcome: Outcome, verdict: Verdict, headline: str, **changes: object) -> Report:
    base = Report(
        outcome=outcome,
        verdict=verdict,
        headline=headline,
        findings=(),
        cpus=(BOOT_CPU, HLT_CPU),
        image=IMAGE,
        resumer=RESUMER,
        resumee=RESUMEE,
        scenario=SCENARIO,
        assumptions=ASSUMPTIONS,
    )
    return dataclasses.replace(base, **changes)


def safe() -> Report:
    """Everything parked in wait-for-SIPI."""
    cpu = dataclasses.replace(
        HLT_CPU, state="wait_for_sipi", loop=None, rip=None, footprint=(), wakes=(), fate=Fate.UNTOUCHED,
        why="the resumer sent it an INIT", sentence="it waits for SIPI and touches no memory",
    )  # fmt: skip
    return _report(
        Outcome.RESUMES,
        Verdict.SAFE,
        "no parked CPU can touch memory that the image overwrites",
        cpus=(BOOT_CPU, cpu),
        unexamined=(
            NotExamined(("HC101", "HC102"), (1, 2, 3), "where the monitored line lies is not known", DUMP),
            NotExamined(("HC404",), (), "only what the check reads of the image was decoded", "--verify"),
        ),
        warnings=("the image was already consumed by a resume",),
    )


CONDITIONS = (
    Condition(
        "load-address",
        "where the resumer is loaded",
        "0x1600000",
        "the firmware is UEFI, under which a kernel without KASLR lies where there is room",
        Outcome.RESETS,
        Verdict.FATAL,
        (("--resumer-phys-base", "0x1600000"),),
        "look for 'Kernel code' in its /proc/iomem",
    ),
    Condition(
        "idle-driver+load-address",
        "how the resumer's cpuidle driver parks a dead CPU, and where the resumer is loaded",
        "by MWAIT, and 0x1600000",
        "the resumee does not show it",
        Outcome.MAY_RESET,
        Verdict.RISK,
        (("--resumer-idle", "mwait"), ("--resumer-phys-base", "0x1600000"), ("--what-if", "")),
        "give --resumer-idle",
    ),
)


def safe_unless() -> Report:
    """Safe as it is taken to be, and not if something were otherwise."""
    return dataclasses.replace(safe(), conditions=CONDITIONS)


def benign() -> Report:
    """Overwritten with the same bytes."""
    use = dataclasses.replace(HLT_CPU.footprint[0], resumee="hlt_play_dead+0x2b", same=True)
    cpu = dataclasses.replace(
        HLT_CPU, footprint=(use,), fate=Fate.PARKS_AGAIN, sentence="a wake finds the same loop there"
    )
    note = dataclasses.replace(HC201, level=Level.NOTE, message="the loop is overwritten with the same bytes")
    return _report(
        Outcome.RESUMES,
        Verdict.BENIGN,
        "every parked CPU finds the same bytes after the copy",
        cpus=(BOOT_CPU, cpu),
        findings=(note,),
    )


def latent() -> Report:
    """A CPU stays in HLT in foreign memory."""
    cpu = dataclasses.replace(
        HLT_CPU, fate=Fate.STAYS_PARKED, sentence="the resumee left it offline, so no INIT reaches it"
    )
    return _report(
        Outcome.RESUMES,
        Verdict.LATENT,
        "the machine resumes, but CPU 1 stays parked in memory that is the resumee's; the next NMI kills it",
        cpus=(BOOT_CPU, cpu),
        findings=(HC203, HC701),
    )


def risk() -> Report:
    """Depends on KASLR."""
    cpu = dataclasses.replace(
        MWAIT_CPU, fate=Fate.UNKNOWN, sentence="whether its loop is overwritten depends on the load address"
    )
    resumer = dataclasses.replace(RESUMER, load_address=None, kaslr_offset=None, command_line="nosmt")
    return _report(
        Outcome.MAY_RESET,
        Verdict.RISK,
        "at 23 of 59 load addresses of the resumer CPU 1 wakes in overwritten code",
        cpus=(BOOT_CPU, cpu),
        resumer=resumer,
        findings=(dataclasses.replace(HC201, level=Level.WARNING),),
        share=Share(23, 59, "2 MiB-aligned places for the resumer"),
    )


def asleep() -> Report:
    """A store wakes it in time, and it sleeps again on a line that the resumee writes."""
    cpu = dataclasses.replace(
        MWAIT_CPU,
        fate=Fate.UNKNOWN,
        sentence="it may be lost in the handoff: copy 1873 of 6230 writes its line and wakes it, and 810 copies later "
        "it no longer finds its way back; it may take 6,500 copies to wake, which is more",
        when="copy",
        cause="store to its line",
        doubt="timing",
        timing=WakeTiming(1873, 6230, 2683, 3972, 810, counted=True, longest=6500),
        owner=LineOwner(
            0x135A0540, 64, "per-CPU data", ("runqueues",), 0, "ordinary",
            "runqueues of the resumee's CPU 0, where it writes as it runs",
        ),
    )  # fmt: skip
    report = _report(
        Outcome.MAY_RESET,
        Verdict.RISK,
        "the machine may reset: the copy itself wakes CPU 1, and replaces its code 810 of 6230 copies later; a machine "
        "that wakes it in time resumes",
        cpus=(BOOT_CPU, cpu),
        findings=(dataclasses.replace(HC201, level=Level.ERROR),),
    )
    return dataclasses.replace(report, usual_outcome=Outcome.RESUMES)


def fatal() -> Report:
    """The original bug."""
    return _report(
        Outcome.RESETS,
        Verdict.FATAL,
        "CPU 1 sleeps in MWAIT in code that the image overwrites, wakes during the copy and executes garbage",
        cpus=(BOOT_CPU, MWAIT_CPU),
        findings=(HC701, HC201, HC202),
        timeline=(
            TimelineEvent(9120, 0x1C13, 1, "its page directory is replaced"),
            TimelineEvent(11870, 0x1062, 1, "its loop is replaced"),
        ),
    )


def fatal_boot_cpu() -> Report:
    """The BSP dies by a paging-mode mismatch."""
    cpu = dataclasses.replace(BOOT_CPU, fate=Fate.DIES, sentence="it loads a 5-level CR3 while CR4.LA57 is clear")
    finding = Finding(
        "HC401",
        Level.ERROR,
        0,
        "CR3",
        "the resumee uses 5-level page tables and the resumer 4-level ones",
        advice="boot both with no5lvl",
    )
    return _report(
        Outcome.RESETS,
        Verdict.FATAL,
        "the boot CPU loads 5-level page tables in 4-level mode and cannot fetch its next instruction",
        cpus=(cpu, HLT_CPU),
        findings=(finding,),
    )


def refused() -> Report:
    """Unknown zero-page flag."""
    finding = Finding(
        "HC402",
        Level.ERROR,
        None,
        "image",
        "the image marks zero pages in its PFN list, which this resumer does not know",
    )
    return _report(
        Outcome.REFUSED, Verdict.REFUSED, "the resumer does not load this image", cpus=(), findings=(finding,)
    )


def undetermined() -> Report:
    """A fact is missing."""
    cpu = dataclasses.replace(MWAIT_CPU, fate=Fate.UNKNOWN, footprint=(), sentence="its page tables are not known")
    return _report(
        Outcome.UNDETERMINED,
        Verdict.UNDETERMINED,
        "how the resumer parks CPU 1 is not known",
        cpus=(BOOT_CPU, cpu),
        missing=(MissingFactNote("the resumer has no symbols", "give --resumer-symbols System.map"),),
        warnings=("the image was consumed by a resume",),
    )


def many_cpus() -> Report:
    """Sixty-four CPUs, most of them alike."""
    cpus = [dataclasses.replace(HLT_CPU, cpu=number, apic_id=number) for number in range(1, 48)]
    cpus += [dataclasses.replace(MWAIT_CPU, cpu=number, apic_id=number) for number in range(48, 64)]
    findings = tuple(dataclasses.replace(HC201, cpu=number) for number in range(48, 64))
    return _report(
        Outcome.RESETS, Verdict.FATAL, "CPUs 48-63 wake in overwritten code", cpus=(BOOT_CPU, *cpus), findings=findings
    )


def hostile() -> Report:
    """Untrusted text tries to reach the terminal, and every markup language."""
    evil = "\x1b]0;owned\x07\x1b[31m[bold red]<script>&amp;|`x`\u202e\r\n::error::x%0A\udc80"
    kernel = dataclasses.replace(RESUMEE, release=evil, banner=evil, command_line=evil, path=evil)
    finding = dataclasses.replace(HC201, message=evil, resumee=Place(1, 2, evil), role="park loop")
    cpu = dataclasses.replace(MWAIT_CPU, loop=evil, why=evil)
    return _report(
        Outcome.RESETS,
        Verdict.FATAL,
        evil,
        resumee=kernel,
        findings=(finding,),
        cpus=(BOOT_CPU, cpu),
        image=dataclasses.replace(IMAGE, path=evil),
        warnings=(evil,),
        missing=(MissingFactNote(evil, evil),),
        assumptions=(Assumption(evil, evil, evil, evil),),
    )


SAMPLES: Mapping[str, Callable[[], Report]] = {
    "safe": safe,
    "safe-unless": safe_unless,
    "benign": benign,
    "latent": latent,
    "risk": risk,
    "asleep": asleep,
    "fatal": fatal,
    "fatal-boot-cpu": fatal_boot_cpu,
    "refused": refused,
    "undetermined": undetermined,
    "many-cpus": many_cpus,
    "hostile": hostile,
}
