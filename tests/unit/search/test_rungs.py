"""The rungs of recovery, and what the ladder knows of them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from edgedeploy.records.variant import Variant
from edgedeploy.search.ladder import Ladder, Pace, architecture_of
from edgedeploy.search.outcomes import Failed, Outcome, Scored
from edgedeploy.search.rungs import NO_RUNGS, Rungs

RUNGS = Rungs.of((36, 0, 4, 12))
NARROW = Variant("openvino", "int8", 0.5, (("resolution", 64),), 1, recovery_epochs=12)


def at(epochs: int, **changes: object) -> Variant:
    return replace(NARROW, recovery_epochs=epochs, **changes)  # type: ignore[arg-type]


class Told:
    """A ladder with outcomes that a test writes."""

    def __init__(self, *, made: set[str] | None = None, pace: Pace | None = None, left_s: float = math.inf) -> None:
        self.ladder = Ladder(
            RUNGS,
            fixed=(1, 2),
            made=lambda variant: variant.model_digest in (made or set()),
            macs=lambda variant: 1e6 * variant.width**2,
            parameters=lambda variant: 1e5 * variant.width**2,
            pace=lambda: pace or Pace(evaluation_s=10.0),
            left_s=lambda: left_s,
            limits={"0 size_bytes": 0.0, "1 latency_p50_ns": 0.5},
        )
        self.ladder.told(replace(NARROW, width=1.0, recovery_epochs=None), Scored((0.7, 1.0, 900.0), {}))

    def tell(self, variant: Variant, outcome: Outcome) -> None:
        self.ladder.told(variant, outcome)


def test_each_rung_is_trained_from_the_one_below() -> None:
    assert RUNGS.epochs == (0, 4, 12, 36)
    assert RUNGS.below(NARROW) == at(4)
    assert RUNGS.below(at(0)) is None
    assert RUNGS.lowest(NARROW) == at(0)
    assert [RUNGS.further_epochs(at(epochs)) for epochs in RUNGS.epochs] == [0, 4, 8, 24]


def test_the_lowest_rung_may_be_trained_too() -> None:
    assert Rungs.of((4, 12)).further_epochs(at(4)) == 4


def test_without_rungs_a_variant_is_recovered_by_the_recipe() -> None:
    plain = replace(NARROW, recovery_epochs=None)
    assert NO_RUNGS.below(plain) is None
    assert NO_RUNGS.further_epochs(plain) is None
    assert RUNGS.below(plain) is None
    assert RUNGS.lowest(plain) == plain


def test_a_rung_waits_for_its_own_build_and_for_its_model_one_rung_below() -> None:
    told = Told()
    assert told.ladder.before(at(0)) is None
    assert told.ladder.before(at(12)) == at(0)
    told.tell(at(0), Scored((0.1, 0.2, 300.0), {}))
    assert told.ladder.before(at(4)) is None
    assert told.ladder.before(at(12)) == at(4)
    told.tell(at(4), Scored((0.6, 0.2, 300.0), {}))
    assert told.ladder.before(at(12)) is None


def test_targets_and_precisions_share_the_training_of_a_model() -> None:
    told = Told()
    other = {"target": "onnxruntime", "precision": "float32"}
    for epochs in (0, 4, 12):
        told.tell(at(epochs, **other), Scored((0.6, 0.5, 900.0), {}))
    told.tell(at(0), Scored((0.1, 0.2, 300.0), {}))
    assert told.ladder.before(at(36)) is None


def test_nothing_is_trained_for_a_build_that_fails() -> None:
    told = Told()
    told.tell(at(0), Failed("Unsupported", "no kernel", "build"))
    assert told.ladder.left_out(at(4)) == "it cannot be built"
    assert not told.ladder.left_out(at(0))
    told.tell(at(0, precision="float32"), Failed("ParityError", "far off", "measure"))
    assert not told.ladder.left_out(at(4, precision="float32")), "training may mend what an untrained model answers"


def test_nothing_is_trained_that_misses_a_limit_by_what_it_is() -> None:
    """A size is what it is, a time may be better the next time, and what a network answers is what training is for."""
    told = Told()
    for precision, limits, left_out in (
        ("int8", {"0 size_bytes": 0.01, "1 latency_p50_ns": -0.2}, True),
        ("float32", {"0 size_bytes": -0.5, "1 latency_p50_ns": 0.3}, False),
        ("bfloat16", {"0 size_bytes": 0.0, "1 latency_p50_ns": 0.6}, True),
        ("float16", {"0 size_bytes": 0.0, "2 dice_mean": 0.9}, False),
    ):
        told.tell(at(0, precision=precision), Scored((0.1, 0.2, 300.0), limits))
        assert bool(told.ladder.left_out(at(4, precision=precision))) == left_out, precision
        assert not told.ladder.left_out(at(0, precision=precision))


def test_what_does_not_depend_on_weights_is_known_from_the_lowest_rung() -> None:
    told = Told()
    assert told.ladder.exact(at(36)) == {}
    told.tell(at(0), Scored((0.1, 0.2, 300.0), {}))
    assert told.ladder.exact(at(36)) == {1: 0.2, 2: 300.0}
    assert told.ladder.exact(at(0)) == {}


def test_the_cost_counts_every_rung_that_is_still_to_be_climbed() -> None:
    network = architecture_of(NARROW)
    told = Told(pace=Pace(10.0, {network: 2.0}, {network: 1e6 * 0.25}))
    assert told.ladder.cost_s(at(0)) == pytest.approx(10)
    assert told.ladder.cost_s(at(4)) == pytest.approx(10 + 10 + 4 * 2)
    assert told.ladder.cost_s(at(36)) == pytest.approx(4 * 10 + 36 * 2)
    told.tell(at(12), Scored((0.6, 0.2, 300.0), {}))
    assert told.ladder.cost_s(at(36)) == pytest.approx(10 + 24 * 2)


def test_a_model_that_is_made_costs_no_training() -> None:
    told = Told(made={at(4).model_digest})
    assert told.ladder.cost_s(at(4)) == pytest.approx(10 + 10)


def test_an_epoch_of_a_smaller_network_is_taken_to_be_shorter() -> None:
    pace = Pace(10.0, {"wide": 8.0}, {"wide": 1e9})
    assert pace.of_epoch("narrow", 1e8) < pace.of_epoch("half", 5e8) < 8.0
    assert Pace(10.0).of_epoch("first", 1e9) == 10.0


def test_a_rung_that_the_rest_of_the_time_does_not_suffice_for_is_left_out() -> None:
    pace = Pace(10.0, {architecture_of(NARROW): 2.0}, {})
    told = Told(pace=pace, left_s=100.0)
    assert not told.ladder.left_out(at(12))
    assert told.ladder.left_out(at(36)) == "the time does not suffice"


def test_a_size_of_which_nothing_was_trained_so_far_is_explored() -> None:
    told = Told()
    assert told.ladder.explores(at(12)) and told.ladder.explores(at(12, width=0.25))
    assert not told.ladder.explores(at(4)) and not told.ladder.explores(at(36)), "the middle rung alone"
    assert not told.ladder.explores(replace(NARROW, width=1.0, recovery_epochs=None)), "a baseline is not trained"
    told.tell(at(0), Scored((0.1, 0.2, 300.0), {}))
    told.tell(at(4), Scored((0.4, 0.2, 300.0), {}))
    assert told.ladder.explores(at(12)), "a few epochs do not tell"
    told.tell(at(12), Scored((0.6, 0.2, 300.0), {}))
    assert not told.ladder.explores(at(12, width=0.6)), "about as large"
    assert told.ladder.explores(at(12, width=0.25)) and told.ladder.explores(at(12, width=1.0))


def test_nothing_is_explored_that_takes_much_of_the_time_left() -> None:
    pace = Pace(1.0, {architecture_of(NARROW): 2.0}, {})
    assert Told(pace=pace, left_s=1000.0).ladder.explores(at(12))
    assert not Told(pace=pace, left_s=300.0).ladder.explores(at(12))
