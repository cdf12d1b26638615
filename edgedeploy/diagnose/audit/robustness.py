"""Does compression make a model lose more than the float model where images are worse than those it was chosen on?

Each disturbance comes in matched strengths: float and compressed model see the very same disturbed images. What is
told is the extra loss: how much more the artifact loses from clean to disturbed than the float model does, case by
case, in the task's own metric; without one, the share of answers that disturbance changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edgedeploy.diagnose.audit.intervals import Interval, bootstrap
from edgedeploy.diagnose.audit.subject import Pair, Subject, answers, class_scores, threshold_of
from edgedeploy.interfaces.scores import Grouped
from edgedeploy.interfaces.task import Array
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.study.cases import scores_of

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

STRENGTHS: Final[Mapping[str, tuple[float, ...]]] = {
    "noise": (0.02, 0.05, 0.1),
    "blur": (0.5, 1.0, 2.0),
    "gain": (0.7, 0.85, 1.15, 1.3),
    "speckle": (0.1, 0.2, 0.4),
}
"""Noise: standard deviation as a share of the range of values. Blur: standard deviation in pixels. Gain: factor
around the lowest value. Speckle: standard deviation of a factor, gamma-distributed with mean 1 (multiplicative, as of
coherent imaging)."""

MOST_CASES: Final = 96
FEWEST: Final = 8
KEPT: Final = "answers kept"

LIMITS: Final = (
    "The disturbances are made up and applied to what the network gets, after preprocessing; they stand for no device. The "
    "cases are those of the selection split, on which the variant was chosen. Intervals are of each line alone: of so many "
    "lines, one in twenty leaves 0 out by chance."
)


@dataclass(frozen=True)
class Line:
    """``float_value`` and ``artifact_value`` are means over the same cases; ``extra_loss`` is how much more the
    artifact loses by the disturbance than the float model, positive is worse, ``worst`` that of the worst case."""

    disturbance: str
    strength: float
    metric: str
    float_value: float
    artifact_value: float
    extra_loss: float
    interval: Interval | None
    worst: float
    cases: int

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "interval": self.interval.as_json() if self.interval else None}


@dataclass(frozen=True)
class Robustness:
    """``left_out`` had no time. ``unanswered`` says where the artifact's answer has no value though the float model's has:
    such cases are in no mean, and worse than any that is."""

    lines: tuple[Line, ...] = ()
    unanswered: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    why_not: str = ""

    @property
    def surest(self) -> Line:
        """The line whose interval begins highest: a mean of few cases may be large by chance."""
        return max(self.lines, key=lambda line: (line.interval.low if line.interval else 0.0, line.extra_loss))

    def as_json(self) -> dict[str, Any]:
        return {
            "lines": [line.as_json() for line in self.lines],
            "artifact_has_no_value": list(self.unanswered),
            "left_out": list(self.left_out),
            "not_measured": self.why_not,
        }


def measure_robustness(
    subject: Subject, pair: Pair, *, seed: int = 0, deadline: Callable[[], bool] = lambda: False
) -> Robustness:
    """Every strength of every disturbance, on at most :data:`MOST_CASES` cases."""
    if subject.images is None:
        return Robustness(why_not=subject.why_no_images)
    images = subject.images[:MOST_CASES]
    if images.ndim < 4:
        return Robustness(why_not=f"the input of shape {images.shape[1:]} is no image with channels")
    low, high = float(images.min()), float(images.max())
    clean = [answers(session, subject.input, images) for session in (pair.reference, pair.artifact)]
    values = _values(subject, clean, clean[0])
    if values is None:
        return Robustness(why_not="neither the task's metrics nor classes can be read from its answers")
    lines: list[Line] = []
    gone = [text for metric in values if (text := _unanswered("as it is", metric, *values[metric]))]
    wanted = [(name, strength) for name, strengths in STRENGTHS.items() for strength in strengths]
    for place, (name, strength) in enumerate(wanted):
        if deadline():
            return Robustness(
                tuple(lines), tuple(gone), tuple(f"{name} {strength:g}" for name, strength in wanted[place:])
            )
        rng = np.random.default_rng([seed, place])
        changed = disturbed(images, name, strength, low, high, rng)
        found = [answers(session, subject.input, changed) for session in (pair.reference, pair.artifact)]
        now = _values(subject, found, clean[0], tuple(values))
        assert now is not None  # as on the clean ones
        made = [_line(name, strength, metric, values[metric], now[metric], subject, seed) for metric in now]
        said = (_unanswered(f"{name} {strength:g}", metric, *now[metric]) for metric in now)
        gone += [text for text in said if text]
        lines += [line for line in made if line.cases]  # a metric that no case defines is no number
    return Robustness(tuple(lines), tuple(gone))


def _unanswered(disturbance: str, metric: str, floats: Floats, own: Floats) -> str:
    """That the artifact has no value where the float model has one; empty where it has."""
    count = int((np.isfinite(floats) & ~np.isfinite(own)).sum())
    return f"{disturbance}: no {metric} of the artifact in {count} of {len(own)} cases" if count else ""


def disturbed(images: Array, name: str, strength: float, low: float, high: float, rng: np.random.Generator) -> Array:
    """Images (N, C, ...) with the disturbance, within the range of values that clean ones have."""
    from scipy.ndimage import gaussian_filter

    span, values = high - low, images.astype(np.float64)
    if name == "noise":
        changed = values + rng.normal(0, strength * span, images.shape)
    elif name == "blur":
        changed = gaussian_filter(values, (0, 0, *(strength,) * (images.ndim - 2)))
    elif name == "gain":
        changed = low + (values - low) * strength
    else:
        changed = low + (values - low) * rng.gamma(1 / strength**2, strength**2, images.shape)
    return np.ascontiguousarray(np.clip(changed, low, high), images.dtype)


def _values(
    subject: Subject,
    found: Sequence[Mapping[str, Array]],
    clean: Mapping[str, Array],
    wanted: Sequence[str] = (),
) -> dict[str, tuple[Floats, Floats]] | None:
    """By metric, the values (cases) of the float model and of the artifact; NaN where undefined. None where nothing
    can be read. ``wanted`` are the metrics of the clean images, which are told of the others too."""
    if subject.task is not None and KEPT not in wanted:
        rows = [[_of_case(subject, each, row) for row in range(len(clean[subject.output]))] for each in found]
        known = [name for name in subject.task.metrics if any(row[name] is not None for row in rows[0])][:2]
        names = list(wanted) or known
        read = {
            name: [np.array([np.nan if row[name] is None else row[name] for row in side], float) for side in rows]
            for name in names
        }
        if read:
            return {name: (sides[0], sides[1]) for name, sides in read.items()}
    threshold, before = threshold_of(clean[subject.output]), class_scores(clean[subject.output])
    if before is None:
        return None
    float_kept, own_kept = (_kept(before, class_scores(each[subject.output], threshold)) for each in found)
    return {KEPT: (float_kept, own_kept)}


def _kept(before: Array, now: Array | None) -> Floats:
    """By case, the share of answers that are as before; NaN where there are none."""
    assert now is not None  # of one shape with those before
    shares = np.mean(now.argmax(1) == before.argmax(1), axis=1)
    return np.where(np.isnan(before).any(axis=(1, 2)) | np.isnan(now).any(axis=(1, 2)), np.nan, shares)


def _of_case(subject: Subject, outputs: Mapping[str, Array], row: int) -> dict[str, float | None]:
    assert subject.task is not None
    own = {name: value[row : row + 1] for name, value in outputs.items()}
    return scores_of(subject.task, own, subject.cases[row])


def _units(subject: Subject, defined: Bools) -> list[npt.NDArray[np.int64]]:
    """Rows of the cases for which a metric is defined, those of one group (a patient) together."""
    if not isinstance(subject.task, Grouped):
        return [np.array([row]) for row in range(int(defined.sum()))]
    known = [subject.task.group_of(subject.cases[place]) for place in np.flatnonzero(defined)]
    rows: dict[str, list[int]] = {}
    for row, group in enumerate(known):
        rows.setdefault(group, []).append(row)
    return [np.array(each) for each in rows.values()]


def _mean_of(extra: Floats, units: Sequence[npt.NDArray[np.int64]], drawn: npt.NDArray[np.int64]) -> float:
    return float(extra[np.concatenate([units[unit] for unit in drawn])].mean())


def _line(
    name: str,
    strength: float,
    metric: str,
    clean: tuple[Floats, Floats],
    now: tuple[Floats, Floats],
    subject: Subject,
    seed: int,
) -> Line:
    info: MetricInfo | None = subject.task.metrics.get(metric) if subject.task else None
    sign = -1.0 if info is not None and info.direction == "minimize" else 1.0
    extra = sign * ((clean[1] - now[1]) - (clean[0] - now[0]))
    defined = np.isfinite(extra)
    extra, count = extra[defined], int(defined.sum())
    units = _units(subject, defined)
    how = f"paired bootstrap, {count} cases in {len(units)} groups"
    interval = (
        bootstrap(len(units), lambda drawn: _mean_of(extra, units, drawn), seed, how) if len(units) >= FEWEST else None
    )
    values = [float(side[defined].mean()) if count else float("nan") for side in now]
    mean, worst = (float(extra.mean()), float(extra.max())) if count else (0.0, 0.0)
    return Line(name, strength, metric, values[0], values[1], mean, interval, worst, count)
