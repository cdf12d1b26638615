"""When a search ends because nothing that is left promises enough."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
from made_up_search import SMALL, SPACE, landscape, one_board

from edgedeploy.records.variant import Variant
from edgedeploy.search.loop import Finished, Outcome, Scored, Search
from edgedeploy.search.space import Space
from edgedeploy.search.stopping import IN_A_ROW, LEAST_OUTCOMES, Stopping

ENOUGH = 0.02


class Lab:
    """Remembers what was evaluated, as the evidence store does."""

    def __init__(self, storage: Path, evaluate: Callable[[Variant], Outcome] = landscape, space: Space = SPACE) -> None:
        self.storage, self.landscape, self.space = storage, evaluate, space
        self.evidence: dict[str, Outcome] = {}

    def evaluate(self, variant: Variant) -> Outcome:
        outcome = self.landscape(variant)
        assert variant.digest not in self.evidence
        self.evidence[variant.digest] = outcome
        return outcome

    def search(self, trials: int = 60, stop_gain: float = ENOUGH, give_up: float = 0.0) -> Finished:
        search = Search(
            storage=self.storage,
            space=self.space,
            directions=("maximize", "minimize"),
            seed=3,
            lookup=lambda variant: self.evidence.get(variant.digest),
            clock=nullcontext,
            stop_gain=stop_gain,
            give_up=give_up,
        )
        with one_board(self.evaluate) as board:
            return search.run(board, trials=trials, deadline_s=time.monotonic() + 240)


def test_it_takes_several_small_promises_in_a_row_and_some_outcomes() -> None:
    stopping = Stopping(0.01)
    for gain in (0.001, 0.5, 0.001, None, 0.002):
        assert not stopping.is_over(gain, LEAST_OUTCOMES)
        stopping.begun(gain)
    assert IN_A_ROW == 3
    assert not stopping.is_over(0.0, LEAST_OUTCOMES - 1)
    assert not stopping.is_over(0.01, LEAST_OUTCOMES)
    assert not stopping.is_over(None, LEAST_OUTCOMES)
    assert stopping.is_over(0.009, LEAST_OUTCOMES)
    assert not Stopping(0.0).is_over(0.0, LEAST_OUTCOMES)


def test_a_search_ends_early_with_what_was_expected_and_stays_ended(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "o.sqlite3")
    found = lab.search()
    assert found.reason == "converged" and LEAST_OUTCOMES <= found.evaluated < 60
    assert found.best_gain is not None and found.best_gain < ENOUGH
    again = lab.search()
    assert (again.reason, again.evaluated) == ("converged", found.evaluated)
    assert again.best_gain == pytest.approx(found.best_gain)
    assert lab.search(found.evaluated + 1, 0.0).reason == "trials"


def test_a_search_that_was_cut_off_ends_where_an_undisturbed_one_does(tmp_path: Path) -> None:
    whole = Lab(tmp_path / "whole.sqlite3")
    found = whole.search()

    def interrupted(variant: Variant) -> Outcome:
        if len(cut.evidence) == found.evaluated - 1:
            cut.landscape = landscape
            raise KeyboardInterrupt
        return landscape(variant)

    cut = Lab(tmp_path / "cut.sqlite3", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cut.search()
    assert cut.search().evaluated == found.evaluated
    assert list(cut.evidence) == list(whole.evidence)


def test_without_it_only_the_budget_or_the_space_ends_a_search(tmp_path: Path) -> None:
    found = Lab(tmp_path / "o.sqlite3", space=SMALL).search(stop_gain=0.0)
    assert (found.reason, found.best_gain) == ("exhausted", None)
    assert SPACE.size() > 60


def never(limit: float) -> Callable[[Variant], Outcome]:
    """The landscape under a limit on its cost, which is 307 at least."""

    def evaluate(variant: Variant) -> Outcome:
        found = landscape(variant)
        return Scored(found.values, {"cost": (found.values[1] - limit) / limit})

    return evaluate


def test_a_limit_that_nothing_will_meet_ends_a_search_and_a_resumed_one(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "o.sqlite3", never(30.0))
    found = lab.search(stop_gain=0.0, give_up=0.001)
    assert (found.reason, found.unreachable) == ("impossible", "cost")
    assert LEAST_OUTCOMES <= found.evaluated < 40
    again = lab.search(stop_gain=0.0, give_up=0.001)
    assert (again.reason, again.evaluated) == ("impossible", found.evaluated)
    assert lab.search(found.evaluated + 2, 0.0, give_up=0.0).reason == "trials"


def test_a_limit_that_something_meets_or_may_meet_ends_nothing(tmp_path: Path) -> None:
    assert Lab(tmp_path / "met.sqlite3", never(12_000.0)).search(25, 0.0, give_up=0.001).reason == "trials"
    only_one = Lab(tmp_path / "one.sqlite3", never(320.0))  # that of the smallest
    assert only_one.search(40, 0.0, give_up=0.001).reason == "trials"
    assert any(isinstance(item, Scored) and item.constraints["cost"] <= 0 for item in only_one.evidence.values())


def test_giving_up_takes_the_same_limit_several_times_and_some_outcomes() -> None:
    stopping = Stopping(0.0)
    stopping.begun(0.1, "size")
    stopping.begun(0.1, "cost")
    assert not stopping.given_up("cost", LEAST_OUTCOMES)
    stopping.begun(0.1, "cost")
    assert not stopping.given_up("cost", LEAST_OUTCOMES - 1)
    assert not stopping.given_up("size", LEAST_OUTCOMES)
    assert not stopping.given_up("", LEAST_OUTCOMES)
    assert stopping.given_up("cost", LEAST_OUTCOMES)
    stopping.begun(0.1, "")
    assert not stopping.given_up("cost", LEAST_OUTCOMES)
