"""The first trials on a second board: among what is trained, by what the first board says and this one has measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from made_up_search import SPACE, landscape

from edgedeploy.records.metrics import Direction
from edgedeploy.records.variant import Scalar, Variant
from edgedeploy.search.knowledge import Knowledge
from edgedeploy.search.loop import Scored
from edgedeploy.search.outcomes import Failed, Outcome
from edgedeploy.search.proposals import Proposals
from edgedeploy.search.warmstart import FIRST_TRIALS, Trained, WarmStart

DIRECTIONS: tuple[Direction, ...] = ("maximize", "minimize")
ON_BOARD = (False, True)


def first_board(variant: Variant) -> tuple[float, ...]:
    outcome = landscape(variant)
    assert isinstance(outcome, Scored)
    return outcome.values


def second_board(variant: Variant) -> Outcome:
    """Twice as slow, and int8 brings nothing there."""
    accuracy, cost = first_board(variant)
    return Scored((accuracy, 2 * cost / (0.3 if variant.precision == "int8" else 1.0)), {})


def trained(count: int = 24) -> list[Trained]:
    every = list({variant.digest: variant for variant in map(SPACE.variant, SPACE.combinations())}.values())
    order = np.random.default_rng(5).permutation(len(every))[:count]
    chosen = [every[index] for index in order]
    baseline = SPACE.baseline_variant("onnxruntime")
    return [Trained(item, first_board(item)) for item in dict.fromkeys([baseline, *chosen])]


def warm(found: Sequence[Trained]) -> WarmStart:
    return WarmStart(SPACE, DIRECTIONS, found, ON_BOARD, lambda variant: {"macs": 1e6 * variant.width**2})


def run(start: WarmStart, evaluate: Callable[[Variant], Outcome] = second_board) -> list[Variant]:
    """Variants in the order in which they are evaluated, the baseline first."""
    tried: dict[str, Variant] = {}
    params: dict[str, Scalar] | None = SPACE.baseline("onnxruntime")
    while params is not None:
        variant = SPACE.variant(params)
        assert variant.digest not in tried
        tried[variant.digest] = variant
        start.tell(params, evaluate(variant))
        params = start.propose(tried)
    return list(tried.values())


def test_the_first_trials_are_all_trained_and_the_same_each_time() -> None:
    known = trained()
    tried = run(warm(known))
    assert len(tried) == FIRST_TRIALS
    assert {item.digest for item in tried} <= {item.variant.digest for item in known}
    assert tried == run(warm(known))


def test_what_this_board_has_measured_changes_what_is_tried() -> None:
    """On a board where int8 brings nothing, narrow float models take its place."""
    known = trained()
    there = run(warm(known), lambda variant: Scored(first_board(variant), {}))
    here = run(warm(known))
    share = [sum(item.precision == "int8" for item in tried[5:]) for tried in (there, here)]
    assert share[1] < share[0]


def test_a_failure_is_an_outcome_and_nothing_is_asked_of_it_again() -> None:
    known = trained()
    tried = run(
        warm(known), lambda variant: Failed("Unsupported", "no") if variant.width < 1 else second_board(variant)
    )
    assert len(tried) == FIRST_TRIALS


def test_variants_outside_of_the_space_are_left_out() -> None:
    other = Variant("litert", "float32", 1.0, (("resolution", 128),), 2)
    assert warm([Trained(other, (0.8, 1.0))]).propose(()) is None


def test_what_is_never_proposed_is_not_proposed_here_either() -> None:
    known = trained()
    never = replace(SPACE, never=({"precision": ("int8",)},))
    start = WarmStart(never, DIRECTIONS, known, ON_BOARD)
    assert {item.variant.precision for item in start.trained} == {"float32", "bfloat16"}


def test_predictions_say_what_they_are_and_have_no_interval_below_twenty() -> None:
    known = trained(60)
    start = warm(known)
    tried = run(start)
    predicted = start.predictions()
    assert {item.provenance for item in predicted} == {"predicted"}
    assert {item.objective for item in predicted} == {1}, "accuracy carries over: it is not predicted"
    left = {item.variant.digest for item in known} - {item.digest for item in tried}
    assert {item.variant.digest for item in predicted} == left
    assert {(item.low, item.high) for item in predicted} == {(None, None)}

    for item in known[: FIRST_TRIALS + 15]:
        params = SPACE.params_of(item.variant)
        assert params is not None
        start.tell(params, second_board(item.variant))
    bounded = start.predictions()
    assert bounded and len(bounded) < len(predicted)
    for item in bounded:
        assert item.low is not None and item.high is not None and 0 < item.low <= item.value <= item.high
        measured = second_board(item.variant)
        assert isinstance(measured, Scored)
        assert abs(math.log(item.value / measured.values[1])) < math.log(2.5)


def test_nothing_is_predicted_before_anything_is_measured() -> None:
    assert warm(trained()).predictions() == []


def test_proposals_ask_it_first_and_go_on_among_all() -> None:
    known = trained()
    digests = {item.variant.digest for item in known}
    proposals = Proposals(SPACE, DIRECTIONS, 0, knowledge=Knowledge(), warm=warm(known))
    tried: list[str] = []
    proposal_params = SPACE.baseline("onnxruntime")
    for _ in range(FIRST_TRIALS + 4):
        variant = SPACE.variant(proposal_params)
        tried.append(variant.digest)
        proposals.tell(proposal_params, second_board(variant))
        found = proposals.next(tried)
        assert found is not None
        proposal_params = found.params
    assert set(tried[:FIRST_TRIALS]) <= digests
    assert len(set(tried)) == len(tried)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_points_that_nothing_is_trained_for_do_not_begin_a_search(precision: str) -> None:
    baseline = SPACE.baseline("onnxruntime")
    start = warm([Trained(SPACE.variant(baseline), first_board(SPACE.variant(baseline)))])
    point = {**baseline, "precision": precision}
    assert start.begins_with(point) == (precision == "float32")


def test_a_network_at_chance_level_is_not_tried_for_its_short_time() -> None:
    found = trained()
    useless = {item.variant.digest for item in found[5:8]}

    def values(variant: Variant, factor: float) -> tuple[float, ...]:
        accuracy, cost = first_board(variant)
        return (0.01, cost / 1000) if variant.digest in useless else (accuracy, cost * factor)

    start = warm([replace(item, values=values(item.variant, 1.0)) for item in found])
    tried = run(start, lambda variant: Scored(values(variant, 2.0), {}))
    assert len(tried) == FIRST_TRIALS
    assert not useless & {variant.digest for variant in tried}


def test_the_fast_end_is_worth_what_a_model_of_no_use_says() -> None:
    """Of a network at chance level nothing is tried, but it says how much more the fast ones answer than nothing."""
    known = [
        Trained(Variant("onnxruntime", precision, width, (("resolution", resolution),), 2), (accuracy - loss, cost))
        for width, accuracy in [(1.0, 0.80), (0.75, 0.77), (0.5, 0.74), (0.25, 0.66)]
        for resolution, loss in [(128, 0.0), (96, 0.02), (64, 0.04)]
        for precision, factor in (("float32", 1.0), ("int8", 0.4))
        for cost in [width**2 * resolution**2 * factor]
    ]
    rest = [item for item in known if item.variant.width != 0.75]
    broken = [replace(item, values=(0.01, item.values[1])) for item in known if item.variant.width == 0.75]
    assert len(warm(rest).trained) == len(warm([*rest, *broken]).trained) == len(rest)

    def share_of_the_fast(found: Sequence[Trained]) -> float:
        """Of all gains that are expected after the two middle models were measured."""
        start = warm(found)
        for item in start.trained:
            if item.variant.width == 0.5 and item.variant.arch_kwargs["resolution"] == 96:
                params = SPACE.params_of(item.variant)
                assert params is not None
                start.tell(params, Scored(item.values, {}))
        gains = start._gain([])
        return float(gains[[item.variant.width == 0.25 for item in start.trained]].sum() / gains.sum())

    assert share_of_the_fast([*rest, *broken]) > 1.2 * share_of_the_fast(rest)
