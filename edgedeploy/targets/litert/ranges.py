"""Chooses activation ranges for LiteRT's int8, by two ways to combine the calibration cases:

- ``minmax`` covers every value that was seen: nothing is clipped, but one outlier widens the steps of all values.
- ``mean-minmax`` is the quantizer's default, a moving average of each case's extremes: finer steps, but outliers are
  clipped.

Which one loses less depends on the network. By default (``mse``), both files are made without some held-out cases, and
the way whose outputs are nearer to the float model's on these cases is used. The final file has ranges from all cases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from edgedeploy.interfaces.task import Array

BY_ERROR: Final = "mse"
CALIBRATIONS: Final = (BY_ERROR, "minmax", "mean-minmax")
"""The calibration methods that LiteRT has of ``records.variant.CALIBRATIONS``, the default first."""

SIGNATURE: Final = "serving_default"

_HELD_OUT_EVERY: Final = 4
_HELD_OUT_LIMIT: Final = 8
"""At most this many cases are kept in memory for the comparison; more do not change its result."""

Feed = dict[str, Array]
Ranges = dict[str, Any]
"""Tensor name -> what the quantizer calls its QSV: ``min`` and ``max``."""

Run = Callable[[Feed], Mapping[str, Array]]


@dataclass
class Seen:
    """Activation ranges by calibration method: ``whole`` from all cases, ``fitted`` without the ``held_out`` ones."""

    whole: dict[str, Ranges] = field(default_factory=dict)
    fitted: dict[str, Ranges] = field(default_factory=dict)
    held_out: list[Feed] = field(default_factory=list)


def watch(model: bytes, recipes: Any, cases: Iterator[Feed], calibrator: str) -> Seen:
    """Run the float ``model`` on the cases one at a time; the quantizer's own interface needs a list of all in
    memory."""
    from ai_edge_quantizer import calibrator as tool

    watcher = tool.Calibrator(model, num_threads=1, qsv_update_func=lambda _, latest: latest)
    ways = _ways(calibrator or BY_ERROR)
    seen = Seen()
    for number, case in enumerate(cases, start=1):
        watcher.calibrate({SIGNATURE: [case]}, recipes)
        latest = watcher.get_model_qsvs()
        held_out = len(ways) > 1 and number % _HELD_OUT_EVERY == 0 and len(seen.held_out) < _HELD_OUT_LIMIT
        if held_out:
            seen.held_out.append(case)
        for way, update in ways.items():
            seen.whole[way] = _merged(seen.whole.get(way, {}), latest, update)
            if not held_out:
                seen.fitted[way] = _merged(seen.fitted.get(way, {}), latest, update)
    return seen


def choose(seen: Seen, exact: Run, made: Callable[[Ranges], Run]) -> str:
    """The calibration method whose file is nearest to ``exact``. ``made`` quantizes with given ranges and opens the
    result. With too few cases to hold one out, the choice is ``minmax``, which clips nothing."""
    if not seen.held_out:
        return next(iter(seen.whole))
    expected = [exact(feed) for feed in seen.held_out]
    fidelity = {}
    for way, ranges in seen.fitted.items():
        run = made(ranges)
        fidelity[way] = signal_to_noise_db(expected, [run(feed) for feed in seen.held_out])
    return max(fidelity, key=lambda way: fidelity[way])


def signal_to_noise_db(expected: Sequence[Mapping[str, Array]], found: Sequence[Mapping[str, Array]]) -> float:
    """Mean over cases and floating outputs of 10 log10(sum of squares / sum of squared errors). In decibels a larger
    output does not weigh more, and no single case decides."""
    tiny = float(np.finfo(np.float64).tiny)
    ratios = []
    for exact, close in zip(expected, found, strict=True):
        for name, values in exact.items():
            if values.dtype.kind == "f":
                signal = np.square(values, dtype=np.float64).sum()
                noise = np.square(np.subtract(close[name], values, dtype=np.float64)).sum()
                ratios.append(10 * (np.log10(max(signal, tiny)) - np.log10(max(noise, tiny))))
    return float(np.mean(ratios)) if ratios else 0.0


def _ways(calibrator: str) -> dict[str, Callable[[Any, Any], Any]]:
    from ai_edge_quantizer.utils import qsv_utils

    ways = {"minmax": qsv_utils.min_max_update, "mean-minmax": qsv_utils.moving_average_update}
    return ways if calibrator == BY_ERROR else {calibrator: ways[calibrator]}


def _merged(before: Ranges, latest: Ranges, update: Callable[[Any, Any], Any]) -> Ranges:
    return {name: update(before.get(name), found) for name, found in latest.items()}
