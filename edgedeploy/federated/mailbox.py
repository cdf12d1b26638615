"""How requests and answers travel: as files in a folder that both sides see, or that somebody carries.

SPOOL/to-site/003.json        a request          SPOOL/to-site/SHA256.bin   a checkpoint, by its hash
SPOOL/from-site/003.json      its answer

Every file is written whole or not at all, so a folder that is copied while it is written to has no half of one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, Protocol

from edgedeploy.errors import DataError
from edgedeploy.federated.messages import MOST_REQUEST_BYTES
from edgedeploy.files import disk_told, new_folder, read_plain, remove, write_atomic, write_new, written
from edgedeploy.runtime.files import sha256_file

TO_SITE: Final = "to-site"
FROM_SITE: Final = "from-site"
MOST_CHECKPOINT_BYTES: Final = 4 << 30
_NUMBER: Final = re.compile(r"([0-9]{3})\.json")
_CHUNK: Final = 1 << 20


class Mailbox(Protocol):
    """A site's side of the wire. A protocol because a folder and a connection do the same."""

    @property
    def where(self) -> str:
        """For people."""

    def open(self) -> tuple[int, ...]:
        """Numbers of the requests that have no answer yet, ascending."""

    def request(self, number: int) -> bytes: ...

    def checkpoint(self, sha256: str, size_bytes: int, to: Path) -> None:
        """Writes the file, whole and of that hash. Raises ``DataError``."""

    def answer(self, number: int, data: bytes) -> None: ...


class Spool:
    """Both sides of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def where(self) -> str:
        return str(self.folder)

    def numbers(self) -> tuple[int, ...]:
        return self._numbers(TO_SITE)

    def open(self) -> tuple[int, ...]:
        return tuple(sorted(set(self.numbers()) - set(self.answered())))

    def answered(self) -> tuple[int, ...]:
        return self._numbers(FROM_SITE)

    def request(self, number: int) -> bytes:
        return self._read(TO_SITE, number, MOST_REQUEST_BYTES)

    def checkpoint_path(self, sha256: str) -> Path:
        return self.folder / TO_SITE / f"{sha256}.bin"

    def checkpoint(self, sha256: str, size_bytes: int, to: Path) -> None:
        source = self.checkpoint_path(sha256)
        try:
            with source.open("rb") as stream:
                take(stream.read, sha256, size_bytes, to)
        except FileNotFoundError:
            raise DataError(
                f"checkpoint {sha256[:16]}", f"it is not in {source.parent}", "Carry the whole folder"
            ) from None

    def answer(self, number: int, data: bytes) -> None:
        write_atomic(self._path(FROM_SITE, number), data)

    # -- the coordinator's side

    def ask(self, number: int, data: bytes) -> None:
        """Put a request there, once: the same one again is nothing new."""
        path = self._path(TO_SITE, number)
        if path.exists() and path.read_bytes() == data:
            return
        write_new(path, data)

    def put_checkpoint(self, path: Path, sha256: str) -> None:
        to = self.checkpoint_path(sha256)
        if to.exists() and sha256_file(to) == sha256:
            return
        with path.open("rb") as stream:
            take(stream.read, sha256, path.stat().st_size, to)

    def answer_bytes(self, number: int, most_bytes: int) -> bytes:
        return self._read(FROM_SITE, number, most_bytes)

    def _path(self, side: str, number: int) -> Path:
        return self.folder / side / f"{number:03d}.json"

    def _read(self, side: str, number: int, most_bytes: int) -> bytes:
        path = self._path(side, number)
        try:
            return read_plain(path, most_bytes)
        except OSError as exc:
            raise DataError(f"file {path}", exc.strerror or str(exc), "Carry it again") from None

    def _numbers(self, side: str) -> tuple[int, ...]:
        try:
            names = [path.name for path in (self.folder / side).iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return ()
        return tuple(sorted(int(match[1]) for name in names if (match := _NUMBER.fullmatch(name))))


def take(read: object, sha256: str, size_bytes: int, to: Path) -> None:
    """Write what ``read(count)`` gives to ``to``, if it is ``size_bytes`` of that hash. Raises ``DataError``."""
    assert callable(read)
    asked = f"checkpoint {sha256[:16]}"
    if size_bytes > MOST_CHECKPOINT_BYTES:
        raise DataError(
            asked, f"{size_bytes} bytes, and at most {MOST_CHECKPOINT_BYTES} are taken", "Save the weights alone"
        )
    with new_folder(to.parent / f"{to.name}.taken") as folder:
        part, left = folder / "part", size_bytes + 1
        with written(part) as stream:
            while left > 0 and (chunk := read(min(_CHUNK, left))):
                stream.write(chunk)
                left -= len(chunk)
        if left != 1 or sha256_file(part) != sha256:
            raise DataError(asked, "what arrived is another file, or a part of it", "Have it sent again")
    taken = to.parent / f"{to.name}.taken"
    with disk_told(to):
        (taken / "part").replace(to)
    remove(taken)
