"""Activates a bundle on a device: a release folder by identity, proved there, made current in one step.

    ROOT/releases/IDENTITY/   the bundle's files, written from the bytes that were verified
    ROOT/current              a link to one of them: what readers open, once (``load("ROOT/current", ...)``)
    ROOT/state/state.json     the highest release that was ever active, and the one to go back to
    ROOT/state/lock           held by the one activation that runs

The state is on the disk before ``current`` changes. A process that is killed, or a power cut, at any point leaves the
old release or the new one, whole; what else it leaves, the next activation removes. Two releases are kept.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from edgedeploy.runtime.bundle.load import load
from edgedeploy.runtime.bundle.names import SIGNATURE
from edgedeploy.runtime.bundle.state import IDENTITY, State, read_state, write_state
from edgedeploy.runtime.bundle.tree import Tree, read_tree
from edgedeploy.runtime.bundle.verify import Trust, verify
from edgedeploy.runtime.faults import BundleError, RuntimeFault
from edgedeploy.runtime.files import PART_PREFIX, sync_folder, write_synced

CURRENT = "current"


@dataclass(frozen=True)
class Activation:
    """What is current now, and what was ``before``; equal when nothing had to change."""

    name: str
    release: int
    identity: str
    before: str | None


class Releases:
    """The files below one root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "releases"
        self.state_file = root / "state" / "state.json"
        self.lock = root / "state" / "lock"

    def current(self) -> str | None:
        """The identity that ``current`` leads to. Raises :class:`BundleError` ``unreadable`` for one that is no link of
        ours."""
        link = self.root / CURRENT
        try:
            target = os.readlink(str(link))
        except FileNotFoundError:
            return None
        folder, _, identity = target.rpartition("/")
        if folder != self.folder.name or not IDENTITY.fullmatch(identity):
            raise BundleError("unreadable", f"{link} leads to {target!r}, which is no release of {self.root}")
        return identity

    def state(self) -> State:
        """Written first of all, so that a device with releases has one. Raises :class:`BundleError`
        ``missing_state``."""
        found = read_state(self.state_file)
        if found is None:
            if self.current() is not None or (self.folder.is_dir() and any(self.folder.iterdir())):
                raise BundleError("missing_state", f"{self.root} has releases, and {self.state_file} is gone")
            found = State()
            write_state(self.state_file, found)
        return found

    def clean(self, keep: set[str | None]) -> None:
        """Remove what an activation left that was cut short, and releases that are not to be kept."""
        self.remove_parts()
        if self.folder.is_dir():
            for path in self.folder.iterdir():
                if path.name not in keep:
                    _remove(path)

    def remove_parts(self) -> None:
        for folder in (self.root, self.folder, self.state_file.parent):
            for path in folder.glob(f"{PART_PREFIX}*"):
                _remove(path)

    @contextlib.contextmanager
    def tidied(self) -> Iterator[None]:
        """Around what may fail, of a full disk too: what the next activation would remove is removed at once."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError, BundleError):
                self.remove_parts()  # first of all: it makes room
                state = read_state(self.state_file)
                if state is not None:
                    current = self.current()
                    self.clean({current, state.before(current)})
            raise

    def has_files_of(self, tree: Tree) -> bool:
        """Whether the release is there, whole, with another signature or with one where ``tree`` has none."""
        try:
            there = read_tree(self.folder / tree.identity)
        except BundleError:
            return False
        return there.identity == tree.identity and there.digests != tree.digests

    def sign(self, tree: Tree) -> None:
        """Put the signature of ``tree`` into the release of its files, in one step; without one, leave what is there."""
        if SIGNATURE in tree.files:
            part = self.root / f"{PART_PREFIX}{SIGNATURE}"
            write_synced(part, tree.read(SIGNATURE))
            part.replace(self.folder / tree.identity / SIGNATURE)
            sync_folder(self.folder / tree.identity)

    def write(self, tree: Tree) -> Path:
        """The release's folder, whole and on the disk. One of the same bytes is left as it is."""
        place = self.folder / tree.identity
        self.folder.mkdir(exist_ok=True)
        if place.exists() and _has(place, tree):
            return place
        part = self.folder / f"{PART_PREFIX}{tree.identity}"
        part.mkdir()
        folders = {part}
        for name, data in tree.files.items():
            path = part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            folders.update(parent for parent in path.parents if part in parent.parents)
            write_synced(path, data)
        for folder in folders:
            sync_folder(folder)
        if place.exists():  # damaged since
            place.rename(self.folder / f"{PART_PREFIX}{tree.identity}.old")
        part.rename(place)
        sync_folder(self.folder)
        sync_folder(self.root)
        return place

    def swap(self, identity: str) -> None:
        """Readers see the old release until they see this one."""
        part = self.root / f"{PART_PREFIX}{CURRENT}"
        part.symlink_to(f"{self.folder.name}/{identity}")
        part.replace(self.root / CURRENT)
        sync_folder(self.root)


