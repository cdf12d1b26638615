"""The names in a study's folder, each of which is a folder or a file of its own, never a link to one elsewhere."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from edgedeploy.errors import SpecError
from edgedeploy.study.evidence_files import ALL, SET_ASIDE

MADE: Final = ("models", "artifacts", "baseline", "training", "inputs", "outputs")
"""Folders of what is made with the task's code and can be made again."""

ACCOUNT: Final = "account.jsonl"
PLANS: Final = "plans.json"
LAYER_TIMES: Final = "layer-times.json"
NOT_TRIED: Final = "not-tried.json"
PROMOTED: Final = "promoted.json"
IMPOSSIBLE: Final = "impossible.json"
OPENINGS: Final = "confirmation/openings.jsonl"
FOLDERS: Final = (*(folder.name for folder in ALL), *MADE, SET_ASIDE)
FILES: Final = (
    ".lock",
    "study.json",
    "study.toml",
    "cases.json",
    ACCOUNT,
    OPENINGS,
    "events.jsonl",
    "index.jsonl",
    PLANS,
    LAYER_TIMES,
    NOT_TRIED,
    PROMOTED,
    IMPOSSIBLE,
    "warm-start.json",
    "predicted.json",
    *(f"optuna.sqlite3{suffix}" for suffix in ("", "-journal", "-wal", "-shm")),
)


def check_kinds(root: Path) -> None:
    """Raises ``SpecError`` for a name of ours that is something else: a link is never followed for writing, and a pipe in
    the place of a file would keep the search waiting."""
    for names, is_kind, kind in ((FOLDERS, stat.S_ISDIR, "folder"), (FILES, stat.S_ISREG, "file")):
        for name in names:
            path = root / name
            if not os.path.lexists(path) or is_kind(path.lstat().st_mode):
                continue
            found = "a link, which is never followed for writing" if path.is_symlink() else f"no {kind}"
            remedy = f"Put the {kind} itself there, or remove it"
            raise SpecError(f"study folder {root}", f"{name} in it is {found}", remedy)


def links_among_made(root: Path) -> list[Path]:
    """Links among what can be made again: what is made there would be written elsewhere."""
    return [
        Path(place, name)
        for made in MADE
        for place, folders, files in os.walk(root / made)
        for name in (*folders, *files)
        if Path(place, name).is_symlink()
    ]
