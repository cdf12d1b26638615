"""What is proposed: nothing twice, about as many proposals as variants, and after a kill what would have been proposed."""

from __future__ import annotations

import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from made_up_search import SMALL, SPACE, landscape, one_board
from optuna._gp import acqf

from edgedeploy.records.variant import Variant
from edgedeploy.search import history, proposals
from edgedeploy.search.loop import Outcome, Scored, Search
from edgedeploy.search.proposals import Proposals
from edgedeploy.search.space import Space

TRIALS = 14
"""The baselines and the points that are good for most models; the surrogates propose eight."""


class Study:
    """A search on one SIMULATED board, with its evidence."""

    def __init__(self, storage: Path, space: Space = SPACE) -> None:
        self.storage, self.space = storage, space
        self.evidence: dict[str, Outcome] = {}
        self.killed_at = -1
        self.stored = True

    def evaluate(self, variant: Variant) -> Outcome:
        killed = len(self.evidence) == self.killed_at
        if not killed or self.stored:
            self.evidence[variant.digest] = landscape(variant)
        if killed:
            raise KeyboardInterrupt
        return self.evidence[variant.digest]

    def run(self, trials: int) -> str:
        search = Search(
            storage=self.storage,
            space=self.space,
            directions=("maximize", "minimize"),
            seed=5,
            lookup=lambda variant: self.evidence.get(variant.digest),
            clock=nullcontext,
        )
        with one_board(self.evaluate) as board:
            return search.run(board, trials=trials, deadline_s=time.monotonic() + 240).reason

    def proposals(self) -> int:
        return len(optuna.load_study(study_name="edgedeploy", storage=f"sqlite:///{self.storage}").trials)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Study:
    study = Study(tmp_path_factory.mktemp("undisturbed") / "o.sqlite3")
    study.run(TRIALS)
    return study


def test_as_many_proposals_as_variants_although_many_parameters_mean_one_variant(tmp_path: Path) -> None:
    study = Study(tmp_path / "o.sqlite3", SMALL)
    assert study.run(10) == "trials"
    assert study.proposals() <= 12, "of 12 combinations, two mean what others mean"
    study = Study(tmp_path / "larger.sqlite3")
    assert study.run(30) == "trials"
    assert study.proposals() <= 1.2 * 30


@pytest.mark.parametrize(("killed_at", "stored"), [(1, False), (4, True), (9, True), (11, False)])
def test_a_killed_search_goes_on_as_if_it_had_not_been_killed(
    tmp_path: Path, undisturbed: Study, killed_at: int, stored: bool
) -> None:
    killed = Study(tmp_path / "o.sqlite3")
    killed.killed_at, killed.stored = killed_at, stored
    with pytest.raises(KeyboardInterrupt):
        killed.run(TRIALS)
    killed.killed_at = -1
    killed.run(TRIALS)
    assert list(killed.evidence) == list(undisturbed.evidence), "the same variants in the same order"
    assert killed.proposals() == undisturbed.proposals()


def test_what_a_sampler_proposes_in_vain_is_learned_and_replaced_by_a_neighbour(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """onnxruntime has no bfloat16 here: it stands for float32, which is known."""
    alias = {"target": "onnxruntime", "width": 0.5, "resolution": 96, "precision": "bfloat16"}
    known = {**alias, "precision": "float32"}
    drawn = Proposals(SPACE, ("maximize", "minimize"), 0, sampler="gp")
    drawn.tell(known, Scored((0.7, 1.0), {}))
    monkeypatch.setattr(Proposals, "_draw", lambda *_: dict(alias))
    proposal = drawn.next({SPACE.variant(known).digest})
    assert proposal is not None and proposal.proposed == alias
    assert sum(proposal.params[name] != alias[name] for name in alias) == 1
    assert [(trial.params, trial.values) for trial in drawn._trials()] == [(known, [0.7, 0.0]), (alias, [0.7, 0.0])]
    again = Proposals(SPACE, ("maximize", "minimize"), 0, sampler="gp")
    again.tell(known, Scored((0.7, 1.0), {}))
    assert again.next({SPACE.variant(known).digest}) == proposal


def test_candidates_that_are_weighed_piece_by_piece_give_the_same_proposal(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Proposals(SPACE, ("maximize", "minimize"), 0, sampler="gp")
    for params in list(SPACE.combinations())[:12]:  # eight variants, which a Gaussian process takes
        drawn.tell(params, landscape(SPACE.variant(params)))
    sizes: list[int] = []
    weigh = acqf.BaseAcquisitionFunc.eval_acqf_no_grad

    def noted(self: object, points: np.ndarray) -> np.ndarray:
        sizes.append(len(points) if points.ndim > 1 else 1)
        return np.asarray(weigh(self, points))

    monkeypatch.setattr(acqf.BaseAcquisitionFunc, "eval_acqf_no_grad", noted)
    in_pieces = drawn.next(())
    assert max(sizes) <= proposals.AT_ONCE
    monkeypatch.setattr(proposals, "AT_ONCE", 10**9)
    sizes.clear()
    assert drawn.next(()) == in_pieces
    assert max(sizes) > 10 * 128, "at once it is a matter of memory"


def test_a_trial_that_was_begun_without_an_answer_of_the_storage_is_begun_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "PAUSES_S", (0.0,))
    begin = optuna.storages._CachedStorage.create_new_trial
    cut: list[int] = []

    def begun(self: optuna.storages._CachedStorage, *arguments: Any, **named: Any) -> int:
        number = begin(self, *arguments, **named)
        template = named.get("template_trial")
        if template is not None and template.state == optuna.trial.TrialState.RUNNING and not cut:
            cut.append(number)
            raise optuna.exceptions.StorageInternalError("the connection is gone")
        return number

    monkeypatch.setattr(optuna.storages._CachedStorage, "create_new_trial", begun)
    study = Study(tmp_path / "o.sqlite3", SMALL)
    assert study.run(8) == "trials"
    assert cut, "a connection was lost"
    trials = optuna.load_study(study_name="edgedeploy", storage=f"sqlite:///{study.storage}").trials
    variants = [trial.user_attrs["variant"] for trial in trials if trial.state == optuna.trial.TrialState.COMPLETE]
    assert len(variants) == len(set(variants)) == 8
    assert {trial.state for trial in trials} == {optuna.trial.TrialState.COMPLETE}
