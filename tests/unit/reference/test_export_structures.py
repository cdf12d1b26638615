"""The reference of models as other people write them: the right numbers under the right names, or one true sentence."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import strangers_networks as networks
import torch
from strangers_networks import IMAGE, STRUCTURES, UNCOPYABLE, made
from torch import nn

from edgedeploy.errors import BuildError, EdgeDeployError, Unsupported
from edgedeploy.records.artifact import random_feed
from edgedeploy.reference.calling import flat_tensors, map_tensors, named_tensors
from edgedeploy.reference.copies import copied
from edgedeploy.reference.export import export_reference, run_reference
from edgedeploy.reference.program import export_program


@pytest.mark.parametrize("name", STRUCTURES)
def test_outputs_have_their_names_and_values(name: str, tmp_path: Path) -> None:
    kind, specs, names = STRUCTURES[name]
    model = made(kind, specs)
    reference = export_reference(model, specs, tmp_path / "reference.onnx")
    feed = random_feed(specs, 5)
    tensors = {key: torch.from_numpy(value) for key, value in feed.items()}
    wanted = model(**tensors) if kind is networks.ByKeyword else model(*tensors.values())
    found = run_reference(reference, feed)
    assert list(found) == names
    assert reference.inputs == specs
    for tensor, array in zip(flat_tensors(wanted), found.values(), strict=True):
        np.testing.assert_allclose(array, tensor.detach().numpy(), rtol=1e-4, atol=1e-5)
    export_program(model, specs, tmp_path / "program.pt2")
    program = torch.export.load(tmp_path / "program.pt2").module()
    for tensor, again in zip(flat_tensors(wanted), program(*tensors.values()), strict=True):
        torch.testing.assert_close(again, tensor)


@pytest.mark.parametrize("name", UNCOPYABLE)
def test_modules_that_python_cannot_copy_are_exported_and_left_alone(name: str, tmp_path: Path) -> None:
    model = made(UNCOPYABLE[name])
    image = torch.from_numpy(random_feed(IMAGE, 5)["image"])
    weights, wanted = list(model.state_dict()), model(image)
    reference = export_reference(model, IMAGE, tmp_path / "reference.onnx")
    np.testing.assert_allclose(
        run_reference(reference, {"image": image.numpy()})["mask"],
        wanted["mask"].detach().numpy(),
        rtol=1e-4,
        atol=1e-5,
    )
    export_program(model, IMAGE, tmp_path / "program.pt2")
    torch.testing.assert_close(torch.export.load(tmp_path / "program.pt2").module()(image)[0], wanted["mask"])
    assert list(model.state_dict()) == weights
    torch.testing.assert_close(model(image)["mask"], wanted["mask"])


def test_a_copy_shares_no_weights() -> None:
    model = made(networks.Kept)
    twin = copied(model)
    assert not {id(value) for value in model.parameters()} & {id(value) for value in twin.parameters()}
    assert torch.equal(twin.features, model.features)
    assert twin.features is not model.features


def test_what_cannot_be_copied_is_named_in_one_line() -> None:
    class Alone(nn.Module):
        def __deepcopy__(self, memo: object) -> Alone:
            raise RuntimeError("there is one of me")

    with pytest.raises(Unsupported, match=r"module 0\.0 \(Alone\): there is one of me\. Let build") as refused:
        copied(nn.Sequential(nn.Sequential(Alone())))
    assert "\n" not in str(refused.value)


class Noisy(nn.Module):
    """Random in evaluation mode by ``how``."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.calls = how, 0
        self.conv, self.drop = nn.Conv2d(1, 8, 3), nn.Dropout(0.5)
        self.own = torch.Generator().manual_seed(0)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.conv(image)
        self.calls += 1
        if self.how == "function":
            found = nn.functional.dropout(found, 0.5, training=True)
        if self.how == "module":
            found = self.drop.train()(found)
        if self.how == "noise":
            found = found + torch.randn_like(found)
        if self.how == "Python" and random.random() < 0.5:
            found = 2 * found
        if self.how == "numpy":
            found = found * float(np.random.rand())
        if self.how == "state":
            found = found * self.calls
        if self.how == "generator":
            found = found * torch.rand((), generator=self.own)
        return found


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("function", r"random numbers: Noisy \(.*test_export_structures\.py:\d+\)"),
        ("module", r"random numbers: drop Dropout \("),
        ("noise", r"randn.*test_export_structures\.py:\d+"),
        ("Python", "random numbers of Python"),
        ("numpy", "random numbers of numpy"),
        ("state", "keeps state between calls"),
        ("generator", "draws from a generator of its own|draws random numbers"),
    ],
)
def test_randomness_is_named_as_such(how: str, told: str, tmp_path: Path) -> None:
    model = Noisy(how).eval()
    state = torch.get_rng_state(), random.getstate()
    with pytest.raises(BuildError, match=rf"same answer to the same input: output 'out0' differs.*{told}") as refused:
        export_reference(model, IMAGE, tmp_path / "reference.onnx")
    assert "control flow" not in str(refused.value)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert random.getstate() == state[1]
    assert list(tmp_path.iterdir()) == []


