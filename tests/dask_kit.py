"""A Dask scheduler as a process of a test: it takes a port that is free when it listens, and says which."""

from __future__ import annotations

import json
from pathlib import Path

from fault_kit import wait_for


def place_of_scheduler(folder: Path) -> Path:
    """Where the scheduler is to say its address."""
    return folder / "scheduler.json"


def scheduler(said: Path) -> list[str]:
    """What follows ``python -m``."""
    words = ["distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    return [*words, "--scheduler-file", str(said)]


def address(said: Path) -> str:
    """Of the scheduler, once it listens."""

    def whole() -> str:
        try:
            return str(json.loads(said.read_text())["address"])
        except (OSError, ValueError):
            return ""

    return wait_for("the scheduler to listen", whole)
