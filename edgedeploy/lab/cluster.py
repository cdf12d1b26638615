"""Boards of other hosts, through Dask: each board is a worker that offers one unit of :data:`RESOURCE`.

A job is sent as bytes (artifacts, inputs, the plan) to the worker of a free board, and its results are sent back and
stored once. If a worker is killed during a job, Dask gives the job to another board, and the board's own agent frees
the board.

Dask's workers run any code that the scheduler's clients send, so whoever reaches the scheduler's port controls them.
Keep it on loopback or behind Dask's TLS (``tls://``, ``distributed.comm.tls`` in Dask's own configuration).
"""

from __future__ import annotations

import asyncio
import importlib.util
import tempfile
from collections.abc import Mapping
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any, Final

from edgedeploy.boards.care.attempts import Attempts, Patience
from edgedeploy.boards.care.quarantine import Quarantine
from edgedeploy.boards.open import open_board
from edgedeploy.errors import BoardError, SpecError, TargetUnavailable, Unreachable
from edgedeploy.interfaces.target import BuildRequest, Target
from edgedeploy.lab.builders import build_elsewhere
from edgedeploy.lab.kinds import health_check
from edgedeploy.lab.wire import pack, pack_result, unpack, unpack_result
from edgedeploy.records.artifact import Artifact
from edgedeploy.records.board import BoardInfo
from edgedeploy.records.job import Job, RawRun
from edgedeploy.targets.registry import sessions_of

RESOURCE: Final = "edgedeploy-board"
CONNECT_S: Final = 20
STUCK_S: Final = 3600.0
"""How long beyond its own limit a job may take on the cluster: it may wait for a board, and workers may come and go."""


def resource_of(board: str) -> str:
    """What the worker of this very board offers, for jobs that no other board may have. Unlike an address it is the same
    for a worker that was started again."""
    return f"{RESOURCE}:{board}"


_board_table: dict[str, object] = {}
"""Of this process, when it is a board's worker."""


def require_dask() -> None:
    """Raises ``TargetUnavailable`` where Dask is not installed."""
    if importlib.util.find_spec("distributed") is None:
        raise TargetUnavailable("a Dask cluster", "distributed is not installed", "pip install 'edgedeploy[lab]'")


def work(table: Mapping[str, object], address: str) -> None:
    """Run the worker of one board until the scheduler ends it. Raises ``Unreachable`` when there is no scheduler."""
    require_dask()
    from distributed import Worker

    _board_table.update(table)

    name = str(table["name"])
    offered = {RESOURCE: 1, resource_of(name): 1}

    async def serve() -> None:
        async with Worker(address, nthreads=1, resources=offered, name=name, death_timeout=CONNECT_S) as worker:
            await worker.finished()

    try:
        asyncio.run(serve())
    except (OSError, TimeoutError) as exc:
        raise Unreachable(f"Dask scheduler {address}", f"no answer ({exc})", "Start it: dask scheduler") from exc


def probe_here() -> dict[str, Any]:
    """Runs on a worker: probe its board. Raises ``BoardError``."""
    info = open_board(_board_table, sessions_of()).probe()
    Quarantine().check(info)
    return info.as_json()


def run_here(packed: Mapping[str, Any], expected: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Runs on a worker: one exclusive run. ``expected`` maps board names to their probes at the start of the study; a
    board that joined later has to be of the same kind. Raises ``BoardError`` and ``MeasurementError``."""
    board = open_board(_board_table, sessions_of())
    known = [BoardInfo.from_json(item) for item in expected.values()]

    def check(info: BoardInfo) -> None:
        like = BoardInfo.from_json(
            {**known[0].as_json(), "identity": info.identity, "serial": info.serial, "host_key": info.host_key}
        )
        health_check(BoardInfo.from_json(expected[info.name]) if info.name in expected else like)(info)

    with tempfile.TemporaryDirectory(prefix="edgedeploy-job-") as name:
        folder = Path(name)
        patience = Patience(away_s=float(str(_board_table.get("away", Patience.away_s))))
        session, raw = Attempts(board, patience=patience, check=check).run(unpack(packed, folder), folder)
        return {"board": session.info.as_json(), **pack_result(raw)}


class Cluster:
    """The coordinator's side: the boards of a running Dask cluster."""

    def __init__(self, address: str) -> None:
        """Raises ``Unreachable`` when there is no scheduler, ``SpecError`` when it has no boards."""
        require_dask()
        from distributed import Client

        try:
            self._client = Client(address, timeout=CONNECT_S, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as exc:
            raise Unreachable(f"Dask scheduler {address}", f"no answer ({exc})", "Start it: dask scheduler") from exc
        names = self._workers()
        if not names:
            self.close()
            found = "none of its workers has a board"
            raise SpecError(
                f"Dask scheduler {address}", found, "edgedeploy work STUDY.toml --board NAME --dask ADDRESS"
            )
        asked = [
            self._client.submit(probe_here, pure=False, workers=[worker], allow_other_workers=False) for worker in names
        ]
        self.boards = tuple(BoardInfo.from_json(future.result(timeout=300)) for future in asked)

    def _workers(self, *, boards: bool = True) -> list[str]:
        """Addresses of the workers that have a board, or of those that have none."""
        workers = self._client.scheduler_info(n_workers=-1)["workers"]
        return sorted(address for address, info in workers.items() if (RESOURCE in info.get("resources", {})) == boards)

    def build(self, target: Target, request: BuildRequest, folder: Path) -> Artifact:
        """Build on a worker without a board, so that no timing on a board's worker is disturbed. See
        :mod:`edgedeploy.lab.builders`."""
        return build_elsewhere(self._client, lambda: self._workers(boards=False), target, request, folder)

    def run(self, job: Job, folder: Path) -> tuple[BoardInfo, RawRun]:
        """One exclusive run on whichever board is free. Raises ``BoardError`` and ``MeasurementError``."""
        from distributed import KilledWorker

        expected = {info.name: info.as_json() for info in self.boards}
        future = self._client.submit(run_here, pack(job), expected, pure=False, resources={RESOURCE: 1})
        try:
            answer = future.result(timeout=job.plan.time_limit_s + STUCK_S)
        except KilledWorker as exc:
            raise Unreachable("a run on the cluster", f"its workers were killed again and again: {exc}") from exc
        except CancelledError as exc:
            raise Unreachable(
                "a run on the cluster", "its scheduler is gone", "Start it and the workers; --resume"
            ) from exc
        except TimeoutError as exc:
            raise Unreachable(
                "a run on the cluster", "no board's worker took it", "Check that the boards' workers run"
            ) from exc
        finally:
            future.cancel()
        return BoardInfo.from_json(answer["board"]), unpack_result(answer, folder)

    def set_aside(self, cause: str) -> BoardError:
        """The board's own worker puts it into quarantine; the coordinator only uses one slot less."""
        return Unreachable("the cluster", cause, "See to its boards: edgedeploy boards")

    def close(self) -> None:
        self._client.close()
