#!/bin/sh
# Writes what hibercheck wants to know of the kernel that will resume, as JSON, to standard output.
#
# Run it as root on that kernel just before it resumes: in its initramfs, or before writing to /sys/power/resume.
#     sh collect.sh > facts.json
# It needs a POSIX shell and nothing else (busybox's will do), and only reads.  ROOT names another root directory.
# What it leaves out is the memory behind /proc/kcore, page tables above all: `hibercheck collect` itself reads them.
# Then:  hibercheck image.bin --resumer ... --resumer-facts facts.json

# Root runs this, perhaps with somebody else's PATH; the last is NixOS's place for programs.
PATH=/usr/sbin:/usr/bin:/sbin:/bin:/run/current-system/sw/bin
export PATH
ROOT=${ROOT:-}
SYSTEM=$ROOT/sys/devices/system/cpu
TAB=$(printf '\t')

# Whether $1 can be read to its end: what waits there for a writer, such as a FIFO, is no file of a system.
readable() {
    [ -f "$1" ] && [ -r "$1" ]
}

# Print $1 as a JSON string.
string() {
    rest=$1 done=
    while :; do
        case $rest in
        *[\"\\]*)
            plain=${rest%%[\"\\]*}
            rest=${rest#"$plain"}
            tail=${rest#?}
            done=$done$plain\\${rest%"$tail"}
            rest=$tail
            ;;
        *) break ;;
        esac
    done
    printf '"%s"' "$done$rest"
}

# Print the first line of file $1 as a JSON string, or null where it cannot be read.
line_of() {
    line=
    if readable "$1" && { IFS= read -r line || [ -n "$line" ]; } 2>/dev/null <"$1"; then
        string "$line"
    else
        printf null
    fi
}

# Print member "$1": the first line of file $2.
member() {
    printf '  "%s": ' "$1"
    line_of "$2"
    printf ',\n'
}

# Print member "$1": an array of the lines of standard input.
lines() {
    printf '  "%s": [' "$1"
    comma=
    while IFS= read -r line; do
        printf '%s\n    ' "$comma"
        string "$line"
        comma=,
    done
    printf ']%s\n' "$2"
}

# Print the lines of /proc/iomem that say where memory and the kernel are.
memory() {
    readable "$ROOT/proc/iomem" || return
    while IFS= read -r line; do
        case $line in
        *": System RAM" | *": Kernel "*) printf '%s\n' "$line" ;;
        esac
    done <"$ROOT/proc/iomem"
}

# Print the symbols from which the kernel's virtual address follows; grep is much faster, where there is one.
symbols() {
    readable "$ROOT/proc/kallsyms" || return
    if command -v grep >/dev/null 2>&1; then
        grep -E ' (_text|_stext|init_top_pgt|linux_banner)$' "$ROOT/proc/kallsyms"
    else
        while read -r address kind name rest; do
            case $name in
            _text | _stext | init_top_pgt | linux_banner) printf '%s %s %s\n' "$address" "$kind" "$name" ;;
            esac
        done <"$ROOT/proc/kallsyms"
    fi
}

# Print what of /proc/cpuinfo decides how a CPU is parked; flags and bugs once, as they are the same for all.
processors() {
    readable "$ROOT/proc/cpuinfo" || return
    seen=
    while IFS= read -r line; do
        case $line in
        processor* | apicid*) ;;
        "model name"*) continue ;;
        vendor_id* | "cpu family"* | model* | "cpuid level"* | flags* | bugs* | "address sizes"*)
            [ -z "$seen" ] || continue
            ;;
        "") seen=yes && continue ;;
        *) continue ;;
        esac
        key=${line%%:*}
        while case $key in *[" $TAB"]) true ;; *) false ;; esac do key=${key%?}; done
        printf '%s:%s\n' "$key" "${line#*:}"
    done <"$ROOT/proc/cpuinfo"
}

# Print the kernel's log; of another root directory the one that was saved there.
log() {
    if [ -z "$ROOT" ]; then
        dmesg 2>/dev/null
    elif readable "$ROOT/var/log/dmesg"; then
        while IFS= read -r line; do printf '%s\n' "$line"; done <"$ROOT/var/log/dmesg"
    fi
}

# Print what the kernel logged of the firmware's memory map as it came.  /sys/firmware/memmap shows another table since
# a2498e5c453b ("x86/kexec: Export e820_table_kexec[] to sysfs", in v6.15): what a kernel started by kexec is given.
logged_map() {
    log | while IFS= read -r line; do
        case $line in
        *"physical RAM map:"* | *"BIOS-"*": [mem 0x"* | *"extended: [mem 0x"*) printf '%s\n' "$line" ;;
        esac
    done
}

# Print what the kernel logged of modes in which the next kernel finds the machine.
logged_modes() {
    log | while IFS= read -r line; do
        case $line in
        *"x2apic enabled"* | *"x2apic disabled"* | *"DMAR-IR: Enabled IRQ remapping"*) printf '%s\n' "$line" ;;
        *"AMD-Vi: Interrupt remapping enabled"* | *"DMAR: IOMMU disabled"*) printf '%s\n' "$line" ;;
        *"DMAR: Intel(R) Virtualization Technology for Directed I/O"*) printf '%s\n' "$line" ;;
        *"Memory Encryption Features active:"*) printf '%s\n' "$line" ;;
        esac
    done
}

