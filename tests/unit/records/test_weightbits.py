"""The choice between 7 and 8 bits of weights, and what is said of it."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from edgedeploy.records.weightbits import TRAINED_FOR_BOARD, WeightBits, nearer


@pytest.mark.parametrize(
    ("distances", "bits"),
    [
        ({8: 0.105, 7: 0.0099}, 7),
        ({8: 0.009, 7: 0.012}, 8),
        ({8: 0.01, 7: 0.01}, 7),
        ({8: math.inf, 7: 0.2}, 7),
        ({8: math.inf, 7: math.inf}, 7),
    ],
)
def test_the_nearer_is_kept_and_of_equals_the_one_that_cannot_saturate(distances: dict[int, float], bits: int) -> None:
    assert nearer(distances, cases=4, split="training cases").bits == bits


def test_it_says_what_was_compared() -> None:
    text = nearer({8: math.inf, 7: 0.00994}, cases=16, split="training cases").text
    assert text.startswith("7 bits: int8 sums of this processor saturate")
    assert text.endswith("over 16 training cases: 7 bits 0.00994, 8 bits a broken output")
    assert "compared" not in TRAINED_FOR_BOARD.text
    assert "trained with 7-bit weights" in TRAINED_FOR_BOARD.text


@pytest.mark.parametrize(
    "data",
    [
        {"bits": 9, "reason": "", "distances": {}, "cases": 0, "split": ""},
        {"bits": "7", "reason": "", "distances": {}, "cases": 0, "split": ""},
        {"bits": 7},
        [],
        {"bits": 7, "reason": "", "distances": {"seven": 0.1}, "cases": 0, "split": ""},
    ],
)
def test_what_it_never_wrote_is_not_read(data: Any) -> None:
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        WeightBits.from_json(data)


@pytest.mark.parametrize("chosen", [TRAINED_FOR_BOARD, nearer({8: math.inf, 7: 0.2}, cases=3, split="selection cases")])
def test_it_is_kept_as_json(chosen: WeightBits) -> None:
    assert WeightBits.from_json(json.loads(json.dumps(chosen.as_json(), allow_nan=False))) == chosen
