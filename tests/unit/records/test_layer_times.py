"""What the layers of a baseline took, and what they are named by."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edgedeploy.records.layer_times import LayerTimes, TimedLayer

TIMES = LayerTimes(
    {"first": TimedLayer(400.0, 100.0), "deep": TimedLayer(200.0, 200.0), "head": TimedLayer(20.0, 10.0)},
    ("odd",),
    80.0,
    "openvino",
    "bench",
    "measured",
    "1" * 16,
    "2" * 64,
    "2026-01-01T00:00:00+00:00",
)


def test_a_layer_keeps_its_time_for_one_multiplication() -> None:
    assert TIMES.ns("first", 100.0) == 400.0
    assert TIMES.ns("first", 25.0) == 100.0, "at half of the resolution"
    assert TIMES.ns("odd", 50.0) == 100.0, "at the median of the layers, 2 ns"


def test_it_is_named_by_its_times_alone() -> None:
    assert replace(TIMES, board="other", created_utc="later", elsewhere_ns=1.0).digest == TIMES.digest
    slower = {**TIMES.layers, "head": TimedLayer(21.0, 10.0)}
    assert replace(TIMES, layers=slower).digest != TIMES.digest
    assert dict(reversed(TIMES.layers.items())) == TIMES.layers
    assert replace(TIMES, layers=dict(reversed(TIMES.layers.items()))).digest == TIMES.digest


def test_it_comes_back_from_its_file() -> None:
    assert LayerTimes.read(TIMES.as_json()) == TIMES


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("digest", "0" * 16, "not those that its digest names"),
        ("layers", {}, "none at all"),
        ("layers", {"first": {"ns": 0.0, "multiplications": 1.0}}, "without a time"),
        ("layers", {"first": {"ns": float("nan"), "multiplications": 1.0}}, "finite"),
        ("provenance", "guessed", "provenance"),
    ],
)
def test_what_is_none_is_told(key: str, value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LayerTimes.read({**TIMES.as_json(), key: value})


def test_people_read_whose_times_they_are() -> None:
    for word in (TIMES.digest, "openvino on board bench", "measured 2026-01-01", "3 of 4 layers", "620 ns", "80 ns"):
        assert word in TIMES.text
    assert "1 without a time count by their multiplications" in TIMES.text
    assert "without a time" not in replace(TIMES, untimed=()).text
