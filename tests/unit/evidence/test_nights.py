"""Each line of the rule by which a night is judged."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from edgedeploy.errors import MeasurementError
from edgedeploy.evidence.nights import (
    CLIP,
    LEAST_NIGHTS,
    MOST_NIGHTS,
    Limits,
    Past,
    drift_of,
    judge_series,
    reference_of,
    widened,
)

LIMITS = Limits()
CALM = [Past(0.01 * side) for side in (-1, 1)] * 15
"""30 nights of median 0 and spread 0.0102."""


def pasts(*losses: float) -> list[Past]:
    return [Past(loss) for loss in losses]


def test_a_quiet_night_is_ok_and_says_what_it_was_held_against() -> None:
    found = judge_series(CALM, [0.002, 0.006], LIMITS)
    assert (found.status, found.loss, found.reference) == ("ok", pytest.approx(0.004), 0.0)
    assert found.spread == pytest.approx(1.4826 * 0.01)
    assert found.limit == pytest.approx(math.log(1.05))
    assert found.drift == 0.0


def test_tonight_is_the_mean_of_two_sessions() -> None:
    assert judge_series(CALM, [0.09, 0.0], LIMITS).status == "ok"
    assert judge_series(CALM, [0.09, 0.02], LIMITS).status == "suspect"


def test_a_hot_night_is_suspect_until_two_more_sessions_decide() -> None:
    assert judge_series(CALM, [0.06, 0.06], LIMITS).status == "suspect"
    confirmed = judge_series(CALM, [0.06, 0.06, 0.05, 0.06], LIMITS)
    assert confirmed.status == "regression"
    assert "6.2% worse, limit 5.0%" in confirmed.reason
    assert "two more sessions say 5.7% worse" in confirmed.reason


def test_an_unconfirmed_suspicion_counts_with_the_mean_of_all() -> None:
    found = judge_series(CALM, [0.06, 0.06, 0.0, 0.0], LIMITS)
    assert (found.status, found.loss) == ("ok", pytest.approx(0.03))
    assert "not confirmed" in found.reason


def test_the_two_more_sessions_confirm_by_themselves() -> None:
    """A night so bad that the mean of all four is beyond the limit is no alarm where the last two are not."""
    assert judge_series(CALM, [0.2, 0.2, 0.04, 0.04], LIMITS).status == "ok"


def test_one_session_that_is_calm_keeps_a_night_from_alarming() -> None:
    """Two disturbed sessions, one in each pair, lift both means."""
    disturbed = judge_series(CALM, [0.12, 0.0, 0.0, 0.12], LIMITS)
    assert disturbed.status == "ok"
    assert "the lowest of all 0.0% worse" in disturbed.reason
    assert judge_series(CALM, [0.12, 0.025, 0.025, 0.12], LIMITS).status == "regression"
    assert judge_series([], [0.12, 0.0, 0.0, 0.12], LIMITS).status == "young"


@pytest.mark.parametrize(("scale", "limit"), [(1.0, math.log(1.05)), (4.0, 3 * 1.4826 * 0.04)])
def test_the_hot_limit_is_five_percent_or_three_spreads(scale: float, limit: float) -> None:
    history = [Past(past.loss * scale) for past in CALM]
    for beyond, status in ((1e-6, "suspect"), (-1e-6, "ok")):
        found = judge_series(history, [limit + beyond] * 2, LIMITS)
        assert (found.status, found.limit) == (status, pytest.approx(limit))


def test_losses_are_held_against_the_reference_and_not_against_zero() -> None:
    history = [Past(past.loss - 0.7) for past in CALM]
    assert judge_series(history, [-0.7, -0.7], LIMITS).status == "ok"
    assert judge_series(history, [-0.6, -0.6, -0.6, -0.6], LIMITS).status == "regression"


def test_better_is_never_an_alarm() -> None:
    found = judge_series(CALM, [-0.5, -0.5], LIMITS)
    assert (found.status, found.drift) == ("ok", 0.0)
    assert "39.3% better" in found.reason


def test_a_small_loss_that_stays_is_found_by_the_cusum() -> None:
    """4 % is never hot. Each night adds 2.65 spreads less 1.25."""
    history, statuses = list(CALM), []
    for _ in range(4):
        found = judge_series(history, [0.0393, 0.0393], LIMITS)
        statuses.append(found.status)
        history.append(Past(0.0393))
    assert statuses == ["ok", "ok", "suspect", "suspect"]
    assert judge_series(history[:-2], [0.0393] * 4, LIMITS).status == "regression"


def test_a_drift_has_to_be_confirmed_beyond_its_floor_too() -> None:
    history = [*CALM, *pasts(0.0393, 0.0393)]
    assert judge_series(history, [0.0393, 0.0393, 0.029, 0.029], LIMITS).status == "ok"
    assert judge_series(history, [0.0393, 0.0393, 0.031, 0.031], LIMITS).status == "regression"


def test_a_drift_below_three_percent_is_left_alone() -> None:
    history = [*CALM, *pasts(*[0.028] * 40)]
    found = judge_series(history, [0.028, 0.028], LIMITS)
    assert found.drift is not None and found.drift > LIMITS.drift_h
    assert found.status == "ok"


def test_the_median_of_three_nights_has_to_be_beyond_the_floor() -> None:
    """A CUSUM that two disturbed nights filled does not alarm in a night that is nearly calm."""
    history = [*CALM, *pasts(0.2, 0.2)]
    assert judge_series(history, [0.031, 0.031], LIMITS).status == "suspect"
    assert judge_series([*history, Past(0.0)], [0.031, 0.031], LIMITS).status == "suspect"
    assert judge_series([*history, Past(0.0), Past(0.0)], [0.031, 0.031], LIMITS).status == "ok"


def test_one_disturbed_night_adds_no_more_than_the_clip() -> None:
    reference = reference_of(CALM, LIMITS)
    assert reference is not None
    assert drift_of([*CALM, Past(5.0)], reference, LIMITS) == pytest.approx(CLIP - LIMITS.drift_k)


def test_after_an_alarm_the_cusum_starts_anew() -> None:
    reference = reference_of(CALM, LIMITS)
    assert reference is not None
    drifting = pasts(*[0.04] * 5)
    assert drift_of([*CALM, *drifting], reference, LIMITS) > LIMITS.drift_h
    assert drift_of([*CALM, *drifting, Past(0.04, alarmed=True)], reference, LIMITS) == 0.0
    after = judge_series([*CALM, *drifting, Past(0.04, alarmed=True)], [0.03, 0.03], LIMITS)
    assert (after.status, after.drift) == ("ok", pytest.approx(0.03 / (1.4826 * 0.01) - LIMITS.drift_k))


def test_a_regression_that_stays_goes_on_alarming_because_the_reference_does_not_move() -> None:
    history = list(CALM)
    for _ in range(100):
        assert judge_series(history, [0.1] * 4, LIMITS).status == "regression"
        history.append(Past(0.1, alarmed=True))
    assert judge_series(history, [0.0, 0.0], LIMITS).status == "ok"


def test_the_reference_grows_to_its_size_and_is_frozen_then() -> None:
    rng = np.random.default_rng(3)
    losses = [Past(float(loss)) for loss in rng.normal(0, 0.01, 60)]
    by_nights = [reference_of(losses[:nights], LIMITS) for nights in range(61)]
    assert by_nights[:LEAST_NIGHTS] == [None] * LEAST_NIGHTS
    assert len(set(by_nights[LEAST_NIGHTS : MOST_NIGHTS + 1])) == MOST_NIGHTS + 1 - LEAST_NIGHTS
    assert set(by_nights[MOST_NIGHTS:]) == {by_nights[MOST_NIGHTS]}


def test_nights_that_alarmed_are_no_reference() -> None:
    plain = reference_of(CALM[:20], LIMITS)
    assert reference_of([Past(0.3, alarmed=True), *CALM[:10], Past(0.3, alarmed=True), *CALM[10:20]], LIMITS) == plain
    assert reference_of([*CALM[: LEAST_NIGHTS - 1], Past(0.3, alarmed=True)], LIMITS) is None


@pytest.mark.parametrize(
    ("losses", "spread"),
    [
        ([0.0] * 20, 0.005),
        ([-0.02, 0.02] * 10, 1.4826 * 0.02),
        ([0.0] * 19 + [0.4], float(np.std([0.0] * 19 + [0.4], ddof=1))),
    ],
    ids=["floor", "MAD", "heavy tail"],
)
def test_the_spread_is_the_largest_of_three(losses: list[float], spread: float) -> None:
    reference = reference_of(pasts(*losses), LIMITS)
    assert reference is not None
    assert reference.spread == pytest.approx(spread)


def test_a_young_series_is_held_against_five_percent_alone() -> None:
    """Without a reference nothing drifts, and a history that is slower throughout is no excuse."""
    history = pasts(*[0.045] * (LEAST_NIGHTS - 1))
    found = judge_series(history, [0.04, 0.04], LIMITS)
    assert (found.status, found.spread, found.drift, found.reference) == ("young", None, None, 0.0)
    assert found.limit == pytest.approx(math.log(1.05))
    assert "14 of 15 nights" in found.reason
    assert judge_series([], [0.06, 0.06], LIMITS).status == "suspect"
    assert judge_series([], [0.06, 0.06, 0.06, 0.06], LIMITS).status == "regression"
    assert judge_series([], [0.06, 0.06, 0.01, 0.01], LIMITS).status == "young"


def test_a_young_series_of_a_noisy_run_is_held_against_the_runs_own_noise() -> None:
    assert judge_series([], [0.06, 0.06], LIMITS, within_s=0.01).status == "suspect"
    found = judge_series([], [0.06, 0.06], LIMITS, within_s=0.03)
    assert (found.status, found.limit) == ("young", pytest.approx(0.09))


def test_floors_and_units_of_accuracy_are_the_callers() -> None:
    dice = replace(LIMITS, hot_floor=0.01, drift_floor=0.005, young_floor=0.01, spread_floor=0.001, ratios=False)
    history = pasts(*[0.0] * 20)
    assert judge_series(history, [0.009, 0.009], dice).status == "ok"
    found = judge_series(history, [0.012, 0.012, 0.012, 0.012], dice)
    assert found.status == "regression"
    assert "0.0120 worse, limit 0.0100" in found.reason


def test_one_session_is_judged_and_none_is_missing() -> None:
    assert judge_series(CALM, [0.06], LIMITS).status == "suspect"
    assert judge_series(CALM, [], LIMITS).status == "missing"


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("history", [[], CALM], ids=["young", "grown"])
def test_what_is_no_number_is_refused_and_never_judged(wrong: float, history: list[Past]) -> None:
    with pytest.raises(MeasurementError, match=r"tonight's sessions: 1 of 2 losses are not finite"):
        judge_series(history, [0.0, wrong], LIMITS)
    with pytest.raises(MeasurementError, match="history"):
        judge_series([*history, Past(wrong)], [0.0, 0.0], LIMITS)
    with pytest.raises(MeasurementError, match="within the run"):
        judge_series([], [0.0, 0.0], LIMITS, within_s=wrong)


def test_more_series_have_wider_limits() -> None:
    assert widened(1) == LIMITS
    by_series = [widened(series) for series in (1, 10, 25, 100, 1000, 10_000, 100_000)]
    for name in ("hot_s", "drift_h"):
        values = [getattr(limits, name) for limits in by_series]
        assert values == sorted(values)
    with pytest.raises(ValueError, match="at least one series"):
        widened(0)
