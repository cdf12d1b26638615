"""Whether files that were made once and are read again are still what was made: each has its hash beside it.

Memory and disks flip bits, and people copy folders half. What is not whole is made anew before anything is built from it or
sent to a board, because a variant or a board would be blamed for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from edgedeploy.files import parsed, remove, write_json, write_stacked
from edgedeploy.interfaces.task import Array
from edgedeploy.runtime.files import sha256_file
from edgedeploy.study.reading import FAULTS, fault

NOT_AS_MADE: Final = "it is not the file that was made"
_NOTE: Final = ".sha256.json"


def sha256_now(path: Path) -> str:
    """SHA-256 of a file. A file whose change time stands is not read again, until :func:`look_again`."""
    stat = path.stat()
    return _sha256(path, stat.st_size, stat.st_ctime_ns, stat.st_ino)


def look_again() -> None:
    """Read files again whose content was seen to differ though their change time stands."""
    _sha256.cache_clear()


@lru_cache(maxsize=4096)
def _sha256(path: Path, size_bytes: int, changed_ns: int, inode: int) -> str:
    return sha256_file(path)


def note_of(path: Path) -> Path:
    """Where the hash of a file is noted that has no manifest to stand in."""
    return path.with_name(path.name + _NOTE)


def keep_note(path: Path) -> None:
    """Note the hash of a file that was just made."""
    write_json(note_of(path), {"sha256": sha256_file(path)})


def flaw_of(path: Path) -> str | None:
    """Why a file with a note is not whole (empty: it is); None where there is no file, or none with a note."""
    try:
        if not path.is_file() or path.is_symlink():
            return None
        noted = parsed(note_of(path).read_bytes())["sha256"]
        return "" if sha256_now(path) == noted else NOT_AS_MADE
    except FileNotFoundError:
        return None
    except (OSError, *FAULTS) as exc:
        return fault(exc)


def kept_rows(path: Path, rows: Iterable[Mapping[str, Array]], note: Callable[[str], None]) -> None:
    """Make the ``.npz`` of stacked ``rows`` at ``path`` unless it is there and whole, one row in memory at a time; ``note``
    hears of one that is not. Rows are asked for only when it is made."""
    flaw = flaw_of(path)
    if flaw == "":
        return
    if flaw:
        note(f"{path.parent.name}/{path.name} is not used and made anew: {flaw}")
    note_of(path).unlink(missing_ok=True)
    remove(path)
    write_stacked(path, rows)
    keep_note(path)


def sums_of(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """The hashes of those files that are there, by name."""
    return {name: sha256_file(folder / name) for name in names if (folder / name).is_file()}


def damaged(folder: Path, sums: Any) -> list[str]:
    """Which of the files in ``sums`` are gone from ``folder`` or not what they were. Raises ``ValueError`` for no sums."""
    if not isinstance(sums, dict) or any("/" in name for name in sums):
        raise ValueError("its list of hashes is of another form")
    return [name for name, sha256 in sums.items() if not _is(folder / name, sha256)]


def _is(path: Path, sha256: str) -> bool:
    return path.is_file() and not path.is_symlink() and sha256_now(path) == sha256
