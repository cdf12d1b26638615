"""Sessions of a lab's entry on a real local board: new processes, interleaved with the frozen baseline."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import bundle_kit
import product_kit
import pytest
from fault_kit import local_board
from night_kit import NIGHT, SHORT, Entry, measured, runner, subject_of, write_bundle

from edgedeploy.boards.care.attempts import Patience
from edgedeploy.errors import DidNotRun, StorageError, Unreachable
from edgedeploy.evidence.nights import Limits
from edgedeploy.evidence.statistics import StabilityLimits
from edgedeploy.files import array_forms
from edgedeploy.nightly.session import SessionPlan, measure_session
from edgedeploy.nightly.subject import prepare
from edgedeploy.nightly.verdict import verdict
from edgedeploy.records.board import BoardInfo
from edgedeploy.records.job import Job, RawRun, RawSide
from edgedeploy.records.night import Session
from edgedeploy.runtime.bundle.manifest import parse
from edgedeploy.runtime.bundle.names import MANIFEST
from edgedeploy.runtime.bundle.tree import read_tree
from edgedeploy.spec.measuring import MeasureTable
from edgedeploy.study.bundle.make import make_bundle
from edgedeploy.study.runner import runner_on


def test_a_session_of_a_bundle_has_losses_a_state_and_its_golden_answers(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle")
    found = measured(subject_of(tmp_path), runner(tmp_path / "root"))
    assert found.counts, found.cause
    assert set(found.losses) >= {"latency_p50_ns", "cpu_time_ns", "peak_memory_bytes"}
    assert set(found.losses) == set(found.values) and not found.missing
    for name in ("latency_p50_ns", "cpu_time_ns"):
        assert abs(found.losses[name]) < math.log(3)  # one and the same network, on a host that may be busy
        assert 0 < found.loss_errors[name] < 1
    ours, theirs = found.values["peak_memory_bytes"]
    assert found.losses["peak_memory_bytes"] == pytest.approx(math.log(ours / theirs))
    assert found.golden is not None and found.golden.cases == 2
    assert found.golden.worst == {"out": 0.0} and found.golden.changed == ()
    assert found.state is not None and found.info is not None
    assert found.state.runtime == f"onnxruntime {found.info.runtimes['onnxruntime']}"
    assert len(found.state.key) == 16 and set(found.environment) >= {"before", "after"}
    assert Session.from_json(found.as_json()) == found


def test_a_session_of_a_pick_scores_both_sides(tmp_path: Path) -> None:
    bundle_kit.made_up_study(tmp_path)
    subject = prepare(Entry(bundle=None, study="runs"), tmp_path, tmp_path / "frozen")
    run = runner(tmp_path / "root")
    first, second = measured(subject, run), measured(subject, run, 2)
    assert first.counts and second.counts, (first.cause, second.cause)
    ours, theirs = first.values["dice_mean"]
    assert first.losses["dice_mean"] == pytest.approx(theirs - ours)
    assert second.values["dice_mean"] == first.values["dice_mean"]
    for found in (first, second):
        assert found.golden is not None and found.golden.cases == 10 and not found.golden.changed


def test_a_network_with_state_is_held_against_its_clips(tmp_path: Path) -> None:
    store, variant = bundle_kit.clip_study(tmp_path / "study")
    make_bundle(store.root, variant.digest, tmp_path / "bundle")
    pick = Entry(id="pick", bundle=None, study="study/runs", pick=variant.digest)
    for entry, frames in ((Entry(), 4), (pick, 6)):
        subject = subject_of(tmp_path, entry)
        assert array_forms(subject.candidate.inputs)["x"][0][1] == frames
        found = measured(subject, runner(tmp_path / "root"))
        assert found.counts, found.cause
        assert found.golden is not None and found.golden.worst == {"y": 0.0} and found.golden.cases >= 3


def _conditions(limits: StabilityLimits) -> SessionPlan:
    return SessionPlan(SHORT.plan, limits, retries=1)


def test_disturbed_sessions_are_repeated_and_then_do_not_count(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle")
    jobs: list[Job] = []
    inner = runner(tmp_path / "root")

    def run(job: Job, folder: Path) -> tuple[BoardInfo, RawRun]:
        jobs.append(job)
        return inner(job, folder)

    nothing_allowed = replace(SHORT.limits, max_spread=1e-12)
    plan = _conditions(nothing_allowed)
    found = measure_session(subject_of(tmp_path), "here", run, plan, night=NIGHT)
    assert not found.counts and not found.error and "scatter" in found.cause and len(jobs) == 2
    assert found.golden is not None and not found.golden.changed  # what it answers does not hang on the load


@pytest.mark.parametrize(
    "exc", [Unreachable("board", "no answer"), DidNotRun("run", "it ended"), StorageError("d", "full")]
)
def test_failures_are_sessions_that_do_not_count(exc: Exception, tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle")

    def run(job: Job, folder: Path) -> tuple[BoardInfo, RawRun]:
        raise exc

    found = measured(subject_of(tmp_path), run)
    assert (found.error, found.cause) == (type(exc).__name__, str(exc))
    assert found.info is None and found.artifact is not None and not found.counts


def test_a_recipe_for_tensorrt_is_refused_by_a_board_without_it(tmp_path: Path) -> None:
    """A bundle of another target's files, named as a recipe: no board that lacks the runtime is sent any of it."""
    place = write_bundle(tmp_path / "bundle")
    files = dict(read_tree(place).files)
    artifact = replace(parse(files[MANIFEST]).artifact, kind="recipe")
    product_kit.replace_folder(place, product_kit.changed(files, target="tensorrt", artifact=artifact))
    board = local_board(tmp_path / "root")
    run = runner_on(board, lambda line: None, patience=Patience(attempts=1))
    found = measured(subject_of(tmp_path), run)
    assert (found.error, found.counts) == ("CommandFailed", False) and "tensorrt" in found.cause
    assert verdict([found], [], None, Limits()).outcome == "board"


