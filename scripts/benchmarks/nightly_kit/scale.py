"""A lab of 100 boards on Dask and PostgreSQL. The boards are SIMULATED: they only wait."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.nightly_kit.asked import Asked
from benchmarks.nightly_kit.waiting import Shape, WaitingLab, overhead, postgresql, survive
from benchmarks.shared.rows import Row, RowMaker

LARGE: Final = Shape(boards=100, entries=1000, job_s=4.0, processes=5)
OVERHEAD_BAR_S: Final = 0.05
WORKER_KILLS: Final = 3
WHAT: Final = (
    f"{LARGE.boards} boards that only wait (SIMULATED; {0.75 * LARGE.job_s:g} to {1.25 * LARGE.job_s:g} s a session), "
    f"{LARGE.entries} entries, Dask and PostgreSQL"
)


def scale_overhead(asked: Asked) -> Row:
    """From the end of a session on its board to the start of the next one there, with the verdicts in between."""
    with _lab() as lab:
        if lab is None:
            return _none("scheduling")
        found = overhead(lab)
    median_ms, p90_ms = np.quantile(found.gaps_s, [0.5, 0.9]) * 1e3
    told = f"mean {found.mean_s * 1e3:.0f} ms, median {median_ms:.0f}, p90 {p90_ms:.0f}"
    longer_s = found.wall_s - LARGE.jobs * LARGE.job_s / LARGE.boards
    told += f"; the night is {longer_s / LARGE.jobs * 1e3:.0f} ms a job longer than its sessions in the mean"
    told += f", coordinator's CPU {found.cpu_s * 1e3:.0f} ms a job"
    text = f"{told} of {found.gaps_s.size} gaps (load {os.getloadavg()[0]:.1f}, {found.wall_s:.0f} s)"
    return Row(f"{WHAT}: scheduling a job", text, "mean below 50 ms", found.mean_s < OVERHEAD_BAR_S)


def scale_kills(asked: Asked) -> Row:
    with _lab() as lab:
        if lab is None:
            return _none("kills")
        found = survive(lab, WORKER_KILLS)
    told = f"{found.kept} of {found.jobs} sessions kept, {found.lost} lost, {found.doubled} doubled, {found.again} run again"
    what = (
        f"{WHAT}: one kill -9 of the coordinator, {WORKER_KILLS} of worker processes ({LARGE.of_process} boards each)"
    )
    return Row(what, f"{told} ({found.wall_s:.0f} s)", "none lost, none doubled", found.whole)


@contextmanager
def _lab() -> Iterator[WaitingLab | None]:
    with postgresql() as storage:
        if storage is None:
            yield None
            return
        with tempfile.TemporaryDirectory(prefix="edgedeploy-") as name, WaitingLab(Path(name), LARGE, storage) as lab:
            yield lab


def _none(part: str) -> Row:
    return Row(f"{WHAT}: {part}", "PostgreSQL is not installed: apt-get install postgresql", "measured", holds=False)


ROWS: Final[tuple[RowMaker, ...]] = (scale_overhead, scale_kills)
