"""References whose weights lie in a file beside them. Small ones here: from how many bytes on is a parameter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgedeploy.compress.qat.train import train_quantized
from edgedeploy.errors import DataError, Unsupported
from edgedeploy.interfaces.target import BuildRequest
from edgedeploy.interfaces.task import Array, TrainRecipe
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.records.canonical import canonical
from edgedeploy.reference import external
from edgedeploy.reference.export import Reference, describe, export_reference, kept_outputs, reference_outputs
from edgedeploy.reference.quantized import export_quantized
from edgedeploy.runtime.sessions.open import open_session
from edgedeploy.study.tiled import cut_request
from edgedeploy.targets.onnxruntime.target import OnnxRuntimeTarget
from edgedeploy.targets.openvino.target import OpenVinoTarget
from edgedeploy.targets.tensorrt.recipes import write_model

SPECS = (TensorSpec("tokens", "float32", (1, 8, 32)),)


def cases() -> Iterator[dict[str, Array]]:
    for seed in range(3):
        yield {"tokens": np.random.default_rng(seed).standard_normal((1, 8, 32), dtype=np.float32)}


def network() -> Any:
    import torch
    from torch import nn

    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32)).eval()


def exported(folder: Path) -> Reference:
    folder.mkdir()
    return export_reference(network(), SPECS, folder / "reference.onnx", samples=cases())


class Halves:
    """Answers are half of the tokens."""

    recovery_recipe = TrainRecipe(epochs=1, batch_size=4, learning_rate=1e-5)

    def batches(self, seed: int, batch_size: int, **arch: Any) -> Iterator[tuple[Any, Any]]:
        import torch

        tokens = torch.randn((batch_size, 8, 32), generator=torch.Generator().manual_seed(seed))
        yield tokens, tokens / 2

    def loss(self, outputs: Any, target: Any) -> Any:
        return ((outputs - target) ** 2).mean()


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reference:
    monkeypatch.setattr(external, "MOST_INSIDE_BYTES", 0)
    return exported(tmp_path / "outside")


def test_the_weights_lie_outside_and_the_answers_are_the_same(tmp_path: Path, outside: Reference) -> None:
    external_file = external.weights_file(outside.path)
    assert external_file.stat().st_size >= 4 * 2 * 32 * 64
    assert outside.path.stat().st_size < external_file.stat().st_size
    assert not list(outside.path.parent.glob(".part-*"))
    inside = tmp_path / "inside.onnx"
    external.save(onnx.load(str(outside.path)), inside, most_inside_bytes=1 << 30)
    assert not external.has_weights_file(inside)
    other = describe(inside, own=True)
    assert (other.parameters, other.macs, other.inputs, other.outputs) == (
        *(outside.parameters, outside.macs),
        *(outside.inputs, outside.outputs),
    )
    for mine, theirs in zip(reference_outputs(outside, cases()), reference_outputs(other, cases()), strict=True):
        assert all((mine[name] == theirs[name]).all() for name in mine)


def test_the_models_own_hash_stands_for_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(external, "MOST_INSIDE_BYTES", 0)
    first = exported(tmp_path / "first")
    assert exported(tmp_path / "again").sha256 == first.sha256
    model = network()
    with torch.no_grad():
        model[0].weight[0, 0] += 1.0
    other = export_reference(model, SPECS, tmp_path / "other.onnx", samples=cases())
    assert other.sha256 != first.sha256


@pytest.mark.parametrize(
    ("target", "precision"),
    [
        *((OnnxRuntimeTarget(), name) for name in ("float32", "int8-dynamic", "int8")),
        *((OpenVinoTarget(), name) for name in ("float32", "int8")),
    ],
    ids=lambda item: getattr(item, "name", item),
)
def test_artifacts_are_built_and_run_from_it(target: Any, precision: str, tmp_path: Path, outside: Reference) -> None:
    request = BuildRequest(outside.path, outside.inputs, outside.outputs, precision, cases)
    artifact = target.build(request, tmp_path / "artifact")
    names = {file.name for file in artifact.files}
    if (target.name, precision) == ("onnxruntime", "float32"):
        assert names == {"model.onnx", "reference.onnx.data"}
    session = open_session(target.name, tmp_path / "artifact", artifact.entry, dict(artifact.settings), 1)
    feed = next(cases())
    (wanted,) = reference_outputs(outside, [feed])
    found = session.run(feed)
    for name, values in wanted.items():
        distance = np.linalg.norm(found[name] - values) / np.linalg.norm(values)
        assert distance < (1e-5 if precision == "float32" else 0.1)


@pytest.mark.parametrize("target", [OnnxRuntimeTarget(), OpenVinoTarget()], ids=lambda target: target.name)
def test_batches_leave_the_weights_where_they_are(target: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch import nn

    monkeypatch.setattr(external, "MOST_INSIDE_BYTES", 0)

    class Heads(nn.Module):
        """Its export has the sizes of one case."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(32, 64), nn.Linear(64, 32)

        def forward(self, tokens: Any) -> Any:
            heads = self.first(tokens).reshape(1, 8, 4, 16).transpose(1, 2)
            mixed = (heads @ heads.transpose(2, 3) @ heads).transpose(1, 2)
            return self.last(mixed.reshape(1, 8, 64))

    reference = export_reference(Heads().eval(), SPECS, tmp_path / "reference.onnx", samples=cases())
    request = BuildRequest(reference.path, reference.inputs, reference.outputs, "float32", cases)
    built = [target.build(replace(request, max_batch=size), tmp_path / f"{size}") for size in (1, 3)]
    one, three = ({file.name for file in artifact.files} for artifact in built)
    assert one == three and built[1].size_bytes < 1.1 * built[0].size_bytes
    assert reference.path.read_bytes().count(b"weights_sha256") == 1