def test_a_bug_is_no_session(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle")

    def run(job: Job, folder: Path) -> tuple[BoardInfo, RawRun]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        measured(subject_of(tmp_path), run)


def test_a_plan_is_that_of_the_lab_file() -> None:
    plan = SessionPlan.of(MeasureTable(queries=64, retries=3))
    assert plan.plan.queries == 64 and plan.retries == 3 and plan.limits.max_drift == 0.25
    assert plan.plan.collect_outputs and not plan.plan.scenarios


@pytest.mark.parametrize("part", ["cpu_ns", "blocks_ns", "peak_memory_bytes"])
def test_values_that_no_clock_can_give_are_no_fault_of_the_artifact(part: str, tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle")
    inner = runner(tmp_path / "root")

    def zeros(side: RawSide) -> RawSide:
        nothing = {"cpu_ns": [0] * len(side.cpu_ns), "blocks_ns": [[0] * len(block) for block in side.blocks_ns]}
        return replace(side, **{part: nothing.get(part, 0)})

    def run(job: Job, folder: Path) -> tuple[BoardInfo, RawRun]:
        info, raw = inner(job, folder)
        assert raw.baseline is not None
        return info, replace(raw, candidate=zeros(raw.candidate), baseline=zeros(raw.baseline))

    subject = subject_of(tmp_path)
    found = measured(subject, run)
    told = verdict([found], [], subject.accepted_on("here", [found]), Limits())
    if part == "blocks_ns":
        assert not found.counts and told.outcome == "board" and "value 1 of" in found.cause
    else:
        name = {"cpu_ns": "cpu_time_ns", "peak_memory_bytes": "peak_memory_bytes"}[part]
        assert found.counts and name not in found.losses and "value 1 of" in found.missing[name]
        assert told.outcome == "young"
