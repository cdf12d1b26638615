"""Model-ready inputs of cases as they go to a board: for a measurement, and to choose between two builds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgedeploy.interfaces.task import Array, Case, Task
from edgedeploy.records.job import Payload
from edgedeploy.records.variant import Variant

COMPARED_CASES: Final = 16
"""A board runs at most this many cases to choose between 7-bit and 8-bit weights."""


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


def held_out(task: Task, variant: Variant) -> tuple[str, Sequence[Case]]:
    """Up to :data:`COMPARED_CASES` cases for the choice between rivals, and a description of them. They come from
    the first of these that is not empty: calibration cases that were not used for the ranges, training cases,
    selection cases (their labels are not used)."""
    past = task.cases("calibration")[variant.calibration_cases :] if variant.calibration_cases else ()
    found = {
        "calibration cases that the ranges have not seen": past,
        "training cases": () if past else task.cases("train"),
    }
    split, cases = next(
        ((name, group) for name, group in found.items() if group),
        ("selection cases", task.cases("selection")),
    )
    return split, cases[:: max(1, len(cases) // COMPARED_CASES)][:COMPARED_CASES]
