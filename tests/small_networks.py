"""Networks of the kinds that quantization meets, as small as they can be: for 1 x 16 x 16 images, untrained, seeded."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

import torch
import torch.nn.functional as F  # noqa: N812
from torch import fx, nn

from edgedeploy.compress.qat import graph as quantgraph
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.targets.common import saturates_here
from edgedeploy.tasks.segmentation.unet import build_unet

SPECS: Final = (TensorSpec("image", "float32", (1, 1, 16, 16)),)


class InvertedResidual(nn.Module):
    """Of MobileNetV2: expand, depthwise, project; ReLU6 in place; a residual where shapes allow."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        wide = 2 * before
        self.residual = stride == 1 and before == after
        self.body = nn.Sequential(
            *(nn.Conv2d(before, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(inplace=True)),
            *(nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide)),
            *(nn.ReLU6(inplace=True), nn.Conv2d(wide, after, 1, bias=False), nn.BatchNorm2d(after)),
        )

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.body(values)
        return values + found if self.residual else found


class MobileNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(inplace=True))
        self.blocks = nn.Sequential(InvertedResidual(8, 8, 1), InvertedResidual(8, 16, 2), InvertedResidual(16, 16, 1))
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(16, 4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        pooled = F.adaptive_avg_pool2d(self.blocks(self.stem(image)), 1).flatten(1)
        found: torch.Tensor = self.head(self.dropout(pooled))
        return found


class ResNet(nn.Module):
    """A ReLU after each addition, a strided shortcut, a hidden linear layer with a ReLU of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.third = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16))
        self.shortcut = nn.Conv2d(8, 16, 1, 2)
        self.hidden = nn.Linear(16, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        values = F.relu(self.first(image))
        values = F.relu(values + self.second(values))
        values = F.relu(self.third(values) + self.shortcut(values))
        found: torch.Tensor = self.head(F.relu(self.hidden(values.mean((2, 3)))))
        return found


class Transformer(nn.Module):
    """A small vision transformer: patches, a class token, positions, two pre-norm encoder layers."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, 32, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, 32))
        self.position = nn.Parameter(torch.randn(1, 17, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        patches = self.patch(image).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(image.shape[0], -1, -1), patches], 1) + self.position
        found: torch.Tensor = self.head(self.encoder(tokens)[:, 0])
        return found


def unet(upsampling: str) -> nn.Module:
    network: nn.Module = build_unet(in_channels=1, classes=3, base=8, depth=2, upsampling=upsampling, seed=0)
    return network


NETWORKS: Final[Mapping[str, Callable[[], nn.Module]]] = {
    "unet": lambda: unet("transposed"),
    "unet-resize": lambda: unet("resize"),
    "mobilenet": MobileNet,
    "resnet": ResNet,
    "transformer": Transformer,
}


def images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 1, 16, 16, generator=torch.Generator().manual_seed(seed))


def network(name: str) -> nn.Module:
    """In evaluation mode, with batch statistics that are not those of a fresh layer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = NETWORKS[name]()
        with torch.no_grad():
            for seed in range(10):
                model(2 * images(8, seed) + 0.3)
    return model.eval()


@cache
def _folded(name: str) -> fx.GraphModule:
    return quantgraph.fold_batch_norms(quantgraph.trace(network(name), [images(2)]))


def folded(name: str) -> fx.GraphModule:
    """The network as a graph without batch norms, a copy of one's own: tracing takes seconds."""
    return copy.deepcopy(_folded(name))


def bits_here() -> int:
    """How many bits weights may have so that int8 kernels of this machine do not saturate."""
    return 7 if saturates_here() else 8


def quantized(name: str, kept_float: Mapping[str, Any] | None = None, weight_bits: int = 8) -> nn.Module:
    """The network with frozen quantizers whose ranges are those of 32 images: what training would start from."""
    graph = folded(name)
    kept = quantgraph.layers_with(graph, kept_float or {})
    model = quantgraph.place_quantizers(
        graph, "learned", percentile=100.0, momentum=0.1, kept=kept, weight_bits=weight_bits
    )
    with torch.no_grad():
        model(images(32, seed=1))
    for quantizer in quantgraph.quantizers(model):
        quantizer.stop_observing()
    return quantgraph.freeze(model)
