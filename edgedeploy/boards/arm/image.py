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

Machine = Literal["arm64", "arm64-system"]
MACHINES: Final[tuple[Machine, ...]] = ("arm64", "arm64-system")

LAYOUT: Final = 1
"""One higher whenever the same packages would make another image."""

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
"""Wheels of the board: each in the version that this host has, else the newest."""

PROGRAMS: Final[Mapping[Machine, Mapping[str, str]]] = {
    "arm64": {"qemu-aarch64-static": "qemu-user-static"},
    "arm64-system": {"qemu-system-aarch64": "qemu-system-arm"},
}
"""What runs a machine here: program to Debian package."""


@dataclass(frozen=True)
class Image:
    """A machine's image in ``folder``; ``identity`` is the machine id that the board shows, a digest of the contents."""

    machine: Machine
    key: str
    folder: Path

    @property
    def root(self) -> Path:
        """The file system of ``arm64``; nothing ever runs in it in place, it is bound read-only."""
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
        """Written last: an image without it is not one."""
        return self.folder / "manifest.json"

    def exists(self) -> bool:
        return self.manifest.is_file()

    def contents(self) -> Mapping[str, str]:
        """Versions of everything in the image, by package."""
        found: Mapping[str, str] = read_json(self.manifest)["contents"]
        return found


def image_of(machine: Machine, cache: Path | None = None) -> Image:
    """Where the image with today's contents is, whether or not it exists."""
    key = digest_of({"layout": LAYOUT, "machine": machine, "packages": list(PACKAGES), "wheels": requirements()})[:16]
    return Image(machine, key, (cache or cache_folder()) / f"{machine}-{key}")


def require_image(machine: Machine, cache: Path | None = None) -> Image:
    """The image, ready to be started. Raises ``TargetUnavailable`` with the command that mends what is missing."""
    asked = f"emulated:{machine}"
    require_programs(asked, PROGRAMS[machine])
    if machine == "arm64":
        require_root(asked)
    image = image_of(machine, cache)
    if not image.exists():
        raise TargetUnavailable(asked, "its image is not built on this host", f"edgedeploy boards create {machine}")
    return image


def require_root(asked: str) -> None:
    """Raises ``TargetUnavailable``: another owner's files and mounts of one's own are root's alone."""
    if os.getuid() != 0:
        raise TargetUnavailable(asked, "it needs root, and this user is not", "Run as root")


def cache_folder() -> Path:
    """EDGEDEPLOY_CACHE, else the user's cache folder."""
    own = os.environ.get("EDGEDEPLOY_CACHE")
    base = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgedeploy"
    return base / "boards"


def requirements(version: Callable[[str], str] = importlib.metadata.version) -> list[str]:
    """What pip is asked for: artifacts that were built here are run by the version that built them."""
    wanted = ["numpy>=1.26,<3"]
    for name in RUNTIMES:
        try:
            wanted.append(f"{name}=={version(name)}")
        except importlib.metadata.PackageNotFoundError:
            wanted.append(name)
    return wanted
