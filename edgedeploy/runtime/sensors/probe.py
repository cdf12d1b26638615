"""What this machine is and can do, without importing any backend."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgedeploy.runtime.processes import boot_id
from edgedeploy.runtime.sensors.accelerators import accelerators
from edgedeploy.runtime.sensors.environment import governor
from edgedeploy.runtime.sensors.powermode import PowerModes
from edgedeploy.runtime.sessions.sources import known

X86_FLAGS = (
    *("ssse3", "sse4_1", "avx", "avx2", "fma", "f16c", "gfni"),
    *("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx512vbmi"),
    *("avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni", "avx_vnni_int8", "avx_ne_convert"),
    *("amx_tile", "amx_int8", "amx_bf16", "amx_fp16"),
)
ARM_FLAGS = ("neon", "asimd", "asimddp", "asimdhp", "fphp", "i8mm", "bf16", "sve", "sve2", "sme", "sme2")
"""CPU flags, by the kernel's names, that decide which numeric kernels exist: what ONNX Runtime's MLAS, oneDNN (OpenVINO) and
XNNPACK (LiteRT) choose by. Linux shows some of the newest in its newer releases only."""


def probe() -> dict[str, Any]:
    """The fields of ``BoardInfo`` that the board itself can tell."""
    cpuinfo = _read(Path("/proc/cpuinfo"))
    notes = []
    machine = _read(Path("/etc/machine-id")) or _read(Path("/var/lib/dbus/machine-id"))
    if not machine:
        machine = platform.node()
        notes.append("no machine id: the host name stands for it")
    if _installed(("numpy",)) is None:
        notes.append("numpy is not installed: nothing can be measured")
    runtimes = {}
    for target, source in sorted(known().items()):
        version = _installed(source.packages)
        problem = None if version is None else _foreign(source.packages)
        if version is not None and problem is None:
            runtimes[target] = version
        elif problem is not None and problem not in notes:
            notes.append(problem)
    return {
        "identity": hashlib.sha256(machine.strip().encode()).hexdigest(),
        "boot_id": boot_id(),
        "cpu": cpu_model(cpuinfo),
        "arch": platform.machine(),
        "isa": isa_of(cpuinfo),
        "isa_known": sorted(known_flags()),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "os": f"{_os_name()}, Linux {platform.release()}",
        "python": platform.python_version(),
        "runtimes": runtimes,
        "governor": governor(),
        "notes": notes,
        "power_modes": PowerModes(Path()).offered(),
        "serial": serial_number(),
        "image": image_name(),
        "accelerators": accelerators(),
        "codecs": _installed(("imagecodecs",)) or "",
    }


def serial_number(system: Path = Path("/")) -> str:
    """The maker's, from the device tree or, for root, the firmware; empty where neither tells."""
    for name in ("proc/device-tree/serial-number", "sys/class/dmi/id/product_serial"):
        found = _read(system / name).strip("\0\n ")
        if found:
            return found
    return ""


def image_name(system: Path = Path("/")) -> str:
    """What was flashed: the release line of a Jetson, else what the system's release file calls image or build."""
    tegra = _read(system / "etc/nv_tegra_release").partition("\n")[0].strip("# ")
    fields = dict(line.partition("=")[::2] for line in _read(system / "etc/os-release").splitlines())
    names = ("ID", "VERSION_ID", "IMAGE_ID", "IMAGE_VERSION", "BUILD_ID")
    release = " ".join(fields[name].strip("\"'") for name in names if fields.get(name))
    return ", ".join(part for part in (tegra, release) if part)


def cpu_model(cpuinfo: str) -> str:
    """The CPU's name: x86 says ``model name``; on Arm boards the device tree or ``Model`` names the machine."""
    for key in ("model name", "Model", "Hardware"):
        for line in cpuinfo.splitlines():
            name, _, value = line.partition(":")
            if name.strip() == key and value.strip():
                return value.strip()
    tree = _read(Path("/proc/device-tree/model")).rstrip("\0\n")
    return tree or platform.processor() or "unknown"


def known_flags() -> tuple[str, ...]:
    """The flags that matter on this architecture."""
    return ARM_FLAGS if platform.machine().startswith(("arm", "aarch64")) else X86_FLAGS


def isa_of(cpuinfo: str) -> list[str]:
    """Those of the flags that matter which every core has."""
    return sorted(cpu_flags(cpuinfo).intersection(known_flags()))


def isa_here() -> list[str]:
    """Of this machine; empty where the kernel does not tell."""
    return isa_of(_read(Path("/proc/cpuinfo")))


def cpu_flags(cpuinfo: str) -> set[str]:
    """Flags that every core has: on big.LITTLE boards a kernel may run on any of them."""
    found = [
        set(line.partition(":")[2].split())
        for line in cpuinfo.splitlines()
        if line.partition(":")[0].strip() in ("flags", "Features")
    ]
    return set.intersection(*found) if found else set()


def _installed(distributions: Iterable[str]) -> str | None:
    for name in distributions:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _foreign(distributions: Iterable[str]) -> str | None:
    """What is wrong with an installed package whose libraries this machine cannot load; None when nothing is.

    pip installs wheels of other architectures when it is told to (``--platform``, a copied environment), and the package
    then looks installed until it is imported. The first library's ELF header tells without importing anything.
    """
    for name in distributions:
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        for file in found.files or ():
            if file.name.endswith(".so"):
                theirs, ours = _elf_machine(Path(str(found.locate_file(file)))), _elf_machine(Path(sys.executable))
                if theirs is not None and ours is not None and theirs != ours:
                    return f"{name} is installed for another architecture ({_elf_name(theirs)}, not {_elf_name(ours)})"
                break
    return None


def _elf_machine(path: Path) -> int | None:
    """The header's ``e_machine``; None for what is no ELF file."""
    try:
        with path.open("rb") as stream:
            header = stream.read(20)
    except OSError:
        return None
    if len(header) < 20 or header[:4] != b"\x7fELF":
        return None
    return int.from_bytes(header[18:20], "big" if header[5] == 2 else "little")


def _elf_name(machine: int) -> str:
    return {3: "x86", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv"}.get(machine, f"ELF machine {machine}")


def _os_name() -> str:
    for line in _read(Path("/etc/os-release")).splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip('"')
    return platform.system()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
