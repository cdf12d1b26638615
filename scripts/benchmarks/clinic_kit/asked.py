"""What the command line asks of the rows of this folder."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Asked:
    """What is asked of every row: the seed of everything that is made up or trained."""

    seed: int = 0
