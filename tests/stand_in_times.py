"""STAND-IN for measured times: two runs of one study give the same numbers, and their fronts can be compared by bytes.

Everything else is real: artifacts are built, sent, run, and their outputs come back and are scored. Only where a run's
series are collected on the host is each of them replaced by a function of the artifact's digest, and what the board saw
of its own conditions (temperatures, clocks, other processes, layers' profiles) by nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from edgedeploy.boards.agent.session import RemoteSession
from edgedeploy.records.job import Job, RawRun, RawSide

Measure = Callable[[RemoteSession, Job, Path], RawRun]


def stand_in(side: RawSide, digest: str) -> RawSide:
    """The side with as many queries as were timed, and with times that only the artifact's digest decides."""
    rng = random.Random(digest)
    usual_ns = rng.randrange(100_000, 1_000_000)
    blocks = tuple(tuple(usual_ns + rng.randrange(usual_ns // 50) for _ in block) for block in side.blocks_ns)
    return replace(
        side,
        blocks_ns=blocks,
        cpu_ns=tuple(sum(block) for block in blocks),
        cold_starts_ns=tuple(usual_ns * 100 for _ in side.cold_starts_ns),
        peak_memory_bytes=usual_ns * 100,
    )


def standing_in(measure: Measure) -> Measure:
    def measured(session: RemoteSession, job: Job, collect_into: Path) -> RawRun:
        raw = measure(session, job, collect_into)
        baseline = raw.baseline and job.baseline and stand_in(raw.baseline, job.baseline.artifact.digest)
        return replace(
            raw,
            candidate=stand_in(raw.candidate, job.candidate.artifact.digest),
            baseline=baseline or None,
            environment={},
            layers={},
        )

    return measured
