"""What the command line asks of the rows of this folder."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.shared import rows


@dataclass(frozen=True, kw_only=True)
class Asked(rows.Asked):
    """How often a simulation is repeated, besides the seed of all of them."""

    repeats: int = rows.count(4000, "of each simulation")
