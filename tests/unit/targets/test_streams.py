"""Calibration cases pass through the toolchains: none of them keeps the cases that it has seen."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgedeploy.interfaces.target import BuildRequest
from edgedeploy.interfaces.task import Array
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.reference.export import export_reference
from edgedeploy.targets.onnxruntime.target import OnnxRuntimeTarget
from edgedeploy.targets.openvino.target import OpenVinoTarget

SPECS = (TensorSpec("image", "float32", (1, 3, 16, 16)),)
CASES = 24


class Alive:
    """How many cases are in memory, and how many were at most."""

    def __init__(self) -> None:
        self.now = self.most = self.given = 0

    def cases(self) -> Iterator[dict[str, Array]]:
        for seed in range(CASES):
            image = np.random.default_rng(seed).random((1, 3, 16, 16), dtype=np.float32)
            weakref.finalize(image, self._gone)
            self.now += 1
            self.given += 1
            self.most = max(self.most, self.now)
            yield {"image": image}

    def _gone(self) -> None:
        self.now -= 1


@pytest.mark.parametrize(
    ("target", "calibrator"),
    [(OnnxRuntimeTarget(), "minmax"), (OnnxRuntimeTarget(), "entropy"), (OpenVinoTarget(), "")],
    ids=["onnxruntime-minmax", "onnxruntime-entropy", "openvino"],
)
def test_a_few_cases_are_in_memory_whatever_there_are(target: Any, calibrator: str, tmp_path: Path) -> None:
    import torch
    from torch import nn

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()
    alive = Alive()
    reference = export_reference(model, SPECS, tmp_path / "reference.onnx")
    request = BuildRequest(
        reference.path, reference.inputs, reference.outputs, "int8", alive.cases, calibrator=calibrator
    )
    target.build(request, tmp_path / "artifact")
    assert alive.given >= CASES
    assert alive.most <= 4
