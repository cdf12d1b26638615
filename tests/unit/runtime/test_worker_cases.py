"""What a board's worker makes of stacked inputs, for models of strangers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from foreign_networks import scalars

from edgedeploy.runtime.agent.worker import Cases, Worker
from edgedeploy.runtime.sessions.open import open_session


def stacked(folder: Path, **arrays: np.ndarray) -> Path:
    """Inputs as the supervisor unpacks them for a worker."""
    folder.mkdir()
    (folder / "names.txt").write_text("\n".join(arrays))
    for index, array in enumerate(arrays.values()):
        np.save(folder / f"{index}.npy", array)
    return folder


def test_inputs_and_outputs_without_a_dimension(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, gain = rng.random((3, 1, 4), np.float32), np.float32([1, 2, 3])
    cases = Cases(stacked(tmp_path / "inputs", x=x, gain=gain))
    scalars(tmp_path / "m.onnx")
    found = Worker(open_session("onnxruntime", tmp_path, "m.onnx", {}, 1), cases, tmp_path).collect_outputs()
    assert json.dumps(found) == '{"cases": 3}'
    with np.load(tmp_path / "outputs.npz") as outputs:
        assert np.allclose(outputs["y"], x.mean(axis=(1, 2)) * gain)
