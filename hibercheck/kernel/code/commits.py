"""The upstream changes behind each trait, as kernel people cite them: ``commit ("subject", in vX.Y)``."""

from __future__ import annotations

from hibercheck.patterns import pattern

RESUME_HLT = '406f992e4a37 ("x86 / hibernate: Use hlt_play_dead() when resuming from hibernation", in v4.8)'
RESUME_RESCUE = "ec527c318036 (\"x86/power: Fix 'nosmt' vs hibernation triple fault during resume\", in v5.2)"
PRIMARY_ONLINE = (
    '2066f00e5b2d ("x86/topology: Implement topology_is_core_online() to address SMT regression", in v6.17)'
)
INIT_ON_SHUTDOWN = '45e34c8af58f ("x86/smp: Put CPUs into INIT on shutdown if possible", in v6.5)'
OWN_LINE = 'f9c9987bf52f ("x86/smp: Use dedicated cache-line for mwait_play_dead()", in v6.5)'
KICK = 'd7893093a741 ("x86/smp: Cure kexec() vs. mwait_play_dead() breakage", in v6.5)'
NO_AMD_MWAIT = 'da6fa7ef67f0 ("x86/smpboot: Don\'t use mwait_play_dead() on AMD systems", in v4.17)'
CPUIDLE_FIRST = 'a18d098f2aab ("Reapply "x86/smp: Eliminate mwait_play_dead_cpuid_hint()"", in v6.16)'
INTEL_ENTER_DEAD = 'fc4ca9537bc4 ("intel_idle: Provide the default enter_dead() handler", in v6.15)'
ACPI_FFH_DEAD = '541ddf31e300 ("ACPI/processor_idle: Add FFH state handling", in v6.15)'
RESCAN = '4c529a4a7260 ("x86/smp: PM/hibernate: Split arch_resume_nosmt()", in v6.16)'
ZERO_PAGES = '005e8dddd497 ("PM: hibernate: don\'t store zero pages in the image file", in v6.6)'
LZ4 = '8bc29736357e ("PM: hibernate: Add support for LZ4 compression for hibernation", in v6.9)'
E820_CRC32 = (
    'f5d1499ae209 ("PM: hibernate: x86: Use crc32 instead of md5 for hibernation e820 integrity check", in v5.13)'
)
E820_MD5 = '62a03defeabd ("PM / hibernate: Verify the consistent of e820 memory map by md5 digest", in v4.10)'
HW_SIG = '74d9555580c4 ("PM: hibernate: Allow ACPI hardware signature to be honoured", in v5.17)'
JUMP_PHYS = '65c0554b73c9 ("x86/power/64: Fix kernel text mapping corruption during image restoration", in v4.8)'
PTI = 'aa8c6248f8c7 ("x86/mm/pti: Add infrastructure for page table isolation", in v4.15)'
RANDOM_CEA = '97e3d26b5e5f ("x86/mm: Randomize per-cpu entry area", in v6.2)'
LOCKDOWN = '000d388ed3bb ("security: Add a static lockdown policy LSM", in v5.4)'
PARALLEL = '18415f33e2ac ("cpu/hotplug: Allow "parallel" bringup up to CPUHP_BP_KICK_AP_STATE", in v6.5)'

_PARTS = pattern(r"([0-9a-f]{12})\b(?s:.)*?(?:in (v[0-9][0-9.a-z-]*))?\)?$")


def short(commit: str) -> str:
    """Return a commit without its subject, ``ec527c318036 (v5.2)``, for a line that has no room for it."""
    found = _PARTS.match(commit)
    if not found:
        return commit
    number, version = found.groups()
    return f"{number} ({version})" if version else str(number)
