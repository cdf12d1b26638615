"""Which modules of this folder have rows, and what the command line asks of them."""

from __future__ import annotations

from dataclasses import dataclass
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
