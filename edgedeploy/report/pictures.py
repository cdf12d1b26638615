"""Cases as pictures, inside the page itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from edgedeploy.evidence.bootstrap import paired_gains
from edgedeploy.evidence.front import Front
from edgedeploy.evidence.pick import accuracy_objective
from edgedeploy.evidence.quantities import heading, quantity
from edgedeploy.records.goals import Objective
from edgedeploy.records.measurement import Measurement
from edgedeploy.report.blocks import Picture, Pictures

ROLES: Final[Mapping[str, str]] = {"truth": "truth", "baseline": "baseline's answer", "pick": "pick's answer"}
MAX_SIDE: Final = 320
"""Pixels of a picture's longer side in the page: enough to see a contour, and forty of them fit in a mail."""


@dataclass(frozen=True)
class CasePicture:
    """One case as RGB uint8 arrays (H, W, 3) by role: ``truth``, ``baseline``, ``pick``; any of them may be absent."""

    case: str
    images: Mapping[str, npt.NDArray[np.uint8]]


def worst_cases(report: Front, measurements: Sequence[Measurement], count: int = 4) -> tuple[str, ...]:
    """Ids of the cases where the pick loses most against the reference baseline, worst first; empty without both."""
    gains = case_gains(report, measurements)
    return tuple(sorted(gains, key=lambda case: (gains[case], case))[:count])


def case_gains(report: Front, measurements: Sequence[Measurement]) -> dict[str, float]:
    """Gain of the pick over the reference baseline on the :func:`case_goal`, by case; empty without both."""
    goal = case_goal(report, measurements)
    pick, reference = pick_and_reference(report, measurements)
    if goal is None or pick is None or reference is None or pick is reference:
        return {}
    return paired_gains(pick, reference, goal)


def case_goal(report: Front, measurements: Sequence[Measurement]) -> Objective | None:
    """The accuracy objective; where that is a metric of the whole split, the first of the task's metrics that the pick has
    by case, because no case has a share in an AUROC. None without either."""
    goal = accuracy_objective(report.objectives)
    pick, _ = pick_and_reference(report, measurements)
    if goal is None or pick is None or goal.metric not in pick.draws:
        return goal
    by_case = {name for values in pick.cases.values() for name, value in values.items() if value is not None}
    name = next((name for name in report.metrics if name in by_case), None)
    return Objective(name, report.metrics[name].direction) if name else goal


def pick_and_reference(
    report: Front, measurements: Sequence[Measurement]
) -> tuple[Measurement | None, Measurement | None]:
    valid = {item.digest: item for item in measurements if item.valid}
    return valid.get(report.featured or ""), valid.get(report.reference or "")


def require_picture(image: object) -> None:
    """Raises ``ValueError`` unless it is an array (H, W, 3) of uint8 with pixels in it."""
    if not isinstance(image, np.ndarray):
        raise ValueError(f"a picture is uint8 (H, W, 3), but got {type(image).__name__}")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(f"a picture is uint8 (H, W, 3), but got {image.dtype} {image.shape}")


def data_uri(image: npt.NDArray[np.uint8]) -> str:
    """The array as a PNG in a ``data:`` URI, shrunk to :data:`MAX_SIDE`. Raises ``ValueError`` unless (H, W, 3) uint8."""
    from PIL import Image

    require_picture(image)
    picture = Image.fromarray(np.ascontiguousarray(image))
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def picture_rows(pictures: Sequence[CasePicture], report: Front, measurements: Sequence[Measurement]) -> Pictures:
    """A row per case: its pictures side by side, each with what it scored."""
    pick, reference = pick_and_reference(report, measurements)
    values = {"pick": pick.cases if pick else {}, "baseline": reference.cases if reference else {}}
    goal = case_goal(report, measurements)
    rows = []
    for picture in pictures:
        shown = []
        for role, text in ROLES.items():
            if role not in picture.images:
                continue
            caption = text
            value = values.get(role, {}).get(picture.case, {}).get(goal.metric) if goal else None
            if goal and value is not None:
                caption += f": {heading(goal.metric)} {quantity(value, goal.metric, report.unit(goal.metric))}"
            shown.append(Picture(data_uri(picture.images[role]), f"{picture.case}, {caption}", caption))
        rows.append((picture.case, shown))
    return Pictures(rows)
