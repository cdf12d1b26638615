"""`scripts/bench qat`: a gain is told as the sum of its parts, and what was trained is not trained again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from benchmarks.qat import RATES, Row, mean_of, rows, table

ROW = Row(0.5, 0.1, 0, float_before=0.6, calibrated_before=0.59, float_after=0.62, calibrated_after=0.61, qat=0.605)


def test_the_gain_is_what_training_on_and_quantizers_give() -> None:
    assert ROW.gain == pytest.approx(ROW.training_on + ROW.quantizers) == pytest.approx(0.015)
    line = table([ROW, replace(ROW, seed=1, qat=0.625)]).splitlines()[-1]
    assert (
        line
        == "| 0.5 | 0.1 | 2 | 0.600 | +0.0100 +- 0.0000 | +0.0250 +- 0.0100 | +0.0200 +- 0.0000 | +0.0050 +- 0.0100 |"
    )
    assert mean_of([0.25]) == "+0.2500"


class CountingLab:
    recovered, epochs = 26, 4

    def __init__(self) -> None:
        self.trained: list[tuple[Any, ...]] = []

    def recovered_model(self, width: float, seed: int) -> str:
        self.trained.append((width, seed))
        return "a model"

    def row(self, before: str, width: float, rate: float, seed: int) -> Row:
        self.trained.append((width, rate, seed))
        return replace(ROW, width=width, rate=rate, seed=seed)


def test_a_run_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    lab, kept = CountingLab(), tmp_path / "qat.json"
    begun = rows(lab, [0.5], 2, kept)  # type: ignore[arg-type]
    first = [next(begun), next(begun), next(begun)]
    assert lab.trained == [(0.5, 0), (0.5, 0.1, 0), (0.5, 1.0, 0), (0.5, 1), (0.5, 0.1, 1)]
    lab.trained.clear()
    again = list(rows(lab, [0.5], 2, kept))  # type: ignore[arg-type]
    assert again[:3] == first and len(again) == 2 * len(RATES)
    assert lab.trained == [(0.5, 1), (0.5, 1.0, 1)]
