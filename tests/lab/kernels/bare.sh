#!/bin/sh
# Build two kernels that list only their code, from Debian's linux-source-6.12, unpacked.
#
#   bare.sh SOURCE OUTPUT
#
# bare-prepended hibernates, puts its built-in parameters before the boot loader's and always reads a bootconfig;
# bare-replaced cannot hibernate, obeys only its built-in parameters, and reads a bootconfig if asked for.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
source=$(cd "$1" && pwd)
mkdir -p "$2"
output=$(cd "$2" && pwd)

export KBUILD_BUILD_TIMESTAMP='2026-11-22 00:00:00 +0000' KBUILD_BUILD_USER=lab KBUILD_BUILD_HOST=hibercheck KBUILD_BUILD_VERSION=1
export LC_ALL=C

cd "$source"
for kernel in bare-prepended bare-replaced; do
    make -s tinyconfig
    {
        cat "$here/bare.config"
        if [ "$kernel" = bare-prepended ]; then
            printf 'CONFIG_HIBERNATION=y\nCONFIG_BOOT_CONFIG_FORCE=y\n'
        else
            printf 'CONFIG_CMDLINE_OVERRIDE=y\n'
        fi
    } >"$output/$kernel.fragment"
    scripts/kconfig/merge_config.sh -m .config "$output/$kernel.fragment" >/dev/null
    make -s olddefconfig
    make -s -j "${JOBS:-2}" bzImage
    cp arch/x86/boot/bzImage "$output/$kernel.bzImage"
done
