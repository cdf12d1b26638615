"""Which modules of this folder have rows, and what the command line asks of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from benchmarks.shared import rows

PARTS: Final = ("recorded", "theory", "named", "scale", "year_page", "nights")
"""Modules of this folder with rows, in the table's order."""


@dataclass(frozen=True, kw_only=True)
class Asked(rows.Asked):
    """How many labs a simulation has, and how many real nights are measured, of which a third more have a planted slowdown;
    besides the seed of all of them."""

    labs: int = rows.count(50, "of each simulation")
    nights: int = rows.count(30, "real A/A nights")
