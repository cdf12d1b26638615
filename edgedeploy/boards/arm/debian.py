"""Downloads and unpacks Debian packages of another architecture, from the archive that this host's apt already trusts.

apt gets separate folders for all of its state, so the host's packages are not touched. No maintainer script runs: files
are only unpacked.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgedeploy.errors import CommandFailed, TargetUnavailable

ARCHITECTURE = "arm64"
MERGED = ("bin", "lib", "sbin")
"""Folders of the root that are links into ``usr``. They are made before unpacking, because some packages still use the
old paths."""


@dataclass(frozen=True)
class Apt:
    """apt for :data:`ARCHITECTURE` in ``folder``, with this host's sources and keys."""

    folder: Path

    @property
    def _options(self) -> list[str]:
        settings = {
            "APT::Architecture": ARCHITECTURE,
            "APT::Architectures": ARCHITECTURE,
            "APT::Sandbox::User": "root",
            "APT::Immediate-Configure": "false",
            "Acquire::Languages": "none",
            "Dir::State": str(self.folder / "state"),
            "Dir::State::status": str(self.folder / "status"),
            "Dir::Cache": str(self.folder / "cache"),
        }
        return [f"-o{name}={value}" for name, value in settings.items()]

    def update(self) -> None:
        """Fetch the archive's lists. Raises ``TargetUnavailable`` where it cannot be reached."""
        (self.folder / "state/lists/partial").mkdir(parents=True, exist_ok=True)
        (self.folder / "cache/archives/partial").mkdir(parents=True, exist_ok=True)
        (self.folder / "status").touch()
        try:
            run(["apt-get", *self._options, "-qq", "update", "--error-on=any"])
        except CommandFailed as exc:
            asked = f"package lists of {ARCHITECTURE}"
            raise TargetUnavailable(asked, exc.found, "Check this host's apt sources and its network") from exc

    def fetch(self, packages: Sequence[str]) -> list[Path]:
        """Download packages with all that they depend on; their files, sorted."""
        run(
            ["apt-get", *self._options, "-qq", "-y", "--no-install-recommends", "--download-only", "install", *packages]
        )
        return sorted((self.folder / "cache/archives").glob("*.deb"))

    def fetch_alone(self, package: str) -> Path:
        """Download one package and nothing that it depends on."""
        place = self.folder / "alone" / package
        place.mkdir(parents=True)
        run(["apt-get", *self._options, "-qq", "download", package], folder=place)
        return next(place.glob("*.deb"))

    def dependency(self, package: str, prefix: str) -> str:
        """The first dependency of ``package`` whose name begins with ``prefix``: the package behind a meta-package."""
        text = run(["apt-cache", *self._options, "depends", package])
        for line in text.splitlines():
            _, depends, name = line.partition("Depends:")
            if depends and name.strip().startswith(prefix):
                return name.strip()
        raise CommandFailed(f"find the package behind {package}", f"it depends on no {prefix}*")


def unpack(archives: Sequence[Path], root: Path) -> None:
    """Unpack packages into ``root`` with their owners and modes."""
    for name in MERGED:
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        if not (root / name).exists():
            (root / name).symlink_to(f"usr/{name}")
    for archive in archives:
        reader = ["dpkg-deb", "--fsys-tarfile", str(archive)]
        with subprocess.Popen(reader, stdout=subprocess.PIPE) as source:
            options = ["--keep-directory-symlink", "--numeric-owner", "-xpf", "-"]
            run(["tar", "-C", str(root), *options], stdin=source.stdout)
        if source.returncode != 0:
            raise CommandFailed(f"unpack {archive.name}", f"dpkg-deb ended with {source.returncode}", "Build it again")


def run(argv: Sequence[str], *, folder: Path | None = None, stdin: object = subprocess.DEVNULL) -> str:
    """The command's output. Raises ``CommandFailed`` with the end of what it said."""
    try:
        done = subprocess.run(
            list(argv),
            stdin=stdin,  # type: ignore[call-overload]
            capture_output=True,
            text=True,
            errors="replace",
            cwd=folder,
            check=False,
        )
    except FileNotFoundError:
        raise CommandFailed(f"run {argv[0]}", "it is not installed", "Install the package that brings it") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()[-800:]
        raise CommandFailed(
            f"run {argv[0]}", said or f"exit status {done.returncode}", "Is the package archive reached?"
        )
    return str(done.stdout)
