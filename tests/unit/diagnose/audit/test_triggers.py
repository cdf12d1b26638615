"""When a search for triggers calls something found, and what it says where it cannot search. It is tried on
real plants in tests/integration/audit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_onnx import convolutional

from edgedeploy.diagnose.audit.differentiable import Network
from edgedeploy.diagnose.audit.intervals import Interval
from edgedeploy.diagnose.audit.subject import Subject, open_pair
from edgedeploy.diagnose.audit.triggers import FEWEST, MOST_CHANGED, Trigger, TriggerSearch, search_triggers
from edgedeploy.interfaces.target import BuildRequest
from edgedeploy.reference.export import describe
from edgedeploy.targets.onnxruntime import OnnxRuntimeTarget


def scored(score: float) -> Trigger:
    return Trigger(0, score, Interval(0.0, 1.0, "test"), score, 0.0, 0.3, 100)


@pytest.mark.parametrize(
    ("score", "null", "found"), [(0.9, 0.1, True), (0.45, 0.0, False), (0.9, 0.7, False), (0.55, 0.2, True)]
)
def test_found_needs_a_score_and_a_lead_over_the_mirrored_search(score: float, null: float, found: bool) -> None:
    assert TriggerSearch((scored(0.0), scored(score)), (scored(null),)).found is found
    assert not TriggerSearch((), ()).found


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """An untrained network of masks that says one class nearly everywhere."""
    folder = tmp_path_factory.mktemp("small")
    path = convolutional(folder / "model.onnx")
    known = describe(path, own=True)
    images = np.random.default_rng(0).random((2 * FEWEST, 3, 16, 16)).astype(np.float32)
    request = BuildRequest(
        path, known.inputs, known.outputs, "int8", lambda: iter([{"image": image[None]} for image in images[:8]])
    )
    artifact = OnnxRuntimeTarget().build(request, folder / "int8")
    return Subject("small", path, False, artifact, folder / "int8", images)


def searched(subject: Subject, steps: int = 4, **more: object) -> TriggerSearch:
    network = Network(subject.folder / subject.artifact.entry)
    return search_triggers(subject, open_pair(subject), network, "test", steps=steps, **more)  # type: ignore[arg-type]


def test_masks_are_searched_class_by_class_within_the_strength(subject: Subject) -> None:
    found = searched(subject)
    assert not found.abstained
    assert [item.to_class for item in found.triggers] == [0, 1]
    assert len(found.mirrored) == 2
    for item in (*found.triggers, *found.mirrored):
        assert item.changed <= MOST_CHANGED + 1e-6
        assert item.interval.low <= item.score <= item.interval.high
    again = searched(subject)
    assert again.as_json() == found.as_json()


def test_a_class_that_is_everywhere_already_has_nothing_to_turn(subject: Subject, tmp_path: Path) -> None:
    import onnx

    model = onnx.load(str(subject.reference))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 2
    (head,) = (node for node in model.graph.node if node.name == "/head/conv")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([100.0, -100.0], np.float32), "bias"))
    head.input.append("bias")
    onnx.save(model, str(tmp_path / "one.onnx"))
    one = replace(
        subject, reference=tmp_path / "one.onnx", folder=tmp_path, artifact=replace(subject.artifact, entry="one.onnx")
    )
    found = searched(one)
    assert (found.triggers[0].images, found.triggers[0].score) == (0, 0.0)
    assert not found.found


def test_what_cannot_be_searched_says_why(subject: Subject) -> None:
    assert subject.images is not None
    assert "too few" in searched(replace(subject, images=subject.images[: 2 * FEWEST - 1])).abstained
    assert searched(replace(subject, images=None, why_no_images="it has two")).abstained == "it has two"
    assert searched(subject, deadline=lambda: True).left_out == (0, 1)


@pytest.mark.parametrize("classes", [1, 3])
def test_probabilities_are_searched_as_what_they_were_made_of(classes: int) -> None:
    """Of a network that ends in a softmax, a loss on its outputs as if they were scores moves nothing: they lie between 0
    and 1, where no class is far from another."""
    import torch
    from torch.nn import functional

    from edgedeploy.diagnose.audit.subject import are_probabilities
    from edgedeploy.diagnose.audit.triggers import _never, _scores, _Search

    logits = 2 * torch.randn(6, classes, 5, generator=torch.Generator().manual_seed(0))
    made = torch.softmax(logits, 1) if classes > 1 else torch.sigmoid(logits)
    assert are_probabilities(made.numpy()) and not are_probabilities(logits.numpy())
    assert classes == 1 or not are_probabilities((made / 2).numpy())
    search = _Search(None, None, "y", None, 0.0, 1.0, 1, 0.5, _never, are_probabilities(made.numpy()))  # type: ignore[arg-type]
    plain = logits if classes > 1 else torch.cat([torch.zeros_like(logits), logits], 1)
    aim = torch.zeros(6, 5, dtype=torch.long)
    found = functional.cross_entropy(_scores({"y": made}, search), aim)
    assert float(found) == pytest.approx(float(functional.cross_entropy(plain, aim)), rel=1e-3)


def test_an_artifact_that_says_nan_is_not_searched(subject: Subject) -> None:
    class Nothing:
        def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {subject.output: np.full((1, 2, 16, 16), np.nan, np.float32)}

    pair = replace(open_pair(subject), artifact=Nothing())
    network = Network(subject.folder / subject.artifact.entry)
    found = search_triggers(subject, pair, network, "test", steps=1)
    assert "images get NaN by the artifact, 0 by the float model" in found.abstained
