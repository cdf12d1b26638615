"""What a search thinks of variants that it has not seen, and what it says of those it leaves."""

from __future__ import annotations

import numpy as np
import pytest

from edgedeploy.records.variant import Variant
from edgedeploy.search.beliefs import LATER, NO_CHANGE, Beliefs
from edgedeploy.search.improvement import cut
from edgedeploy.search.knowledge import Knowledge
from edgedeploy.search.ladder import Ladder, Pace
from edgedeploy.search.outcomes import Scored
from edgedeploy.search.proposals import Proposals, seeds_of
from edgedeploy.search.rungs import Rungs
from edgedeploy.search.scales import Scale, scale_of
from edgedeploy.search.space import Space

EPOCHS = (0, 4, 12)
SPACE = Space(
    ("onnxruntime",),
    {"width": (1.0, 0.75, 0.5, 0.25), "recovery_epochs": EPOCHS, "precision": ("float32", "int8")},
    {},
    {"onnxruntime": ("float32", "int8")},
    1,
)


def outcome(variant: Variant) -> Scored:
    """Accuracy grows with the epochs; time and size hang on width and precision alone."""
    gained = 1 - np.exp(-(variant.recovery_epochs or 0) / 4)
    accuracy = 0.8 if variant.width == 1 else 0.2 + (0.6 - 0.1 / variant.width * 0.5) * gained
    share = 0.4 if variant.precision == "int8" else 1.0
    return Scored((float(accuracy), variant.width**1.5 * share, 1e6 * variant.width**2 * share), {})


def searched(trials: int, left_s: float = np.inf) -> tuple[Proposals, list[Variant]]:
    ladder = Ladder(
        Rungs.of(EPOCHS),
        fixed=(1, 2),
        macs=lambda variant: 1e6 * variant.width**2,
        parameters=lambda variant: 1e5 * variant.width**2,
        pace=lambda: Pace(10.0),
        left_s=lambda: left_s,
    )
    knowledge = Knowledge(
        before=ladder.before,
        left_out=ladder.left_out,
        exact=ladder.exact,
        cost_s=ladder.cost_s,
        told=ladder.told,
        explores=ladder.explores,
        limits={0: 0.3},
        linear=frozenset({1, 2}),
    )
    proposals = Proposals(SPACE, ["maximize", "minimize", "minimize"], 3, knowledge=knowledge)
    seen: list[Variant] = []
    queue = list(seeds_of(SPACE))
    while len(seen) < trials:
        found = queue.pop(0) if queue else None
        if found is None:
            proposal = proposals.next([variant.digest for variant in seen])
            if proposal is None:
                break
            found = proposal.params
        variant = SPACE.variant(found)
        if variant not in seen:
            seen.append(variant)
            proposals.tell(found, outcome(variant))
    return proposals, seen


@pytest.mark.parametrize(
    "scale", [Scale(1.0, True), scale_of(np.array([0.1, 0.5, 0.55, 0.58, 0.6]), -1.0), Scale(1.0, False, np.inf)]
)
def test_a_scale_leads_back_to_the_values(scale: Scale) -> None:
    values = np.array([0.05, 0.3, 0.55, 0.7])
    assert scale.back(scale.of(values)) == pytest.approx(values)


@pytest.mark.parametrize(
    "scale", [Scale(1.0, True), scale_of(np.array([0.1, 0.5, 0.55, 0.58, 0.6]), -1.0), Scale(1.0, False, np.inf)]
)
@pytest.mark.parametrize("in_units", [True, False])
def test_what_lies_below_an_edge_is_the_mean_of_what_may_be_drawn(scale: Scale, in_units: bool) -> None:
    """Also in the bad tail, where a small spread as it is modelled is a wide one in units."""
    weighing = scale.units if in_units else scale
    mean = scale.of(np.array([0.6, 0.4, 0.15]))
    spread = np.array([0.3, 1.0, 0.5]) * (0.1 if not scale.logarithmic else 1.0)
    drawn = np.random.default_rng(0).normal(mean, spread, (40_000, 3))
    values = weighing.of(scale.back(drawn))
    for edge in weighing.of(np.array([0.2, 0.5, 0.9])):
        below = np.maximum(edge - values, 0)
        error = 4 * below.std(axis=0) / np.sqrt(len(below)) + 1e-9
        assert np.all(np.abs(scale.below(mean, spread, in_units)(float(edge)) - below.mean(axis=0)) <= error)


