"""Which way of calibration LiteRT's int8 gets, without LiteRT."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgedeploy.targets.litert.ranges import Ranges, Run, Seen, choose, signal_to_noise_db

FEEDS = [{"x": np.full((1, 4), value, np.float32)} for value in (0.1, 0.2, 0.3)]


def exact(feed: dict[str, Any]) -> dict[str, Any]:
    return {"y": feed["x"]}


def rounded(step: float) -> Run:
    return lambda feed: {"y": np.rint(feed["x"] / step) * step}


def made(ranges: Ranges) -> Run:
    """A file whose steps are a 255th of its range."""
    return rounded(ranges["x"]["max"] / 255)


@pytest.mark.parametrize(("wide", "narrow", "best"), [(90.0, 0.7, "mean-minmax"), (0.7, 90.0, "minmax")])
def test_the_way_with_the_nearer_file_is_kept(wide: float, narrow: float, best: str) -> None:
    fitted = {"minmax": {"x": {"max": wide}}, "mean-minmax": {"x": {"max": narrow}}}
    assert choose(Seen(whole=fitted, fitted=fitted, held_out=FEEDS), exact, made) == best


def test_without_a_case_to_compare_on_nothing_is_clipped() -> None:
    whole: dict[str, Ranges] = {"minmax": {}, "mean-minmax": {}}
    assert choose(Seen(whole=whole), exact, made) == "minmax"


def test_decibels_are_a_mean_over_cases_and_outputs_and_integers_do_not_count() -> None:
    given = [{"big": np.array([1000.0]), "small": np.array([1.0]), "best": np.array([3])}] * 2
    found = [
        {"big": np.array([1010.0]), "small": np.array([1.1]), "best": np.array([7])},  # 40 and 20 dB
        {"big": np.array([1001.0]), "small": np.array([1.001]), "best": np.array([3])},  # 60 and 60 dB
    ]
    assert signal_to_noise_db(given, found) == pytest.approx(45.0)
    assert signal_to_noise_db(given, given) > 1000
