"""A night on a Dask cluster, its journal on a PostgreSQL server, is killed. The boards are SIMULATED: they wait."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("distributed", reason="distributed is not installed: pip install 'edgedeploy[lab]'")
pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'edgedeploy[lab]'")

from benchmarks.nightly_kit.waiting import Shape, WaitingLab, postgresql, survive

pytestmark = [pytest.mark.beside, pytest.mark.slow]

SMALL = Shape(boards=10, entries=60, job_s=0.3, processes=2)


def test_kills_of_the_coordinator_and_of_workers_lose_and_double_nothing(tmp_path: Path) -> None:
    with postgresql() as storage:
        if storage is None:
            pytest.skip("no PostgreSQL on this machine: apt-get install postgresql")
        with WaitingLab(tmp_path, SMALL, storage) as lab:
            found = survive(lab, worker_kills=3)
    assert (found.kept, found.lost, found.doubled) == (SMALL.jobs, 0, 0)
    assert found.again <= 4 * SMALL.boards
