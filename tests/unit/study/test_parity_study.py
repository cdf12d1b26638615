"""What a study does with an artifact whose outputs are not its reference's: it warns, and accuracy decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import made_up
import numpy as np
import pytest
from made_up_study import ONE_TRIAL
from small_task import SmallTask, bench

from edgedeploy.errors import DataError, SpecError
from edgedeploy.files import read_arrays, write_arrays
from edgedeploy.interfaces.task import Array, Case
from edgedeploy.records.board import BoardInfo
from edgedeploy.records.job import Job, RawRun
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.records.precision import PrecisionPlan
from edgedeploy.records.variant import Variant
from edgedeploy.runtime.sessions.onnxruntime import open_model
from edgedeploy.search.loop import Failed, Scored
from edgedeploy.spec.study import parse_spec
from edgedeploy.study.account import Account
from edgedeploy.study.store import Store
from edgedeploy.study.trial import Trials
from edgedeploy.study.workbench import Workbench
from edgedeploy.targets.onnxruntime.target import OnnxRuntimeTarget

Spoil = Callable[[int, Array], Array]
"""What the made-up board makes of the outputs of one row, of which the first four are the golden cases."""


class Scoring(SmallTask):
    """Accuracy is told by the task, whatever the distance from the reference is."""

    def evaluate(self, outputs: Mapping[str, Array], case: Case) -> dict[str, float | None]:
        return {"dice_mean": 0.912, "hd95_px": None}


class WithoutMetric(SmallTask):
    metrics: Mapping[str, MetricInfo] = {}

    def evaluate(self, outputs: Mapping[str, Array], case: Case) -> dict[str, float | None]:
        return {}


class Raising(SmallTask):
    def evaluate(self, outputs: Mapping[str, Array], case: Case) -> dict[str, float | None]:
        return {"dice_mean": float(outputs["mask"].mean())}


def sound(row: int, values: Array) -> Array:
    return values


def noise(share: float, *rows: int) -> Spoil:
    def spoil(row: int, values: Array) -> Array:
        drawn = np.random.default_rng(row).standard_normal(values.shape)
        size = share * np.linalg.norm(values) / np.linalg.norm(drawn) if not rows or row in rows else 0.0
        return np.asarray(values + size * drawn, np.float32)

    return spoil


def trials(folder: Path, task: SmallTask, spoil: Spoil) -> tuple[Trials, Store, list[str]]:
    store, heard = Store(folder / "study"), list[str]()

    def run(job: Job, desk: Path) -> tuple[BoardInfo, RawRun]:
        payload = job.candidate
        session = open_model(payload.folder / payload.artifact.entry, {}, 1)
        rows = read_arrays(payload.inputs)["image"]
        outputs = [spoil(row, session.run({"image": image})["out"]) for row, image in enumerate(rows)]
        write_arrays(desk / "outputs.npz", {"out": np.stack(outputs)})
        side = made_up.side(6.0, executed={payload.artifact.precision: 5})
        environment = {"before": {}, "after": {}, "background_cpu_share": 0.0}
        found = RawRun(candidate=side, baseline=side, environment=environment, outputs=desk / "outputs.npz")
        return made_up.board(), found

    made = Trials(
        spec=parse_spec(ONE_TRIAL, Path("study.toml"))[0],
        run=run,
        provenance="emulated",
        bench=bench(store, task),
        store=store,
        account=Account(store),
        reference_baseline=made_up.variant(),
        metrics=made_up.TASK_METRICS,
        tell=heard.append,
    )
    return made, store, heard


def kept(store: Store, variant: Variant) -> Measurement:
    measurement = store.measurement(variant.digest)
    assert measurement is not None
    return Measurement.from_json(measurement.as_json())


def test_a_miss_of_the_tolerance_is_told_in_the_tasks_metric_and_kept(tmp_path: Path) -> None:
    study, store, heard = trials(tmp_path, Scoring(tmp_path), noise(0.6, 2))
    outcome = study.evaluate(made_up.variant())
    assert isinstance(outcome, Scored), "accuracy decides"
    found = kept(store, made_up.variant())
    assert found.parity_case == "calibration-2"
    assert found.parity["worst_rel_l2"] == pytest.approx(0.6, rel=0.01)
    assert found.parity["rel_l2"] < 0.5
    assert found.parity["broken_share"] == 0
    assert found.metrics["dice_mean"] == pytest.approx(0.912)
    (note,) = found.notes
    assert note.startswith("parity: worst case calibration-2: 0.6 from the float model")
    assert note.endswith("dice_mean 0.912 decides")
    assert any(note in line for line in heard), "the terminal tells it too"
    assert store.failures() == ()


def test_what_is_within_the_tolerance_needs_no_note(tmp_path: Path) -> None:
    study, store, heard = trials(tmp_path, Scoring(tmp_path), sound)
    study.evaluate(made_up.variant())
    found = kept(store, made_up.variant())
    assert (found.notes, heard) == ((), [])
    assert found.parity["worst_rel_l2"] < found.parity["limit"]


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (noise(1.2), "4 of 4 cases are broken"),
        (lambda row, values: np.zeros_like(values), "every value is 0"),
        (lambda row, values: values * np.float32(np.nan), "NaN or Inf"),
        (lambda row, values: values * np.float32(np.inf if row == 6 else 1), "in case selection-2"),
    ],
    ids=["noise", "constant", "nan", "one case"],
)
def test_garbage_is_refused(tmp_path: Path, spoil: Spoil, told: str) -> None:
    study, store, _ = trials(tmp_path, Scoring(tmp_path), spoil)
    outcome = study.evaluate(made_up.variant())
    assert isinstance(outcome, Failed)
    assert outcome.kind == "ParityError"
    assert told in outcome.message
    assert [failure.kind for failure in store.failures()] == ["ParityError"]


def test_without_a_metric_the_tolerance_decides(tmp_path: Path) -> None:
    study, _, _ = trials(tmp_path, WithoutMetric(tmp_path), noise(0.6, 2))
    outcome = study.evaluate(made_up.variant())
    assert isinstance(outcome, Failed)
    assert "worst case calibration-2" in outcome.message


def test_what_a_tasks_evaluate_raises_is_no_failure_of_the_variant(tmp_path: Path) -> None:
    study, store, _ = trials(tmp_path, Raising(tmp_path), sound)
    with pytest.raises(
        SpecError, match=r"evaluate\(\) of case 'selection-0'.*test_parity_study.py, line \d+: KeyError"
    ):
        study.evaluate(made_up.variant())
    assert store.failures() == ()
    assert store.measurements() == ()


def test_nan_inputs_of_one_case_are_no_failure_of_the_variant(tmp_path: Path) -> None:
    class OneBad(Scoring):
        def inputs(self, case: Case, **arch: Any) -> dict[str, Array]:
            found = super().inputs(case)
            return {"image": found["image"] * np.float32(np.nan)} if case.id == "selection-3" else found

    study, store, _ = trials(tmp_path, OneBad(tmp_path), sound)
    with pytest.raises(DataError, match=r"selection-3.*NaN or Inf"):
        study.evaluate(made_up.variant())
    assert store.failures() == ()


SEVEN = {
    "float32": PrecisionPlan.of({}),
    "int8": PrecisionPlan.of({}),
    "layers": PrecisionPlan.of({"/block1/*": "int8"}),
}


@pytest.mark.parametrize(
    ("precision", "plan", "asked"), [("float32", "float32", 0), ("int8", "int8", 2), ("float32", "layers", 2)]
)
def test_7_or_8_bits_are_a_choice_for_a_bare_model_and_for_plans(
    tmp_path: Path, precision: str, plan: str, asked: int
) -> None:
    """On boards whose int8 sums saturate."""
    store, task = Store(tmp_path / "study"), Scoring(tmp_path)
    workbench = Workbench(task, {"onnxruntime": OnnxRuntimeTarget()}, store, Account(store), exact_sums=False)
    variant = replace(made_up.variant(precision=precision), plan=SEVEN[plan])
    rivals = workbench.rivals(variant)
    assert len(rivals.payloads if rivals else ()) == asked
