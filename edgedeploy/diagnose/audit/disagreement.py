"""Where the compressed model answers otherwise than the float model: by pixel for masks, by pair of classes for
classes."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from edgedeploy.diagnose.audit.intervals import Interval, wilson
from edgedeploy.diagnose.audit.subject import Pair, Subject, answers, class_scores, threshold_of, unanswered
from edgedeploy.interfaces.task import Array

LIMITS: Final = (
    "It says where the two differ, not which of them is right, and only on these cases, which count as independent. Places "
    "are those of the network's output; a mean over cases hides one case that differs everywhere, so the worst case stands "
    "beside it."
)


@dataclass(frozen=True)
class Disagreement:
    """``rate`` is the mean over cases of the share of places that differ, ``cases_that_differ`` counts those with
    any. ``pairs`` (classes, classes): how often float said the row and the artifact the column. ``map`` (H, W) is the
    share of cases that differ at a pixel, None where the answer is no picture."""

    rate: float = 0.0
    interval: Interval | None = None
    cases_that_differ: int = 0
    cases: int = 0
    worst_share: float = 0.0
    worst_case: int = 0
    pairs: Array | None = None
    map: Array | None = None
    why_not: str = ""

    def as_json(self) -> dict[str, Any]:
        """Cases are told by their place in the split: names may be those of patients."""
        if self.why_not:
            return {"not_measured": self.why_not}
        return {
            "rate": self.rate,
            "interval_of_cases_that_differ": self.interval.as_json() if self.interval else None,
            "cases_that_differ": self.cases_that_differ,
            "cases": self.cases,
            "worst_share": self.worst_share,
            "worst_case": self.worst_case,
            "pairs": self.pairs.tolist() if self.pairs is not None and len(self.pairs) <= MOST_PAIRS else None,
            "has_map": self.map is not None,
        }


MOST_PAIRS: Final = 40
"""Classes of a table of pairs that is written out."""


def measure_disagreement(subject: Subject, pair: Pair) -> Disagreement:
    if subject.images is None:
        return Disagreement(why_not=subject.why_no_images)
    raw = [
        answers(session, subject.input, subject.images)[subject.output] for session in (pair.reference, pair.artifact)
    ]
    floats, own = (class_scores(each, threshold_of(raw[0])) for each in raw)
    if floats is None or own is None or floats.shape[1] < 2:
        return Disagreement(why_not=f"output {subject.output!r} is not one score a class")
    lost = [unanswered(each) for each in raw]
    if any(lost):
        told = f"{lost[0]} of {len(raw[0])} cases have NaN in the float model's answer, {lost[1]} in the artifact's"
        return Disagreement(why_not=told)
    before, after = floats.argmax(1), own.argmax(1)
    differs = before != after
    shares = differs.mean(axis=1)
    classes = floats.shape[1]
    pairs = np.bincount((before * classes + after).ravel(), minlength=classes * classes).reshape(classes, classes)
    any_differs = int((shares > 0).sum())
    picture = raw[0].shape[2:]
    return Disagreement(
        rate=float(shares.mean()),
        interval=wilson(any_differs / len(shares), len(shares)),
        cases_that_differ=any_differs,
        cases=len(shares),
        worst_share=float(shares.max()),
        worst_case=int(shares.argmax()),
        pairs=pairs,
        map=differs.mean(axis=0).reshape(picture) if len(picture) == 2 else None,
    )


def map_picture(rates: Array) -> bytes:
    """A map as a grey PNG: black where no case differs, white where the most do."""
    from PIL import Image

    shares = rates.astype(np.float64)
    grey = np.rint(255 * shares / (float(shares.max()) or 1.0)).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(grey).save(stream, "PNG")
    return stream.getvalue()