# Print the kernel's number of physical pages, get_num_physpages(), or null.
pages() {
    total=0
    if readable "$ROOT/proc/zoneinfo"; then
        while read -r word count rest; do
            [ "$word" != present ] || total=$((total + count))
        done <"$ROOT/proc/zoneinfo"
    fi
    if [ "$total" -gt 0 ]; then printf '  "pages": %s,\n' "$total"; else printf '  "pages": null,\n'; fi
}

# Print how much memory is free, and what huge pages take.
free_memory() {
    readable "$ROOT/proc/meminfo" || return
    while IFS= read -r line; do
        case $line in
        MemTotal:* | MemFree:* | HugePages_Total:* | Hugepagesize:*) printf '%s\n' "$line" ;;
        esac
    done <"$ROOT/proc/meminfo"
}

# Print which compressors of images the kernel has at hand.
compressors() {
    readable "$ROOT/proc/crypto" || return
    while read -r word colon name rest; do
        [ "$word" = name ] || continue
        case $name in
        lzo | lz4) printf '%s\n' "$name" ;;
        esac
    done <"$ROOT/proc/crypto"
}

# Print those that it would load when it is asked for them: their modules are here, and so is modprobe.
loadable() {
    release= modprobe=
    readable "$ROOT/proc/sys/kernel/osrelease" && IFS= read -r release <"$ROOT/proc/sys/kernel/osrelease"
    readable "$ROOT/proc/sys/kernel/modprobe" && IFS= read -r modprobe <"$ROOT/proc/sys/kernel/modprobe"
    [ -n "$release" ] && [ -x "$ROOT$modprobe" ] || return
    for name in lzo lz4; do
        for file in "$ROOT/lib/modules/$release/kernel/crypto/$name".ko*; do
            [ ! -e "$file" ] || printf '%s\n' "$name"
        done
    done
}

# Print the firmware's hardware signature, FACS.hardware_signature, or null.
signature() {
    printf '  "hw_signature": '
    facs=$ROOT/sys/firmware/acpi/tables/FACS value=
    ! readable "$facs" || value=$(od -A n -t x4 -j 8 -N 4 "$facs" 2>/dev/null)
    value=${value#"${value%%[! ]*}"}
    if [ "${#value}" -eq 8 ]; then string "0x$value"; else printf null; fi
    printf ',\n'
}

# Print what CPUID leaf 5 says of MWAIT, EAX to EDX, or null.  A read of the device of the module cpuid gives 16 bytes for
# each leaf, from leaf 0 on, which says first up to which leaf there are any (arch/x86/kernel/cpuid.c).
monitor() {
    printf '  "cpuid5": '
    device=$ROOT/dev/cpu/0/cpuid leaves=
    if [ -r "$device" ] && { [ -c "$device" ] || [ -f "$device" ]; }; then
        leaves=$(dd if="$device" bs=96 count=1 2>/dev/null | od -A n -v -t x4 2>/dev/null)
    fi
    set -- $leaves
    if [ $# -eq 24 ] && [ $((0x$1)) -ge 5 ]; then
        shift 20
        string "$*"
    else
        printf null
    fi
    printf ',\n'
}

# Print one object for each entry of the map that /sys/firmware/memmap shows, in its order.
firmware() {
    printf '  "e820": ['
    comma= number=0
    while [ -d "$ROOT/sys/firmware/memmap/$number" ]; do
        entry=$ROOT/sys/firmware/memmap/$number
        printf '%s\n    {"start": ' "$comma"
        line_of "$entry/start"
        printf ', "end": '
        line_of "$entry/end"
        printf ', "type": '
        line_of "$entry/type"
        printf '}'
        comma=, number=$((number + 1))
    done
    printf '],\n'
}

# Print the states of CPU 0's cpuidle driver, from the shallowest.
idle() {
    printf '  "idle_states": ['
    comma= number=0
    while [ -d "$SYSTEM/cpu0/cpuidle/state$number" ]; do
        state=$SYSTEM/cpu0/cpuidle/state$number
        printf '%s\n    {"name": ' "$comma"
        line_of "$state/name"
        printf ', "desc": '
        line_of "$state/desc"
        printf ', "latency": '
        line_of "$state/latency"
        printf '}'
        comma=, number=$((number + 1))
    done
    printf '],\n'
}

# Print one object for each CPU directory; an offline CPU has no topology.  (thread_siblings_list would say more, but
# reads as empty through a shell: it gives nothing to a reader that asks for one byte at a time.)
topology() {
    printf '  "topology": ['
    comma=
    for place in "$SYSTEM"/cpu[0-9]*; do
        [ -d "$place" ] || continue
        printf '%s\n    {"cpu": %s, "core": ' "$comma" "${place##*/cpu}"
        line_of "$place/topology/core_id"
        printf ', "package": '
        line_of "$place/topology/physical_package_id"
        printf '}'
        comma=,
    done
    printf '],\n'
}

printf '{\n  "hibercheck_facts": 1,\n'
member version "$ROOT/proc/version"
member cmdline "$ROOT/proc/cmdline"
member boot_id "$ROOT/proc/sys/kernel/random/boot_id"
member present "$SYSTEM/present"
member online "$SYSTEM/online"
member smt_control "$SYSTEM/smt/control"
member power_disk "$ROOT/sys/power/disk"
member lockdown "$ROOT/sys/kernel/security/lockdown"
signature
pages
member idle_driver "$SYSTEM/cpuidle/current_driver"
idle
monitor
topology
firmware
logged_map | lines memory_log ,
logged_modes | lines modes_log ,
memory | lines iomem ,
free_memory | lines meminfo ,
compressors | lines compressors ,
loadable | lines loadable ,
symbols | lines kallsyms ,
processors | lines cpuinfo ""
printf '}\n'
