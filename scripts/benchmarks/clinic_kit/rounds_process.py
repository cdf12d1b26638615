"""The processes of the row on training with quantizers in rounds: a site, or the server.

    python -m benchmarks.clinic_kit.rounds_process site SEED FOLDER NODE
    python -m benchmarks.clinic_kit.rounds_process server SEED FOLDER ROUNDS

In FOLDER, `NODE.kill-ROUND` has a site killed by SIGKILL in that round, once; `NODE.log` gets the rounds that a site trained
and `NODE.in-ROUND` says that it has begun one.
"""

from __future__ import annotations

import copy
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from benchmarks.clinic_kit.secure_sites import SITES, Material, material
from edgedeploy.federated.recovery import RecoverySettings, recover, weights_of
from edgedeploy.federated.recovery_processes import ProcessGrid, serve
from edgedeploy.federated.recovery_qat import qat_app, student
from edgedeploy.interfaces.task import Case
from edgedeploy.targets.common import saturates_here
from edgedeploy.tasks.segmentation.base import SegmentationTask

EPOCHS: Final = 2
"""Of a site in a round."""
MOST_TRAINED: Final = 24
"""Images of a site, at most."""
RATE: Final = 1e-3
"""Of the recipe that recovers; training with quantizers takes a tenth of it."""


def bits() -> int:
    return 7 if saturates_here() else 8


def trained_cases(held: Material, site: str) -> Sequence[Case]:
    own = [case for case in held.task.cases("train") if held.site_of(case) == site]
    return own[:MOST_TRAINED]


def task_of(held: Material, site: str) -> SegmentationTask:
    """The task with the training images of one site alone."""
    task = copy.copy(held.task)
    own = trained_cases(held, site)
    all_of = held.task.cases
    task.cases = lambda split: own if split == "train" else all_of(split)  # type: ignore[method-assign]
    task.recovery_recipe = replace(held.task.recovery_recipe, batch_size=4, bfloat16=False, learning_rate=RATE)
    return task


@lru_cache(maxsize=1)
def quantized(held: Material) -> Any:
    return student(held.model, held.task.input_specs(**held.arch), bits())


def _site(seed: int, folder: Path, node: int) -> None:
    held, name = material(seed), SITES[node - 1]
    app = qat_app(
        task_of(held, name),
        lambda: quantized(held),
        held.task.input_specs(**held.arch),
        arch=held.arch,
        cases=len(trained_cases(held, name)),
        teacher=lambda: held.model,
        epochs=EPOCHS,
    )

    def suffering(message: Any, context: Any) -> Any:
        number = int(message.content["config"]["server-round"])
        (folder / f"{node}.in-{number}").touch()
        killed = folder / f"{node}.kill-{number}"
        if killed.exists():
            killed.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        reply = app(message, context)
        with (folder / f"{node}.log").open("a") as log:
            log.write(f"{number}\n")
        return reply

    serve(suffering, node)


def _server(seed: int, folder: Path, rounds: int) -> None:
    held = material(seed)
    command = [sys.executable, "-m", "benchmarks.clinic_kit.rounds_process", "site", str(seed), str(folder)]
    with ProcessGrid({node: [*command, str(node)] for node in range(1, len(SITES) + 1)}) as grid:
        recover(grid, weights_of(quantized(held)), folder / "server", RecoverySettings(rounds, wait_s=0.1))


if __name__ == "__main__":
    kind, seed, folder, number = sys.argv[1:5]
    {"site": _site, "server": _server}[kind](int(seed), Path(folder), int(number))
