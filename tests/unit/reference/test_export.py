"""The ONNX reference against torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgedeploy.errors import BuildError, EdgeDeployError, ParityError, Unsupported
from edgedeploy.records.artifact import TensorSpec, random_feed
from edgedeploy.reference import export as module
from edgedeploy.reference.export import Reference, describe, export_reference, run_reference
from edgedeploy.reference.program import export_program
from edgedeploy.runtime.files import sha256_file

IMAGE = (TensorSpec("image", "float32", (1, 2, 16, 16)),)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.up, self.fc = nn.ConvTranspose2d(4, 3, 2, stride=2), nn.Linear(4, 5)

    def forward(self, image: torch.Tensor) -> dict[str, Any]:
        features = torch.relu(self.norm(self.conv(image)))
        return {"mask": self.up(features), "scores": (self.fc(features.mean((2, 3))),)}


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(0)
    model = Net()
    model(torch.randn(8, 2, 16, 16) * 2 + 1)  # running statistics that differ from their initial values
    return model


@pytest.fixture(scope="module")
def exported(net: Net, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return export_reference(net, IMAGE, tmp_path_factory.mktemp("exported") / "reference.onnx")


def test_reference_computes_what_torch_does(net: Net, exported: Reference) -> None:
    feed = random_feed(IMAGE, 5)
    with torch.inference_mode():
        wanted = net.eval()(torch.from_numpy(feed["image"]))
    found = run_reference(exported, feed)
    np.testing.assert_allclose(found["mask"], wanted["mask"].numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["scores_0"], wanted["scores"][0].numpy(), rtol=1e-4, atol=1e-5)


def test_reference_says_what_it_is(exported: Reference) -> None:
    assert exported.inputs == IMAGE
    assert exported.outputs == (
        TensorSpec("mask", "float32", (1, 3, 32, 32)),
        TensorSpec("scores_0", "float32", (1, 5)),
    )
    assert exported.sha256 == sha256_file(exported.path)
    assert exported.opset >= 18
    conv, up, fc = 4 * 2 * 9 * 256, 4 * 256 * 3 * 4, 4 * 5
    assert exported.macs == conv + up + fc
    assert exported.parameters == (4 * 2 * 9 + 4) + (4 * 3 * 4 + 3) + (4 * 5 + 5)  # the batch norm is folded


def test_reference_survives_a_move(exported: Reference, tmp_path: Path) -> None:
    (tmp_path / exported.path.name).write_bytes(exported.path.read_bytes())
    again = Reference.from_json(json.loads(json.dumps(exported.as_json())), tmp_path)
    assert again == describe(tmp_path / exported.path.name)


def test_file_tells_nothing_of_the_machine_it_was_made_on(exported: Reference) -> None:
    data = exported.path.read_bytes()
    for secret in (str(Path(__file__).parent), str(Path.home()), "test_export.py", str(exported.path.parent)):
        assert secret.encode() not in data


def test_equal_models_give_equal_files(net: Net, exported: Reference, tmp_path: Path) -> None:
    assert export_reference(net, IMAGE, tmp_path / "reference.onnx").sha256 == exported.sha256


def test_a_model_in_training_mode_is_left_in_it(tmp_path: Path) -> None:
    model = Net().train()
    before = model.norm.running_mean.clone()  # type: ignore[union-attr, operator]
    export_reference(model, IMAGE, tmp_path / "reference.onnx")
    assert model.training
    assert torch.equal(model.norm.running_mean, before)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["reference.onnx"]


def test_export_says_nothing(net: Net, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    export_reference(net, IMAGE, tmp_path / "reference.onnx")
    assert capfd.readouterr() == ("", "")


class Branching(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image * 2 if image.sum() > 0 else image


class Spectrum(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.linalg.svdvals(image)


class Logarithm(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.log(-image)


class Waves(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.fft.fft(image)


@pytest.mark.parametrize(
    ("model", "kind", "told"),
    [
        (Branching(), BuildError, "traceable"),
        (Spectrum(), Unsupported, "svd"),
        (Logarithm(), Unsupported, "NaN or Inf"),
        (Waves(), Unsupported, "real numbers in output out0 .*: complex64. Return real numbers"),
        (nn.Conv2d(7, 1, 1), BuildError, r"image \(1, 2, 16, 16\)"),
    ],
    ids=["data-dependent", "operator", "not-finite", "complex", "shape"],
)
def test_what_cannot_be_exported_is_a_typed_error(
    model: nn.Module, kind: type[EdgeDeployError], told: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=told):
        export_reference(model, IMAGE, tmp_path / "reference.onnx")
    assert list(tmp_path.iterdir()) == []


def test_samples_are_checked_too(tmp_path: Path) -> None:
    """A frozen branch that holds for the random input is caught on a real one."""

    class Frozen(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image * (2.0 if float(image.abs().max()) < 50 else 3.0)

    with pytest.raises(EdgeDeployError):
        export_reference(
            Frozen(), IMAGE, tmp_path / "r.onnx", samples=[{"image": np.full((1, 2, 16, 16), 99, np.float32)}]
        )
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_changes_the_model_is_refused(net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exporter with a bug: one weight of the file is altered after torch wrote it."""
    export = module._export

    def faulty(model: Any, arguments: Any, inputs: Any, outputs: Any, path: Path) -> None:
        export(model, arguments, inputs, outputs, path)
        proto = onnx.load(str(path))
        weight = next(tensor for tensor in proto.graph.initializer if len(tensor.dims) == 4)
        values = onnx.numpy_helper.to_array(weight) * 1.01
        weight.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), weight.name))
        onnx.save(proto, str(path))

    monkeypatch.setattr(module, "_export", faulty)
    with pytest.raises(ParityError, match="of torch"):
        export_reference(net, IMAGE, tmp_path / "reference.onnx")
    assert list(tmp_path.iterdir()) == []


