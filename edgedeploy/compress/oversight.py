"""Who looks after a training: hears how far it is, keeps it on disk, and says when the time is over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedeploy.compress.host import TrainingHost, TrainingPrecision


@dataclass(frozen=True)
class TrainProgress:
    """Where a training is: ``epoch`` of ``epochs`` are done, ``loss`` is the mean of the last one (within an epoch: of what
    it has seen). It took ``spent_s`` of this run; ``left_s`` is the time that the rest takes at that pace (None: there is
    none yet)."""

    epoch: int
    epochs: int
    loss: float
    spent_s: float = 0.0
    left_s: float | None = None


@dataclass(frozen=True)
class TrainReport:
    """What a training did, over all the runs that it took. ``final_loss`` is the mean over the last epoch."""

    epochs: int
    steps: int
    final_loss: float
    wall_s: float
    cpu_s: float
    precision: TrainingPrecision
    host: TrainingHost

    def as_json(self) -> dict[str, Any]:
        return {**vars(self), "host": self.host.as_json()}


Progress = Callable[[TrainProgress], None]


@dataclass(frozen=True)
class Oversight:
    """``checkpoint`` is where the training is kept after each epoch, and gone on with when it is there already (None: not
    kept). ``out_of_time`` is asked before each step; ``note`` hears what a person should know; ``done`` gets the report."""

    what: str = "a model"
    progress: Progress = lambda state: None
    checkpoint: Path | None = None
    out_of_time: Callable[[], bool] = lambda: False
    note: Callable[[str], None] = lambda line: None
    done: Callable[[TrainReport], None] = lambda report: None


ALONE = Oversight()


def remaining_s(measured: Sequence[tuple[float, float]], left: float) -> float | None:
    """Time that ``left`` units of work take at the pace of ``measured`` (work, seconds); None without a pace."""
    work = sum(units for units, _ in measured)
    return left * sum(seconds for _, seconds in measured) / work if work > 0 else None
