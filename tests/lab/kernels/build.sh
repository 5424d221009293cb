#!/bin/sh
# Build the lab's small kernels from a Linux source tree (Debian's linux-source-6.1, unpacked).
#
#   build.sh SOURCE OUTPUT [KERNEL...]
#
# A KERNEL is LAYOUT-PARK: LAYOUT small or wide (two configurations, so two layouts of text, data and per-CPU area), or
# near or far (two more, with machine checks, which are built in one place, as few files differ),
# PARK mwait, hlt, current or init (how hibernate_resume_nonboot_cpu_disable() parks the other CPUs: see park.patch);
# rescue, bsp, kick, fixmap, paged, flat or pause: a design that was proposed and never merged (see park-PARK.patch).
# Layout kcore is small with /proc/kcore, cmd small with a built-in command line, up small for one CPU,
# lto small by clang, linked as one with kCFI (CLANG=-16 by default); these two with PARK stock.
# PARK stock builds the source as it is (layout v73 wants Debian's linux-source-7.3), fixed with resume-hazard-6.17.patch.
# Layout n73 is near for linux-source-7.3; patches that are others for that source lie in 7.3/.
# Default: small-* and wide-current, wide-hlt.  OUTPUT gets KERNEL.vmlinux (for hibercheck) and KERNEL.bzImage (for QEMU).
# KERNEL-old has the line and the rules of 2019 on top of that (line-of-2019.patch).
# With DEBUG=1 the kernel has DWARF, and OUTPUT/build-LAYOUT/vmlinux keeps it: for debug_units.py, not for running.
# A layout takes about 4 minutes on two cores, another PARK of it 20 seconds.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
source=$(cd "$1" && pwd)
mkdir -p "$2"
output=$(cd "$2" && pwd)
shift 2
[ $# -gt 0 ] || set -- small-current small-hlt small-mwait small-init wide-current wide-hlt

export KBUILD_BUILD_TIMESTAMP='2026-11-22 00:00:00 +0000' KBUILD_BUILD_USER=lab KBUILD_BUILD_HOST=hibercheck KBUILD_BUILD_VERSION=1
export LC_ALL=C

release=$(sed -n 's/^VERSION = //p' "$source/Makefile").$(sed -n 's/^PATCHLEVEL = //p' "$source/Makefile")

for kernel; do
    base=${kernel%-old}
    old=${kernel#"$base"}
    layout=${base%%-*}
    park=${base#*-}
    build=$output/build-$layout$old
    [ "$layout" != far ] || build=$output/build-near$old # of which few files differ
    mkdir -p "$build"
    choice=CONFIG_HIBERNATE_PARK_$(echo "$park" | tr a-z A-Z)=y
    if [ "$park" = stock ] || [ "$park" = fixed ]; then
        choice=CONFIG_HIBERNATION=y
        has=stock
        ! grep -q bringup_hibernate_cpu "$source/arch/x86/power/cpu.c" || has=fixed
        [ "$has" = "$park" ] || patch -s -p1 $([ "$park" = fixed ] || echo -R) -d "$source" <"$here/resume-hazard-6.17.patch"
    else
        for one in current rescue bsp kick fixmap paged flat pause; do
            name=park-$one
            [ "$one" != current ] || name=park
            patch=$here/$release/$name.patch
            [ -f "$patch" ] || patch=$here/$name.patch
            grep -q "HIBERNATE_PARK_$(echo "$one" | tr a-z A-Z)$" "$source/kernel/power/Kconfig" ||
                patch -s -p1 -d "$source" <"$patch"
        done
    fi
    is_old=
    ! grep -q 'as before ec527c318036' "$source/arch/x86/power/hibernate.c" || is_old=-old
    [ "$is_old" = "$old" ] || patch -s -p1 $([ "$old" ] || echo -R) -d "$source" <"$here/line-of-2019.patch"
    {
        cat "$here/small.config"
        [ "$layout" = small ] || cat "$here/$layout.config"
        [ -z "${DEBUG:-}" ] || printf 'CONFIG_DEBUG_INFO_NONE=n\nCONFIG_DEBUG_INFO_DWARF_TOOLCHAIN_DEFAULT=y\n'
        echo "CONFIG_LOCALVERSION=\"-lab-$kernel\""
        echo "$choice"
    } >"$build/.config"
    compiler=
    [ "$layout" != lto ] || compiler=LLVM=${CLANG:--16}
    make -s -C "$source" O="$build" $compiler olddefconfig
    grep -qx "$choice" "$build/.config" || { echo "build.sh: no such kernel: $kernel" >&2; exit 2; }
    make -s -C "$source" O="$build" $compiler -j "${JOBS:-2}" bzImage
    objcopy --strip-debug "$build/vmlinux" "$output/$kernel.vmlinux"
    cp "$build/arch/x86/boot/bzImage" "$output/$kernel.bzImage"
    echo "$kernel: $(make -s -C "$source" O="$build" kernelrelease)"
done
