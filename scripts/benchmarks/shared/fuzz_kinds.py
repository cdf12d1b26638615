"""What is fuzzed, by name. Each kind damages an input and reads it; agents' answers, studies' folders and study files are
here, the others in modules of their own."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import random
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from benchmarks import ROOT
from benchmarks.shared.fuzz_bundles import Bundles
from benchmarks.shared.fuzz_files import DicomFiles, OnnxFiles
from benchmarks.shared.fuzz_words import TegrastatsLines, TrtexecWords
from benchmarks.shared.mutations import mutate_arrays, mutate_json, mutate_toml
from benchmarks.shared.recorded_agent import Recording, Replay

sys.path.insert(0, str(ROOT / "tests"))  # board_kit, made_up and made_up_study

from edgedeploy.api import load_study
from edgedeploy.boards.agent import session as agent_session
from edgedeploy.boards.agent.board import RemoteBoard
from edgedeploy.boards.agent.session import BoardOptions, RemoteSession
from edgedeploy.boards.care.quarantine import Quarantine
from edgedeploy.errors import EdgeDeployError
from edgedeploy.evidence.conditions import cooled_c
from edgedeploy.evidence.metrics import board_metrics, scenario_metrics
from edgedeploy.evidence.statistics import stability
from edgedeploy.files import read_arrays
from edgedeploy.records.job import Job, RawRun
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.metric_table import SCENARIO_METRICS
from edgedeploy.reference.parity import check_executed
from edgedeploy.spec.measuring import MeasureTable
from edgedeploy.study.account import summarise
from edgedeploy.study.artifacts import artifact_manifest, kept_artifact
from edgedeploy.study.events import read_events
from edgedeploy.study.front import evidence_of, front_of, stored_spec
from edgedeploy.study.limits import stability_limits
from edgedeploy.study.store import Store
from edgedeploy.study.told import early_end, passing_failures

LONGEST_NS: Final = 600 * 10**9
"""What the host is said to have waited for the recorded run: longer than it took, and far from no limit."""


class Kind(Protocol):
    """``damage`` makes one input, ``read`` gives it to the reader and raises what that raises."""

    def damage(self, rng: random.Random) -> tuple[str, bytes]: ...
    def read(self, what: str, data: bytes) -> None: ...


# -- agents' answers


class Answers:
    """Damaged answers through the session that measures, and through all that is concluded from what it accepts."""

    def __init__(self, recording: Recording, folder: Path) -> None:
        self._recording = recording
        self._folder = folder
        self._objects = {name: json.loads(data) for name, data in recording.answers.items()}
        self._objects |= {name: json.loads(data) for name, data in recording.files.items() if name != "outputs.npz"}
        self._arrays = read_arrays_of(recording.files["outputs.npz"], folder)
        self._places = [*self._objects, "outputs.npz", *["result.json"] * 6, "outputs.npz", "status.json"]
        agent_session.POLL_FIRST_S = agent_session.POLL_LAST_S = 0.0  # type: ignore[misc]
        RemoteSession._since = lambda self, started_ns: LONGEST_NS  # type: ignore[method-assign]
        plan = replace(recording.job.plan, time_limit_s=0.01)  # a state that never ends is given up at once
        self._job = replace(recording.job, plan=plan)
        self._replay = Replay(recording)
        options = BoardOptions(root="/r", wait_s=0.0, overdue_s=0.0, unchanged_s=0.0, reconnects=0)
        self._board = RemoteBoard(
            "b",
            lambda: self._replay,  # type: ignore[arg-type,return-value]
            provenance="measured",
            options=options,
        )
        self._session = self._board.session()
        self._held = self._session.__enter__()  # for as long as the process lives: a lease is a thread

    def damage(self, rng: random.Random) -> tuple[str, bytes]:
        what = rng.choice(self._places)
        if what == "outputs.npz":
            return what, mutate_arrays(self._arrays, rng)
        data = mutate_json(self._objects[what], rng)
        return what, data if what.endswith(".json") else data + b"\n"

    def read(self, what: str, data: bytes) -> None:
        self._replay.damage(what, data)
        if what == "outputs.npz":  # a hostile board names the hash of what it sends
            self._replay.also("result.json", self._renamed(data))
        if what == "probe":
            quarantined(self._board.probe())
        elif what in ("install", "lease"):
            with self._board.session() as session:
                quarantined(session.info)
        else:
            concluded(self._held.measure(self._job, self._folder), self._recording.job)

    def _renamed(self, data: bytes) -> bytes:
        from hashlib import sha256

        result = dict(self._objects["result.json"])
        result["outputs"] = {"sha256": sha256(data).hexdigest(), "size_bytes": len(data)}
        return json.dumps(result).encode()


def read_arrays_of(data: bytes, folder: Path) -> dict[str, Any]:
    path = folder / "recorded.npz"
    path.write_bytes(data)
    return read_arrays(path)


def quarantined(info: Any) -> None:
    Quarantine().put(info, "fuzzed")
    Quarantine().lift(info.name)


def concluded(run: RawRun, job: Job) -> None:
    """What a trial makes of a run: numbers, and the file that is kept."""
    metrics, missing = board_metrics(run.candidate, run.baseline, job.candidate.artifact, run.environment.get("energy"))
    more, why = scenario_metrics([*SCENARIO_METRICS], run.candidate, run.scenarios)
    assert run.baseline is not None and run.outputs is not None
    cause = stability(run.baseline, run.environment, stability_limits(MeasureTable()))
    cooled_c(run.environment)
    check_executed("float32", run.candidate.executed)
    for array in read_arrays(run.outputs).values():
        array.astype(np.float16)
    kept = replace(
        a_measurement(), **run.series(), cause=cause, metrics={**metrics, **more}, missing={**missing, **why}
    )
    text = json.dumps(kept.as_json(), sort_keys=True, allow_nan=False)
    Measurement.from_json(json.loads(text))


@functools.cache
def a_measurement() -> Measurement:
    import made_up

    return made_up.measurement()


# -- a study's folder


class Folder:
    """Damaged files of a study's folder through the store, the front, and all that a report is made from."""

    def __init__(self, recording: Recording, folder: Path) -> None:
        self._root = folder / "study"
        _write_study(self._root, recording)
        names = (
            *("measurements/*.json", "failures/*.json", "invalid/*.json", "confirmation/*.json*", "study.json"),
            *(
                "cases.json",
                "account.jsonl",
                "events.jsonl",
                "baseline/training.json",
                "study.toml",
                "artifacts/*/*.json",
            ),
        )
        self._whole = {
            str(path.relative_to(self._root)): path.read_bytes()
            for name in names
            for path in sorted(self._root.glob(name))
        }
        self._places = [*self._whole, *[name for name in self._whole if name.startswith("measurements/")] * 2]

    def damage(self, rng: random.Random) -> tuple[str, bytes]:
        what = rng.choice(self._places)
        whole = self._whole[what]
        if what.endswith(".toml"):
            return what, mutate_toml(whole.decode(), rng)
        if what.endswith(".jsonl"):
            lines = whole.splitlines()
            at = rng.randrange(len(lines))
            lines[at] = mutate_json(json.loads(lines[at]), rng)
            return what, b"\n".join(lines) + b"\n"
        return what, mutate_json(json.loads(whole), rng)

    def read(self, what: str, data: bytes) -> None:
        path = self._root / what
        path.write_bytes(data)
        try:
            read_folder(self._root, what)
        finally:
            path.write_bytes(self._whole[what])
            for other in set(self._whole) - {what}:
                if not (self._root / other).exists():  # set aside
                    (self._root / other).write_bytes(self._whole[other])


