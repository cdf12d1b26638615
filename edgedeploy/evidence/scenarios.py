"""The series of scenarios, from the raw ones that the board sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from edgedeploy.evidence.series import Course, Neighbours, Pairs, Reader, Repeats, Run, Series
from edgedeploy.evidence.statistics import Floats, require_positive
from edgedeploy.runtime.scenarios.schedule import Replay

FEWEST_PER_BLOCK: Final = 8
MOST_BLOCKS: Final = 100
"""Frames follow one another and are not independent: they are drawn in blocks of neighbours, at most this many."""

FEWEST_WINDOWS: Final = 5
"""Fewer windows of a sustained load have no last fifth."""


# -- sustained load


def _window_medians(run: Run) -> Floats:
    return require_positive([window["p50_ns"] for window in run.scenario("sustained")["windows"]], "sustained latency")


def _sustained_medians(run: Run) -> Series:
    return Repeats(_window_medians(run))


def _sustained_course(run: Run) -> Series | str:
    """Percent of the mean over minutes."""
    medians = _window_medians(run)
    if medians.size < FEWEST_WINDOWS:
        return f"{medians.size} windows, {FEWEST_WINDOWS} needed"
    starts_ns = [window["start_ns"] for window in run.scenario("sustained")["windows"]]
    return Course(np.array(starts_ns, dtype=np.float64) / 60e9, 100 * medians / medians.mean())


def _sustained_slowdown(run: Run) -> Series | str:
    medians = _window_medians(run)
    fifth = medians.size // FEWEST_WINDOWS
    if not fifth:
        return f"{medians.size} windows, {FEWEST_WINDOWS} needed"
    return float(np.median(medians[-fifth:]) / np.median(medians[:fifth]))


def _sustained_heating(run: Run) -> Series | None:
    zones = [conditions.get("temperatures_c") or {} for conditions in run.scenario("sustained")["conditions"]]
    rises = [zones[-1][zone] - zones[0][zone] for zone in zones[0] if zone in zones[-1]] if zones else []
    return float(max(rises)) if rises else None


# -- real time


def _missed(run: Run) -> Series:
    return Pairs(_sums(run.replay.missed()), 100.0)


def _dropped(run: Run) -> Series:
    dropped = {frame for frame, _ in run.replay.dropped}
    return Pairs(_sums([frame in dropped for frame in range(len(run.replay.arrivals_ns))]), 100.0)


def _of_results(read: Callable[[Replay, Floats], Series | str | None]) -> Reader:
    """A reader that is given the results' ages too, and asked only where there are results."""

    def reader(run: Run) -> Series | str | None:
        ages = require_positive(run.replay.ages_ns(), "age of a result")
        return read(run.replay, ages) if ages.size else f"none of {len(run.replay.arrivals_ns)} frames was processed"

    return reader


def _ages(replay: Replay, ages: Floats) -> Series:
    return Neighbours(_blocks(ages), "results")


def _age_changes(replay: Replay, ages: Floats) -> Series | None:
    return Pairs(_sums(np.abs(np.diff(ages)).tolist())) if ages.size > 1 else None


def _shown_age(replay: Replay, ages: Floats) -> Series | None:
    return replay.shown_age_ns()


def _stage(stage: str) -> Reader:
    """Times of one stage of the frame path; None for a stage that the study does not have."""

    def reader(run: Run) -> Series | str | None:
        if not run.replay.processed:
            return f"none of {len(run.replay.arrivals_ns)} frames was processed"
        times_ns = run.scenario("realtime")["stages_ns"].get(stage)
        if times_ns is None:
            return None
        return Neighbours(_blocks(require_positive(times_ns, f"time of stage {stage}")), "frames")

    return reader


def _sums(values: Sequence[float]) -> Floats:
    """Sum and count of each block; shape (blocks, 2)."""
    blocks = _blocks(np.asarray(values, dtype=np.float64))
    return np.array([[sum(block), len(block)] for block in blocks], dtype=np.float64)


