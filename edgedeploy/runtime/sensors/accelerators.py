"""Lists a board's accelerators (GPU, DLA, NPU, TPU) from the kernel's files. Whether a runtime uses one shows only in a
measurement."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

IN_DEVICE_TREE = (
    ("DLA", re.compile(r"nvidia,tegra\d+-nvdla")),
    ("GPU", re.compile(r"nvidia,(?:gm20b|gp10b|gv11b|ga10b)")),
    ("GPU", re.compile(r"arm,mali-[\w-]+|brcm,\d+-v3d")),
    ("NPU", re.compile(r"rockchip,\S*rk(?:npu|nn)\S*|arm,ethos-u\d+")),
)
"""Kind of accelerator, and the device tree's ``compatible`` word of such a device."""

IN_CLASSES = (("accel", "accel*", "NPU"), ("apex", "apex_*", "TPU"), ("hailo_chardev", "hailo*", "NPU"))
"""Folder of ``/sys/class``, its entries, and what they are: the kernel's own class, Coral's Edge TPU, Hailo's NPU."""

VENDORS = {"0x1002": "AMD", "0x10de": "NVIDIA", "0x8086": "Intel"}
"""Vendors of PCI graphics devices that can compute; others are displays of servers or virtual machines."""


def accelerators(system: Path = Path("/")) -> list[str]:
    """Kind, name and, if more than one, the number: ``GPU NVIDIA H200`` or ``DLA nvidia,tegra234-nvdla (2)``."""
    nvidia = list(_nvidia(system))
    found = [*nvidia, *_device_tree(system), *_graphics(system, nvidia=bool(nvidia)), *_classes(system)]
    return [name if count == 1 else f"{name} ({count})" for name, count in sorted(Counter(found).items())]


def _nvidia(system: Path) -> Iterator[str]:
    """NVIDIA cards by the model names that their driver gives."""
    for path in sorted(system.glob("proc/driver/nvidia/gpus/*/information")):
        fields = dict(line.partition(":")[::2] for line in _read(path).splitlines())
        yield f"GPU {fields.get('Model', '').strip() or 'NVIDIA'}"


def _device_tree(system: Path) -> Iterator[str]:
    for path in sorted(system.glob("sys/bus/platform/devices/*/of_node/compatible")):
        words = _read(path).split("\0")
        kinds = (kind for kind, pattern in IN_DEVICE_TREE if any(pattern.fullmatch(word) for word in words))
        kind = next(kinds, None)
        if kind is not None:
            yield f"{kind} {words[0]}"


def _graphics(system: Path, *, nvidia: bool) -> Iterator[str]:
    """PCI graphics devices that can compute; without those of NVIDIA when ``nvidia``: its driver has listed them
    already."""
    for path in sorted(system.glob("sys/class/drm/renderD*/device/vendor")):
        vendor = VENDORS.get(_read(path).strip())
        if vendor is not None and not (nvidia and vendor == "NVIDIA"):
            yield f"GPU {vendor} {_read(path.with_name('device')).strip()}"


def _classes(system: Path) -> Iterator[str]:
    for folder, entries, kind in IN_CLASSES:
        for path in sorted(system.glob(f"sys/class/{folder}/{entries}")):
            driver = path / "device" / "driver"
            yield f"{kind} {driver.resolve().name if driver.exists() else folder}"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
