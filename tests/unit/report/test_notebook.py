"""Results in notebooks: HTML in which names stay text, a data frame, runs in MLflow."""

from __future__ import annotations

import builtins
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import made_up
import made_up_report
import pytest
from made_up_study import ONE_TRIAL, new_store

import edgedeploy
from edgedeploy.api import StudyResult, _logged
from edgedeploy.errors import SpecError, StorageError, TargetUnavailable
from edgedeploy.records.measurement import Failure
from edgedeploy.report.tracking import Tracker
from edgedeploy.study.front import read_front
from edgedeploy.study.options import RunOptions
from edgedeploy.study.store import Store

UTC = "2026-01-01T00:00:00+00:00"


@pytest.fixture
def result() -> StudyResult:
    passing = (Failure(made_up.variant(width=0.1), "Unstable", "measure", "the host was busy", UTC),)
    front = dataclasses.replace(made_up_report.front(), passing=passing)
    return StudyResult(Path("studies/made-up"), "trials", 17, front, 20)


def test_a_result_and_a_front_show_themselves(result: StudyResult) -> None:
    page = result._repr_html_()
    assert "17 of 20" in page and "Ship openvino int8 w0.75 resolution=128 t2." in page
    assert "baseline beside it" in page and "Unsupported in build" in page
    table = result.front._repr_html_()
    assert table.count("<tr>") == len(result.front.members) + 1
    assert "artifacts/openvino-int8-" in table and "4 without a number" in table


def test_whatever_a_variant_is_called_it_is_text() -> None:
    hostile = "<img src=x onerror=alert(1)>"
    items = [made_up.measurement(), made_up.measurement(made_up.variant("openvino", note=hostile), latency_ms=2.0)]
    front = made_up_report.front(items, margin=1.0)
    for page in (front._repr_html_(), StudyResult(Path(hostile), hostile, 1, front)._repr_html_()):
        assert "<img" not in page and "&lt;img" in page


def test_a_study_shows_what_it_asks(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(ONE_TRIAL)
    page = edgedeploy.load_study(path)._repr_html_()
    assert "Study one trial" in page and "dice_mean" in page and "width: 1.0" in page


def test_a_data_frame_has_every_variant(result: StudyResult) -> None:
    pytest.importorskip("pandas")
    frame = result.to_pandas()
    assert len(frame) == len(result.front.rows) + 4
    assert frame["status"].value_counts()[["failed", "no number yet"]].tolist() == [3, 1]
    pick = frame[frame["pick"]].iloc[0]
    row = result.front.row(pick["digest"])
    assert row is not None
    assert pick["dice_mean"] == row.estimates["dice_mean"].value
    assert pick["latency_p50_ns_low"] < pick["latency_p50_ns"] < pick["latency_p50_ns_high"]
    assert pick["latency_p50_ns_baseline_beside"] == row.beside["latency_p50_ns"]
    assert pick["arch.resolution"] == 128
    assert "no bfloat16 kernel for Conv" in set(frame["reason"].str.split(": ").str[-1])


def test_without_pandas_the_package_is_named(result: StudyResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(TargetUnavailable, match="pandas is not installed"):
        result.to_pandas()


# -- MLflow, in a database of its own below the test's folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = new_store(tmp_path / "study", [made_up.variant()])
    secret = '[task]\nkind = "python"'
    text = store.study_text().replace('kind = "local"', 'kind = "local"\npower_cycle = ["plug", "s3cret-word"]')
    assert secret in text
    (store.root / "study.toml").write_text(text)
    for item in (made_up.measurement(), made_up.measurement(made_up.variant(precision="int8"), latency_ms=2.0, seed=3)):
        store.keep(item)
        file = store.root / item.file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("a model")
    store.keep_failure(Failure(made_up.variant(width=0.3), "Unsupported", "build", "no kernel at s3cret-word", UTC))
    return store


def test_mlflow_has_a_run_for_every_variant_and_no_secret(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracking = pytest.importorskip("mlflow.tracking")
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    front = read_front(store.root)
    tracker = Tracker(uri, ["s3cret-word", "Made-up Linux"])
    assert tracker.log(store, front) == 3
    assert tracker.log(store, front) == 3, "again: brought up to date, not doubled"

    client = tracking.MlflowClient(tracking_uri=uri)
    (experiment,) = [item for item in client.search_experiments() if item.name == "made up" or item.name != "Default"]
    runs = {run.data.tags["edgedeploy.digest"]: run for run in client.search_runs([experiment.experiment_id])}
    assert len(runs) == 3
    row = next(row for row in front.rows if row.variant.precision == "int8")
    run = runs[row.digest]
    assert run.data.params["precision"] == "int8"
    assert run.data.metrics["latency_p50_ns"] == pytest.approx(row.estimates["latency_p50_ns"].value)
    assert run.data.tags["edgedeploy.pick"] == "True" and run.info.status == "FINISHED"
    failed = runs[made_up.variant(width=0.3).digest]
    assert failed.info.status == "FAILED" and "Unsupported in build" in failed.data.tags["edgedeploy.reason"]
    kept = sorted(path.name for path in (tmp_path / "mlruns").rglob("*") if path.is_file())
    assert kept.count("model.onnx") == 2 and kept.count(f"{row.digest}.json") == 1
    everything = b"".join(
        path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and "study/" not in str(path)
    )
    assert b"s3cret-word" not in everything and b"Made-up Linux" not in everything
    assert b"power_cycle" in everything, "the study file is there, without that value"


def test_an_address_that_mlflow_does_not_take_is_one_line_without_its_password(tmp_path: Path) -> None:
    pytest.importorskip("mlflow.tracking")
    with pytest.raises((SpecError, StorageError)) as refused:
        Tracker("nonsense://someone:s3cret@nowhere/x")
    assert "s3cret" not in str(refused.value) and "mlflow at nonsense" in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_an_mlflow_that_fails_at_the_end_ends_no_study(store: Store) -> None:
    class Gone:
        def log(self, *_: object) -> int:
            raise StorageError("mlflow at http://host", "no answer", "See to that address")

    event = _logged(Gone(), store, 2, 6)  # type: ignore[arg-type]
    assert (event.kind, event.done, event.total) == ("note", 2, 6)
    assert event.text == "not logged: mlflow at http://host: no answer. See to that address"


def test_without_mlflow_nothing_begins_and_the_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    path = tmp_path / "study.toml"
    path.write_text(ONE_TRIAL)
    options = RunOptions(out=tmp_path / "out", mlflow="sqlite:///x.db")
    with pytest.raises(TargetUnavailable, match="mlflow is not installed"):
        edgedeploy.load_study(path).run(options)
    assert not (tmp_path / "out").exists()


def test_neither_package_is_imported_unless_asked(monkeypatch: pytest.MonkeyPatch, result: StudyResult) -> None:
    asked: list[str] = []
    real = builtins.__import__

    def watched(name: str, *rest: Any) -> Any:
        asked.append(name.partition(".")[0])
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", watched)
    result._repr_html_()
    assert not {"pandas", "mlflow"} & set(asked)


def test_the_password_of_an_address_is_in_no_event() -> None:
    options = RunOptions(mlflow="http://someone:s3cret@host:5000")
    assert "s3cret" not in json.dumps(options.shown()) and "s3cret" not in repr(options)
    assert RunOptions(mlflow="sqlite:///mlflow.db").shown() == {"mlflow": "sqlite:///mlflow.db"}
    with pytest.raises(SpecError, match="mlflow"):
        RunOptions(mlflow=7)  # type: ignore[arg-type]
