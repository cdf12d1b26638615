"""Records real A/A sessions: one small network against itself, measured as the nightly lab measures.

Each session is one job on this host through its agent, which takes the machine's claim: two new processes, 8 ABBA rounds
of 12 queries. A night is four sessions of each target, in turn; nights lie apart, so that the host's load differs.
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.noise import machine, write_model
from edgedeploy.evidence.statistics import Floats, block_medians, cpu_per_query, pair_ratios
from edgedeploy.files import read_json, write_json
from edgedeploy.records.job import Job, MeasurePlan, Payload, RawRun
from edgedeploy.spec.boards import board_of_word
from edgedeploy.study.oneshot.desk import Desk, desk, target_named
from edgedeploy.study.oneshot.model import OneModel, random_cases, take

METRICS: Final = ("latency", "cpu")
TARGETS: Final = ("onnxruntime", "openvino")
LAYERS: Final = 8
SESSIONS: Final = 4
ROUNDS, BLOCK = 8, 12
PLAN: Final = MeasurePlan(queries=2 * ROUNDS * BLOCK, block=BLOCK, cold_starts=0, collect_outputs=False)


@dataclass(frozen=True)
class Bench:
    """One target's network on this host, against itself."""

    target: str
    desk: Desk
    payload: Payload

    def session(self) -> dict[str, Any]:
        """The losses of one run in new processes, the noise within it, and the machine's load."""
        assert self.desk.trials is not None
        load = os.getloadavg()[0]
        with tempfile.TemporaryDirectory(prefix="edgedeploy-") as folder:
            _, raw = self.desk.trials.run(Job(self.payload, self.payload, PLAN), Path(folder))
        return {"target": self.target, **losses_of(raw), "load": round(load, 2), "background_cores": _background(raw)}


def losses_of(raw: RawRun) -> dict[str, float]:
    """Logarithms of candidate over baseline: latency with its standard error within the run, and CPU time."""
    assert raw.baseline is not None
    latency = np.log(pair_ratios(block_medians(raw.candidate), block_medians(raw.baseline)))
    cpu = np.log(pair_ratios(cpu_per_query(raw.candidate), cpu_per_query(raw.baseline)))
    return {
        "latency": round(float(np.median(latency)), 5),
        "within": round(_error_of_median(latency), 5),
        "cpu": round(float(np.median(cpu)), 5),
    }


def _error_of_median(values: Floats) -> float:
    """By the normal approximation, of a robust spread."""
    spread = 1.4826 * float(np.median(np.abs(values - np.median(values))))
    return spread * math.sqrt(math.pi / 2 / values.size)


def _background(raw: RawRun) -> float | None:
    share = raw.environment.get("background_cpu_share")
    return None if share is None else round(float(share), 3)


@contextmanager
def benches() -> Iterator[list[Bench]]:
    """One for each target, built once."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgedeploy-")))
        write_model(folder / "model.onnx", LAYERS)
        taken = take(folder / "model.onnx", {})
        blank = OneModel(taken.data, taken.sha256, random_cases(()))
        task = OneModel(taken.data, taken.sha256, random_cases(blank.inputs_taken))
        found = []
        for name in TARGETS:
            wanted = {"precision": "float32", "threads": 1}
            place = desk(task, target_named(name, "float32"), wanted, board_of_word("local"), tell=lambda line: None)
            opened = stack.enter_context(place)
            found.append(Bench(name, opened, opened.bench.payload(opened.variant, "selection")))
        yield found


def record(path: Path, nights: int, apart_s: float) -> None:
    """Add so many nights to the record in ``path``, each as soon as it is measured."""
    with benches() as found:
        for number in range(nights):
            if number:
                time.sleep(apart_s)
            sessions = [bench.session() for _ in range(SESSIONS) for bench in found]
            kept = read_json(path) if path.exists() else _empty()
            write_json(path, {**kept, "nights": [*kept["nights"], _night(sessions)]})


def _empty() -> dict[str, Any]:
    plan = f"{LAYERS} convolutions against themselves, {ROUNDS} ABBA rounds of {BLOCK} queries, one thread"
    return {"machine": machine(), "plan": plan, "targets": list(TARGETS), "metrics": list(METRICS), "nights": []}


def _night(sessions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Each target's metrics, session by session."""
    by_target = {target: [item for item in sessions if item["target"] == target] for target in TARGETS}
    return {
        "utc": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        "load": [item["load"] for item in sessions],
        "background_cores": [item["background_cores"] for item in sessions],
        **{
            target: {name: [item[name] for item in own] for name in (*METRICS, "within")}
            for target, own in by_target.items()
        },
    }
