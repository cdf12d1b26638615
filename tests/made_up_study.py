"""Small study files, and a study's folder that holds one with its made-up baselines."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import made_up

from edgedeploy.records.variant import Variant
from edgedeploy.study.store import Store

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
