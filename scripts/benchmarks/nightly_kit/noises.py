"""A/A nights: drawn from recorded sessions, or made up. Losses of shape (nights, series, 4 sessions)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.nightly_kit.simulation import Floats

RECORD: Final = Path(__file__).with_name("sessions.json")
SESSIONS: Final = 4
SHARED: Final = 0.5
"""The share of a made-up session's variance that all sessions of a night have in common."""

T_FREEDOM: Final = 4
AR: Final = 0.4
DISTURBED, DISTURBANCE = 0.02, 0.10
"""The share of single sessions that are disturbed, and by how much."""


@dataclass(frozen=True)
class Record:
    """``nights`` has for each kind of series (``onnxruntime latency``) its A/A nights, shape (nights, 4)."""

    machine: str
    since: str
    until: str
    load: tuple[float, float]
    nights: Mapping[str, Floats]

    @property
    def text(self) -> str:
        count = len(next(iter(self.nights.values())))
        low, high = self.load
        return f"{count} nights x {SESSIONS} sessions, {self.machine}, load {low:.1f} to {high:.1f}, {self.since}"

    def sessions(self, kind: str) -> Floats:
        return self.nights[kind].reshape(-1)

    def shared(self, kind: str) -> float:
        """The share of the variance that sessions of a night have in common: the intraclass correlation, 0 at least."""
        values = self.nights[kind]
        within = float(values.var(axis=1, ddof=1).mean())
        between = float(values.mean(axis=1).var(ddof=1)) - within / values.shape[1]
        return max(0.0, between / (between + within)) if between + within > 0 else 0.0


def read_record(path: Path = RECORD) -> Record:
    found = json.loads(path.read_text(encoding="utf-8"))
    nights: Sequence[Mapping[str, Any]] = found["nights"]
    kinds = [(target, metric) for target in found["targets"] for metric in found["metrics"]]
    loads = [load for night in nights for load in night["load"]]
    return Record(
        machine=found["machine"],
        since=nights[0]["utc"],
        until=nights[-1]["utc"],
        load=(min(loads), max(loads)),
        nights={
            f"{target} {metric}": np.array([night[target][metric] for night in nights], dtype=np.float64)
            for target, metric in kinds
        },
    )


def drawn(record: Record, kinds: Sequence[str], nights: int, series: int, seed: int) -> Floats:
    """Whole recorded nights, so that what sessions of a night have in common stays: a block bootstrap (Kunsch 1989). Each
    series draws from nights of its own kind, all kinds alike often."""
    rng = np.random.default_rng(seed)
    found: Floats = np.empty((nights, series, SESSIONS))
    for place, kind in enumerate(kinds):
        own = slice(place, series, len(kinds))
        rows = record.nights[kind]
        found[:, own] = rows[rng.integers(0, len(rows), found[:, own].shape[:2])]
    return found


def made_up(kind: str, sd: float, nights: int, series: int, seed: int) -> Floats:
    """``kind`` is normal, t4 (single sessions have the heavy tail), t4 nights (whole nights have it), AR .4 or
    disturbed. ``sd`` is of a session, disturbances left out."""
    rng = np.random.default_rng(seed)

    def heavy(*shape: int) -> Floats:
        return np.asarray(rng.standard_t(T_FREEDOM, shape) * math.sqrt((T_FREEDOM - 2) / T_FREEDOM))

    shared = heavy(nights, series) if kind == "t4 nights" else rng.normal(size=(nights, series))
    if kind == "AR .4":
        for night in range(1, nights):
            shared[night] = AR * shared[night - 1] + math.sqrt(1 - AR**2) * shared[night]
    own = heavy(nights, series, SESSIONS) if kind == "t4" else rng.normal(size=(nights, series, SESSIONS))
    losses = sd * (math.sqrt(SHARED) * shared[..., None] + math.sqrt(1 - SHARED) * own)
    if kind == "disturbed":
        losses = losses + DISTURBANCE * (rng.random(losses.shape) < DISTURBED)
    return np.asarray(losses)
