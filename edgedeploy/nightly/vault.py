"""What is frozen of a lab's entries: artifacts and arrays by their digest, and what was accepted of each entry.

    artifacts/DIGEST/           an artifact's files             arrays/SHA256.npz   inputs, and accepted answers
    entries/ID/N/accepted.json  the N-th that was accepted      entries/ID/N/answers.json  its accepted answers
    entries/ID/N/boards/*.json  each board as it was on its first night since then

Nothing here is ever changed or removed: what is accepted anew is the next N, and the largest holds.
"""

from __future__ import annotations

import fcntl
import io
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from edgedeploy.errors import DamagedFile, StorageError
from edgedeploy.files import (
    PARTIAL_PREFIX,
    disk_told,
    lock_file,
    new_folder,
    parsed,
    read_arrays,
    read_plain,
    write_arrays,
    write_json,
)
from edgedeploy.interfaces.task import Array
from edgedeploy.records.artifact import Artifact, ArtifactFile, TensorSpec
from edgedeploy.records.job import Payload
from edgedeploy.records.night import Accepted, ArtifactState
from edgedeploy.records.variant import digest_of
from edgedeploy.runtime.files import sha256_file
from edgedeploy.runtime.wire.serde import from_json, to_json

FORMAT: Final = "edgedeploy-frozen"
VERSION: Final = 1
Record = TypeVar("Record")

