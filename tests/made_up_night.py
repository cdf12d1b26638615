"""Nights of a lab that never was."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date, timedelta
from typing import Any, Final

import numpy as np

from edgedeploy.records.night import (
    BoardHealth,
    BoardState,
    GoldenCheck,
    Night,
    SeriesVerdict,
    Verdict,
)

TONIGHT: Final = "2026-11-29"
METRICS: Final = ("latency_p50_ns", "cpu_time_ns", "peak_memory_bytes", "dice_mean")


def state(**changes: Any) -> BoardState:
    found = BoardState(
        key="9f8e7d6c5b4a",
        serial="1423921",
        identity="ab12",
        host_key="ssh-ed25519 SHA256:abc",
        cpu="Cortex-A78AE",
        os="Ubuntu 22.04.4 LTS",
        image="R36.4.0",
        python="3.10.12",
        runtime="1.23.2",
        power_mode="MAXN",
        governor="performance",
        cpu_mhz=1984.0,
        temperature_c=47.5,
    )
    return replace(found, **changes)


def series(metric: str = "latency_p50_ns", **changes: Any) -> SeriesVerdict:
    found = SeriesVerdict(
        metric=metric,
        status="ok",
        nights=40,
        reason="within its limit",
        loss=0.004,
        reference=0.001,
        spread=0.012,
        limit=math.log(1.05),
        drift=0.2,
        sessions=2,
    )
    return replace(found, **changes)


def slower(metric: str = "latency_p50_ns") -> SeriesVerdict:
    reason = "12.3 % slower than its baseline, limit 5.0 %, in 4 sessions"
    return series(metric, status="regression", loss=math.log(1.123), sessions=4, reason=reason)


def verdict(entry: str = "vessels", board: str = "cart", **changes: Any) -> Verdict:
    found = Verdict(
        entry=entry,
        board=board,
        night=TONIGHT,
        outcome="ok",
        reason="every number within its limit",
        golden=GoldenCheck(3, {"mask": 2e-4}, {"mask": 1e-3}),
        series=tuple(series(metric) for metric in METRICS),
        owner="imaging@example.org",
        importance=2.0,
        state=state(),
    )
    return replace(found, **changes)


def health(name: str = "cart", **changes: Any) -> BoardHealth:
    return replace(BoardHealth(name, True, state(), busy_s=3600.0, provenance="measured"), **changes)


def night(date: str = TONIGHT, **changes: Any) -> Night:
    found = Night(
        lab="imaging",
        night=date,
        started_utc=f"{date}T22:00:00.000Z",
        ended_utc=f"{date}T23:30:00.000Z",
        budget_s=6 * 3600.0,
        verdicts=(verdict(),),
        boards=(health(),),
        tools={"edgedeploy": "0.1.0", "onnxruntime": "1.23.2"},
    )
    return replace(found, **changes)


def every_outcome(date: str = TONIGHT) -> Night:
    """One verdict of each kind, and a board of each."""
    golden = GoldenCheck(3, {"mask": 0.31}, {"mask": 1e-3}, ("mask",))
    missing = tuple(series(m, status="missing", loss=None, sessions=0, reason="no session") for m in METRICS)
    fresh = tuple(series(m, status="young", nights=4, reason="4 of 15 nights") for m in METRICS)
    verdicts = (
        verdict(),
        verdict("thyroid", outcome="regression", reason=slower().reason, series=(slower(), series("dice_mean"))),
        verdict("lung", outcome="regression", reason="golden output mask changed", golden=golden),
        verdict(
            "nerve",
            outcome="artifact",
            reason="model.onnx has other bytes than the accepted ones",
            artifact_changes=("model.onnx has other bytes than the accepted ones", "onnx 1.21.0, not 1.20.1"),
        ),
        verdict("liver", "jetson", outcome="young", reason="4 of 15 nights", series=fresh),
        verdict(
            "vessels",
            "jetson",
            outcome="board",
            reason="image R36.4.3, not R36.4.0",
            board_changes=("image R36.4.3, not R36.4.0",),
            new_history=True,
            series=fresh,
            state=state(key="0011223344", image="R36.4.3"),
        ),
        verdict(
            "vessels",
            "gone",
            outcome="board",
            reason="no answer in 60 s",
            error="Unreachable",
            series=missing,
            state=None,
        ),
        verdict("lung", "bench", outcome="infrastructure", reason="this disk is full", error="StorageError", series=()),
        verdict("heart", "cart", outcome="not_run", reason="the budget ended before it", golden=None, series=()),
    )
    boards = (
        health(waiting=1),
        health("jetson", state=state(key="0011223344", image="R36.4.3"), busy_s=1800.0),
        health("gone", answered=False, state=None, busy_s=0.0, error="Unreachable: no answer in 60 s", provenance=""),
        health("bench", quarantined="a run did not end and could not be stopped", busy_s=60.0, provenance="emulated"),
    )
    alarms = ("thyroid on cart: latency 12.3 % slower than its baseline", "lung on cart: golden output mask changed")
    return night(date, verdicts=verdicts, boards=boards, alarms=alarms)


def dates(count: int, last: str = TONIGHT) -> list[str]:
    end = date.fromisoformat(last)
    return [(end - timedelta(days=count - 1 - number)).isoformat() for number in range(count)]


def year(
    nights: int = 365,
    entries: int = 125,
    boards: Sequence[str] = ("cart", "jetson"),
    seed: int = 0,
    last: str = TONIGHT,
) -> Iterator[Night]:
    """Oldest first: ``entries`` on each board with four metrics each, 2 % of noise, an image and a runtime that change on
    the way, a slowdown of 12 % of the first entry in the last two nights."""
    rng = np.random.default_rng(seed)
    for number, day in enumerate(dates(nights, last)):
        image = "R36.4.0" if number < nights * 0.5 else "R36.4.3"
        runtime = "1.23.2" if number < nights * 0.7 else "1.24.0"
        found = state(key=f"{image}-{runtime}", image=image, runtime=runtime)
        tools = {"edgedeploy": "0.1.0", "onnxruntime": runtime}
        verdicts = [
            _of_a_year(f"entry-{entry:03d}", board, day, found, rng, slow=entry == 0 and number >= nights - 2)
            for board in boards
            for entry in range(entries)
        ]
        healths = tuple(health(name, state=found) for name in boards)
        yield night(day, verdicts=tuple(verdicts), boards=healths, tools=tools)


def _of_a_year(entry: str, board: str, day: str, found: BoardState, rng: np.random.Generator, *, slow: bool) -> Verdict:
    losses = rng.normal(0, 0.02, len(METRICS))
    losses[0] += 0.113 if slow else 0.0
    outcome: Any = "regression" if slow else "ok"
    parts = [series(m, loss=float(loss), status="ok") for m, loss in zip(METRICS, losses, strict=True)]
    if slow:
        parts[0] = replace(parts[0], status="regression", reason="slower than its baseline")
    return verdict(entry, board, night=day, outcome=outcome, series=tuple(parts), golden=None, state=found)
