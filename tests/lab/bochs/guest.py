"""The guest under Bochs: its orders lie in its initramfs, since talking to it would change its time."""

from __future__ import annotations

import gzip
import stat
from pathlib import Path

from tests.lab.experiment import Experiment, Side
from tests.lab.initramfs import newc, static_busybox

INIT = r"""#!/bin/sh
# Does what /orders says.  Lines with LAB are read outside.
/bin/busybox mkdir -p /proc /sys /dev /churn /fill
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev 2>/dev/null
exec </dev/console >/dev/console 2>&1
. /orders
dmesg -n 4
cpus=/sys/devices/system/cpu
disk=/dev/nvme0n1
count=0; while [ ! -b $disk ] && [ $count -lt 100 ]; do sleep 0.1; count=$((count+1)); done
[ -b $disk ] || { echo "LAB no disk"; dmesg | tail -40; echo "LAB quit"; }
echo "LAB kernel $(uname -r)"
echo "LAB idle $(cat $cpus/cpuidle/current_driver) $(cat $cpus/cpu0/cpuidle/state*/name 2>/dev/null | tr '\n' ' ')"
for cpu in $OFFLINE; do echo 0 > $cpus/cpu$cpu/online; done
for cpu in $ONLINE; do echo 1 > $cpus/cpu$cpu/online; done
echo "LAB cpus present $(cat $cpus/present) online $(cat $cpus/online) smt $(cat $cpus/smt/control)"
grep ' restore_image$' /proc/kallsyms | while read -r line; do echo "LAB sym $line"; done
echo "LAB code $(grep 'Kernel code' /proc/iomem)"
device=$(cat /sys/block/nvme0n1/dev)
if [ "$ROLE" = resumer ]; then
    echo "LAB resuming"
    echo $device > /sys/power/resume
    echo "LAB resume returned"; dmesg | tail -8
    echo "LAB quit"
fi
mkswap $disk >/dev/null; swapon $disk
echo $device > /sys/power/resume
echo shutdown > /sys/power/disk
[ -n "$IMAGE_SIZE" ] && echo $IMAGE_SIZE > /sys/power/image_size
[ -n "$FILL" ] && { mount -t ramfs fill /fill; tr '\000' "\\$FILL_BYTE" < /dev/zero | head -c ${FILL}m > /fill/bytes; }
echo "LAB hibernating"
echo disk > /sys/power/state
echo "LAB back $? online $(cat $cpus/online)"
sleep 0.5
mount -t ramfs churn /churn; dd if=/dev/zero of=/churn/bytes bs=1M count=$CHURN 2>/dev/null
for number in $EVENTS; do echo "LAB EVENT $number"; sleep 0.1; done
sleep 0.5
echo "LAB alive online $(cat $cpus/online)"
dmesg | grep -E 'BUG:|WARNING:|Oops|general protection|unable to handle|lockup|rcu.*stall|Machine check' | tail -4
echo "LAB quit"
poweroff -f
"""


def orders(experiment: Experiment, role: str) -> str:
    """Shell variables that say what to do."""
    side: Side = getattr(experiment, role)
    rows = {
        "ROLE": role,
        "OFFLINE": " ".join(map(str, side.offline)),
        "ONLINE": " ".join(map(str, side.online)),
        "IMAGE_SIZE": "" if experiment.image_size is None else experiment.image_size,
        "FILL": experiment.fill_mib or "",
        "FILL_BYTE": f"{experiment.fill_byte:03o}",
        "CHURN": experiment.churn_mib,
        "EVENTS": " ".join(map(str, range(1, experiment.machine.cpus))),
    }
    return "".join(f"{key}='{value}'\n" for key, value in rows.items())


def initramfs(path: Path, experiment: Experiment, role: str) -> None:
    """Write the initramfs of one side.

    Raises:
        LabError: There is no static busybox.
    """
    directory, program, node = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o755, stat.S_IFCHR | 0o600
    archive = newc(
        [
            ("bin", directory, b"", (0, 0)),
            ("dev", directory, b"", (0, 0)),
            ("bin/busybox", program, static_busybox().read_bytes(), (0, 0)),
            ("bin/sh", stat.S_IFLNK | 0o777, b"busybox", (0, 0)),
            ("dev/console", node, b"", (5, 1)),
            ("init", program, INIT.encode(), (0, 0)),
            ("orders", program, orders(experiment, role).encode(), (0, 0)),
        ]
    )
    path.write_bytes(gzip.compress(archive, 6, mtime=0))
