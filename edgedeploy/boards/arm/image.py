"""What the image of an emulated Arm board holds, where it is kept, and whether it is there."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from edgedeploy.boards.emulated.hosting import require_programs
from edgedeploy.errors import TargetUnavailable
from edgedeploy.files import read_json
from edgedeploy.records.variant import digest_of

ArmMachine = Literal["arm64", "arm64-system"]
ARM_MACHINES: Final[tuple[ArmMachine, ...]] = ("arm64", "arm64-system")

LAYOUT: Final = 1
"""Version of the image's layout: raise it when the same packages would give another image."""

PACKAGES: Final = (
    *(
        "base-files",
        "base-passwd",
        "libc-bin",
        "dash",
        "bash",
        "coreutils",
        "sed",
        "grep",
        "findutils",
        "busybox-static",
    ),
    *("python3", "openssh-server", "libstdc++6", "libgomp1"),
)
"""Debian's: a shell, an SSH server, Python, and what the runtimes link to."""

RUNTIMES: Final = ("onnxruntime", "openvino", "ai-edge-litert")
"""Wheels on the board, each in the version that this host has, else the newest."""

PROGRAMS: Final[Mapping[ArmMachine, Mapping[str, str]]] = {
    "arm64": {"qemu-aarch64-static": "qemu-user-static"},
    "arm64-system": {"qemu-system-aarch64": "qemu-system-arm"},
}
"""Programs that emulate a machine on this host -> their Debian packages."""


@dataclass(frozen=True)
class Image:
    """A machine's image in ``folder``; ``identity`` is the machine id that the board shows, a digest of the contents."""

    machine: ArmMachine
    key: str
    folder: Path

    @property
    def root(self) -> Path:
        """The file system of ``arm64``. It is only mounted read-only; no program runs in it directly."""
        return self.folder / "root"

    @property
    def disk(self) -> Path:
        return self.folder / "disk.img"

    @property
    def kernel(self) -> Path:
        return self.folder / "kernel"

    @property
    def initrd(self) -> Path:
        return self.folder / "initrd"

    @property
    def manifest(self) -> Path:
        """Written last: an image without it is incomplete."""
        return self.folder / "manifest.json"

    def exists(self) -> bool:
        return self.manifest.is_file()

    def contents(self) -> Mapping[str, str]:
        """Versions of everything in the image, by package."""
        found: Mapping[str, str] = read_json(self.manifest)["contents"]
        return found


def image_of(machine: ArmMachine, cache: Path | None = None) -> Image:
    """The image of this version's contents, whether or not it exists."""
    key = digest_of({"layout": LAYOUT, "machine": machine, "packages": list(PACKAGES), "wheels": requirements()})[:16]
    return Image(machine, key, (cache or cache_folder()) / f"{machine}-{key}")


def require_image(machine: ArmMachine, cache: Path | None = None) -> Image:
    """The image, ready to be started. Raises ``TargetUnavailable`` with the command that builds what is missing."""
    asked = f"emulated:{machine}"
    require_programs(asked, PROGRAMS[machine])
    if machine == "arm64":
        require_root(asked)
    image = image_of(machine, cache)
    if not image.exists():
        raise TargetUnavailable(asked, "its image is not built on this host", f"edgedeploy boards create {machine}")
    return image


def require_root(asked: str) -> None:
    """Raises ``TargetUnavailable`` for any user but root, who alone may change file owners and mount."""
    if os.getuid() != 0:
        raise TargetUnavailable(asked, "it needs root, and this user is not", "Run as root")


def cache_folder() -> Path:
    """EDGEDEPLOY_CACHE, else the user's cache folder."""
    own = os.environ.get("EDGEDEPLOY_CACHE")
    base = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgedeploy"
    return base / "boards"


def requirements(version: Callable[[str], str] = importlib.metadata.version) -> list[str]:
    """Requirements for pip. Versions equal this host's, so that an artifact runs on the version that built it."""
    wanted = ["numpy>=1.26,<3"]
    for name in RUNTIMES:
        try:
            wanted.append(f"{name}=={version(name)}")
        except importlib.metadata.PackageNotFoundError:
            wanted.append(name)
    return wanted
