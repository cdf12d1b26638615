"""Can somebody who has a case and the compressed model tell whether the case was trained on?

The likelihood ratio attack (LiRA, Carlini et al. 2022): shadow models are trained on random halves of a pool of
cases; for every case, how well models answer it is one normal law among those that had it and another among those
that had not, and the score of a case is the logarithm of the ratio of both at the audited model. Means are of each
case, the variance is one for all cases, because there are few shadows. Several artifacts of one model are attacked
jointly by a normal law over all of them, with one covariance that is shrunk towards its diagonal.

A figure of an attack bounds the leak from below: another attack may read more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edgedeploy.diagnose.audit.intervals import Interval

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

FALSE_POSITIVES: Final = 0.01
SHRINK: Final = 0.1
"""Of the covariance of several artifacts towards its diagonal."""
RESAMPLES: Final = 500
FEWEST_OUTSIDERS: Final = 100
"""With fewer cases that were not trained on, one of a hundred cannot be told."""
FEWEST_SHADOWS: Final = 4

LIMITS: Final = (
    "It is one attack (LiRA) by somebody who can train such models on such cases, with as many shadows as stand beside "
    "it: a low figure does not show that nothing leaks, a high one shows that something does. It is no bound of privacy: "
    "only differentially private training gives one. Cases of one patient count as independent."
)


@dataclass(frozen=True)
class Attack:
    """Area under the ROC curve and true positives at 1 % false ones, with intervals over cases and, where several
    models were attacked, over these. ``tpr`` is None where too few cases were left out of the training."""

    artifacts: tuple[str, ...]
    auc: float
    auc_interval: Interval
    tpr: float | None
    tpr_interval: Interval | None
    members: int
    outsiders: int
    models: int
    shadows: int

    def as_json(self) -> dict[str, Any]:
        return {
            "artifacts": list(self.artifacts),
            "auc": self.auc,
            "auc_interval": self.auc_interval.as_json(),
            "tpr_at_1_percent": self.tpr,
            "tpr_interval": self.tpr_interval.as_json() if self.tpr_interval else None,
            "members": self.members,
            "outsiders": self.outsiders,
            "models": self.models,
            "shadows": self.shadows,
        }


def ratios(audited: Floats, shadows: Floats, trained_on: Bools) -> Floats:
    """The log likelihood ratio of each case: ``audited`` (artifacts, cases) are how well the audited model answers,
    ``shadows`` (shadows, artifacts, cases) how well each shadow does, ``trained_on`` (shadows, cases) which had it.
    Cases that all shadows had, or none, get NaN."""
    inside, outside = (_laws(shadows, which) for which in (trained_on, ~trained_on))
    had: Floats = np.where(trained_on[:, None, :], inside[None], outside[None])
    left = shadows - had
    spread = left.transpose(1, 0, 2).reshape(shadows.shape[1], -1)
    spread = spread[:, np.isfinite(spread).all(axis=0)]
    covariance = np.atleast_2d(np.cov(spread))
    covariance = (1 - SHRINK) * covariance + SHRINK * np.diag(np.diag(covariance))
    inverse = np.asarray(np.linalg.inv(covariance + 1e-12 * np.eye(len(covariance))), np.float64)
    return np.asarray(_squared(audited - outside, inverse) / 2 - _squared(audited - inside, inverse) / 2)


def _laws(shadows: Floats, which: Bools) -> Floats:
    """The mean (artifacts, cases) over the shadows of ``which`` (shadows, cases); NaN where there is none."""
    weights = which[:, None, :].astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((shadows * weights).sum(axis=0) / weights.sum(axis=0))


def _squared(apart: Floats, inverse: Floats) -> Floats:
    return np.asarray(np.einsum("ac,ab,bc->c", apart, inverse, apart))


def attack(
    signals: Mapping[str, tuple[Floats, Floats]],
    audited_on: Bools,
    trained_on: Bools,
    seed: int = 0,
) -> Attack:
    """``signals`` has for each artifact how well the audited models (models, cases) and the shadows (shadows, cases)
    answer, ``audited_on`` (models, cases) what the audited models were trained on. Raises ``ValueError`` where no
    model has members and outsiders that shadows tell apart."""
    names = tuple(signals)
    shadows = np.stack([signals[name][1] for name in names], axis=1)
    scored: list[tuple[Floats, Floats]] = []
    for number, members in enumerate(audited_on):
        found = ratios(np.stack([signals[name][0][number] for name in names]), shadows, trained_on)
        known = np.isfinite(found)
        scored.append((found[known & members], found[known & ~members]))
    scored = [(inside, outside) for inside, outside in scored if len(inside) and len(outside)]
    if not scored:
        raise ValueError("no model has members and outsiders")
    enough = min(len(outside) for _, outside in scored) >= FEWEST_OUTSIDERS
    aucs, tprs = _drawn(scored, seed)
    how = f"percentile bootstrap over {'models and ' if len(scored) > 1 else ''}cases"
    return Attack(
        names,
        float(np.mean([auc(*item) for item in scored])),
        Interval(*_middle(aucs), how),
        float(np.mean([true_positives(*item) for item in scored])) if enough else None,
        Interval(*_middle(tprs), how) if enough else None,
        round(float(np.mean([len(inside) for inside, _ in scored]))),
        round(float(np.mean([len(outside) for _, outside in scored]))),
        len(scored),
        len(trained_on),
    )


def _drawn(scored: Sequence[tuple[Floats, Floats]], seed: int) -> tuple[list[float], list[float]]:
    rng = np.random.default_rng(seed)
    aucs, tprs = [], []
    for _ in range(RESAMPLES):
        models = rng.integers(0, len(scored), len(scored))
        draws = [tuple(side[rng.integers(0, len(side), len(side))] for side in scored[number]) for number in models]
        aucs.append(float(np.mean([auc(*draw) for draw in draws])))
        tprs.append(float(np.mean([true_positives(*draw) for draw in draws])))
    return aucs, tprs


def _middle(values: Sequence[float]) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def auc(inside: Floats, outside: Floats) -> float:
    """The share of pairs in which the member scores higher, a tie being half (Mann & Whitney)."""
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([inside, outside]))[: len(inside)]
    return float((ranks.sum() - len(inside) * (len(inside) + 1) / 2) / (len(inside) * len(outside)))


def true_positives(inside: Floats, outside: Floats) -> float:
    """The share of members above the threshold that at most :data:`FALSE_POSITIVES` of the outsiders exceed."""
    allowed = int(FALSE_POSITIVES * len(outside))
    threshold = np.sort(outside)[::-1][allowed]
    return float(np.mean(inside > threshold))


def confidence(likelihood: Floats) -> Floats:
    """The signal of LiRA, log(p / (1 - p)), of the probability that a model gives the true class: near to normal."""
    bounded = np.clip(likelihood, 1e-7, 1 - 1e-7)
    return np.asarray(np.log(bounded) - np.log1p(-bounded))
