"""Variants of which the noise of times leaves open whether they are on the front run again, within a share of the time."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import made_up
import made_up_study
import pytest

from edgedeploy.errors import SpecError, Unreachable
from edgedeploy.evidence.reruns import run_count
from edgedeploy.interfaces.task import Split
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.variant import Variant
from edgedeploy.spec.study import parse_spec
from edgedeploy.study import settling
from edgedeploy.study.account import Account
from edgedeploy.study.front import read_front, stored_spec
from edgedeploy.study.settling import MOST_RUNS, Settling, Stage
from edgedeploy.study.store import Store
from edgedeploy.study.trial import Trials

BASELINE = made_up.variant()
SURE, NEAR, OTHER = (made_up.variant(width=width) for width in (0.25, 0.5, 0.6))
CASES = made_up.cases(0.85)


class Runs(Trials):
    """Runs are made up: the first of NEAR and OTHER were disturbed, and cannot be told apart; later ones are quiet."""

    def attempt(self, variant: Variant, split: Split, cool_to_c: float | None = None) -> Measurement:
        assert not self.scenarios
        if variant == SURE:
            raise AssertionError("nobody doubts it")
        latency_ms = 3.0 if variant == NEAR else 3.1
        seed = 50 + len(self.store.invalid()) + run_count_in(self.store, variant)
        return made_up.measurement(
            variant, latency_ms=latency_ms, noise=0.002, seed=seed, per_case=CASES, baseline_variant=BASELINE.digest
        )


def run_count_in(store: Store, variant: Variant) -> int:
    found = store.measurement(variant.digest)
    return run_count(found) if found else 0


class Desk:
    def __init__(self, root: Path, trials: type[Trials] = Runs) -> None:
        self.store = made_up_study.new_store(root, [BASELINE])
        facts = {"baseline_variant": BASELINE.digest, "per_case": CASES}
        self.store.keep(made_up.measurement(BASELINE, per_case=CASES))
        self.store.keep(made_up.measurement(SURE, latency_ms=1.0, seed=4, baseline_variant=BASELINE.digest, dice=0.5))
        self.store.keep(made_up.measurement(NEAR, latency_ms=3.0, noise=0.2, seed=5, **facts))  # type: ignore[arg-type]
        self.store.keep(made_up.measurement(OTHER, latency_ms=3.0, noise=0.2, seed=6, **facts))  # type: ignore[arg-type]
        self.heard: list[str] = []
        self.ran: list[Variant] = []
        nothing: Any = None
        self.trials = trials(
            spec=stored_spec(self.store),
            run=nothing,
            provenance="emulated",
            bench=nothing,
            store=self.store,
            account=Account(self.store),
            reference_baseline=BASELINE,
            metrics=made_up.TASK_METRICS,
        )
        self.settling = Settling(
            stored_spec(self.store),
            self.store,
            lambda kind, text: self.heard.append(text),
            self._on_board,
            self.ran.append,
        )

    def _on_board(self, stage: Stage, variant: Variant) -> None:
        stage(self.trials, variant)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "study")


def chances(store: Store) -> dict[str, float | None]:
    return {row.digest: row.p_on_front for row in read_front(store.root).rows}


def test_what_is_open_runs_again_until_it_is_settled(desk: Desk) -> None:
    before = chances(desk.store)
    assert {item.variant for item in desk.settling.unsure()} == {NEAR, OTHER}
    desk.settling.run(time.monotonic() + 600)
    assert not desk.settling.unsure()
    assert set(desk.ran) == {NEAR, OTHER}, "the others are sure"
    assert desk.heard[-1].startswith(f"the front is settled after {len(desk.ran)} further run")
    after = chances(desk.store)
    assert before[NEAR.digest] is not None and after[NEAR.digest] is not None
    assert after[NEAR.digest] > 0.95 > before[NEAR.digest]
    assert run_count_in(desk.store, NEAR) + run_count_in(desk.store, OTHER) == 2 + len(desk.ran)


def test_the_time_is_kept_to(desk: Desk) -> None:
    desk.settling.run(time.monotonic())
    assert not desk.ran
    assert desk.heard[-1].startswith("open after 0 further runs") and NEAR.label in desk.heard[-1]


class Noisy(Runs):
    def attempt(self, variant: Variant, split: Split, cool_to_c: float | None = None) -> Measurement:
        found = super().attempt(variant, split, cool_to_c)
        return replace(found, valid=False, cause="it was hot")


def test_runs_that_do_not_count_end_too(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "study", Noisy)
    desk.settling.run(time.monotonic() + 600)
    assert not desk.ran
    assert sum("it was hot" in text for text in desk.heard) == 2 * (MOST_RUNS - 1)
    assert desk.heard[-1].startswith("open after 6 further runs")
    assert {run_count_in(desk.store, variant) for variant in (NEAR, OTHER)} == {1}


class Gone(Runs):
    def attempt(self, variant: Variant, split: Split, cool_to_c: float | None = None) -> Measurement:
        raise Unreachable("board", "it is away", "Look at it")


def test_a_board_that_is_gone_is_told_as_everywhere(tmp_path: Path) -> None:
    with pytest.raises(Unreachable):
        Desk(tmp_path / "study", Gone).settling.run(time.monotonic() + 600)


def test_a_resumed_study_counts_the_runs_that_it_has(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "MOST_RUNS", 1)
    assert desk.settling.unsure() and not desk.settling.open()


def test_the_share_is_at_most_a_half() -> None:
    text = made_up_study.ONE_TRIAL + "[search]\nremeasure = 0.6\n"
    with pytest.raises(SpecError, match=r"search\.remeasure"):
        parse_spec(text, Path("study.toml"))
