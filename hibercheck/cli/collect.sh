#!/bin/sh
# Writes what hibercheck wants to know of the kernel that will resume, as JSON, to standard output.
#
# Run it as root on that kernel just before it resumes: in its initramfs, or before writing to /sys/power/resume.
#     sh collect.sh > facts.json
# It needs a POSIX shell and nothing else (busybox's will do), and only reads.  ROOT names another root directory.
# What it leaves out is the memory behind /proc/kcore, page tables above all: `hibercheck collect` itself reads them.
# Then:  hibercheck image.bin --resumer ... --resumee ... --resumer-facts facts.json

ROOT=${ROOT:-}
SYSTEM=$ROOT/sys/devices/system/cpu
TAB=$(printf '\t')

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
    if [ -r "$1" ] && { IFS= read -r line || [ -n "$line" ]; } 2>/dev/null <"$1"; then
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
    [ -r "$ROOT/proc/iomem" ] || return
    while IFS= read -r line; do
        case $line in
        *": System RAM" | *": Kernel "*) printf '%s\n' "$line" ;;
        esac
    done <"$ROOT/proc/iomem"
}

# Print the symbols from which the kernel's virtual address follows; grep is much faster, where there is one.
symbols() {
    [ -r "$ROOT/proc/kallsyms" ] || return
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
    [ -r "$ROOT/proc/cpuinfo" ] || return
    seen=
    while IFS= read -r line; do
        case $line in
        processor* | apicid*) ;;
        vendor_id* | "cpuid level"* | flags* | bugs* | "address sizes"*)
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

# Print one object for each entry of the firmware's memory map, in its order.
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
member present "$SYSTEM/present"
member online "$SYSTEM/online"
member smt_control "$SYSTEM/smt/control"
member idle_driver "$SYSTEM/cpuidle/current_driver"
idle
topology
firmware
memory | lines iomem ,
symbols | lines kallsyms ,
processors | lines cpuinfo ""
printf '}\n'
