"""Per-case segmentation metrics, computed by MONAI on label maps at the mask's own size.

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
from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from edgedeploy.records.metrics import MetricInfo

Labels = npt.NDArray[np.uint8]

SURFACE_TOLERANCE_PX: Final = 3.0
HD_PERCENTILE: Final = 95.0
MARGIN_PX: Final = 2


def metric_table(classes: Mapping[str, int]) -> dict[str, MetricInfo]:
    """What :func:`segmentation_metrics` returns for these classes."""
    table = {"dice_mean": MetricInfo("maximize", "1", "Dice, mean over the classes defined in the case", bound=1.0)}
    for name in classes:
        table[f"dice_{name}"] = MetricInfo("maximize", "1", f"Dice of {name}", bound=1.0)
        text = f"surface Dice of {name} at {SURFACE_TOLERANCE_PX:g} px"
        table[f"nsd_{name}"] = MetricInfo("maximize", "1", text, bound=1.0)
        table[f"hd95_{name}_px"] = MetricInfo(
            "minimize", "px", f"95th percentile Hausdorff distance of {name}", bound=0.0
        )
    return table


def segmentation_metrics(answer: Labels, truth: Labels, classes: Mapping[str, int]) -> dict[str, float | None]:
    """Metrics of one case. ``answer`` and ``truth`` are label maps (H, W); ``classes`` maps name to label."""
    found: dict[str, float | None] = {}
    for name, label in classes.items():
        dice, nsd, hd95 = _class_metrics(answer == label, truth == label)
        found[f"dice_{name}"], found[f"nsd_{name}"], found[f"hd95_{name}_px"] = dice, nsd, hd95
    defined = [value for name in classes if (value := found[f"dice_{name}"]) is not None]
    found["dice_mean"] = sum(defined) / len(defined) if defined else None
    return found


def _class_metrics(answer: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> tuple[float | None, ...]:
    if not truth.any():
        return (None, None, None) if not answer.any() else (0.0, 0.0, None)
    if not answer.any():
        return 0.0, 0.0, math.hypot(*truth.shape)
    return _monai(*_crop(answer, truth))


def _crop(answer: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.bool_], ...]:
    """Both masks cut to what they cover together, with a rim: the distances stay, the transforms get cheap."""
    rows, columns = (np.flatnonzero((answer | truth).any(axis=axis)) for axis in (1, 0))
    top, left = max(0, rows[0] - MARGIN_PX), max(0, columns[0] - MARGIN_PX)
    window = np.s_[top : rows[-1] + 1 + MARGIN_PX, left : columns[-1] + 1 + MARGIN_PX]
    return answer[window], truth[window]


def _monai(answer: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> tuple[float, float, float]:
    import torch
    from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice

    ours, theirs = (torch.from_numpy(np.ascontiguousarray(mask))[None, None].float() for mask in (answer, truth))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI warns of its own internal calls
        dice = float(compute_dice(ours, theirs, include_background=True))
        nsd = float(compute_surface_dice(ours, theirs, [SURFACE_TOLERANCE_PX], include_background=True))
        hd95 = float(compute_hausdorff_distance(ours, theirs, include_background=True, percentile=HD_PERCENTILE))
    return dice, nsd, hd95
