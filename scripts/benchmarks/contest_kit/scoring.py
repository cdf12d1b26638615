"""One scoring program for all sides: time by the product's own agent, Dice by the task's own metric, bytes of the files.

Each artifact runs in a process of its own with one thread on one core, in blocks interleaved with ONNX Runtime float32 in
another process on the same core. Its outputs of all selection and confirmation cases come from that very process.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.contest_kit.checkpoint import Source
from benchmarks.contest_kit.entries import Entry
from benchmarks.shared.sources import LIMITS, REPEATS, read_outputs, say
from edgedeploy.boards.open import open_board
from edgedeploy.errors import EdgeDeployError
from edgedeploy.evidence.statistics import block_medians, cpu_per_query, pair_ratios, stability
from edgedeploy.files import write_atomic
from edgedeploy.interfaces.task import Case, Split
from edgedeploy.records.board import BoardInfo
from edgedeploy.records.job import Job, MeasurePlan, Payload
from edgedeploy.study.runner import Runner, runner_on
from edgedeploy.study.store import utc_now
from edgedeploy.tasks.segmentation.metrics import Labels

SPLITS: Final[tuple[Split, ...]] = ("selection", "confirmation")
PLAN: Final = MeasurePlan(queries=120, warmup=10, block=8, cold_starts=0, time_limit_s=600.0)
THREADS: Final = 1
BASELINE: Final = "ort-float32"
SCORES: Final = "scores.jsonl"


@dataclass(frozen=True)
class Score:
    """What one artifact is worth. ``dice`` is the task's ``dice_mean``, mean over the cases of each split;
    ``cpu_ratio`` is the median over interleaved block pairs of CPU time over that of ONNX Runtime float32, with its
    quartiles. ``cause`` says why the run's conditions did not hold (None: they held)."""

    key: str
    size_bytes: int
    dice: Mapping[str, float]
    cpu_ratio: float
    cpu_quartiles: tuple[float, float]
    latency_ratio: float
    cpu_ms: float
    executed: Mapping[str, int]
    cause: str | None
    load: float
    at: str

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Score:
        return cls(**{**data, "cpu_quartiles": tuple(data["cpu_quartiles"])})


class Scores:
    """The scores kept in ``folder``, by what was scored: a line for each run, the last one counts."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / SCORES
        lines = self._path.read_text(encoding="utf-8").splitlines() if self._path.is_file() else []
        found = [Score.from_json(json.loads(line)) for line in lines]
        self._by_key = {score.key: score for score in found}

    def of(self, entry: Entry) -> Score | None:
        return self._by_key.get(key_of(entry))

    def keep(self, score: Score) -> None:
        self._by_key[score.key] = score
        text = "".join(json.dumps(asdict(item)) + "\n" for item in self._by_key.values())
        write_atomic(self._path, text.encode())


def key_of(entry: Entry) -> str:
    """Of everything that a score depends on: the artifact's content and settings."""
    return entry.artifact.digest


def score_all(
    source: Source, entries: Iterable[Entry], baseline: Entry, scores: Scores, repeats: int = REPEATS
) -> BoardInfo:
    """Score what has no score yet, then what has one from a disturbed run; one that is disturbed is run ``repeats`` times.
    An artifact that does not run is told and left out."""
    board = open_board({"name": "this machine", "kind": "local", "root": str(source.folder / "board")})
    run = runner_on(board, say)
    for entry in sorted(entries, key=lambda entry: scores.of(entry) is not None):
        found = scores.of(entry)
        if found is not None and found.cause is None:
            continue
        say(f"score: {entry.name}")
        try:
            scores.keep(_score(source, entry, baseline, run, repeats))
        except EdgeDeployError as exc:
            say(f"  {exc}")
    return board.probe()


def _score(source: Source, entry: Entry, baseline: Entry, run: Runner, repeats: int) -> Score:
    job = Job(_payload(source, entry), _payload(source, baseline), PLAN)
    load = os.getloadavg()[0]
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(prefix="edgedeploy-contest-") as place:
            _, raw = run(job, Path(place))
            outputs = read_outputs(raw)
        assert raw.baseline is not None
        cause = stability(raw.baseline, raw.environment, LIMITS)
        if cause is None:
            break
    cpu = pair_ratios(cpu_per_query(raw.candidate), cpu_per_query(raw.baseline))
    latency = pair_ratios(block_medians(raw.candidate), block_medians(raw.baseline))
    low, middle, high = (float(value) for value in np.percentile(cpu, [25, 50, 75]))
    return Score(
        key=key_of(entry),
        size_bytes=entry.artifact.size_bytes,
        dice=_dice(source, outputs),
        cpu_ratio=middle,
        cpu_quartiles=(low, high),
        latency_ratio=float(np.median(latency)),
        cpu_ms=float(np.median(cpu_per_query(raw.candidate))) / 1e6,
        executed=raw.candidate.executed,
        cause=cause,
        load=load,
        at=utc_now(),
    )


def _payload(source: Source, entry: Entry) -> Payload:
    side = entry.artifact.inputs[0].shape[-1]
    return Payload(entry.artifact, entry.folder, _inputs(source, side), THREADS)


def _cases(source: Source) -> list[Case]:
    return [case for split in SPLITS for case in source.task.cases(split)]


def _inputs(source: Source, side: int) -> Path:
    """The stacked inputs of all scored cases at one resolution."""
    path = source.folder / f"inputs-{side}.npz"
    if not path.is_file():
        rows = [source.task.inputs(case, **{**source.arch, "resolution": side}) for case in _cases(source)]
        part = path.with_name(f"part-{path.name}")
        np.savez(part, **{name: np.stack([row[name] for row in rows]) for name in rows[0]})
        part.replace(path)
    return path


def _dice(source: Source, outputs: Mapping[str, Any]) -> dict[str, float]:
    found: dict[str, list[float]] = {split: [] for split in SPLITS}
    for row, case in enumerate(_cases(source)):
        _, truth = source.task.load(case)
        answer = source.task.answer({name: rows[row] for name, rows in outputs.items()}, truth.shape)
        value = mean_dice(answer, truth, source.task.classes)
        if value is not None:
            found[case.split].append(value)
    return {split: math.fsum(values) / len(values) for split, values in found.items()}


def mean_dice(answer: Labels, truth: Labels, classes: Mapping[str, int]) -> float | None:
    """The task's ``dice_mean`` without its surface distances, which take most of the time: a class that is in neither is
    undefined, one that is in one alone scores 0."""
    values = []
    for label in classes.values():
        ours, theirs = answer == label, truth == label
        total = int(ours.sum()) + int(theirs.sum())
        if total:
            values.append(2 * int((ours & theirs).sum()) / total)
    return sum(values) / len(values) if values else None