def test_open_shapes_are_refused(tmp_path: Path) -> None:
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["image"], ["out0"])],
        "open",
        [value("image", onnx.TensorProto.FLOAT, ["batch", 3])],
        [value("out0", onnx.TensorProto.FLOAT, ["batch", 3])],
    )
    onnx.save(onnx.helper.make_model(graph, ir_version=10), str(tmp_path / "open.onnx"))
    with pytest.raises(BuildError, match="batch"):
        describe(tmp_path / "open.onnx")


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "outputs"),
    [("lwnet/wnet_drive_512.onnx", 1), ("yunet/yunet_n_320_320.onnx", 12)],
)
def test_published_models_are_described(name: str, outputs: int, shared: Path) -> None:
    found = describe(shared / "models" / name)
    assert len(found.outputs) >= outputs
    assert found.macs > found.parameters > 1000


class Scattered(nn.Module):
    """Tensors of every kind that do not lie as they are read: weights as training leaves them, a transposed buffer, and a
    constant that is neither."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.register_buffer("turned", torch.arange(256.0).reshape(16, 16).T)
        self.constant = torch.arange(64.0).reshape(16, 4).T
        self.to(memory_format=torch.channels_last)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.conv(image) + self.turned + self.constant.reshape(1, 4, 16, 1)


def test_tensors_of_a_program_are_contiguous_and_those_of_the_model_stay_as_they_were(tmp_path: Path) -> None:
    """litert-torch mixes up weights of another layout."""
    model = Scattered().eval()
    export_program(model, IMAGE, tmp_path / "program.pt2")
    program = torch.export.load(tmp_path / "program.pt2")
    tensors = {**program.state_dict, **program.constants}
    assert len(tensors) == 4
    assert all(value.is_contiguous() for value in tensors.values())
    assert not any(value.is_contiguous() for value in (model.conv.weight, model.turned, model.constant))
    image = torch.from_numpy(random_feed(IMAGE, 5)["image"])
    torch.testing.assert_close(program.module()(image)[0], model(image))
