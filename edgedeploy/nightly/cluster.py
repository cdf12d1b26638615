"""A lab whose boards are Dask workers: each session is run by the worker that has the board, and no other.

The journal stays with the coordinator. A worker that is killed leaves its job with the scheduler until a worker of that
board comes back; a coordinator that is killed leaves nothing on the cluster, and the next one resumes from the journal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from edgedeploy.boards.care.attempts import Patience
from edgedeploy.errors import Unreachable
from edgedeploy.interfaces.board import BoardSession
from edgedeploy.lab.cluster import CONNECT_S, STUCK_S, probe_here, require_dask, resource_of, run_here
from edgedeploy.lab.wire import pack, unpack_result
from edgedeploy.nightly.parts import Parts
from edgedeploy.records.board import BoardInfo, Provenance
from edgedeploy.records.job import Job, RawRun
from edgedeploy.spec.boards import BoardTable
from edgedeploy.study.runner import Runner

PROBE_S: Final = 120.0
"""How long a board's worker may take to say what the board is, or to come."""


@contextmanager
def parts_of(address: str | None) -> Iterator[Parts]:
    """Of a night on the cluster of this scheduler; on boards that this host reaches where there is none. Raises
    ``Unreachable`` when nothing answers there, ``TargetUnavailable`` without Dask."""
    if address is None:
        yield Parts()
        return
    cluster = LabCluster(address)
    try:
        yield Parts(open_board=cluster.open_board, runner=cluster.runner)
    finally:
        cluster.close()


class LabCluster:
    """The coordinator's side. Threads may share it."""

    def __init__(self, address: str) -> None:
        require_dask()
        from distributed import Client

        self._address = address
        try:
            self._client = Client(address, timeout=CONNECT_S, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as exc:
            raise Unreachable(f"Dask scheduler {address}", f"no answer ({exc})", "Start it: dask scheduler") from exc

    def close(self) -> None:
        self._client.close()

    def ask(self, board: str, function: Callable[..., Any], *arguments: Any, limit_s: float) -> Any:
        """What ``function`` gives on the worker that has this board. Raises ``Unreachable`` where no such worker came, or
        it was killed again and again, and what the function raises."""
        from distributed import KilledWorker

        asked = f"board {board!r} on the cluster"
        wanted = {resource_of(board): 1}
        future = self._client.submit(function, *arguments, pure=False, resources=wanted)
        try:
            return future.result(timeout=limit_s)
        except KilledWorker as exc:
            raise Unreachable(asked, f"its worker was killed again and again: {exc}") from exc
        except CancelledError as exc:
            raise Unreachable(asked, f"the scheduler {self._address} is gone", "Start it and the workers") from exc
        except TimeoutError as exc:
            remedy = f"edgedeploy work LAB.toml --board {board} --dask {self._address}"
            raise Unreachable(asked, f"no worker answered for it within {limit_s:.0f} s", remedy) from exc
        finally:
            if not future.done():
                future.cancel()

    def open_board(self, table: BoardTable) -> tuple[ClusterBoard, BoardInfo]:
        """As :func:`edgedeploy.nightly.parts.open_board`; the board's worker looks."""
        info = BoardInfo.from_json(self.ask(table.name, probe_here, limit_s=PROBE_S))
        return ClusterBoard(table.name, info.provenance, info), info

    def runner(
        self,
        board: ClusterBoard,
        tell: Callable[[str], None],
        check: Callable[[BoardInfo], None],
        patience: Patience,
    ) -> Runner:
        """As ``runner_on``; the board's worker holds the board against its first probe, and has the patience of its own
        table."""

        def run(job: Job, folder: Path) -> tuple[BoardInfo, RawRun]:
            expected = {board.name: board.info.as_json()}
            limit_s = job.plan.time_limit_s + STUCK_S
            answer = self.ask(board.name, run_here, pack(job), expected, limit_s=limit_s)
            return BoardInfo.from_json(answer["board"]), unpack_result(answer, folder)

        return run


@dataclass
class ClusterBoard:
    """A board that another host holds: what it is was said by its worker, and sessions of it are there."""

    name: str
    provenance: Provenance
    info: BoardInfo

    def probe(self) -> BoardInfo:
        return self.info

    def session(self) -> AbstractContextManager[BoardSession]:
        return _refused(self.name)


def _refused(name: str) -> NoReturn:
    raise Unreachable(f"a session on board {name!r} from here", "its worker has it", "Run jobs by the cluster's runner")
