"""Per-case segmentation metrics, computed by MONAI on label maps at the truth's own size, of images and of volumes.

Empty masks (after Maier-Hein et al., "Metrics reloaded", Nature Methods 2024: overlap and distance are undefined without
a reference, and a structure that was invented or missed must not pass as "not applicable"):

| truth | answer | Dice | surface Dice | HD95 |
|---|---|---|---|---|
| empty | empty | undefined | undefined | undefined |
| empty | drawn | 0 | 0 | undefined |
| drawn | empty | 0 | 0 | the image's diagonal |
| drawn | drawn | computed | computed | computed |

Undefined is None: the case is left out of that metric's mean, and the number of defined cases stands beside it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from edgedeploy.records.metrics import MetricInfo

Labels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

SURFACE_TOLERANCE_PX: Final = 3.0
HD_PERCENTILE: Final = 95.0
MARGIN_PX: Final = 2


def metric_table(classes: Mapping[str, int]) -> dict[str, MetricInfo]:
    """What :func:`segmentation_metrics` returns for these classes."""
    table = {
        "dice_mean": MetricInfo(
            "maximize", "1", "Dice, mean over the classes defined in the case", bound=1.0, yes_or_no=False
        )
    }
    for name in classes:
        table[f"dice_{name}"] = MetricInfo("maximize", "1", f"Dice of {name}", bound=1.0, yes_or_no=False)
        text = f"surface Dice of {name} at {SURFACE_TOLERANCE_PX:g} px"
        table[f"nsd_{name}"] = MetricInfo("maximize", "1", text, bound=1.0, yes_or_no=False)
        table[f"hd95_{name}_px"] = MetricInfo(
            "minimize", "px", f"95th percentile Hausdorff distance of {name}", bound=0.0
        )
    return table


def segmentation_metrics(answer: Labels, truth: Labels, classes: Mapping[str, int]) -> dict[str, float | None]:
    """Metrics of one case. ``answer`` and ``truth`` are label maps (H, W); ``classes`` maps name to label."""
    found: dict[str, float | None] = {}
    for name, label in classes.items():
        dice, nsd, hd95 = structure_metrics(answer == label, truth == label, SURFACE_TOLERANCE_PX)
        found[f"dice_{name}"], found[f"nsd_{name}"], found[f"hd95_{name}_px"] = dice, nsd, hd95
    return {**found, "dice_mean": mean_of_defined(found[f"dice_{name}"] for name in classes)}


def structure_metrics(
    answer: Mask, truth: Mask, tolerance: float, spacing: Sequence[float] | None = None
) -> tuple[float | None, float | None, float | None]:
    """Dice, surface Dice at ``tolerance``, and HD95 of one structure: two masks of equal shape, (H, W) or (X, Y, Z).
    Distances are in the unit of ``spacing`` (along each axis; pixels without it)."""
    if not truth.any():
        return (None, None, None) if not answer.any() else (0.0, 0.0, None)
    sides = spacing or (1.0,) * truth.ndim
    if not answer.any():
        return 0.0, 0.0, math.hypot(*(side * count for side, count in zip(sides, truth.shape, strict=True)))
    return _monai(*_crop(answer, truth), tolerance, sides)


def mean_of_defined(values: Iterable[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def _crop(answer: Mask, truth: Mask) -> tuple[Mask, Mask]:
    """Both masks cut to what they cover together, with a rim: the distances stay, the transforms get cheap."""
    window = []
    for axis in range(truth.ndim):
        others = tuple(other for other in range(truth.ndim) if other != axis)
        covered = np.flatnonzero((answer | truth).any(axis=others))
        window.append(slice(max(0, covered[0] - MARGIN_PX), covered[-1] + 1 + MARGIN_PX))
    return answer[tuple(window)], truth[tuple(window)]


def _monai(answer: Mask, truth: Mask, tolerance: float, spacing: Sequence[float]) -> tuple[float, float, float]:
    import torch
    from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice

    ours, theirs = (torch.from_numpy(np.ascontiguousarray(mask))[None, None].float() for mask in (answer, truth))
    sides = {} if set(spacing) == {1.0} else {"spacing": list(spacing)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI warns of its own internal calls
        dice = float(compute_dice(ours, theirs, include_background=True))
        nsd = float(compute_surface_dice(ours, theirs, [tolerance], include_background=True, **sides))
        hd95 = float(
            compute_hausdorff_distance(ours, theirs, include_background=True, percentile=HD_PERCENTILE, **sides)
        )
    return dice, nsd, hd95
