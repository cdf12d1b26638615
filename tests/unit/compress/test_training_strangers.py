"""Training of models as other people write them: several inputs, outputs of every structure, volumes, odd modules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import strangers_networks as networks
import torch
from strangers_networks import STRUCTURES, TWO, UNCOPYABLE, Answer, made
from torch import nn

from edgedeploy.compress.batch import as_batch
from edgedeploy.compress.distillation import distillation, distillation_loss
from edgedeploy.compress.model import derive, train_baseline
from edgedeploy.compress.prune import channel_widths
from edgedeploy.compress.qat.train import train_quantized
from edgedeploy.compress.training import fit
from edgedeploy.errors import BuildError, DataError
from edgedeploy.interfaces.target import BuildRequest, Target
from edgedeploy.interfaces.task import Array, Case, Split, TrainRecipe
from edgedeploy.records.artifact import TensorSpec, random_feed
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.records.variant import Scalar, Variant
from edgedeploy.reference.calling import call, flat_tensors, named_tensors
from edgedeploy.reference.export import export_reference, run_reference
from edgedeploy.reference.parity import check_parity
from edgedeploy.reference.quantized import export_quantized
from edgedeploy.reference.weights import numbers
from edgedeploy.runtime.sessions.open import open_session
from edgedeploy.targets.onnxruntime.target import OnnxRuntimeTarget
from edgedeploy.targets.openvino.target import OpenVinoTarget

RECIPE = TrainRecipe(epochs=2, batch_size=8, learning_rate=0.02, distill_weight=0.5, warmup_epochs=0)


class Bright:
    """A task whose inputs are those of ``specs``, given ``how``; it learns to call bright pixels 1."""

    name = "bright"
    architecture: Mapping[str, Sequence[Scalar]] = {"kind": ("a",)}
    metrics: Mapping[str, MetricInfo] = {}
    baseline_recipe = recovery_recipe = RECIPE

    def __init__(self, build: Callable[[], nn.Module], specs: tuple[TensorSpec, ...], how: str = "dict") -> None:
        self.made, self.specs, self.how, self.seen = build, specs, how, list[Any]()

    def build(self, **arch: Scalar) -> nn.Module:
        torch.manual_seed(0)
        return self.made()

    def input_specs(self, **arch: Scalar) -> tuple[TensorSpec, ...]:
        return self.specs

    def cases(self, split: Split) -> Sequence[Case]:
        return [Case(f"{split}-{index}", split) for index in range(16)]

    def inputs(self, case: Case, **arch: Scalar) -> dict[str, Array]:
        return random_feed(self.specs, 0)

    def evaluate(self, outputs: Mapping[str, Array], case: Case) -> dict[str, float | None]:
        return {}

    def batches(self, seed: int, batch_size: int, **arch: Scalar) -> Iterator[tuple[Any, Any]]:
        generator = torch.Generator().manual_seed(seed)
        for _ in range(2):
            given = {spec.name: torch.randn(batch_size, *spec.shape[1:], generator=generator) for spec in self.specs}
            target = (given["image"][:, 0] > 0).long()
            if self.how == "dict":  # in another order than the specs
                yield dict(reversed(given.items())), target
            else:
                yield (tuple(given.values()) if self.how == "tuple" else list(given.values())), target

    def loss(self, outputs: Any, target: Any) -> Any:
        self.seen.append(outputs)
        mask = next(iter(named_tensors(outputs).values()))
        return nn.functional.cross_entropy(mask, target)


def variant(width: float) -> Variant:
    return Variant("onnxruntime", "float32", width, (("kind", "a"),), 1)


@pytest.mark.parametrize("name", STRUCTURES)
def test_every_structure_trains_is_pruned_and_distilled(name: str) -> None:
    kind, specs, _ = STRUCTURES[name]
    task = Bright(kind, specs)
    baseline = train_baseline(task, {"kind": "a"})
    pruned = derive(task, variant(0.5), baseline)
    assert channel_widths(pruned)["body.0"] == 8
    wanted = type(call(baseline, {key: torch.from_numpy(value) for key, value in random_feed(specs, 0).items()}))
    assert {type(outputs) for outputs in task.seen} == {wanted}


@pytest.mark.parametrize("how", ["tuple", "list", "dict"])
@pytest.mark.parametrize("kind", [networks.TwoInputs, networks.ByKeyword])
def test_several_inputs_come_in_any_form(kind: Callable[[], nn.Module], how: str) -> None:
    models = [kind(), kind()]
    for model in models:
        with torch.no_grad():
            for index, parameter in enumerate(model.parameters()):
                parameter.copy_(torch.linspace(-0.2, 0.3, parameter.numel()).view_as(parameter) + index / 100)
    first = fit(models[0], Bright(kind, TWO, how), RECIPE, arch={})
    again = fit(models[1], Bright(kind, TWO, "dict"), RECIPE, arch={})
    assert first.final_loss == pytest.approx(again.final_loss, rel=1e-6)


def volumes() -> nn.Module:
    return nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), nn.InstanceNorm3d(8), nn.ReLU(), nn.Conv3d(8, 2, 1))


VOLUME = (TensorSpec("image", "float32", (1, 1, 6, 6, 6)),)


def test_volumes_train_are_pruned_and_distilled() -> None:
    task = Bright(volumes, VOLUME)
    baseline = train_baseline(task, {"kind": "a"})
    pruned = derive(task, variant(0.5), baseline)
    assert channel_widths(pruned) == {"0": 4, "3": 2}
    assert all(parameter.is_contiguous() for parameter in (*baseline.parameters(), *pruned.parameters()))


@pytest.mark.parametrize("name", UNCOPYABLE)
def test_modules_that_python_cannot_copy_train_and_recover(name: str) -> None:
    task = Bright(UNCOPYABLE[name], networks.IMAGE)
    baseline = train_baseline(task, {"kind": "a"})
    assert channel_widths(derive(task, variant(0.5), baseline))["middle"] == 8
    same = derive(task, variant(1.0), baseline)
    image = torch.randn(1, 1, 16, 16)
    torch.testing.assert_close(same(image)["mask"], baseline(image)["mask"])


def test_outputs_reach_the_loss_in_float32_and_integers_as_they_are() -> None:
    task = Bright(networks.InTuples, networks.IMAGE)
    fit(networks.InTuples(), task, replace(RECIPE, bfloat16=True), arch={})
    assert [tensor.dtype for tensor in flat_tensors(task.seen[0])] == [*[torch.float32] * 3, torch.int64]


def test_distillation_is_the_mean_over_the_float_outputs() -> None:
    generator = torch.Generator().manual_seed(0)
    mask, score, other, third = (torch.randn(2, 3, generator=generator) for _ in range(4))
    student = {"mask": mask, "score": score, "classes": mask.argmax(1)}
    teacher = Answer(mask=other, score=third)
    wanted = (distillation_loss(mask, other) + distillation_loss(score, third)) / 2
    assert float(distillation(student, teacher)) == pytest.approx(float(wanted))
    assert float(distillation(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 2.0]))) == pytest.approx(2.0)


def test_a_model_that_answers_otherwise_in_training_is_compared_by_what_both_have() -> None:
    """As Inception: logits and an auxiliary head in training, logits alone in evaluation mode."""
    mask, other = torch.ones(2, 3), torch.tensor([[0.0, 1.0, 2.0]]).expand(2, 3)
    assert float(distillation(Answer(mask, mask), other)) == pytest.approx(float(distillation_loss(mask, other)))
    with pytest.raises(BuildError, match=r"student in training mode gives out0 \(2, 3\), the teacher .* out0 \(2, 4\)"):
        distillation(mask, torch.ones(2, 4))


@pytest.mark.parametrize(
    ("batch", "told"),
    [
        ({"image": torch.zeros(1)}, "gave a dict"),
        ((torch.zeros(1), torch.zeros(1), torch.zeros(1)), "tuple of 3"),
        ((np.zeros(3), 0), "input 0 is of type ndarray"),
        (({"image": torch.zeros(1), "aged": torch.zeros(1)}, 0), "'aged'.*Did you mean 'age'"),
        (({"image": torch.zeros(1)}, 0), "no input 'age'"),
        (((torch.zeros(1),), 0), r"1 inputs.*2: image, age"),
        ((torch.zeros(1), 0), r"1 inputs.*2: image, age"),
    ],
)
def test_what_is_no_batch_is_said_in_one_line(batch: Any, told: str) -> None:
    with pytest.raises(DataError, match=told) as refused:
        as_batch(batch, None if told.startswith(("gave", "tuple", "input 0")) else TWO)
    assert "\n" not in str(refused.value)


class Wrong(Bright):
    def __init__(self, answer: Callable[[Any], Any]) -> None:
        super().__init__(networks.InDict, networks.IMAGE)
        self.answer = answer

    def loss(self, outputs: Any, target: Any) -> Any:
        return self.answer(outputs)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda outputs: outputs["mask"], r"a tensor \(8, 2, 16, 16\)\. Return a scalar"),
        (lambda outputs: 0.5, "a float"),
        (lambda outputs: torch.tensor(0.5), "without gradient"),
        (lambda outputs: outputs["msk"], r"KeyError: 'msk' \(test_training_strangers\.py:\d+: .*loss\(\) gets what"),
    ],
)
def test_a_loss_that_cannot_be_is_said_in_one_line(answer: Callable[[Any], Any], told: str) -> None:
    with pytest.raises(BuildError, match=told) as refused:
        fit(networks.InDict(), Wrong(answer), RECIPE, arch={})
    assert "\n" not in str(refused.value)


class Wide(Bright):
    """Early batches have two channels, which the model has not."""

    def batches(self, seed: int, batch_size: int, **arch: Scalar) -> Iterator[tuple[Any, Any]]:
        for inputs, target in super().batches(seed, batch_size):
            yield {name: value.repeat(1, int(arch["channels"]), 1, 1) for name, value in inputs.items()}, target


def test_dropout_left_on_is_told_before_the_training() -> None:
    class Left(networks.InDict):
        def forward(self, image: torch.Tensor) -> Any:
            return super().forward(nn.functional.dropout(image))

    task = Bright(Left, networks.IMAGE)
    with pytest.raises(BuildError, match=r"differs between two passes .* random numbers: Left \(.*strangers\.py:\d+"):
        train_baseline(task, {"kind": "a"})
    assert not task.seen


def test_a_model_that_does_not_fit_its_batches_is_said_in_one_line() -> None:
    with pytest.raises(
        BuildError, match=r"pass with image \(1, 1, 16, 16\): .* expected input.* to have 3 .*input_specs"
    ):
        fit(nn.Conv2d(3, 2, 1), Bright(networks.InDict, networks.IMAGE), RECIPE, arch={})
    wide = replace(RECIPE, early_epochs=1, early_arch={"channels": 2})
    with pytest.raises(BuildError, match=r"inputs image \(8, 2, 16, 16\): RuntimeError: .* to have 1 channels"):
        fit(nn.Conv2d(1, 2, 1), Wide(networks.InDict, networks.IMAGE), wide, arch={})
    with pytest.raises(BuildError, match="it has no parameters"):
        fit(nn.ReLU(), Bright(networks.InDict, networks.IMAGE), RECIPE, arch={})
    with pytest.raises(BuildError, match="every parameter is frozen"):
        fit(nn.Conv2d(1, 2, 1).requires_grad_(False), Bright(networks.InDict, networks.IMAGE), RECIPE, arch={})


@pytest.mark.parametrize("target", [OnnxRuntimeTarget(), OpenVinoTarget()], ids=lambda target: target.name)
def test_volumes_are_trained_to_int8_and_run_in_it(target: Target, tmp_path: Path) -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU(), nn.Conv3d(8, 2, 1)).eval()

    model, task = build(), Bright(build, VOLUME)
    trained = train_quantized(model, task, VOLUME, arch={}, teacher=model, recipe=replace(RECIPE, epochs=1))
    reference = export_quantized(trained, VOLUME, tmp_path / "reference.onnx")
    feed = random_feed(VOLUME, seed=1)
    edges = reference.inputs, reference.outputs
    request = BuildRequest(reference.path, *edges, "int8", lambda: iter([feed]), quantized=True)
    artifact = target.build(request, tmp_path / "built")
    session = open_session(target.name, tmp_path / "built", artifact.entry, dict(artifact.settings), 1)
    assert session.executed() == {"int8": 2}
    check_parity(run_reference(reference, feed), session.run(feed), "int8")


def test_onnx_runtime_runs_a_layer_in_float_that_training_kept_so(tmp_path: Path) -> None:
    """Between integer layers it made the layer int8 itself, as it does with calibrated files without the setting."""

    def build() -> nn.Module:
        layers = (nn.Conv2d(1, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1))
        return nn.Sequential(*layers).eval()

    model, task = build(), Bright(build, networks.IMAGE)
    recipe, kept = replace(RECIPE, epochs=1), {"middle": numbers(model[2].weight.detach().numpy())}
    trained = train_quantized(model, task, networks.IMAGE, arch={}, teacher=model, recipe=recipe, kept_float=kept)
    reference = export_quantized(trained, networks.IMAGE, tmp_path / "reference.onnx")
    feed = random_feed(networks.IMAGE, seed=1)
    edges = reference.inputs, reference.outputs
    request = BuildRequest(reference.path, *edges, "int8", lambda: iter([feed]), quantized=True)
    artifact = OnnxRuntimeTarget().build(request, tmp_path / "built")
    session = open_session("onnxruntime", tmp_path / "built", artifact.entry, dict(artifact.settings), 1)
    assert session.executed() == {"float32": 1, "int8": 2}
    check_parity(run_reference(reference, feed), session.run(feed), "int8")


@pytest.mark.parametrize("name", ["dataclass", "by keyword"])
def test_quantization_aware_training_keeps_inputs_outputs_and_names(name: str, tmp_path: Path) -> None:
    kind, specs, names = STRUCTURES[name]
    model = made(kind, specs)
    task = Bright(kind, specs)
    recipe = replace(RECIPE, epochs=1, learning_rate=1e-5)
    trained = train_quantized(model, task, specs, arch={}, teacher=model, recipe=recipe)
    assert {type(outputs) for outputs in task.seen} == {Answer if name == "dataclass" else dict}
    reference = export_quantized(trained, specs, tmp_path / "reference.onnx")
    plain = export_reference(model, specs, tmp_path / "plain.onnx")
    assert [spec.name for spec in reference.outputs] == names
    assert reference.outputs == plain.outputs
    feed = random_feed(specs, 1)
    found, wanted = run_reference(reference, feed)["score"], run_reference(plain, feed)["score"]
    assert np.linalg.norm(found - wanted) < 0.3 * np.linalg.norm(wanted)
