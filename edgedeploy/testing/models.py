"""Small models on which every target is tested; each shows one kind of mistake."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgedeploy.interfaces.target import BuildRequest
from edgedeploy.interfaces.task import Array
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.reference.export import Reference, export_reference
from edgedeploy.reference.program import PROGRAM_FILE, export_program
from edgedeploy.runtime.files import sha256_file

IMAGE: Final = TensorSpec("image", "float32", (1, 1, 32, 32))

Calibration = Callable[[], Iterator[dict[str, Array]]]


@dataclass(frozen=True)
class Model:
    """A reference with its torch program, and some cases."""

    reference: Reference
    program: Path
    calibration: Calibration

    def request(self, precision: str, calibration: Calibration | None = None) -> BuildRequest:
        return BuildRequest(
            reference=self.reference.path,
            inputs=self.reference.inputs,
            outputs=self.reference.outputs,
            precision=precision,
            calibration=calibration or self.calibration,
            program=self.program,
        )


def images(seed: int = 1, count: int = 8) -> Iterator[dict[str, Array]]:
    generator = np.random.default_rng(seed)
    for _ in range(count):
        yield {IMAGE.name: generator.standard_normal(IMAGE.shape).astype(np.float32)}


def two_heads(folder: Path, seed: int = 0) -> Model:
    """A small encoder and decoder with a skip, a transposed convolution, a resize, a matrix product, and two outputs."""
    import torch
    from torch import nn

    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
            self.deep = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
            self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
            self.join = nn.Sequential(nn.Conv2d(16, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
            self.mask = nn.Conv2d(8, 3, 1)
            self.edge = nn.Sequential(
                nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(16, 2, 1), nn.Linear(32, 32)
            )

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            skip = self.down(image)
            deep = self.deep(skip)
            joined = self.join(torch.cat([skip, self.up(deep)], 1))
            return self.mask(joined), self.edge(deep)

    return _exported(TwoHeads, (IMAGE,), folder, images, seed)


def denoised(folder: Path, outer: str = "add") -> Model:
    """A small network whose answer is its input and a hundredth of what two convolutions compute: shows an input that
    is rounded on its way. ``outer`` is how they are put together: ``add``, ``sub``, or ``enlarged`` of an input of half
    the size."""
    import torch
    from torch import nn

    class Denoised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(1, 8, 3, padding=1)
            self.last = nn.Conv2d(8, 1, 3, padding=1)
            with torch.no_grad():
                for parameter in self.last.parameters():
                    parameter.mul_(0.01)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            if outer == "enlarged":
                image = nn.functional.interpolate(image, scale_factor=2, mode="nearest")
            change = self.last(torch.relu(self.first(image)))
            return image - change if outer == "sub" else image + change  # type: ignore[no-any-return]

    return _exported(Denoised, (IMAGE,), folder, shades)


def shades() -> Iterator[dict[str, Array]]:
    """Images of values from 0 to 1."""
    generator = np.random.default_rng(5)
    for _ in range(8):
        yield {IMAGE.name: generator.uniform(0, 1, IMAGE.shape).astype(np.float32)}


def west_and_east(folder: Path) -> Model:
    """Two inputs of equal shape whose names are in reverse order, and two outputs of equal shape: shows swapped
    tensors."""
    import torch
    from torch import nn

    class WestAndEast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.west = nn.Conv2d(2, 6, 3, padding=1)
            self.east = nn.Conv2d(2, 6, 3, padding=1)

        def forward(self, west: torch.Tensor, east: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            first, second = torch.relu(self.west(west)), torch.relu(self.east(east))
            return 2 * first - second, first + second

    specs = (TensorSpec("west", "float32", (1, 2, 16, 16)), TensorSpec("east", "float32", (1, 2, 16, 16)))

    def pairs() -> Iterator[dict[str, Array]]:
        generator = np.random.default_rng(3)
        for _ in range(8):
            yield {spec.name: generator.standard_normal(spec.shape).astype(np.float32) for spec in specs}

    return _exported(WestAndEast, specs, folder, pairs)


def token_scores(folder: Path) -> Model:
    """int64 in (indices of an embedding), float32 and int64 out (scores and the index of the best)."""
    import torch
    from torch import nn

    class TokenScores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(50, 16)
            self.score = nn.Linear(16, 7)

        def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            scores = self.score(self.embed(tokens).mean(1))
            return scores, scores.argmax(1)

    spec = TensorSpec("tokens", "int64", (1, 12))

    def sentences() -> Iterator[dict[str, Array]]:
        generator = np.random.default_rng(4)
        for _ in range(8):
            yield {spec.name: generator.integers(0, 50, spec.shape, np.int64)}

    return _exported(TokenScores, (spec,), folder, sentences)


def bright(folder: Path) -> Model:
    """Inputs that are never negative, and neighbouring weights of one sign: the sum of two int8 products exceeds 16
    bits. If such sums saturate (x86 without VNNI), the relative distance from the float model is 0.16 with 8-bit
    weights and 0.01 with 7-bit weights."""
    import torch
    from torch import nn

    class Bright(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers = [nn.Conv2d(before, after, 3, padding=1) for before, after in ((3, 16), (16, 16), (16, 4))]
            with torch.no_grad():
                for layer in layers:
                    layer.weight.abs_().add_(layer.weight.max() / 2)
                for layer in layers[1:]:
                    layer.weight[:, 8:] *= -1.0
            self.body = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.body(image)
            return found

    spec = TensorSpec("image", "float32", (1, 3, 32, 32))

    def photographs() -> Iterator[dict[str, Array]]:
        generator = np.random.default_rng(5)
        for _ in range(8):
            yield {spec.name: generator.random(spec.shape, np.float32)}

    return _exported(Bright, (spec,), folder, photographs)


def one_operator(folder: Path, operator: str, function: Callable[[Any], Any], domain: str = "") -> Model:
    """A graph of a single node, written by hand: ``image -> out0``. ``function`` is the same in torch."""
    import onnx
    from onnx import TensorProto, helper
    from torch import nn

    class Function(nn.Module):
        def forward(self, image: Any) -> Any:
            return function(image)

    node = helper.make_node(operator, ["image"], ["out0"], name="the_node", domain=domain)
    edges = [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(IMAGE.shape)) for name in ("image", "out0")]
    graph = helper.make_graph([node], "one", edges[:1], edges[1:])
    opsets = [helper.make_opsetid("", 20), *([helper.make_opsetid(domain, 1)] if domain else [])]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), str(path))
    export_program(Function(), (IMAGE,), folder / PROGRAM_FILE)
    output = replace(IMAGE, name="out0")
    reference = Reference(path, sha256_file(path), (IMAGE,), (output,), opset=20, parameters=0, macs=0)
    return Model(reference, folder / PROGRAM_FILE, images)


def open_batch(source: Model, folder: Path) -> Model:
    """``source`` with the first dimension of its inputs and outputs left open in the ONNX file."""
    import onnx

    model = onnx.load(str(source.reference.path))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del model.graph.value_info[:]
    path = folder / "open.onnx"
    onnx.save(model, str(path))
    return replace(source, reference=replace(source.reference, path=path, sha256=sha256_file(path)))


def _exported(
    make: Callable[[], Any], specs: Sequence[TensorSpec], folder: Path, calibration: Calibration, seed: int = 0
) -> Model:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = make().eval()
    reference = export_reference(module, tuple(specs), folder / "reference.onnx")
    export_program(module, tuple(specs), folder / PROGRAM_FILE)
    return Model(reference, folder / PROGRAM_FILE, calibration)
