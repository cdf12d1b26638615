"""Where a path that a study file names leads."""

from __future__ import annotations

from pathlib import Path


def place_of(base: Path, named: str | Path) -> Path:
    """``named`` relative to ``base``, the study file's folder; ``~`` and ``~user`` are home folders. That of a user whom
    this host does not know stands as it is written: nothing is found there, and whoever looks says so."""
    try:
        return base / Path(named).expanduser()
    except RuntimeError:
        return base / named
