"""An x86-64 processor with AVX2 and nothing newer, by emulation: its name, its flags, and how a program is run on it.

It is Intel's Haswell of 2013, similar to many ultrasound carts, industrial PCs and laptops: no AVX-512, no VNNI, no
bfloat16. Its int8 kernels add pairs of products in 16 bits and saturate, as on the real processor. Uses the standard
library only, so that any Python runs ``scripts/as-avx2``.
"""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from edgedeploy.boards.emulated.hosting import find_program, guest_command, refusal, require_programs
from edgedeploy.errors import TargetUnavailable

QEMU: Final = "qemu-x86_64-static"
PACKAGE: Final = "qemu-user-static"
CHECK_LIMIT_S: Final = 120.0

CPU: Final = "Haswell-noTSX,-pcid,-x2apic,-tsc-deadline,-invpcid"
"""QEMU's name of the processor, without features that QEMU does not emulate: each of them would print a warning in
every program."""

NUMPY_GATHERS: Final = "X86_V3 AVX2"
"""numpy's kernels that use gather instructions, by their names since numpy 2.4 and before."""

MODEL: Final = "Haswell (AVX2, neither AVX-512 nor VNNI), emulated by qemu-user"
FLAGS: Final = (
    "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 syscall nx rdtscp lm "
    "nopl cpuid pni pclmulqdq ssse3 fma cx16 sse4_1 sse4_2 movbe popcnt aes xsave avx f16c rdrand hypervisor lahf_lm abm "
    "fsgsbase bmi1 avx2 smep bmi2 erms xsaveopt arat"
)
"""The CPU flags that the emulator reports, by the Linux kernel's names."""


def cpuinfo(cores: int) -> str:
    """``/proc/cpuinfo`` of that processor. Programs would otherwise see this host's flags, whose instructions do not
    run."""
    return "".join(
        f"processor\t: {number}\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 60\nmodel name\t: {MODEL}\n"
        f"stepping\t: 1\nphysical id\t: 0\nsiblings\t: {cores}\ncore id\t\t: {number}\ncpu cores\t: {cores}\n"
        f"apicid\t\t: {number}\ninitial apicid\t: {number}\nfpu\t\t: yes\nfpu_exception\t: yes\ncpuid level\t: 13\n"
        f"wp\t\t: yes\nflags\t\t: {FLAGS}\nclflush size\t: 64\ncache_alignment\t: 64\n"
        "address sizes\t: 40 bits physical, 48 bits virtual\n\n"
        for number in range(cores)
    )


def find_qemu(asked: str) -> str:
    """The emulator's path. Raises ``TargetUnavailable`` on a host that is no x86-64 Linux, or has none."""
    if platform.machine() != "x86_64":
        found = f"this host's processor is {platform.machine()}"
        raise TargetUnavailable(asked, found, "Use a Linux host with an x86-64 processor")
    require_programs(asked, {QEMU: PACKAGE})
    return find_program(QEMU) or QEMU


def prepare(folder: Path) -> None:
    """Write the files that :mod:`~edgedeploy.boards.emulated.guest` reads in its session's folder."""
    (folder / "cpuinfo").write_text(cpuinfo(os.cpu_count() or 1), encoding="ascii")


def environment(qemu: str) -> dict[str, str]:
    """This process's environment plus the emulator's processor. If a program drops the variable, QEMU's default
    processor has no VNNI either.

    If the emulator computes gather instructions wrongly, numpy's kernels that use them are disabled: its argsort would
    be wrong.
    """
    own = {"NPY_DISABLE_CPU_FEATURES": NUMPY_GATHERS} if gathers_wrongly(qemu) else {}
    return {**os.environ, **own, "QEMU_CPU": CPU}


def check(asked: str) -> None:
    """Run this interpreter on that processor. Raises ``TargetUnavailable`` where it cannot be."""
    qemu = find_qemu(asked)
    folder = Path(tempfile.mkdtemp(prefix="edgedeploy-x86-"))  # the guest removes it
    prepare(folder)
    show = (sys.executable, "-I", "-S", "-c", "print(open('/proc/cpuinfo').read())")
    command = guest_command("program", folder, qemu, *show)
    done = subprocess.run(
        command, env=environment(qemu), capture_output=True, text=True, check=False, timeout=CHECK_LIMIT_S
    )
    if done.returncode != 0 or MODEL not in done.stdout:
        raise refusal(asked, done.stderr)


GATHER = """
import ctypes, mmap
code = bytes.fromhex("c5fc1026 c5e576db c4e2659204a7 c5fc1102 c5f877 c3")
place = mmap.mmap(-1, len(code), prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
place.write(code)
table, index, found = (ctypes.c_int * 16)(*range(100, 116)), (ctypes.c_int * 8)(3, 1, 4, 1, 5, 9, 2, 6), (ctypes.c_int * 8)()
call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
call(ctypes.addressof(ctypes.c_char.from_buffer(place)))(table, index, found)
print(list(found) == [table[item] for item in index])
"""
"""``vmovups (%rsi),%ymm4; vpcmpeqd %ymm3,%ymm3,%ymm3; vgatherdps %ymm3,(%rdi,%ymm4,4),%ymm0; vmovups %ymm0,(%rdx)``"""


@functools.cache
def gathers_wrongly(qemu: str) -> bool:
    """Whether this emulator ignores gather indices in ``ymm4``, as QEMU did before 9.0.3 ("Fix VSIB decode")."""
    command = [qemu, "-cpu", CPU, sys.executable, "-I", "-S", "-c", GATHER]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=CHECK_LIMIT_S)
    return done.stdout.strip() == "False"
