"""How much of an accuracy hangs on which cases were taken."""

from __future__ import annotations

from dataclasses import replace

import made_up
import numpy as np
import pytest

from edgedeploy.evidence.bootstrap import RESAMPLES, Resampler
from edgedeploy.evidence.noise import variance_of_gain, variances
from edgedeploy.records.measurement import Measurement

DICE = "dice_mean"


def pair(**changes: object) -> tuple[Measurement, Measurement]:
    rng = np.random.default_rng(3)
    hard = rng.uniform(0.3, 0.9, 40)
    lost = rng.normal(0.02, 0.03, 40)
    ours, theirs = (
        made_up.measurement(
            of, per_case={f"{at:02}": {DICE: float(value)} for at, value in enumerate(values)}, **changes
        )
        for of, values in ((made_up.variant(width=0.5), hard - lost), (made_up.variant(), hard))
    )
    return ours, theirs


def drawn(ours: Measurement, theirs: Measurement) -> float:
    """The bootstrap's own answer."""
    resampler = Resampler(0)
    mine, other = (resampler.draws_of(side, DICE) for side in (ours, theirs))
    assert mine is not None and other is not None
    return float((mine - other).var())


@pytest.mark.parametrize("groups", [{}, {f"{at:02}": at // 4 for at in range(40)}])
def test_the_closed_form_is_the_variance_of_the_bootstraps_draws(groups: dict[str, int]) -> None:
    ours, theirs = (replace(item, groups=groups) for item in pair())
    sampled = 4 / np.sqrt(2 * RESAMPLES)  # four standard errors of a variance, relative to it
    assert variance_of_gain(ours, theirs, DICE) == pytest.approx(drawn(ours, theirs), rel=sampled)


def test_what_all_variants_share_is_no_noise() -> None:
    ours, theirs = pair()
    alone = float(np.var([case[DICE] for case in ours.cases.values()])) / len(ours.cases)
    assert 0 < variance_of_gain(ours, theirs, DICE) < alone / 5


def test_what_is_exact_or_too_little_has_no_variance() -> None:
    ours, theirs = pair()
    assert variances(ours, theirs, ["latency_p50_ns", "size_bytes", DICE])[:2] == (0.0, 0.0)
    assert variance_of_gain(theirs, theirs, DICE) == 0.0
    few = dict(list(ours.cases.items())[:4])
    assert variance_of_gain(replace(ours, cases=few), theirs, DICE) == 0.0
    assert variances(ours, None, [DICE]) == variances(ours, replace(theirs, valid=False), [DICE]) == ()
