"""What the command line asks of the rows of this folder."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Asked:
    """What is asked of every row: how often a simulation is repeated, and the seed of all of them."""

    repeats: int = 4000
    seed: int = 0
