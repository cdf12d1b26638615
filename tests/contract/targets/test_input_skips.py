"""A network that adds its input to its answer keeps the input's values in int8, on every target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgedeploy.compress.qat.train import train_quantized
from edgedeploy.interfaces.target import BuildRequest, Target
from edgedeploy.interfaces.task import TrainRecipe
from edgedeploy.reference.export import run_reference
from edgedeploy.reference.program import PROGRAM_FILE, export_program
from edgedeploy.reference.quantized import export_quantized
from edgedeploy.runtime.sessions.open import open_session
from edgedeploy.targets.litert.target import LiteRtTarget
from edgedeploy.targets.onnxruntime.target import OnnxRuntimeTarget
from edgedeploy.targets.openvino.target import OpenVinoTarget
from edgedeploy.targets.tensorrt.recipes import write_model
from edgedeploy.testing import models
from edgedeploy.testing.models import IMAGE, Model

pytestmark = pytest.mark.usefixtures("warm_converter")

STEP = 1 / 255
"""Of an input of 0 to 1 in int8: rounding it moves a value by up to half of that."""
WAYS = ("add", "sub", "enlarged")


@pytest.fixture(scope="module", params=WAYS)
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return models.denoised(tmp_path_factory.mktemp(request.param), request.param)


def worst_error(model: Model, run: Any) -> float:
    """Over all pixels of three cases, in steps of the input."""
    (output,) = (spec.name for spec in model.reference.outputs)
    return (
        max(
            float(np.abs(run(feed)[output] - run_reference(model.reference, feed)[output]).max())
            for feed in list(model.calibration())[:3]
        )
        / STEP
    )


def built(target: Target, request: BuildRequest, folder: Path) -> Any:
    artifact = target.build(request, folder)
    return open_session(target.name, folder, artifact.entry, dict(artifact.settings), 1)


@pytest.mark.parametrize("calibrator", OnnxRuntimeTarget.calibrations)
def test_onnx_runtime(calibrator: str, network: Model, tmp_path: Path) -> None:
    request = replace(network.request("int8"), calibrator=calibrator)
    session = built(OnnxRuntimeTarget(), request, tmp_path)
    assert worst_error(network, session.run) < 0.1
    assert session.executed()["int8"] == 2


@pytest.mark.parametrize("tool", OpenVinoTarget.quantizers)
def test_openvino(tool: str, network: Model, tmp_path: Path) -> None:
    session = built(OpenVinoTarget(), replace(network.request("int8"), quantizer=tool), tmp_path)
    assert worst_error(network, session.run) < 0.1
    assert session.executed()["int8"] == 2


def test_tensorrt_s_file(network: Model, tmp_path: Path) -> None:
    import onnxruntime

    write_model(network.request("int8"), tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    (output,) = (spec.name for spec in network.reference.outputs)
    assert worst_error(network, lambda feed: {output: session.run([output], feed)[0]}) < 0.1


@pytest.mark.slow  # loads torch, jax and the converter
@pytest.mark.parametrize("outer", ["add", "enlarged"])
def test_litert(outer: str, tmp_path: Path) -> None:
    readiness = LiteRtTarget().probe()
    if not readiness.ready:
        pytest.skip(f"{readiness.found} ({readiness.remedy})")
    network = models.denoised(tmp_path / "network", outer)
    session = built(LiteRtTarget(), network.request("int8"), tmp_path / "built")
    assert worst_error(network, session.run) < 0.1
    assert session.executed()["int8"] == 2


class Shades:
    """Answers are inputs."""

    recovery_recipe = TrainRecipe(epochs=1, batch_size=4, learning_rate=1e-5)

    def batches(self, seed: int, batch_size: int, **arch: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        generator = torch.Generator().manual_seed(seed)
        for _ in range(4):
            images = torch.rand((batch_size, *IMAGE.shape[1:]), generator=generator)
            yield images, images

    def loss(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return nn.functional.l1_loss(outputs, target)


@pytest.mark.parametrize(
    "target", [OnnxRuntimeTarget(), OpenVinoTarget(), LiteRtTarget()], ids=lambda target: target.name
)
def test_a_network_that_is_trained_to_be_int8(target: Target, tmp_path: Path) -> None:
    class Denoised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)
            nn.init.normal_(self.last.weight, std=1e-3)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image + self.last(torch.relu(self.first(image)))

    model = Denoised().eval()
    trained = train_quantized(model, Shades(), (IMAGE,), arch={}, teacher=model, recipe=Shades.recovery_recipe)
    reference = export_quantized(trained, (IMAGE,), tmp_path / "reference.onnx")
    feeds = list(models.shades())
    edges = reference.inputs, reference.outputs
    export_program(trained, (IMAGE,), program := tmp_path / PROGRAM_FILE, feeds[0])
    request = BuildRequest(reference.path, *edges, "int8", lambda: iter(feeds), program=program, quantized=True)
    session = built(target, request, tmp_path / "built")
    (output,) = (spec.name for spec in reference.outputs)
    for feed in feeds[:3]:
        with torch.no_grad():
            wanted = model(torch.from_numpy(feed["image"])).numpy()
        assert np.abs(session.run(feed)[output] - wanted).max() < 0.25 * STEP, "training moved it a little"
    assert session.executed()["int8"] == 2
