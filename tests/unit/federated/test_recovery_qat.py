"""Rounds of training with quantizers: what is averaged is int8 already, and is a file that ONNX Runtime runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgedeploy.federated.grid import LocalGrid
from edgedeploy.federated.recovery import RecoverySettings, load_into, recover, weights_of
from edgedeploy.federated.recovery_qat import int8_of, qat_app, student
from edgedeploy.runtime.sessions.open import open_session
from edgedeploy.tasks.segmentation.ultrasound import SyntheticUltrasound, UltrasoundOptions

ARCH: dict[str, Any] = {"resolution": 32, "upsampling": "transposed"}


def site_task(seed: int) -> SyntheticUltrasound:
    counts = {f"{split}_cases": 2 for split in ("calibration", "selection", "confirmation")}
    options = UltrasoundOptions(
        resolutions=(32,), image_size=32, base_channels=2, depth=1, train_cases=4, seed=seed, **counts
    )
    task = SyntheticUltrasound(options)
    task.recovery_recipe = replace(task.recovery_recipe, batch_size=4, learning_rate=5e-2)
    return task


def test_sites_train_with_quantizers_and_their_steps_are_averaged(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    tasks = {2: site_task(0), 3: site_task(1)}  # node 1 is the server
    model, specs = tasks[2].build(**ARCH).eval(), tasks[2].input_specs(**ARCH)
    quantized = student(model, specs)
    start = weights_of(quantized)
    apps = {
        node: qat_app(task, lambda: quantized, specs, arch=ARCH, cases=4, teacher=lambda: model)
        for node, task in tasks.items()
    }
    seen: list[Any] = []
    done = recover(LocalGrid(apps, seen), start, tmp_path / "server", RecoverySettings(1))
    answers = [
        {name: array.numpy() for name, array in message.content["arrays"].items()}
        for message in seen
        if message.metadata.src_node_id in apps
    ]
    steps = [name for name in start if name.endswith("log_scale")]
    assert steps and len(answers) == 2
    for name in steps:
        assert done.weights[name] == pytest.approx(np.mean([one[name] for one in answers]), abs=1e-6)
    assert any(answers[0][name] != answers[1][name] for name in steps), "each site saw its own images"
    # -- the file is int8, with the averaged steps
    artifact = int8_of(quantized, done.weights, specs, tmp_path / "int8")
    graph = onnx.load(str(tmp_path / "int8" / "artifact" / artifact.entry)).graph
    constants = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
    scales = {
        float(constants[node.input[1]])
        for node in graph.node
        if node.op_type == "QuantizeLinear" and constants[node.input[1]].size == 1
    }
    # -- and computes what the averaged network computes
    import torch

    session = open_session("onnxruntime", tmp_path / "int8" / "artifact", artifact.entry, dict(artifact.settings), 1)
    (case, *_) = tasks[2].cases("selection")
    feed = dict(tasks[2].inputs(case, **ARCH))
    with torch.no_grad():
        expected = load_into(quantized, done.weights)(*(torch.from_numpy(value) for value in feed.values()))
    (found,) = session.run(feed).values()
    expected = expected if isinstance(expected, torch.Tensor) else next(iter(expected.values()))
    assert np.linalg.norm(found - expected.numpy()) < 0.05 * np.linalg.norm(expected.numpy())
    observed = {round(float(np.exp(done.weights[name])), 6) for name in steps}
    assert observed & {round(scale, 6) for scale in scales}
