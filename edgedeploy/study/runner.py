"""Jobs on one board: what runs them, and the outputs that come back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from edgedeploy.boards.care.attempts import Attempts, Patience
from edgedeploy.errors import CommandFailed
from edgedeploy.files import mapped_arrays
from edgedeploy.interfaces.board import Board
from edgedeploy.interfaces.task import Array
from edgedeploy.records.artifact import Artifact
from edgedeploy.records.board import BoardInfo
from edgedeploy.records.job import Job, RawRun

Runner = Callable[[Job, Path], tuple[BoardInfo, RawRun]]
"""Runs one job exclusively on a board; returns the board and its raw results. Raises ``BoardError`` and
``MeasurementError``."""


def runner_on(
    board: Board,
    tell: Callable[[str], None],
    check: Callable[[BoardInfo], None] = lambda info: None,
    patience: Patience | None = None,
) -> Runner:
    """A :data:`Runner` for one board, by the rules of :mod:`edgedeploy.boards.care.attempts`. ``check`` raises when the
    connected board must not be used."""
    attempts = Attempts(board, tell, patience or Patience(), check=check)

    def run(job: Job, folder: Path) -> tuple[BoardInfo, RawRun]:
        session, raw = attempts.run(job, folder)
        return session.info, raw

    return run


def in_order(outputs: Mapping[str, Array], artifact: Artifact) -> dict[str, Array]:
    """``outputs`` in the order in which the model returns them: LiteRT gives them in alphabetical order."""
    return {**{spec.name: outputs[spec.name] for spec in artifact.outputs if spec.name in outputs}, **outputs}


def outputs_of(raw: RawRun) -> dict[str, Array]:
    """The outputs of a run, a row for each input. Raises ``CommandFailed`` where there are none."""
    if raw.outputs is None:
        raise CommandFailed("outputs of the run", "the board sent none", "Run it again; keep the agent's log")
    return mapped_arrays(raw.outputs)
