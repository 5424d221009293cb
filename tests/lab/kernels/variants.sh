#!/bin/sh
# Build one small kernel in the ways that kernels differ which are not Debian's, for tests/real/test_kernel_traits.py to
# read: from a Linux source tree (Debian's linux-source-6.1, unpacked), into a directory for $HIBERCHECK_KERNELS.
#
#   variants.sh OUTPUT SOURCE [VARIANT...]
#
# plain lists all symbols (KALLSYMS_ALL, gcc -O2), text those of code only, absolute all with 64-bit addresses
# (without KALLSYMS_BASE_RELATIVE and KALLSYMS_ABSOLUTE_PERCPU), size and size-text are of gcc -Os, clang and clang-text
# of clang (CLANG=-16 by default), up is for one CPU (so without KALLSYMS_ABSOLUTE_PERCPU), lean is without random
# memory, five levels, page-table isolation and cpuidle, and text only.  size and clang are without ACPI, NUMA and a
# console: half as many files.
# OUTPUT/linux-lab-VARIANT gets vmlinux (with its symbol table), vmlinuz, their configuration, and what made them.
# A variant takes some minutes of two cores (nearly every file asks for KALLSYMS_ALL), absolute seconds after plain.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
output=$(cd "$1" && pwd)
source=$(cd "$2" && pwd)
shift 2
[ $# -gt 0 ] || set -- plain text absolute size size-text clang clang-text up lean

export KBUILD_BUILD_TIMESTAMP='2026-11-29 00:00:00 +0000' KBUILD_BUILD_USER=lab KBUILD_BUILD_HOST=hibercheck KBUILD_BUILD_VERSION=1
export LC_ALL=C

on() { for option; do echo "CONFIG_$option=y"; done; }
off() { for option; do echo "CONFIG_$option=n"; done; }

for variant; do
    base=${variant%-text}
    case $base in
    text | absolute) base=plain ;;
    esac
    build=$output/.build-$base
    compiler=
    [ "$base" != clang ] || compiler=LLVM=${CLANG:--16}
    mkdir -p "$build"
    {
        grep -v -e CMDLINE -e KALLSYMS_ALL -e KERNEL_LZ4 -e LOCALVERSION "$here/bare.config"
        on KERNEL_GZIP HIBERNATION SUSPEND X86_5LEVEL CPU_MITIGATIONS SPECULATION_MITIGATIONS PAGE_TABLE_ISOLATION RETPOLINE \
            RETHUNK IKCONFIG PCI HOTPLUG_SMT CPUMASK_OFFSTACK DEBUG_KERNEL
        case $variant in
        *text | lean) off KALLSYMS_ALL ;;
        *) on KALLSYMS_ALL ;;
        esac
        case $base in
        size) on CC_OPTIMIZE_FOR_SIZE; off CC_OPTIMIZE_FOR_PERFORMANCE ACPI NUMA KVM_GUEST TTY ;;
        clang) off ACPI NUMA KVM_GUEST TTY ;;
        up) off SMP ;;
        lean) off RANDOMIZE_MEMORY X86_5LEVEL PAGE_TABLE_ISOLATION CPU_IDLE INTEL_IDLE HALTPOLL_CPUIDLE ;;
        esac
        echo "CONFIG_LOCALVERSION=\"-lab-$variant\""
    } >"$build/fragment"
    # These two have no question of their own: what is asked is what is written into Kconfig.
    pair='/^config KALLSYMS_ABSOLUTE_PERCPU/,/default/s/default .*/default X86_64 \&\& SMP/
        /^config KALLSYMS_BASE_RELATIVE/,/default/s/default .*/default !IA64/'
    [ "$variant" != absolute ] || pair=$(echo "$pair" | sed 's/default X86_64.*/default n/; s/default !IA64/default n/')
    sed -i "$pair" "$source/init/Kconfig"
    make -s -C "$source" O="$build" $compiler KCONFIG_ALLCONFIG="$build/fragment" allnoconfig
    make -s -C "$source" O="$build" $compiler -j "${JOBS:-2}" bzImage
    into=$output/linux-lab-$variant
    mkdir -p "$into"
    objcopy --strip-debug "$build/vmlinux" "$into/vmlinux-$variant"
    cp "$build/arch/x86/boot/bzImage" "$into/vmlinuz-$variant"
    cp "$build/.config" "$into/config-$variant"
    name=$(basename "$source")
    version=$(make -s -C "$source" O="$build" kernelversion)
    printf '{"package": "%s", "version": "%s", "made": "tests/lab/kernels/variants.sh OUTPUT SOURCE %s"}\n' \
        "$name" "$version" "$variant" >"$into/provenance.json"
    echo "$variant: $(make -s -C "$source" O="$build" kernelrelease)"
done
