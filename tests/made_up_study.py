"""Small study files, and a study's folder that holds one with its made-up baselines."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import made_up
import numpy as np

from edgedeploy.records.variant import Variant
from edgedeploy.study.store import Store

TOLERANT: Final = "max_drift = 50.0\nmax_spread = 50.0\nmax_background_cores = 64.0\n"
"""Lines of ``[measure]``: tests run on busy machines and judge no speed."""

SPLITS: Final = ("calibration", "selection", "confirmation")

ONNX_TASK: Final = '[task]\nkind = "onnx"\nmodel = "model.onnx"\n\n[task.options]\n' + "".join(
    f'{split} = "{split}.npz"\n' for split in SPLITS
)
"""Of the model and the files beside the study file: see :func:`write_cases`. Options of the task may follow."""


def measure_table(queries: int = 16, *, warmup: int = 1, cold_starts: int = 0) -> str:
    """``[measure]``, of a run that is valid whatever else the machine does. More of its keys may follow.
    Cold starts are half of the time for which a run of a small network has the machine, while other tests wait for it."""
    return f"[measure]\nqueries = {queries}\nwarmup = {warmup}\ncold_starts = {cold_starts}\n{TOLERANT}"


def write_cases(folder: Path, *shape: int, count: int = 6, name: str = "image") -> None:
    """``count`` random cases of the input ``name`` for each split of :data:`ONNX_TASK`."""
    for seed, split in enumerate(SPLITS):
        rows = np.random.default_rng(seed).random((count, *shape)).astype(np.float32)
        np.savez(folder / f"{split}.npz", **{name: rows})  # type: ignore[arg-type]


ONE_TRIAL = """\
[study]
name = "one trial"
targets = ["onnxruntime"]
[task]
kind = "synthetic-ultrasound"
[[boards]]
name = "here"
kind = "local"
[space]
width = [1.0]
[[objectives]]
metric = "dice_mean"
[budget]
trials = 1
"""

WITHOUT_ITS_TASK = """\
[study]
name = "without its task"
targets = ["onnxruntime", "openvino"]
[task]
kind = "python"
object = "nowhere.py:make_task"
[[boards]]
name = "here"
kind = "local"
[space]
width = [1.0, 0.5]
[[objectives]]
metric = "dice_mean"
[[objectives]]
metric = "latency_ratio"
[evidence]
margin = 0.01
[budget]
trials = 8
"""
"""Its folder is read where the task is not at hand."""


def new_store(root: Path, baselines: Iterable[Variant]) -> Store:
    """A folder of :data:`WITHOUT_ITS_TASK` that nothing is measured in yet."""
    store = Store(root)
    store.create(
        WITHOUT_ITS_TASK,
        {
            "task_metrics": {name: vars(info) for name, info in made_up.TASK_METRICS.items()},
            "baselines": [variant.as_json() for variant in baselines],
            "spec_folder": str(root.parent),
            "versions": {"edgedeploy": "0.1.0"},
        },
    )
    return store