def _blocks(values: Floats) -> list[list[float]]:
    """Neighbours together: blocks of the same size or one less."""
    count = max(1, min(MOST_BLOCKS, values.size // FEWEST_PER_BLOCK))
    return [part.tolist() for part in np.array_split(values, count)]


# -- several streams, all samples at once, whole runs


def _streams(run: Run) -> Series | str:
    raw = run.scenario("multi_stream")
    return (
        f"all of {raw['most']} streams hold: raise `most`" if raw["streams"] == raw["most"] else float(raw["streams"])
    )


def _offline_chunks(run: Run) -> Series:
    raw = run.scenario("offline")
    elapsed = require_positive(raw["elapsed_ns"], "offline time")
    return Pairs(np.stack([np.asarray(raw["samples"], dtype=np.float64), elapsed], axis=1), scale=1e9)


def _of_runs(what: str, read: Callable[[Mapping[str, Any], Floats], float]) -> Reader:
    """A reader of one number for each repeat of a whole run; ``read`` is given its times of looking too."""

    def reader(run: Run) -> Series:
        runs = run.scenario("resources")["runs"]
        values = [read(item, require_positive(item["at_ns"], "time of a look at the resources")) for item in runs]
        return Repeats(require_positive(values, what))

    return reader


def _memory_area(raw: Mapping[str, Any], at_ns: Floats) -> float:
    """In byte seconds: every look counts for the time since the one before it."""
    return float((np.diff(at_ns, prepend=0.0) * raw["resident_bytes"]).sum()) / 1e9


def _of_cases(read: Callable[[Mapping[str, Any], Floats], float], scale: float = 1.0) -> Reader:
    """A reader of the mean over cases that ran in processes of their own; ``read`` is given each one's times of looking."""

    def reader(run: Run) -> Series:
        values = [read(item, np.asarray(item["at_ns"], np.float64)) for item in run.scenario("flare")["runs"]]
        return Pairs(np.array([[value, 1.0] for value in values], dtype=np.float64), scale)

    return reader


def _case_duration(run: Run) -> Series:
    """In ns; a case that failed counts with the limit, because the answer that it owes is later than that."""
    raw = run.scenario("flare")
    taken_ns = [raw["limit_ns"] if item["failed"] else item["at_ns"][-1] for item in raw["runs"]]
    return Pairs(np.array([[value, 1.0] for value in taken_ns], dtype=np.float64))


# -- many users


_CUT: Final = "the search for the most users did not end in its time: raise `time_limit`, or lower `queries`"


def _users(run: Run) -> Series | str:
    raw = run.scenario("server")
    if raw["cut"]:
        return _CUT
    if raw["users"] == raw["most"]:
        return f"all of {raw['most']} users are answered in time: raise `most`"
    return float(raw["users"])


def _of_load(read: Callable[[Mapping[str, Any], int], Series]) -> Reader:
    """A reader of the load that is stated, with the deadline; None where none was, the reason where nobody knows which."""

    def reader(run: Run) -> Series | str | None:
        raw = run.scenario("server")
        if raw["cut"]:
            return _CUT
        return None if raw["at"] is None else read(raw["at"], raw["deadline_ns"])

    return reader


def _server_latencies(level: Mapping[str, Any], deadline_ns: int) -> Series:
    return Neighbours(_blocks(require_positive(level["latencies_ns"], "latency of a request")), "answers")


def _server_missed(level: Mapping[str, Any], deadline_ns: int) -> Series:
    """By request, in their order: turned away, or answered too late."""
    shed, answers = set(level["shed"]), iter(level["latencies_ns"])
    return Pairs(_sums([n in shed or next(answers) > deadline_ns for n in range(level["sent"])]), 100.0)


def _server_shed(level: Mapping[str, Any], deadline_ns: int) -> Series:
    shed = set(level["shed"])
    return Pairs(_sums([number in shed for number in range(level["sent"])]), 100.0)


SCENARIO_SERIES: Final[Mapping[str, Reader]] = {
    "sustained medians": _sustained_medians,
    "sustained course": _sustained_course,
    "sustained slowdown": _sustained_slowdown,
    "sustained heating": _sustained_heating,
    "realtime missed": _missed,
    "realtime dropped": _dropped,
    "realtime ages": _of_results(_ages),
    "realtime age changes": _of_results(_age_changes),
    "realtime shown age": _of_results(_shown_age),
    "realtime decode": _stage("decode"),
    "realtime resize": _stage("resize"),
    "realtime inference": _stage("inference"),
    "realtime overlay": _stage("overlay"),
    "streams": _streams,
    "offline chunks": _offline_chunks,
    "users": _users,
    "server latencies": _of_load(_server_latencies),
    "server missed": _of_load(_server_missed),
    "server shed": _of_load(_server_shed),
    "memory of runs": _of_runs("memory of a run", _memory_area),
    "CPU of runs": _of_runs("CPU of a run", lambda raw, _: float(raw["cpu_ns"][-1] / 1e9)),
    "failed cases": _of_cases(lambda raw, _: float(bool(raw["failed"])), scale=100.0),
    "memory of cases": _of_cases(_memory_area),
    "CPU of cases": _of_cases(lambda raw, _: float(raw["cpu_ns"][-1] / 1e9)),
    "durations of cases": _case_duration,
    "durations of runs": _of_runs("duration of a run", lambda _, at_ns: float(at_ns[-1])),
}
"""What each scenario gives where it was asked for. The single stream is the interleaved blocks themselves."""
