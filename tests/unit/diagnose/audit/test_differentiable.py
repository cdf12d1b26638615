"""Networks with gradients: they answer as ONNX Runtime does, in float and in int8, and a gradient passes the rounding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_onnx import convolutional, u_shaped

from edgedeploy.diagnose.audit.differentiable import Network, stacked_outputs
from edgedeploy.diagnose.audit.dormant import simulation
from edgedeploy.diagnose.audit.grids import folded, grids_of, round_weights
from edgedeploy.diagnose.audit.residuals import look_at_residuals
from edgedeploy.diagnose.audit.subject import Subject, class_scores
from edgedeploy.errors import Unsupported
from edgedeploy.interfaces.target import BuildRequest
from edgedeploy.interfaces.task import Array
from edgedeploy.records.artifact import Artifact
from edgedeploy.reference.export import describe
from edgedeploy.runtime.sessions.open import open_session
from edgedeploy.targets.onnxruntime import OnnxRuntimeTarget


def images_for(path: Path, count: int = 4) -> Array:
    (spec,) = describe(path, own=True).inputs
    return np.random.default_rng(0).random((count, *spec.shape[1:])).astype(np.float32)


def int8_of(path: Path, folder: Path) -> Artifact:
    known = describe(path, own=True)
    feeds = [{known.inputs[0].name: image[None]} for image in images_for(path)]
    request = BuildRequest(path, known.inputs, known.outputs, "int8", lambda: iter(feeds))
    return OnnxRuntimeTarget().build(request, folder)


@pytest.mark.parametrize("made", [convolutional, u_shaped])
def test_float_and_int8_answer_as_their_runtime_does(tmp_path: Path, made: Callable[[Path], Path]) -> None:
    path = made(tmp_path / "model.onnx")
    artifact = int8_of(path, tmp_path / "int8")
    images = images_for(path)
    for place, tolerance in ((path, 1e-5), (tmp_path / "int8" / artifact.entry, 0.02)):
        session = open_session("onnxruntime", place.parent, place.name, {}, 1)
        network = Network(place)
        found = stacked_outputs(network, images)
        for name, value in found.items():
            expected = np.concatenate([session.run({network.input: image[None]})[name] for image in images])
            assert np.linalg.norm(value - expected) <= tolerance * np.linalg.norm(expected)


def test_a_gradient_passes_the_rounding(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = convolutional(tmp_path / "model.onnx")
    artifact = int8_of(path, tmp_path / "int8")
    gradients = []
    for place in (path, tmp_path / "int8" / artifact.entry):
        images = torch.from_numpy(images_for(path)).requires_grad_()
        Network(place)(images)["out"].square().mean().backward()
        gradients.append(images.grad.numpy().ravel())
    assert np.corrcoef(*gradients)[0, 1] > 0.9


def test_the_grid_of_an_artifact_is_found_by_its_numbers(tmp_path: Path) -> None:
    path = convolutional(tmp_path / "model.onnx")
    artifact = int8_of(path, tmp_path / "int8")
    grids, lost = grids_of(Subject("small", path, False, artifact, tmp_path / "int8", None))
    assert len(grids) == 2, "the head has 16 weights, which are too few"
    assert len(lost) == 1
    for grid in grids:
        assert np.abs(grid.steps).max() == pytest.approx(127, abs=0.01)
        assert grid.source == "the artifact"


def test_rounded_weights_lie_on_127_steps(tmp_path: Path) -> None:
    path = convolutional(tmp_path / "model.onnx")
    round_weights(folded(path), tmp_path / "rounded.onnx")
    exact, rounded = (
        stacked_outputs(Network(each), images_for(path))["out"] for each in (path, tmp_path / "rounded.onnx")
    )
    apart = np.linalg.norm(exact - rounded) / np.linalg.norm(exact)
    assert 1e-5 < apart < 0.05


def test_what_is_no_onnx_file_is_simulated_by_rounded_weights(tmp_path: Path) -> None:
    path = convolutional(tmp_path / "model.onnx")
    artifact = replace(int8_of(path, tmp_path / "int8"), entry="model.xml")
    subject = Subject("small", path, False, artifact, tmp_path / "int8", None)
    network, how = simulation(subject, tmp_path)
    assert "activations are not rounded" in how
    assert network.outputs == ("out",)
    grids, lost = grids_of(subject)
    assert not lost
    assert {grid.source for grid in grids} == {"max/127", "max/127.5", "max/128", "max/63"}
    assert not look_at_residuals(grids).found


def test_an_operator_that_is_not_known_is_refused_by_name(tmp_path: Path) -> None:
    import onnx

    model = onnx.load(str(convolutional(tmp_path / "model.onnx")))
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Softsign"
    onnx.save(model, str(tmp_path / "odd.onnx"))
    with pytest.raises(Unsupported, match="Softsign"):
        Network(tmp_path / "odd.onnx")


def test_scores_by_class_of_any_answer() -> None:
    masks = class_scores(np.full((2, 1, 4, 4), 2, np.float32))
    assert masks is not None and masks.shape == (2, 2, 16)
    assert (masks.argmax(1) == 1).all()
    classes = class_scores(np.eye(3, dtype=np.float32))
    assert classes is not None and classes.shape == (3, 3, 1)
    chances = class_scores(np.full((2, 1, 4, 4), 0.4, np.float32))
    assert chances is not None and (chances.argmax(1) == 0).all(), "probabilities are held against one half"
    assert class_scores(np.ones((2, 3), np.int64)) is None
    assert class_scores(np.ones(3, np.float32)) is None
