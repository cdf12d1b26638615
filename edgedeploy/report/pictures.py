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
from edgedeploy.evidence.quantities import gain_text, heading, quantity
from edgedeploy.records.goals import Objective
from edgedeploy.records.measurement import Measurement
from edgedeploy.report.blocks import Picture, Pictures
from edgedeploy.report.shipping import featured_role

ROLES: Final = ("truth", "baseline", "pick")
MAX_SIDE: Final = 320
"""Pixels of a picture's longer side in the page: enough to see a contour, and forty of them fit in a mail."""

MOST_PICTURED: Final = 12
MOST_BYTES: Final = 1_800_000
"""Of all pictures in the page; cases that would need more are listed without."""


@dataclass(frozen=True)
class CasePicture:
    """One case as RGB uint8 arrays (H, W, 3) by role: ``truth``, ``baseline``, ``pick``; any of them may be absent."""

    case: str
    images: Mapping[str, npt.NDArray[np.uint8]]


def worst_cases(report: Front, measurements: Sequence[Measurement], count: int = 4) -> tuple[str, ...]:
    """Ids of the cases where the pick loses most against the reference baseline, worst first; empty without both."""
    gains = case_gains(report, measurements)
    return tuple(sorted(gains, key=lambda case: (gains[case], case))[:count])


def pictured_cases(report: Front, measurements: Sequence[Measurement]) -> tuple[str, ...]:
    """The worst cases, and every lost one as far as there is room: worst first."""
    worst = worst_cases(report, measurements)
    judged = report.decision.judged.get(report.featured or "")
    lost = judged.lost.lost if judged is not None and judged.lost is not None else ()
    return tuple(dict.fromkeys((*worst, *lost)))[:MOST_PICTURED] if worst else ()


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
    """A row per case: its pictures side by side, each with what it scored, and how much the case loses. Rows past
    :data:`MOST_BYTES` are left out, the first never."""
    pick, reference = pick_and_reference(report, measurements)
    sides = {"baseline": (reference, "baseline's answer"), "pick": (pick, f"{featured_role(report)}'s answer")}
    goal = case_goal(report, measurements)
    gains = case_gains(report, measurements)
    rows: list[tuple[str, Sequence[Picture]]] = []
    left = MOST_BYTES
    for picture in pictures:
        shown = []
        for role in (role for role in ROLES if role in picture.images):
            side, caption = sides.get(role, (None, role))
            scored = _scored(side, picture.case, goal, report)
            caption = f"{caption}: {scored}" if scored else caption
            shown.append(Picture(data_uri(picture.images[role]), f"{picture.case}, {caption}", caption))
        left -= sum(len(item.uri) for item in shown)
        if left < 0 and rows:
            break
        gain = gains.get(picture.case)
        lost = "" if goal is None or gain is None else f": {gain_text(gain, goal.metric, report.unit(goal.metric))}"
        rows.append((f"{picture.case}{lost}", shown))
    return Pictures(rows)


def _scored(side: Measurement | None, case: str, goal: Objective | None, report: Front) -> str:
    """What one side scored in the case, on the :func:`case_goal`; empty without a value."""
    value = side.cases.get(case, {}).get(goal.metric) if side and goal else None
    if goal is None or value is None:
        return ""
    return f"{heading(goal.metric)} {quantity(value, goal.metric, report.unit(goal.metric))}"
