"""A front is what the folder's own files say: its study's rules, every measurement, and the failures beside them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import made_up
import made_up_study
import pytest

from edgedeploy.diagnose.layers import debug
from edgedeploy.errors import DataError, SpecError
from edgedeploy.files import write_json
from edgedeploy.records.measurement import Failure
from edgedeploy.report.answer import summary_of
from edgedeploy.report.data import ReportData
from edgedeploy.report.notebook import front_html
from edgedeploy.report.terminal import front_table
from edgedeploy.study.front import evidence_of, front_of, read_front, read_measurement, stored_spec, weights_of
from edgedeploy.study.store import Store

BASELINES = [made_up.variant(), made_up.variant("openvino")]
SMALL = made_up.variant(width=0.5)
SLOW = made_up.variant("openvino", width=0.5)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two baselines, one small and fast variant, one that is dominated, one drifted run and one failure."""
    store = made_up_study.new_store(tmp_path / "study", BASELINES)
    store.keep(made_up.measurement(BASELINES[0]))
    store.keep(made_up.measurement(BASELINES[1], latency_ms=5.0, seed=2))
    store.keep(made_up.measurement(SMALL, latency_ms=2.0, seed=3))
    store.keep(made_up.measurement(SLOW, latency_ms=9.0, dice=0.5, seed=4))
    store.keep(made_up.measurement(SMALL, cause="it was hot"))
    store.keep_failure(Failure(made_up.variant(precision="int8"), "BuildError", "build", "no kernel", "2026-01-01"))
    return store


def test_every_valid_measurement_is_a_row(store: Store) -> None:
    front = read_front(store.root, resamples=50)
    assert {row.digest for row in front.rows} == {item.digest for item in store.measurements()}
    assert {row.digest for row in front.members} <= {BASELINES[0].digest, BASELINES[1].digest, SMALL.digest}
    assert {row.digest for row in front.baselines} == {variant.digest for variant in BASELINES}
    assert front.reference == BASELINES[0].digest
    assert [item.cause for item in front.invalid] == ["it was hot"]
    assert [failure.message for failure in front.failures] == ["no kernel"]
    assert front.passing == () and front.ended is None


def test_a_study_without_a_valid_run_is_titled_by_the_boards_that_it_names(tmp_path: Path) -> None:
    store = made_up_study.new_store(tmp_path / "study", BASELINES)
    store.keep(made_up.measurement(SMALL, cause="it was hot"))
    front = read_front(store.root, resamples=50)
    assert front.board is None
    assert front_table(front).title == "Front: here, nothing measured"
    assert "Front: here, nothing measured" in front_html(front)
    assert "board here" in summary_of(ReportData("made up", front, (), "", "")).meta
    used = {**store.study(), "boards": {"cart": "", "desk": ""}}  # the run's own, of several in the study file
    assert front_of(used, stored_spec(store), []).title == "Front: cart + desk, nothing measured"


def test_the_variants_that_may_be_debugged_are_named_with_their_digests(store: Store) -> None:
    with pytest.raises(SpecError, match="no variant is named") as told:
        debug(store.root)
    assert f"{SMALL.digest} ({SMALL.label})" in told.value.remedy


def test_the_rules_are_those_of_the_study(store: Store) -> None:
    front = read_front(str(store.root), resamples=50)
    assert [item.metric for item in front.objectives] == ["dice_mean", "latency_ratio"]
    assert front.seed == stored_spec(store).study.seed
    assert "dice_mean" in front.min_effect and set(made_up.TASK_METRICS) <= set(front.metrics)
    text = (
        store.study_text().replace("[study]", "[study]\nseed = 77")
        + '[[constraints]]\nmetric = "latency_ratio"\nat_most = 0.5\n'
    )
    (store.root / "study.toml").write_text(text)
    other = read_front(store.root, resamples=50)
    assert other.seed == 77
    assert [limit.bound for limit in other.constraints] == [0.5]
    assert {row.digest for row in other.members} == {SMALL.digest}


def test_the_evidence_is_valid_measurements_first(store: Store) -> None:
    assert [item.valid for item in evidence_of(store)] == [True] * 4 + [False]


def test_more_resamples_are_other_bounds(store: Store) -> None:
    spec, study, items = stored_spec(store), store.study(), evidence_of(store)
    few, more = (front_of(study, spec, items, resamples) for resamples in (50, 400))
    assert few.as_json() == front_of(study, spec, items, 50).as_json()
    assert few.as_json() != more.as_json()
    assert front_of(study, spec, items).as_json() == read_front(store.root).as_json() | {
        "failures": [],
        "ended_early": None,
        "confirmation": None,
    }


def test_two_boards_have_one_front_only_in_a_study_of_several(store: Store) -> None:
    other = made_up.board(name="another board", identity="1" * 16)
    store.keep(made_up.measurement(made_up.variant(width=0.25), latency_ms=1.5, board=other))
    kept = json.loads(store.study_path.read_text())
    write_json(store.study_path, {**kept, "boards": {"a": {}}})
    with pytest.raises(SpecError, match="boards"):
        read_front(store.root, resamples=50)
    write_json(store.study_path, {**kept, "boards": {"a": {}, "b": {}}})
    assert set(read_front(store.root, resamples=50).processors) == {"made-up board", "another board"}


def test_weights_of_the_baseline_are_said(store: Store) -> None:
    assert read_front(store.root, resamples=50).weights is None
    assert weights_of({}) is None and weights_of({"baseline_weights": None}) is None
    with pytest.raises(DataError, match=r"baseline_weights in study\.json"):
        weights_of({"baseline_weights": {"nonsense": "1"}})


def test_one_measurement_is_found_by_the_beginning_of_its_digest(store: Store) -> None:
    digest = SMALL.digest
    assert read_measurement(store.root, digest) == store.measurement(digest)
    assert read_measurement(str(store.root), digest[:9]).digest == digest
    with pytest.raises(SpecError, match="4 measured variants") as caught:
        read_measurement(store.root, "")
    assert digest in caught.value.remedy
    with pytest.raises(SpecError, match="0 measured variants"):
        read_measurement(store.root, "nothing")


def test_a_folder_without_measurements_says_none(tmp_path: Path) -> None:
    store = made_up_study.new_store(tmp_path / "study", BASELINES)
    with pytest.raises(SpecError) as caught:
        read_measurement(store.root, "a")
    assert "none" in caught.value.remedy
    assert read_front(store.root, resamples=50).rows == ()
    with pytest.raises(SpecError, match="it holds no study"):
        read_measurement(tmp_path, "a")
    with pytest.raises(SpecError, match="it holds no study"):
        read_front(tmp_path)


def test_what_a_run_alone_remembers_stands_beside_the_evidence(store: Store) -> None:
    told = Failure(made_up.variant(width=0.25), "Unstable", "measure", "it drifted", "2026-01-01")
    events = [
        {"utc": "2026-01-01T00:00:00.000Z", "at_s": 0.0, "kind": "start", "text": "x"},
        {"utc": "2026-01-01T00:00:01.000Z", "at_s": 1.0, "kind": "trial", "text": "x", "failed": told.as_json()},
    ]
    (store.root / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    front = read_front(store.root, resamples=50)
    assert [failure.variant for failure in front.passing] == [told.variant]
    assert front.ended is not None and "killed" in front.ended
    store.keep(replace(made_up.measurement(told.variant), created_utc="2026-01-02"))
    assert read_front(store.root, resamples=50).passing == ()
