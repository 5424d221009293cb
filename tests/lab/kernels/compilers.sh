#!/bin/sh
# Compile the parts of Linux that decide a handoff with other compilers and settings, and link them to kernels that do
# not run, for hibercheck to read: fixtures/compilers/.
#
#   compilers.sh OUTPUT KIND SOURCE [MAKE-ARGUMENT...]
#
# KIND is cfi (kernel control-flow integrity, FineIBT, IBT), thunks (call depth tracking, ftrace), size (-Os) or
# checked (KASAN, UBSAN, lockdep, cpumasks off the stack); SOURCE is an unpacked linux-source-6.1 or -7.3;
# the arguments are such as LLVM=-19 or CC=gcc-11.  What is not compiled is a function that returns at once.
# KIND lto (link-time optimisation) builds a whole kernel, which takes some minutes; the others half a minute.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
output=$1 kind=$2 source=$(cd "$3" && pwd)
shift 3
mkdir -p "$output"
output=$(cd "$output" && pwd)
build=$output/build-$kind
mkdir -p "$build/linked"
export KBUILD_BUILD_TIMESTAMP='2026-11-22 00:00:00 +0000' KBUILD_BUILD_USER=lab KBUILD_BUILD_HOST=hibercheck KBUILD_BUILD_VERSION=1
export LC_ALL=C

on() { for option; do echo "CONFIG_$option=y"; done; }
off() { for option; do echo "CONFIG_$option=n"; done; }
{
    cat "$here/small.config"
    on X86_MCE CPU_MITIGATIONS SPECULATION_MITIGATIONS RETPOLINE RETHUNK CPU_UNRET_ENTRY CPU_SRSO SLS PAGE_TABLE_ISOLATION \
        MITIGATION_PAGE_TABLE_ISOLATION MITIGATION_RETPOLINE MITIGATION_RETHUNK MITIGATION_UNRET_ENTRY MITIGATION_SRSO \
        MITIGATION_SLS X86_KERNEL_IBT SLUB STACKPROTECTOR CRYPTO CRYPTO_LZO CRYPTO_LZ4 HIBERNATION_COMP_LZO BUG EXT2_FS \
        UNWINDER_ORC X86_FRED
    off SLOB
    case $kind in
    cfi) on CFI_CLANG CFI FINEIBT ;;
    thunks) on CALL_DEPTH_TRACKING MITIGATION_CALL_DEPTH_TRACKING FTRACE FUNCTION_TRACER DYNAMIC_FTRACE; off KALLSYMS_ALL ;;
    size) on CC_OPTIMIZE_FOR_SIZE; off CC_OPTIMIZE_FOR_PERFORMANCE ;;
    checked) on UBSAN UBSAN_BOUNDS KASAN DEBUG_KERNEL DEBUG_PREEMPT PREEMPT PROVE_LOCKING CPUMASK_OFFSTACK MAXSMP ;;
    lto) on LTO_CLANG_THIN; off LTO_NONE ;;
    *) echo "compilers.sh: no such kind: $kind" >&2; exit 2 ;;
    esac
} >"$build/.config"
make -s -C "$source" O="$build" "$@" olddefconfig
if [ "$kind" = lto ]; then
    make -s -C "$source" O="$build" "$@" -j "${JOBS:-2}" vmlinux
    objcopy --strip-debug "$build/vmlinux" "$output/$kind.vmlinux"
    exit
fi
objects="arch/x86/kernel/head_64.o arch/x86/kernel/smpboot.o arch/x86/kernel/process.o arch/x86/kernel/smp.o
    arch/x86/kernel/setup.o arch/x86/kernel/idt.o arch/x86/kernel/apic/apic.o arch/x86/kernel/acpi/cstate.o
    arch/x86/kernel/cpu/common.o arch/x86/power/cpu.o arch/x86/power/hibernate.o arch/x86/power/hibernate_64.o
    arch/x86/lib/retpoline.o arch/x86/mm/cpu_entry_area.o kernel/cpu.o kernel/power/snapshot.o kernel/power/swap.o
    kernel/power/hibernate.o drivers/acpi/processor_idle.o drivers/idle/intel_idle.o drivers/cpuidle/cpuidle.o init/version.o"
[ ! -f "$source/arch/x86/kernel/cpu/topology.c" ] || objects="$objects arch/x86/kernel/cpu/topology.o"
make -s -C "$source" O="$build" "$@" -j "${JOBS:-2}" $objects
cd "$build"
linked=
for object in $objects; do
    own=linked/$(echo "$object" | tr / -)
    objcopy --strip-debug --remove-section '.discard*' --remove-section '.rela.discard*' --remove-section .modinfo \
        --remove-section '.orc*' --remove-section '.rela.orc*' "$object" "$own"
    linked="$linked $own"
done
nm -g $linked | awk 'NF == 2 && $1 == "U" { used[$2] } NF == 3 { made[$3] } END { for (n in used) if (!(n in made)) print n }' |
    sort | sed 's/.*/.globl "&"; .type "&", @function; .balign 16, 0xcc; "&": ret; .size "&", 1/' >linked/rest.s
as --64 -o linked/rest.o linked/rest.s
case $* in
*LLVM=*) linker=ld.lld$(echo "$*" | sed 's/.*LLVM=\(-[0-9]*\).*/\1/') ;;
*) linker=ld ;;
esac
$linker -m elf_x86_64 -Ttext=0xffffffff81000000 --section-start=.data..percpu=0 -z notext -z norelro --no-pie \
    --noinhibit-exec -z muldefs -e 0 -o "$output/$kind.vmlinux" $linked linked/rest.o 2>"$build/link.log"
objcopy --strip-debug "$output/$kind.vmlinux"