def test_what_cannot_be_is_not_hoped_for() -> None:
    """A Dice of 1.03: gains are those up to the bound, and so is the optimistic value."""
    scale, mean, spread = Scale(-1.0, False, np.inf), np.array([-0.95]), np.array([0.04])
    drawn = np.maximum(np.random.default_rng(0).normal(mean, spread, 40_000), -1.0)
    expected = np.maximum(-0.9 - drawn, 0).mean()
    assert cut(scale.below(mean, spread, True), -1.0)(-0.9)[0] == pytest.approx(expected, rel=0.02)
    modelled = [(mean, spread, scale), (np.array([0.1]), np.array([0.2]), Scale(1.0, False, np.inf))]
    belief = Beliefs(modelled, np.array([0.2]), {0: 1.0, 1: 0.0}).of(0, None)
    assert belief.expected == pytest.approx((0.95, 0.1))
    assert belief.optimistic == (1.0, 0.0)


def test_an_optimistic_value_is_the_better_one() -> None:
    modelled = [
        (np.array([-0.6]), np.array([0.05]), Scale(-1.0, False, np.inf)),
        (np.log(np.array([3.0])), np.array([0.5]), Scale(1.0, True, np.inf)),
    ]
    belief = Beliefs(modelled, np.array([0.2])).of(0, 30.0)
    assert belief.expected == pytest.approx((0.6, 3.0))
    assert belief.optimistic == pytest.approx((0.7, 3.0 / np.e))
    assert belief.as_json()["provenance"] == "predicted"


def test_no_rung_is_climbed_before_the_one_below() -> None:
    _, seen = searched(16)
    for at, variant in enumerate(seen):
        below = Rungs.of(EPOCHS).below(variant)
        if below is not None:
            models = {other.model_digest for other in seen[:at]}
            assert below.model_digest in models
            assert any(other == Rungs.of(EPOCHS).lowest(variant) for other in seen[:at])
    assert any(variant.recovery_epochs == 12 for variant in seen)


def test_what_was_not_tried_is_told_with_what_is_known_of_it_and_why() -> None:
    proposals, seen = searched(12)
    left = proposals.left()
    assert left
    for item in left:
        assert item.variant not in seen
        assert item.belief.expected[1:] == pytest.approx(outcome(item.variant).values[1:]), "its structure was measured"
        assert item.belief.optimistic[0] >= item.belief.expected[0]
        assert item.reason in (NO_CHANGE, LATER)
        assert item.belief.cost_s is not None and item.belief.cost_s >= 10
    assert [item.belief.gain for item in left] == sorted((item.belief.gain for item in left), reverse=True)


def test_what_takes_longer_than_the_time_that_is_left_is_not_begun() -> None:
    proposals, seen = searched(20, left_s=15.0)
    assert all(not variant.recovery_epochs for variant in seen)
    assert "the time does not suffice" in {item.reason for item in proposals.left()}


def test_a_study_without_rungs_has_nothing_left_to_tell() -> None:
    plain = Proposals(SPACE, ["maximize", "minimize", "minimize"], 0)
    assert plain.left() == []


def trained_widths(seen: list[Variant]) -> set[float]:
    return {variant.width for variant in seen if (variant.recovery_epochs or 0) >= 4}


def test_networks_of_each_size_are_trained_before_any_is_trained_further() -> None:
    """The narrow ones look hopeless untrained, so that the surrogate alone leaves them."""
    seen = searched(18)[1]
    first = next(index for index, variant in enumerate(seen) if variant.recovery_epochs == EPOCHS[-1])
    assert trained_widths(seen[:first]) >= {0.5, 0.25}
