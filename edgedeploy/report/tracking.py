"""A study's variants as runs of MLflow, where it is installed and asked for.

One experiment per study, one run per variant: its settings as parameters, its numbers as metrics, the built artifact and
the stored measurement as artifacts. Nothing is sent anywhere but to the given address, and no private word of the study
is in it.
"""

from __future__ import annotations

import importlib
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from edgedeploy.errors import EdgeDeployError, SpecError, StorageError, TargetUnavailable
from edgedeploy.evidence.front import Front
from edgedeploy.evidence.rows import front_rows
from edgedeploy.report.private import shown
from edgedeploy.spec.public import without
from edgedeploy.study.store import Store

LONGEST_VALUE: Final = 500
"""Characters of a parameter or tag: MLflow takes no more of a parameter on every store."""

_DIGEST: Final = "edgedeploy.digest"
_STUDY: Final = "edgedeploy.study"
_PASSWORD: Final = re.compile(r"://[^/@]*@")
_PARAMETERS: Final = ("target", "recipe", "precision", "width", "threads", "instances", "max_batch")


class Tracker:
    """An address of MLflow that answers. Raises ``TargetUnavailable`` when MLflow is not installed, ``SpecError`` for an
    address that it does not take, ``StorageError`` for one that does not answer."""

    def __init__(self, uri: str, private: Sequence[str] = ()) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        try:
            client = importlib.import_module("mlflow.tracking").MlflowClient
            self._entities: Any = importlib.import_module("mlflow.entities")
        except ModuleNotFoundError:
            found = "mlflow is not installed"
            raise TargetUnavailable("mlflow", found, "pip install 'edgedeploy[notebook]', or mlflow-skinny") from None
        self._private = (*private, *_PASSWORD.findall(uri))
        self._uri = uri
        self._place = _PASSWORD.sub("://(left out)@", uri)
        self._client: Any = self._tried(lambda: client(tracking_uri=uri))
        self._tried(lambda: self._client.search_experiments(max_results=1))

    def log(self, store: Store, front: Front) -> int:
        """A run for every variant with an outcome; those that an earlier call wrote are brought up to date. Returns how many
        runs there are. Raises ``StorageError`` when MLflow refuses; the study itself is whole without it."""
        return int(self._tried(lambda: self._log(store, front)))

    def _log(self, store: Store, front: Front) -> int:
        study = store.study()
        name = str(study.get("name", store.root.name))
        experiment = self._experiment(name)
        identity = str(study.get("id") or study.get("spec_digest") or study["created_utc"])
        known = {
            run.data.tags.get(_DIGEST): run.info.run_id
            for run in self._client.search_runs([experiment], f"tags.`{_STUDY}` = '{identity}'", max_results=10_000)
        }
        rows = front_rows(front)
        for row in rows:
            fresh = row["digest"] not in known
            if fresh:
                tags = {_DIGEST: row["digest"], _STUDY: identity}
                run_name = self._told(row["variant"])
                known[row["digest"]] = self._client.create_run(experiment, tags=tags, run_name=run_name).info.run_id
            run_id = str(known[row["digest"]])
            self._write(run_id, row, front, fresh)
            if fresh:
                self._keep_files(run_id, row, store)
            failed = row["status"] in ("failed", "no number yet")
            self._client.set_terminated(run_id, "FAILED" if failed else "FINISHED")
        return len(rows)

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        place = None
        if self._uri.startswith("sqlite:///"):  # MLflow would put files below wherever the study was started
            database = Path(self._uri.removeprefix("sqlite:///").partition("?")[0])
            place = (database.resolve().parent / "mlruns").as_uri()
        return str(self._client.create_experiment(name, artifact_location=place))

    def _write(self, run_id: str, row: Mapping[str, Any], front: Front, fresh: bool) -> None:
        now_ms = int(time.time() * 1000)
        words = [name for name in row if name in _PARAMETERS or name.startswith(("arch.", "shrink."))]
        numbers = {
            name: float(value)
            for name, value in row.items()
            if name not in words and isinstance(value, (int, float)) and not isinstance(value, bool)
        }
        told = {name: row.get(name) for name in ("status", "verdict", "against_baseline", "reason", "board", "file")}
        told |= {"pick": row["pick"], "baseline": row["baseline"], "provenance": front.provenance}
        entities = self._entities
        self._client.log_batch(
            run_id,
            metrics=[entities.Metric(name, value, now_ms, 0) for name, value in numbers.items()] if fresh else [],
            params=[entities.Param(name, self._told(row[name])) for name in words] if fresh else [],
            tags=[entities.RunTag(f"edgedeploy.{k}", self._told(v)) for k, v in told.items() if v not in (None, "")],
        )

    def _keep_files(self, run_id: str, row: Mapping[str, Any], store: Store) -> None:
        measured = store.root / "measurements" / f"{row['digest']}.json"
        if measured.is_file():
            text = self._hidden(measured.read_text(encoding="utf-8"))
            self._client.log_text(run_id, text, f"measurement/{measured.name}")
        if row.get("file") and (store.root / row["file"]).is_file():
            self._client.log_artifacts(run_id, str((store.root / row["file"]).parent), "model")
        self._client.log_text(run_id, self._hidden(shown(store.study_text())), "study.toml")

    def _told(self, value: object) -> str:
        return self._hidden(str(value))[:LONGEST_VALUE]

    def _hidden(self, text: str) -> str:
        return without(text, self._private)

    def _tried(self, step: Callable[[], Any]) -> Any:
        try:
            return step()
        except EdgeDeployError:
            raise
        except Exception as exc:  # whatever MLflow and its clients raise
            first = self._hidden((str(exc) or type(exc).__name__).splitlines()[0])[:LONGEST_VALUE]
            asked = f"mlflow at {self._place}"
            if "maintenance mode" in first or "unsupported" in first.lower() or "supported" in first.lower():
                raise SpecError(asked, first, "For example sqlite:///mlflow.db, or http://host:5000") from None
            raise StorageError(asked, first, "See to that address; --resume logs what is measured") from None
