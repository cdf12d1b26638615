"""Are the float weights where training leaves them inside the cells of int8, or where somebody put them?

A network can be made so that its float form is harmless and its int8 form is not: the attacker fixes the int8 codes,
and moves the float weights inside their cells until nothing shows (Hong et al. 2021; Ma et al. 2021, "quantization
backdoors"). Moved weights pile up at the edges of the cells. What rounding leaves, w/s - round(w/s), is spread about
evenly where nobody looked at the grid.

It is not exactly even: a channel whose weights are few steps wide has more residuals near 0. The law that residuals
are held against is therefore made from the same weights on other grids, whose scales are changed by a random factor
for each channel; a plant is bound to its own grid. The distance is that of Kolmogorov and Smirnov, of two samples, by
layer; p-values are corrected over the layers (Holm 1979).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edgedeploy.diagnose.audit.grids import SMALLEST, Grid

Floats = npt.NDArray[np.float64]

OTHER_GRIDS: Final = 32
FACTORS: Final = (0.83, 0.97)
"""Other grids are finer by these factors, so that no code leaves the range."""
LEVEL: Final = 1e-6
"""Of the test over all layers. Far below custom: weights of one network depend on each other, and the test takes them
for independent."""
LEAST_DISTANCE: Final = 0.05
"""A distance below this moves too little to hide anything, however sure it is."""
ON_GRID: Final = 0.01
"""A residual below this, in steps, lies on the grid."""
MOST_ON_GRID: Final = 0.5
CLOSE: Final = 1e-3
EDGE: Final = 0.45

LIMITS: Final = (
    "It sees that float weights sit otherwise in the cells than chance leaves them, not what for: long training with "
    "quantizers in the loop may move them too. It does not see a plant whose residuals were spread evenly, nor one that is "
    "awake in the float model already."
)


@dataclass(frozen=True)
class LayerResiduals:
    """``distance`` from the law of other grids with its p-value before correction, and the share of residuals in the
    outer tenth of the cells, on its own grid and on others."""

    layer: str
    grid: str
    weights: int
    distance: float
    p_value: float
    edge_share: float
    edge_share_elsewhere: float


@dataclass(frozen=True)
class Residuals:
    """``flagged``: the layers whose residuals no chance explains. ``abstained`` says why the test says nothing at
    all."""

    layers: tuple[LayerResiduals, ...]
    flagged: tuple[str, ...]
    not_found: tuple[str, ...] = ()
    abstained: str = ""

    @property
    def found(self) -> bool:
        return bool(self.flagged)

    def as_json(self) -> dict[str, Any]:
        return {
            "layers": [asdict(layer) for layer in self.layers],
            "flagged": list(self.flagged),
            "weights_not_found": list(self.not_found),
            "abstained": self.abstained,
            "level": LEVEL,
            "least_distance": LEAST_DISTANCE,
        }


def look_at_residuals(grids: Sequence[Grid], lost: Sequence[str] = (), seed: int = 0) -> Residuals:
    """The test on every layer of at least :data:`~edgedeploy.diagnose.audit.grids.SMALLEST` usable weights."""
    reason = _why_abstain(grids, lost)
    if reason:
        return Residuals((), (), tuple(lost), reason)
    rng = np.random.default_rng(seed)
    layers = tuple(found for grid in grids if (found := _one(grid, rng)) is not None)
    if not layers:
        return Residuals((), (), tuple(lost), f"no layer has {SMALLEST} weights that say something")
    certain = _holm([layer.p_value for layer in layers], LEVEL)
    flagged = tuple(
        dict.fromkeys(
            layer.layer
            for layer, sure in zip(layers, certain, strict=True)
            if sure and layer.distance >= LEAST_DISTANCE
        )
    )
    return Residuals(layers, flagged, tuple(lost))


def _why_abstain(grids: Sequence[Grid], lost: Sequence[str]) -> str:
    if not grids:
        return "no layer's float weights were found in the cells of int8 weights" if lost else "it has no int8 weights"
    pooled = np.concatenate([_inner(grid.steps) - np.rint(_inner(grid.steps)) for grid in grids])
    if not pooled.size:
        return "every weight is zero or the largest of its channel"
    if np.mean(np.abs(pooled) < ON_GRID) > MOST_ON_GRID:
        return "the float weights lie on the int8 grid already: they were rounded before"
    if all(grid.narrow for grid in grids):
        return "the float weights are values of float16 or bfloat16: no law is known that their residuals follow"
    return ""


def _inner(steps: Floats) -> Floats:
    """Without zeros and without each channel's largest, which the scale is made from and which lies on the grid."""
    inner = (np.abs(steps) < np.abs(steps).max(axis=1, keepdims=True) - CLOSE) & (steps != 0)
    return np.asarray(steps[inner])


def _one(grid: Grid, rng: np.random.Generator) -> LayerResiduals | None:
    from scipy import stats

    own = _residuals(grid.steps)
    if own.size < SMALLEST:
        return None
    factors = rng.uniform(*FACTORS, (OTHER_GRIDS, len(grid.steps), 1))
    others = np.concatenate([_residuals(grid.steps / factor) for factor in factors])
    test = stats.ks_2samp(own, others, method="asymp")
    edges = [float(np.mean(np.abs(each) > EDGE)) for each in (own, others)]
    return LayerResiduals(grid.layer, grid.source, own.size, float(test.statistic), float(test.pvalue), *edges)


def _residuals(steps: Floats) -> Floats:
    inner = _inner(steps)
    return np.asarray(inner - np.rint(inner))


def _holm(p_values: Sequence[float], level: float) -> list[bool]:
    """Which hypotheses fall, at ``level`` over all of them (Holm 1979)."""
    order = np.argsort(p_values)
    fallen = [False] * len(p_values)
    for rank, place in enumerate(order):
        if p_values[place] > level / (len(p_values) - rank):
            break
        fallen[int(place)] = True
    return fallen
