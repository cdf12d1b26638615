"""Model-ready inputs of cases as they go to a board: for a measurement, and to choose between two builds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgedeploy.interfaces.task import Array, Case
from edgedeploy.records.job import Payload


@dataclass(frozen=True)
class InputSet:
    """Model-ready inputs of some cases, stacked in one file. Its first rows, the cases ``golden_ids``, are for parity
    only."""

    path: Path
    golden_ids: tuple[str, ...]
    cases: tuple[Case, ...]

    @property
    def golden(self) -> int:
        return len(self.golden_ids)


@dataclass(frozen=True)
class Rivals:
    """Two builds of one variant, with 7-bit and 8-bit weights, between which a board has yet to choose.

    The board compares them on ``feeds``, stacked cases of ``split`` that were not used for calibration. ``name`` is
    part of their file names.
    """

    payloads: Mapping[int, Payload]
    feeds: tuple[dict[str, Array], ...]
    split: str
    name: str
