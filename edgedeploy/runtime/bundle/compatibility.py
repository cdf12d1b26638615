"""Whether this machine is one that a bundle was made for: the runtime's release, the architecture, CPU flags, GPU and
driver.

What matches may still compute something else; that is what golden vectors are for. This says beforehand, in one
sentence, what a runtime would say late or not at all: without an instruction that was measured with, int8 is as right
and many times slower.
"""

from __future__ import annotations

import importlib.metadata
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgedeploy.runtime.bundle.manifest import Compatibility, RuntimeRange
from edgedeploy.runtime.faults import BundleError
from edgedeploy.runtime.sensors.accelerators import accelerators
from edgedeploy.runtime.sensors.probe import cpu_flags
from edgedeploy.runtime.sessions.sources import BUILTIN

_RELEASE = re.compile(r"v?(\d+(?:\.\d+)*)(.*)", re.DOTALL)
_BEFORE_RELEASE = re.compile(r"[._-]?(a|b|c|rc|alpha|beta|pre|preview|dev)", re.IGNORECASE)


@dataclass(frozen=True)
class Here:
    """What this machine has. ``installed`` is the release of the package that was asked about, None where it is not
    there."""

    machine: str
    cpu_flags: frozenset[str]
    installed: str | None
    gpus: tuple[str, ...] = ()
    driver: str | None = None


def look(package: str, system: Path = Path("/")) -> Here:
    """Of this machine; a Jetson's driver is its release of Jetson Linux."""
    return Here(
        machine=platform.machine(),
        cpu_flags=frozenset(cpu_flags(_read(system / "proc/cpuinfo"))),
        installed=_installed(package),
        gpus=tuple(accelerators(system)),
        driver=_read(system / "sys/module/nvidia/version").strip()
        or _read(system / "etc/nv_tegra_release").partition(", GCID")[0].strip("# \n")
        or None,
    )


def check(wanted: Compatibility, here: Here) -> None:
    """Raises :class:`BundleError` ``incompatible`` with what was asked, what is here and what to do."""
    if wanted.machine != here.machine:
        raise _refused(f"it was made for {wanted.machine}, and this machine is {here.machine}")
    missing = sorted(set(wanted.cpu_flags) - here.cpu_flags)
    if missing:
        raise _refused(
            f"it was measured with the CPU's {', '.join(wanted.cpu_flags)}, and this CPU has no {', '.join(missing)}"
        )
    _check_runtime(wanted.runtime, here.installed)
    if wanted.gpu is not None and not any(wanted.gpu in name for name in here.gpus):
        raise _refused(f"it was made for the GPU {wanted.gpu!r}, and here is {_list(here.gpus)}")
    if wanted.driver is not None and wanted.driver != here.driver:
        raise _refused(f"it was made for the driver {wanted.driver!r}, and here is {here.driver or 'none'}")


def _check_runtime(wanted: RuntimeRange, installed: str | None) -> None:
    """A range that nothing can be compared with is the bundle's fault, and refused as well."""
    said = f">={wanted.at_least}" + (f",<{wanted.below}" if wanted.below is not None else "")
    remedy = f"Install it: pip install '{wanted.package}{said}'"
    if installed is None:
        raise _refused(f"it runs on {wanted.package} {said}, which is not installed here", remedy)
    found = version_key(installed)
    if found < version_key(wanted.at_least) or (wanted.below is not None and found >= version_key(wanted.below)):
        measured = f"{wanted.package} {said} (measured with {wanted.measured_with})"
        raise _refused(f"it runs on {measured}, and {installed} is installed here", remedy)


def version_key(version: str) -> tuple[tuple[int, ...], bool]:
    """By what two releases are compared: the numbers without zeros at their end, and that 1.2rc1 comes before 1.2. Local
    and post releases count as the release. Raises ``incompatible`` for a text that begins with no number."""
    match = _RELEASE.fullmatch(version.strip())
    if match is None:
        raise _refused(f"{version[:80]!r} is no release that can be compared")
    numbers = [int(part) for part in match.group(1).split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers), _BEFORE_RELEASE.match(match.group(2)) is None


def _installed(package: str) -> str | None:
    """The release that is here of the package, or of another that brings the same runtime: boards have tflite-runtime or
    onnxruntime-gpu alone."""
    same = next((row.packages for row in BUILTIN.values() if package in row.packages), (package,))
    for name in sorted(same, key=lambda name: name != package):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _list(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _refused(found: str, remedy: str = "") -> BundleError:
    return BundleError("incompatible", found, remedy)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
