"""Where a path that a study file names leads."""

from __future__ import annotations

from pathlib import Path

from edgedeploy.files.homes import with_home


def place_of(base: Path, named: str | Path) -> Path:
    """``named`` relative to ``base``, the study file's folder; a home folder (:func:`with_home`) stays where it is."""
    return base / with_home(named)
