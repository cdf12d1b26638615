"""A task that is one small ONNX file, for tests of what a study makes and keeps of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import made_up
import numpy as np
from small_onnx import convolutional

from edgedeploy.interfaces.target import Target
from edgedeploy.interfaces.task import Array, Case, Split, Task
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.records.variant import Scalar
from edgedeploy.study.account import Account
from edgedeploy.study.store import Store
from edgedeploy.study.workbench import Workbench
from edgedeploy.targets.onnxruntime.target import OnnxRuntimeTarget


class SmallTask:
    """Ready-made: the model of :func:`small_onnx.convolutional` on six random cases a split. ``brightness`` is added to
    each of them."""

    name = "small"
    architecture: Mapping[str, Sequence[Scalar]] = {"resolution": (128,)}
    metrics: Mapping[str, MetricInfo] = made_up.TASK_METRICS

    def __init__(self, folder: Path, brightness: float = 0.0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._model = convolutional(folder / "small.onnx").read_bytes()
        self.source_sha256 = hashlib.sha256(self._model).hexdigest()
        self.brightness = brightness

    def reference_model(self) -> bytes:
        return self._model

    def build(self, **arch: Scalar) -> None:
        raise AssertionError("it is ready-made")

    def input_specs(self, **arch: Scalar) -> tuple[TensorSpec, ...]:
        return (TensorSpec("image", "float32", (1, 3, 16, 16)),)

    def cases(self, split: Split) -> Sequence[Case]:
        return tuple(Case(f"{split}-{number}", split) for number in range(6))

    def inputs(self, case: Case, **arch: Scalar) -> dict[str, Array]:
        generator = np.random.default_rng(list(case.id.encode()))
        return {"image": (generator.random((1, 3, 16, 16)) + self.brightness).astype(np.float32)}

    def evaluate(self, outputs: Mapping[str, Array], case: Case) -> dict[str, float | None]:
        return {"dice_mean": 1.0, "hd95_px": None}


def bench(store: Store, task: Task, *targets: Target, heard: list[str] | None = None) -> Workbench:
    """What a study of that task is made by; it says what it has to say to ``heard``."""
    told = heard if heard is not None else []
    found = {target.name: target for target in targets or (OnnxRuntimeTarget(),)}
    return Workbench(task, found, store, Account(store), tell=lambda kind, text: told.append(f"{kind} {text}"))