def activate(
    bundle: str | os.PathLike[str], *, trust: Trust, root: str | os.PathLike[str], now: datetime | None = None
) -> Activation:
    """Make ``bundle`` the current release below ``root``, which is made when it is not there. ``now``: see :func:`load`.

    Raises :class:`BundleError` with what :func:`load` refuses, ``downgrade`` and ``missing_state``: the release that
    was current stays. Raises :class:`RuntimeFault` ``busy`` while another activation runs.
    """
    releases = Releases(Path(root))
    with _disk_told(releases.root), _alone(releases), releases.tidied():
        verified = verify(bundle, trust, now=now)
        state, current, manifest = releases.state(), releases.current(), verified.manifest
        releases.clean({current, state.before(current)})
        state.admit(manifest.name, manifest.release, verified.identity)
        signed_anew = releases.has_files_of(verified.tree)
        place = releases.folder / verified.identity if signed_anew else releases.write(verified.tree)
        # Of a release that is there, the folder is not touched before its bundle is proved.
        model = load(bundle if signed_anew else place, trust=trust)
        if model.identity != verified.identity:
            raise BundleError("tampered", f"{os.fspath(bundle)} was exchanged while it was activated")
        if signed_anew:
            releases.sign(verified.tree)
        after = state.activated(manifest.name, manifest.release, verified.identity, current)
        write_state(releases.state_file, after)
        releases.swap(verified.identity)
        releases.clean({verified.identity, after.before(verified.identity)})
        return Activation(manifest.name, manifest.release, verified.identity, current)


def roll_back(*, trust: Trust, root: str | os.PathLike[str]) -> Activation:
    """Make the release before the current one current again, if it still passes. What was highest is still remembered.

    Raises as :func:`activate`; :class:`BundleError` ``unreadable`` where there is none to go back to.
    """
    releases = Releases(Path(root))
    with _disk_told(releases.root), _alone(releases), releases.tidied():
        state, current = releases.state(), releases.current()
        previous = state.before(current)
        if previous is None or not (releases.folder / previous).is_dir():
            raise BundleError("unreadable", f"{releases.root} keeps no release before the current one", "Activate one")
        releases.clean({current, previous})
        model = load(releases.folder / previous, trust=trust)
        if model.identity != previous:
            raise BundleError("tampered", f"release {previous} has another identity than its folder")
        write_state(releases.state_file, state.rolled_back(previous))
        releases.swap(previous)
        return Activation(model.name, model.release, previous, current)


def _remove(path: Path) -> None:
    """A folder with what is in it, a file, or a link, and never what a link leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _has(place: Path, tree: Tree) -> bool:
    try:
        return read_tree(place).digests == tree.digests
    except BundleError:
        return False


@contextlib.contextmanager
def _alone(releases: Releases) -> Iterator[None]:
    """The lock goes with the process that holds it."""
    releases.lock.parent.mkdir(parents=True, exist_ok=True)
    with releases.lock.open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            if exc.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            raise RuntimeFault("busy", f"another activation runs at {releases.root}") from exc
        yield


@contextlib.contextmanager
def _disk_told(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise BundleError("unreadable", f"{exc.filename or root}: {exc.strerror or exc}") from exc
