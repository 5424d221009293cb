#!/bin/sh
# May kernel RESUMER resume what kernel RESUMEE hibernated on this disk?
# The gate of a distribution's QA.
#
#   qa-gate.sh DISK RESUMER RESUMEE [DIRECTORY]
#
# DISK is the disk of a virtual machine that was hibernated with RESUMEE, raw,
# or the swap partition on it; RESUMER and RESUMEE are releases installed here
# (6.12.94+deb13-cloud-amd64) or kernel files.  Each scenario's report is kept
# in DIRECTORY (default: hibercheck-reports) as text and JSON.
#
# Exit status: 0 every scenario passed, 1 at least one failed, 2 bad usage,
# 3 an input could not be read, 4 none failed but one could not be decided.
set -u

if [ $# -lt 3 ] || [ $# -gt 4 ]; then
    echo "usage: qa-gate.sh DISK RESUMER RESUMEE [DIRECTORY]" >&2
    exit 2
fi
disk=$1 resumer=$2 resumee=$3 reports=${4:-hibercheck-reports}
mkdir -p "$reports" || exit 3
failed=0 unknown=0

scenario() {
    name=$1
    shift
    hibercheck "$disk" --resumer "$resumer" --resumee "$resumee" "$@" \
        --format "json=$reports/$name.json" -o "$reports/$name.txt" --format text
    status=$?
    case $status in
        0) result=ok ;;
        1) result=FAILED failed=1 ;;
        4) result=undetermined unknown=1 ;;
        *) echo "qa-gate: $name: hibercheck exited with $status" >&2
           exit "$status" ;;
    esac
    printf '%-10s %-12s %s\n' "$name" "$result" "$(head -n 1 "$reports/$name.txt")"
}

scenario as-it-was
scenario nosmt         --resumer-cmdline-add nosmt
scenario spurious      --spurious-mwait
scenario nmi           --suppose nmi --fail-on latent

[ "$failed" -eq 0 ] || exit 1
[ "$unknown" -eq 0 ] || exit 4
