"""Whether what a study is told beforehand comes true, and how sure differences of AUROCs are."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from benchmarks.evidence_kit.asked import Asked
from benchmarks.shared.rows import Row, RowMaker
from edgedeploy.evidence.auroc import auroc_of, difference_error, placements
from edgedeploy.evidence.bootstrap import times_drawn
from edgedeploy.evidence.noninferiority import LEVEL, Differences, Floats, t_quantile
from edgedeploy.evidence.power import POWERS, provable_margin

SPREAD: Final = 0.03
OFF_BAR: Final = 0.03
"""What a promised power may be off by: the pick's bound is the lower of two, and the promise is of one of them."""

BASE, NEW = 0.90, 0.86
"""AUROCs of a baseline and of a variant that loses just the margin."""

RANKED_REPEATS: Final = 1500


def power_promised_for_40_cases(asked: Asked) -> Row:
    """How often the pick's bound shows the margin that :func:`provable_margin` promises when nothing is lost."""
    cases, power = 40, POWERS[0]
    margin = provable_margin(cases, SPREAD, power=power)
    assert margin is not None
    rng = np.random.default_rng(asked.seed)
    times = times_drawn(asked.seed, cases)
    shown = 0
    for gains in rng.normal(0, SPREAD, (asked.repeats, cases)):
        held = Differences.of_cases(gains, gains @ times / cases)
        assert held is not None
        shown += held.p_value(margin) <= 1 - LEVEL
    share = shown / asked.repeats
    return Row(
        f"margin {margin:.4f} promised at {power:.0%} power (40 cases, sd {SPREAD}), nothing lost: shown",
        f"{share:.1%} +- {math.sqrt(share * (1 - share) / asked.repeats):.1%}",
        f"{power:.0%} +- {OFF_BAR:.0%}",
        abs(share - power) <= OFF_BAR,
    )


def false_auroc_of_80_cases(asked: Asked) -> Row:
    """DeLong's t at the margin, cases by themselves."""
    plain, _, repeats = _false_aurocs(asked, 80, 1, 0.0)
    return Row("AUROC that loses just the margin, 80 cases: called non-inferior by DeLong's t", _share(plain, repeats))


def false_auroc_of_20_patients(asked: Asked) -> Row:
    """Obuchowski's t at the margin, 20 patients with 10 images, each patient ill or not."""
    plain, grouped, repeats = _false_aurocs(asked, 20, 10, 0.5)
    found = f"{_share(grouped, repeats)}; without groups {_share(plain, repeats)}"
    return Row(
        "AUROC that loses just the margin, 20 patients x 10 (ICC .5): called non-inferior by Obuchowski's t", found
    )


def _false_aurocs(asked: Asked, patients: int, each: int, icc: float) -> tuple[int, int, int]:
    """How often the variant is called non-inferior without and with groups, and of how many repeats."""
    from scipy.stats import norm

    rng = np.random.default_rng(asked.seed)
    apart = [math.sqrt(2) * float(norm.ppf(area)) for area in (NEW, BASE)]
    owner = np.repeat(np.arange(patients), each)
    ids = [f"case-{place:04d}" for place in range(owner.size)]
    groups = dict(zip(ids, owner.tolist(), strict=True))
    plain = grouped = done = 0
    for _ in range(min(asked.repeats, RANKED_REPEATS)):
        ill = (rng.random(patients) < 0.5)[owner]
        shared = _noise(rng, owner, icc)
        scores = [
            distance * ill + math.sqrt(0.6) * shared + math.sqrt(0.4) * _noise(rng, owner, icc) for distance in apart
        ]
        pair = [placements(ill.tolist(), score.tolist(), ids) for score in scores]
        if pair[0] is None or pair[1] is None:
            continue
        alone = difference_error(pair[0], pair[1])
        together = difference_error(pair[0], pair[1], groups if each > 1 else None)
        if alone is None or together is None:
            continue
        done += 1
        room = auroc_of(pair[0]) - auroc_of(pair[1]) + BASE - NEW
        plain += room >= t_quantile(alone[1], LEVEL) * alone[0]
        grouped += room >= t_quantile(together[1], LEVEL) * together[0]
    return plain, grouped, done


def _noise(rng: np.random.Generator, owner: npt.NDArray[np.int64], icc: float) -> Floats:
    """Unit variance, of which a share ``icc`` is the patient's."""
    own = rng.normal(size=owner.size)
    theirs = rng.normal(size=int(owner.max()) + 1)[owner]
    return np.asarray(math.sqrt(icc) * theirs + math.sqrt(1 - icc) * own)


def _share(count: int, of: int) -> str:
    return f"{count / of:.1%} of {of}" if of else "nothing"


ROWS: Final[tuple[RowMaker, ...]] = (power_promised_for_40_cases, false_auroc_of_80_cases, false_auroc_of_20_patients)
