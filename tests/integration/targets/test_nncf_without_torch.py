"""NNCF quantizes for OpenVINO without PyTorch in memory, and is whole again for a program that imports PyTorch after it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from small_onnx import convolutional

pytest.importorskip("nncf")
pytestmark = pytest.mark.beside

PROGRAM = """
import json, sys
import numpy as np
import openvino as ov
from edgedeploy.targets.openvino.toolkit import quiet_nncf

nncf = quiet_nncf()
model = ov.Core().read_model(sys.argv[1])
shape = [int(side) for side in model.inputs[0].shape]
cases = [np.random.default_rng(seed).random(shape, dtype=np.float32) for seed in range(2)]
found = nncf.quantize(model, nncf.Dataset(cases))
told = {"quantized": sum(op.get_type_name() == "FakeQuantize" for op in found.get_ops()), "torch": "torch" in sys.modules}

import torch
from nncf.common.utils.backend import get_backend
from nncf.tensor import Tensor, functions

told["backends"] = [get_backend(torch.nn.Linear(2, 2)).value, get_backend(model).value]
told["sum"] = float(functions.sum(Tensor(torch.ones(3))).data)
print(json.dumps(told))
"""


def test_no_torch_comes_along_and_none_is_missing_later(tmp_path: Path) -> None:
    path = convolutional(tmp_path / "m.onnx")
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["quantized"] > 0
    assert told["torch"] is False
    assert told["backends"] == ["Torch", "OpenVINO"]
    assert told["sum"] == 3.0