def read_folder(root: Path, what: str) -> None:
    """All that front and report read; only what the damaged file can have changed is computed anew."""
    store = Store(root)
    if what.startswith("artifacts/"):
        folder = (root / what).parent
        artifact_manifest(folder)
        kept_artifact(folder, "onnxruntime", "float32", "0" * 64)
        return
    place = what.partition("/")[0]
    readers: Mapping[str, Sequence[Callable[[], object]]] = {
        "measurements": (store.measurements,),
        "invalid": (store.invalid,),
        "confirmation": (store.confirmations, store.openings),
        "failures": (store.failures,),
        "events.jsonl": (lambda: read_events(root), lambda: passing_failures(store), lambda: early_end(store)),
        "cases.json": (store.case_names,),
        "account.jsonl": (lambda: summarise(store.times()),),
        "baseline": (store.baseline_training,),
    }
    for reader in readers.get(place, ()):
        reader()
    if place in ("measurements", "invalid", "study.json", "study.toml"):
        front_of(store.study(), stored_spec(store), evidence_of(store), resamples=10)


def _write_study(root: Path, recording: Recording) -> None:
    import made_up
    from board_kit import make_payload
    from made_up_study import new_store

    from edgedeploy.files import write_json
    from edgedeploy.records.artifact import MANIFEST
    from edgedeploy.records.measurement import Failure

    store = new_store(root, [made_up.variant()])
    whole = agent_series(recording)
    # Conditions once more for each window say nothing new, and make a file of 30 KB.
    series = {
        **whole,
        "scenarios": {**whole["scenarios"], "sustained": _first_windows(whole["scenarios"]["sustained"])},
    }
    for item in (made_up.measurement(made_up.variant()), made_up.measurement(made_up.variant(precision="int8"))):
        small = replace(item, cases=dict(list(item.cases.items())[:6]), **series)
        store.keep(small)
        store.keep(replace(small, split="confirmation"))
    store.keep(replace(made_up.measurement(made_up.variant(width=0.5), cause="the baseline became slower"), **series))
    store.keep_failure(Failure(made_up.variant(width=0.25), "Unsupported", "build", "no kernel for Conv", "2026-01-01"))
    store.log_opening("end", (made_up.variant().digest,))
    for at_ns in (5, 9):
        store.add_time("a", "measure", 4, at_ns)
    host = {"cpu": "Made up", "isa": ["avx2"], "native_bfloat16": False, "isa_limit": ""}
    store.keep_baseline_training({"epochs": 3, "wall_s": 2.5, "precision": "float32", "host": host})
    store.keep_case_names({"selection": ["a", "b"], "calibration": ["c"]})
    failed = {
        "variant": made_up.variant(width=0.75).as_json(),
        "kind": "Unstable",
        "phase": "measure",
        "message": "drift",
    }
    events = [
        {"kind": "start", "utc": "2026-01-01T00:00:00+00:00", "at_s": 0.0, "text": "edgedeploy 0.1.0"},
        {"kind": "trial", "utc": "2026-01-01T00:00:01+00:00", "at_s": 1.0, "text": "failed", "failed": failed},
        {"kind": "end", "utc": "2026-01-01T00:00:02+00:00", "at_s": 2.0, "text": "disk full", "reason": "error"},
    ]
    (root / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    payload = make_payload(root / "made")
    shutil.copytree(payload.folder, root / "artifacts" / "one")
    write_json(root / "artifacts" / "one" / MANIFEST, payload.artifact.as_json())
    shutil.rmtree(root / "made")


def _first_windows(sustained: Mapping[str, Any]) -> dict[str, Any]:
    return {"windows": sustained["windows"][:6], "conditions": sustained["conditions"][:7]}


def agent_series(recording: Recording) -> dict[str, Any]:
    """The recorded run's series, as a measurement keeps them."""
    from edgedeploy.runtime.wire.result import AgentResult
    from edgedeploy.runtime.wire.serde import from_json

    result = from_json(AgentResult, json.loads(recording.files["result.json"]))
    layers = {
        side: {**found, "layers": [{**layer, "source": None} for layer in found["layers"]]}
        for side, found in result.layers.items()
    }
    return {**result.series(), "layers": layers, "phases_ns": {"run": 5}}


# -- study files


class StudyFiles:
    """Damaged study files through :func:`edgedeploy.api.load_study`, and the plans for a board."""

    def __init__(self, recording: Recording, folder: Path) -> None:
        places = (
            *(ROOT / "docs" / "examples").glob("*.toml"),
            *(ROOT / "edgedeploy" / "study" / "recipes").glob("*.toml"),
        )
        self._texts = {path.name: path.read_text() for path in sorted(places)}
        self._path = folder / "study.toml"

    def damage(self, rng: random.Random) -> tuple[str, bytes]:
        what = rng.choice([*self._texts])
        return what, mutate_toml(self._texts[what], rng)

    def read(self, what: str, data: bytes) -> None:
        self._path.write_bytes(data)
        study = load_study(self._path)
        study.spec.measure.plans(self._path.parent)
        study.spec.metric_table({})
        study.spec.precision_plans()
        json.dumps(study.spec.model_dump(mode="json"))
        odd = [value for value in _numbers(study.spec.model_dump()) if not math.isfinite(value)]
        if odd:
            raise AssertionError(f"a spec with {odd[0]}")


def _numbers(value: Any) -> Iterator[float]:
    """Every floating-point number in nested containers."""
    if isinstance(value, float):
        yield value
    elif isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _numbers(item)


KINDS: Final[Mapping[str, tuple[Callable[[Recording, Path], Kind], int]]] = {
    "answers": (Answers, 6),
    "folder": (Folder, 5),
    "study": (StudyFiles, 5),
    "bundle": (Bundles, 4),
    "tegrastats": (TegrastatsLines, 3),
    "trtexec": (TrtexecWords, 3),
    "dicom": (DicomFiles, 3),
    "onnx": (OnnxFiles, 2),
}
"""Each kind with its share of 31 cases: an odd number, so that each of two processes meets all kinds."""

ALONE: Final = ("study", "bundle", "tegrastats", "trtexec", "dicom", "onnx")
"""Kinds that need no recorded run."""

ORDER: Final = [name for name, (_, share) in KINDS.items() for _ in range(share)]


def kind_of(index: int) -> str:
    """Which kind a case is, by its number."""
    return ORDER[index * 7 % len(ORDER)]


@contextlib.contextmanager
def refused() -> Iterator[list[EdgeDeployError]]:
    """Keeps the typed error that ends the block, if one does."""
    found: list[EdgeDeployError] = []
    try:
        yield found
    except EdgeDeployError as exc:
        found.append(exc)