_FAULTS: Final = (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
"""What reading a damaged record raises."""


@dataclass(frozen=True)
class FrozenSide:
    """One side of a measurement. ``inputs`` is the SHA-256 of its arrays."""

    artifact: Artifact
    threads: int
    states: Mapping[str, str]
    inputs: str


@dataclass(frozen=True)
class Frozen:
    """What was accepted of an entry. ``generation`` counts from 1. ``inputs`` is the SHA-256 of the arrays on which what is
    shipped runs, each stacked along a new first axis; ``takes`` is what it took then. ``tolerance`` is how far an output may
    be from the accepted answers (relative L2, each case by itself). ``same_cases``: both sides answer the same cases."""

    entry: str
    accepted_utc: str
    artifact: ArtifactState
    takes: tuple[TensorSpec, ...]
    baseline: FrozenSide
    inputs: str
    tolerance: Mapping[str, float]
    same_cases: bool = False
    generation: int = 1
    format: str = FORMAT
    version: int = VERSION


@dataclass(frozen=True)
class Answers:
    """The accepted answers: ``outputs`` is the SHA-256 of their arrays, ``of`` says who gave them."""

    outputs: str
    of: str


class Vault:
    """The folder of a lab in which everything is frozen. Constructing it touches nothing."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def held(self, entry: str) -> Iterator[None]:
        """One thread or process at a time accepts something of an entry."""
        with self._lock(self.root / "entries" / entry) as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def _lock(self, folder: Path) -> io.BufferedRandom:
        """Raises ``StorageError`` where this user cannot write."""
        with disk_told(folder):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                return lock_file(folder / "lock")
            except (PermissionError, NotADirectoryError, FileExistsError) as exc:
                remedy = "Make it a folder that this user may write to, or choose another `out`"
                raise StorageError(f"frozen files in {folder}", exc.strerror or type(exc).__name__, remedy) from None

    def latest(self, entry: str) -> Frozen | None:
        """What is accepted now; None before anything was. Raises ``DamagedFile``."""
        number = self.generation(entry)
        if not number:
            return None
        path = self._folder(entry, number) / "accepted.json"
        found = _read(path, Frozen)
        if (found.format, found.version) != (FORMAT, VERSION):
            raise _damaged(path, f"it is no {FORMAT} of version {VERSION}")
        return found

    def generation(self, entry: str) -> int:
        """How often something was accepted of an entry; 0 before the first time."""
        folders = (self.root / "entries" / entry).glob("[0-9]*")
        return max((int(path.name) for path in folders if path.name.isdigit()), default=0)

    def accept(self, frozen: Frozen, answers: Mapping[str, Array] | None = None, of: str = "") -> None:
        """Whoever calls it holds the entry. ``answers`` are accepted with it where there are any yet."""
        outputs = "" if answers is None else self.keep_arrays(answers)
        with new_folder(self._folder(frozen.entry, frozen.generation)) as part:
            if outputs:
                write_json(part / "answers.json", to_json(Answers(outputs, of)))
            write_json(part / "accepted.json", to_json(frozen))

    def answers(self, frozen: Frozen) -> dict[str, Array] | None:
        """The accepted answers by output; None before there are any. Raises ``DamagedFile``."""
        path = self._folder(frozen.entry, frozen.generation) / "answers.json"
        if not path.exists():
            return None
        place = self.arrays_path(_read(path, Answers).outputs)
        try:
            return read_arrays(place)
        except ValueError as exc:
            raise _damaged(place, str(exc)) from None

    def keep_answers(self, frozen: Frozen, outputs: Mapping[str, Array], of: str) -> None:
        """Accept ``outputs`` unless there are accepted answers already: they never change."""
        with self.held(frozen.entry):
            path = self._folder(frozen.entry, frozen.generation) / "answers.json"
            if not path.exists():
                write_json(path, to_json(Answers(self.keep_arrays(outputs), of)))

    def board(self, frozen: Frozen, board: str) -> Accepted | None:
        """The board as it was on its first night with what is frozen; None before that. Raises ``DamagedFile``."""
        path = self._board_path(frozen, board)
        return _read(path, Accepted) if path.exists() else None

    def keep_board(self, frozen: Frozen, board: str, accepted: Accepted) -> None:
        """Unless the board was kept already."""
        with self.held(frozen.entry):
            if not self._board_path(frozen, board).exists():
                write_json(self._board_path(frozen, board), accepted.as_json())

    def _board_path(self, frozen: Frozen, board: str) -> Path:
        """Boards may have any name."""
        return self._folder(frozen.entry, frozen.generation) / "boards" / f"{digest_of(board)[:16]}.json"

    def keep_arrays(self, arrays: Mapping[str, Array]) -> str:
        """Keep arrays under the digest that is returned: equal arrays are one file."""
        part = self.root / "arrays" / f"{PARTIAL_PREFIX}{uuid.uuid4().hex}.npz"
        with disk_told(part):
            try:
                write_arrays(part, arrays)
                sha256 = sha256_file(part)
                part.replace(part.with_name(f"{sha256}.npz"))
            finally:
                part.unlink(missing_ok=True)
        return sha256

    def arrays_path(self, sha256: str) -> Path:
        """The file of arrays that were kept. Raises ``DamagedFile``."""
        return _whole(self.root / "arrays" / f"{sha256}.npz", sha256)

    def keep_artifact(self, artifact: Artifact, source: Path | Mapping[str, bytes]) -> Path:
        """A folder with the artifact's files, taken from the folder or the bytes ``source`` where it is not whole yet.
        Raises ``DamagedFile`` when they are not the artifact's."""
        folder = self.root / "artifacts" / artifact.digest
        if all(_is_whole(folder, item) for item in artifact.files):
            return folder
        with new_folder(folder) as part:
            for item in artifact.files:
                if isinstance(source, Path):
                    shutil.copyfile(source / item.name, part / item.name)
                else:
                    (part / item.name).write_bytes(source[item.name])
                if not _is_whole(part, item):
                    raise _damaged(part / item.name, "it changed while it was copied")
        return folder

    def payload(self, side: FrozenSide) -> Payload:
        """A frozen side, ready for a board. Raises ``DamagedFile``, which names the file."""
        folder = self.root / "artifacts" / side.artifact.digest
        for item in side.artifact.files:
            _whole(folder / item.name, item.sha256)
        return Payload(side.artifact, folder, self.arrays_path(side.inputs), side.threads, side.states)

    def _folder(self, entry: str, generation: int) -> Path:
        return self.root / "entries" / entry / str(generation)


def _read(path: Path, kind: type[Record]) -> Record:
    try:
        return from_json(kind, parsed(read_plain(path)), kept=True)
    except _FAULTS as exc:
        raise _damaged(path, str(exc)[:300]) from None


def _is_whole(folder: Path, item: ArtifactFile) -> bool:
    path = folder / item.name
    return path.is_file() and not path.is_symlink() and sha256_file(path) == item.sha256


def _whole(path: Path, sha256: str) -> Path:
    if path.is_symlink() or not path.is_file():
        raise _damaged(path, "there is no such file")
    if sha256_file(path) != sha256:
        raise _damaged(path, "it is not the file that was accepted")
    return path


def _damaged(path: Path, found: str) -> DamagedFile:
    remedy = "Put a copy of it back, or accept what is shipped now: edgedeploy nightly accept LAB.toml ID --why TEXT"
    return DamagedFile(f"frozen file {path}", found, remedy)
