"""Text files that edgedeploy writes into the image of an emulated Arm board."""

from __future__ import annotations

from typing import Final

from edgedeploy.boards.emulated.sshd_config import KEYS_ONLY

CPU: Final = "cortex-a72"
"""The CPU that the emulators model: the Raspberry Pi 4's core, Arm v8.0."""

FEATURES: Final = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"

ACCOUNTS: Final = """\
root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
sshd:x:100:65534::/run/sshd:/usr/sbin/nologin
"""
SHADOW: Final = "root:*:19000:0:99999:7:::\nnobody:*:19000:0:99999:7:::\nsshd:*:19000:0:99999:7:::\n"
GROUP: Final = "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"
HOSTS: Final = "127.0.0.1 localhost edgedeploy-arm64\n"

SSHD_CONFIG: Final = (
    """\
ListenAddress {address}
Port {port}
HostKey /run/edgedeploy/host_key
AuthorizedKeysFile /run/edgedeploy/authorized_keys
AllowUsers root
"""
    + KEYS_ONLY
    + """\
LoginGraceTime 0
SetEnv SHLVL=1 PYTHONHASHSEED=0 QEMU_CPU={cpu}
Subsystem sftp internal-sftp
"""
)
"""QEMU_CPU is read by the user-mode emulator, which starts every program of that board. Python's hash seed is fixed,
because with another seed the same call takes another number of instructions."""

INIT: Final = """\
#!/bin/busybox sh
# Process 1 of the full system: network, keys from the emulator, SSH server.
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
$b mkdir -p /dev/shm /dev/pts
$b mount -t devpts pts /dev/pts
for place in /run /tmp /dev/shm; do $b mount -t tmpfs -o mode=1777 tmp $place; done
$b hostname edgedeploy-arm64
$b ifconfig lo 127.0.0.1 up
$b ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
$b mkdir -p -m 700 /run/edgedeploy
$b mkdir -p -m 755 /run/sshd
for name in host_key authorized_keys sshd_config; do
    $b cat /sys/firmware/qemu_fw_cfg/by_name/opt/edgedeploy/$name/raw >/run/edgedeploy/$name
    $b chmod 600 /run/edgedeploy/$name
done
/usr/sbin/sshd -D -e -f /run/edgedeploy/sshd_config &
wait
$b poweroff -f
"""

INITRD_INIT: Final = """\
#!/bin/busybox sh
b=/bin/busybox
$b mount -t devtmpfs dev /dev
for name in {modules}; do $b insmod /modules/$name.ko; done
$b mount -t ext4 /dev/vda /root
exec $b switch_root /root /opt/edgedeploy/init
"""


def cpuinfo(cores: int) -> str:
    """``/proc/cpuinfo`` of the user-mode board: the host's would name an x86 processor, which Arm runtimes cannot read."""
    lines = (
        "processor\t: {number}\nBogoMIPS\t: 108.00\nFeatures\t: {features}\nCPU implementer\t: 0x41\n"
        "CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd08\nCPU revision\t: 3\n\n"
    )
    text = "".join(lines.format(number=number, features=FEATURES) for number in range(cores))
    return f"{text}Hardware\t: Cortex-A72 instructions, emulated by qemu-user\n"