def test_random_numbers_that_change_nothing_are_no_fault(tmp_path: Path) -> None:
    """Hugging Face's layer drop draws a number in evaluation mode too, and does not use it."""

    class Drawn(networks.InDict):
        def forward(self, image: torch.Tensor) -> Any:
            keep = random.random() > 0.5 or torch.rand(1).numel() == 1
            return super().forward(image) if keep or not self.training else None

    assert list(run_reference(export_reference(made(Drawn), IMAGE, tmp_path / "r.onnx"), random_feed(IMAGE, 0)))


def test_data_dependent_control_flow_is_named_with_its_line(tmp_path: Path) -> None:
    class Branching(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image * 2 if image.sum() > 0 else image

    told = r"data-dependent control flow at test_export_structures\.py:\d+: return image \* 2 if image\.sum"
    with pytest.raises(BuildError, match=told):
        export_reference(Branching(), IMAGE, tmp_path / "reference.onnx")
    with pytest.raises(BuildError, match=told):
        export_program(Branching(), IMAGE, tmp_path / "program.pt2")


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda image: {"mask": image, "count": 3}, "output 'count' is of type int"),
        (lambda image: "text", "the output is of type str"),
        (lambda image: None, "returns no tensor"),
        (lambda image: {"a": [object()]}, "output 'a_0' is of type object"),
    ],
    ids=["number", "text", "nothing", "object"],
)
def test_outputs_that_are_no_tensors_are_refused_by_name(answer: Any, told: str, tmp_path: Path) -> None:
    class Odd(nn.Module):
        def forward(self, image: torch.Tensor) -> Any:
            return answer(image)

    with pytest.raises(EdgeDeployError, match=told):
        export_reference(Odd(), IMAGE, tmp_path / "reference.onnx")


def test_names_are_unique_and_plain() -> None:
    a, b, c = torch.zeros(3, 1).unbind()
    assert list(named_tensors({"x/1": a, "x.1": b, "": c})) == ["x_1", "x_1_1", "out"]
    assert list(named_tensors([{"mask": a}, {"mask": b}])) == ["out0_mask", "out1_mask"]


@pytest.mark.parametrize("name", STRUCTURES)
def test_the_structure_is_kept_when_its_tensors_change(name: str) -> None:
    kind, specs, _ = STRUCTURES[name]
    outputs = kind()(**{spec.name: torch.randn(spec.shape) for spec in specs})
    doubled = map_tensors(outputs, lambda tensor: 2 * tensor)
    assert type(doubled) is type(outputs)
    assert list(named_tensors(doubled)) == list(named_tensors(outputs))
    for before, after in zip(flat_tensors(outputs), flat_tensors(doubled), strict=True):
        assert torch.equal(after, 2 * before)


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile], ids=["DataParallel", "torch.compile"])
def test_wrapped_models_are_exported_without_their_wrapper(wrap: Any, tmp_path: Path) -> None:
    model = made(networks.InDict)
    reference = export_reference(wrap(model), IMAGE, tmp_path / "reference.onnx")
    feed = random_feed(IMAGE, seed=5)
    wanted = model(torch.from_numpy(feed["image"]))["mask"].detach().numpy()
    np.testing.assert_allclose(run_reference(reference, feed)["mask"], wanted, rtol=1e-4, atol=1e-5)
