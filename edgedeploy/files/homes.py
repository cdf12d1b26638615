"""Paths as people write them."""

from __future__ import annotations

from pathlib import Path


def with_home(named: str | Path) -> Path:
    """``~`` and ``~user`` at the beginning are home folders. That of a user whom this host does not know stands as it is
    written: nothing is found there, and whoever looks says so."""
    path = Path(named)
    try:
        return path.expanduser()
    except RuntimeError:
        return path
