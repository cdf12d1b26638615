"""The cases of a data set before they are split: their files, classes and groups, and which split each gets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgedeploy.errors import DataError, SpecError
from edgedeploy.interfaces.task import SPLITS, Case, Split
from edgedeploy.runtime.files import sha256_file
from edgedeploy.tasks.pictures.table import inside, read_table
from edgedeploy.tasks.places import place_of
from edgedeploy.tasks.splitting import SPLIT_WORDS, Item, deal_items, joined_groups


@dataclass(frozen=True)
class Entry:
    """One case of a data set: its image, and what a subclass knows of it in ``label`` and ``truth``."""

    name: str
    image: Path
    label: str | None = None
    truth: Path | None = None
    group: str | None = None
    split: Split | None = None


def split_entries(
    entries: Sequence[Entry], shares: Mapping[Split, float], seed: int, where: str
) -> dict[Split, dict[Case, Entry]]:
    """The cases of each split in a fixed order; a file that is there twice is one group. Raises ``DataError``."""
    files = [_content(entry.image) for entry in entries]
    _check_labels(entries, files)
    groups = joined_groups([entry.group for entry in entries], files)
    items = [Item(entry.name, entry.label, group, entry.split) for entry, group in zip(entries, groups, strict=True)]
    dealt = deal_items(items, shares, seed, where)
    return {
        split: {Case(f"{split}/{entries[place].name}", split): entries[place] for place in dealt[split]}
        for split in SPLITS
    }


def _content(image: Path) -> str:
    """A hash of the file; of a folder, of what all its files hold, whatever their names."""
    if not image.is_dir():
        return sha256_file(image)
    return " ".join(sorted(sha256_file(path) for path in image.iterdir() if path.is_file()))


def pairs_of(
    root: Path,
    folders: tuple[str, str],
    groups_table: str,
    files: Callable[[Path], Iterable[Path]],
    stem: Callable[[Path], str] = lambda path: path.stem,
) -> list[Entry]:
    """Images with their truths of equal ``stem``, from the two ``folders`` of ``root``, or of folders named as splits.
    Raises ``DataError``."""
    groups = groups_of(root, groups_table)
    parts: list[tuple[Path, Split | None]] = [
        (path, SPLIT_WORDS[path.name]) for path in sorted(root.iterdir()) if path.is_dir() and path.name in SPLIT_WORDS
    ]
    found = []
    for part, split in parts or [(root, None)]:
        for image, truth in _halves(part, folders, files, stem):
            name = image.relative_to(root).as_posix()
            found.append(Entry(name, image, truth=truth, group=groups.get(name) or groups.get(image.name), split=split))
    return found


def _halves(
    folder: Path,
    folders: tuple[str, str],
    files: Callable[[Path], Iterable[Path]],
    stem: Callable[[Path], str],
) -> list[tuple[Path, Path]]:
    places = [folder / name for name in folders]
    for place in places:
        if not place.is_dir():
            raise DataError("read the data", f"no folder at {place}", "Correct the two folders in [task.options]")
    images, truths = (_by_stem(files(place), stem) for place in places)
    if not images:
        raise DataError(f"cases in {places[0]}", "the folder holds none", "Put the files there")
    alone = sorted(set(images) ^ set(truths))
    if alone:
        found = f"{alone[0]} is in {places[0 if alone[0] in images else 1].name} alone"
        raise DataError(f"pairs in {folder}", found, "Add its other half, or remove it")
    return [(path, truths[name]) for name, path in images.items()]


def _by_stem(paths: Iterable[Path], stem: Callable[[Path], str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        other = found.setdefault(stem(path), path)
        if other != path:
            asked = f"pairs of {path.parent}"
            raise DataError(asked, f"{other.name} and {path.name} have one name", "Keep the one that is meant")
    return found


def _check_labels(entries: Sequence[Entry], pictures: Sequence[str]) -> None:
    """Raises ``DataError`` for one picture with two classes."""
    seen: dict[str, Entry] = {}
    for entry, picture in zip(entries, pictures, strict=True):
        other = seen.setdefault(picture, entry)
        if other.label != entry.label:
            found = f"{other.name} is {other.label!r} and {entry.name} is {entry.label!r}, and they are one picture"
            raise DataError(f"classes of {entry.image}", found, "Keep the one that is right")


def data_folder(root: str, base: Path, holds: str) -> Path:
    """The data's folder. Raises ``SpecError`` when none is named and ``DataError`` when it is not there."""
    if not root:
        raise SpecError("task.options.root", "it is missing", f"Name the folder that holds {holds}")
    folder = place_of(base, root)
    if not folder.is_dir():
        raise DataError(f"task.options.root = {root!r}", f"no folder at {folder}", "Correct the path")
    return folder


def groups_of(root: Path, table: str) -> dict[str, str]:
    """Image to group, from a CSV table with these two columns below ``root``; empty when none is named."""
    if not table:
        return {}
    path = inside(root, table, "task.options.groups")
    return {row["image"]: row["group"] for _, row in read_table(path, ("image", "group"))}
