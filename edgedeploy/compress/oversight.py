"""Callbacks of a training: they receive its progress, name its checkpoint and say when its time is over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedeploy.compress.host import TrainingHost, TrainingPrecision


@dataclass(frozen=True)
class TrainProgress:
    """How far a training is: ``epoch`` of ``epochs`` are done.

    ``loss`` is the mean of the last finished epoch, or within an epoch the mean of its steps so far. This run has
    trained for ``spent_s``; ``left_s`` estimates the rest at that pace (None: no pace is known yet).
    """

    epoch: int
    epochs: int
    loss: float
    spent_s: float = 0.0
    left_s: float | None = None


@dataclass(frozen=True)
class TrainReport:
    """What a training did, over all the runs that it took. ``final_loss`` is the mean over the last epoch. ``by`` is
    ``"fit"`` for one by the task's own ``fit``, which tells neither ``steps`` nor the ``precision``, and other numbers only
    as far as it told its progress."""

    epochs: int
    steps: int
    final_loss: float | None
    wall_s: float
    cpu_s: float
    precision: TrainingPrecision
    host: TrainingHost
    by: str = ""

    def as_json(self) -> dict[str, Any]:
        facts = {name: value for name, value in vars(self).items() if name != "by" or value}
        return {**facts, "host": self.host.as_json()}


Progress = Callable[[TrainProgress], None]


@dataclass(frozen=True)
class Oversight:
    """``checkpoint`` is the file that each epoch saves and that a resumed training starts from (None: nothing is
    saved). ``out_of_time`` is asked before each step; ``note`` gets messages for people; ``done`` gets the report."""

    what: str = "a model"
    progress: Progress = lambda state: None
    checkpoint: Path | None = None
    out_of_time: Callable[[], bool] = lambda: False
    note: Callable[[str], None] = lambda line: None
    done: Callable[[TrainReport], None] = lambda report: None


ALONE = Oversight()


def remaining_s(measured: Sequence[tuple[float, float]], left: float) -> float | None:
    """Seconds that ``left`` units of work take at the pace of ``measured`` pairs (work, seconds); None without any."""
    work = sum(units for units, _ in measured)
    return left * sum(seconds for _, seconds in measured) / work if work > 0 else None