def test_a_model_that_is_trained_to_be_int8_has_its_weights_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(external, "MOST_INSIDE_BYTES", 0)
    trained = train_quantized(network(), Halves(), SPECS, arch={}, teacher=network(), recipe=Halves.recovery_recipe)
    reference = export_quantized(trained, SPECS, tmp_path / "reference.onnx", samples=cases())
    external.check_weights(reference.path)
    outside = onnx.load(str(reference.path), load_external_data=False).graph.initializer
    told = {item.key: item.value for tensor in outside for item in tensor.external_data if item.key == "location"}
    assert told == {"location": "reference.onnx.data"}
    assert external.weights_file(reference.path).stat().st_size < 2 * 2 * 32 * 64, "a byte a weight"


@pytest.mark.parametrize("harm", ["flipped", "cut short", "a link"])
def test_weights_that_are_not_those_that_were_written_are_refused(
    harm: str, tmp_path: Path, outside: Reference
) -> None:
    path = external.weights_file(outside.path)
    data = bytearray(path.read_bytes())
    if harm == "a link":
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    else:
        data[100] ^= 1
        path.write_bytes(data if harm == "flipped" else data[:-8])
    with pytest.raises(DataError, match="no file of its own" if harm == "a link" else "not those that the model was"):
        kept_outputs(outside, list(cases()), tmp_path / "golden.npz")
    with pytest.raises(DataError):
        external.copy(outside.path, tmp_path / "model.onnx")


CUT = canonical({"target": "t", "tile": 96}, arch_defaults={}, target_precisions={"t": ("float32",)}, default_threads=1)


@pytest.mark.parametrize(
    ("use", "asked"),
    [
        (lambda request, folder: OnnxRuntimeTarget().build(request, folder), "static int8 by ONNX Runtime"),
        (lambda request, folder: write_model(request, folder / "model.onnx"), "a file for TensorRT"),
        (lambda request, folder: cut_request(request, CUT), "tiles of 96"),
    ],
    ids=["onnxruntime", "tensorrt", "tiles"],
)
def test_who_takes_one_file_is_told_before_it_fails(
    use: Callable[[BuildRequest, Path], object],
    asked: str,
    tmp_path: Path,
    outside: Reference,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(external, "MOST_IN_ONE_FILE_BYTES", 1000)
    request = BuildRequest(outside.path, outside.inputs, outside.outputs, "int8", cases)
    with pytest.raises(Unsupported, match=rf"{asked} of reference\.onnx.*the tool takes 1000"):
        use(request, tmp_path / "artifact")
