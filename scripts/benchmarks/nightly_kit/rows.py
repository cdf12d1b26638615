"""What a row of the table is, and where rows are found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Final

PARTS: Final = ("recorded", "theory", "named", "scale", "year_page", "nights")
"""Modules of this folder with rows, in the table's order."""


@dataclass(frozen=True)
class Asked:
    """What the command line asks of every row: how many labs a simulation has, its seed, and how many real nights are
    measured, of which a third more have a planted slowdown."""

    labs: int = 50
    seed: int = 0
    nights: int = 30


@dataclass(frozen=True)
class Row:
    """What was asked, what was found, the bar in words, and whether it holds; no bar always holds."""

    what: str
    found: str
    bar: str = ""
    holds: bool = True


Maker = Callable[[Asked], Row]


def makers() -> dict[str, Maker]:
    """Every function of every part's ``ROWS`` by its name."""
    found = [maker for part in PARTS for maker in import_module(f"benchmarks.nightly_kit.{part}").ROWS]
    return {maker.__name__: maker for maker in found}
