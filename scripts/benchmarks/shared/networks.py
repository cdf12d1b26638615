"""The networks of the matrix of targets: three made here, the others files that lie beside the repository.

Weights of the first three are seeded and untrained, except the UNet's, which the matrix trains shortly: their latency is
that of the trained network, their accuracy is not looked at. MobileNetV2: Sandler et al. 2018 (inverted residuals); ViT:
Dosovitskiy et al. 2021 (patches of 16, here 192 wide, 6 blocks, 3 heads).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmarks import ROOT
from edgedeploy.interfaces.task import Array
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.tasks.segmentation.ultrasound import draw_bmode

Pixels = npt.NDArray[np.uint8]

CASES: Final = 16
"""Calibration cases of every network; the first four are also what parity is shown on."""


@dataclass(frozen=True)
class Network:
    """``module`` makes a torch module with one input as ``specs``; or ``file`` is an ONNX file in the shared models' folder,
    whose open dimensions ``shapes`` closes. ``pictures`` draws what it is calibrated and compared on."""

    name: str
    pictures: Callable[[tuple[int, ...]], Iterator[Pixels]]
    specs: tuple[TensorSpec, ...] = ()
    module: Callable[[], Any] | None = None
    file: str = ""
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    offset: float = 0.0
    scale: float = 1 / 255

    def cases(self, specs: Sequence[TensorSpec]) -> Iterator[dict[str, Array]]:
        """Model-ready inputs: ``(pixels - offset) * scale``."""
        for pixels in self.pictures(specs[0].shape):
            yield {specs[0].name: ((pixels.astype(np.float32) - self.offset) * self.scale)[None]}

    @property
    def path(self) -> Path:
        shared = os.environ.get("EDGEDEPLOY_SHARED")
        root = Path(shared) if shared else ROOT.parent / "shared"
        return root / "models" / self.file


def ultrasound(shape: tuple[int, ...]) -> Iterator[Pixels]:
    """Synthetic B-mode pictures, the same in every channel: (channels, height, width), values 0 to 255."""
    _, channels, height, width = shape
    rng = np.random.default_rng(7)
    for _ in range(CASES):
        picture, _ = draw_bmode(rng, max(height, width))
        yield np.broadcast_to(picture[:height, :width], (channels, height, width))


def faces(shape: tuple[int, ...]) -> Iterator[Pixels]:
    """Two drawn faces before a blurred background, as (blue, green, red) planes (3, height, width), values 0 to 255.

    Detectors see them: YuNet's best score is 0.49 to 0.86, UltraFace's above 0.99. On pictures without a face an
    objectness output holds nothing but the far end of a sigmoid, and no distance to it means anything.
    """
    from PIL import Image, ImageDraw, ImageFilter

    _, _, height, width = shape
    rng = np.random.default_rng(0)
    for _ in range(CASES):
        coarse = rng.normal(120, 40, (height // 16 + 1, width // 16 + 1, 3)).clip(0, 255).astype(np.uint8)
        image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        draw = ImageDraw.Draw(image)
        for _ in range(2):
            size = rng.uniform(0.1, 0.25) * height
            _draw_face(draw, rng.uniform(size, width - size), rng.uniform(1.3 * size, height - 1.3 * size), size, rng)
        yield np.asarray(image.filter(ImageFilter.GaussianBlur(1.2)))[:, :, ::-1].transpose(2, 0, 1)


def _draw_face(draw: Any, x: float, y: float, size: float, rng: np.random.Generator) -> None:
    skin = tuple(int(base + rng.integers(-25, 30)) for base in (200, 150, 120))
    dark, shade = tuple(int(0.35 * value) for value in skin), tuple(int(0.8 * value) for value in skin)

    def box(left: float, top: float, right: float, bottom: float) -> list[float]:
        return [x + left * size, y + top * size, x + right * size, y + bottom * size]

    draw.ellipse(box(-0.82, -1.25, 0.82, 0.6), fill=(40, 28, 20))
    draw.ellipse(box(-0.72, -0.95, 0.72, 1.0), fill=skin)
    draw.rectangle(box(-0.35, 0.8, 0.35, 1.4), fill=shade)
    for eye in (-0.3, 0.3):
        draw.ellipse(box(eye - 0.15, -0.23, eye + 0.15, -0.07), fill=(240, 240, 240))
        draw.ellipse(box(eye - 0.07, -0.23, eye + 0.07, -0.07), fill=(40, 25, 20))
        draw.rectangle(box(eye - 0.2, -0.39, eye + 0.2, -0.32), fill=dark)
    draw.polygon(
        [(x, y - 0.05 * size), (x - 0.13 * size, y + 0.3 * size), (x + 0.13 * size, y + 0.3 * size)], fill=shade
    )
    draw.ellipse(box(-0.28, 0.48, 0.28, 0.62), fill=(150, 60, 60))


def mobilenet() -> Any:
    import torch
    from torch import nn

    def unit(before: int, after: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
        padding = kernel // 2
        convolution = nn.Conv2d(before, after, kernel, stride, padding, groups=groups, bias=False)
        return [convolution, nn.BatchNorm2d(after), nn.ReLU6()]

    class InvertedResidual(nn.Module):
        def __init__(self, before: int, after: int, stride: int, expand: int) -> None:
            super().__init__()
            hidden = before * expand
            widen = unit(before, hidden, 1) if expand > 1 else []
            depthwise = unit(hidden, hidden, 3, stride, groups=hidden)
            self.layers = nn.Sequential(*widen, *depthwise, *unit(hidden, after, 1)[:2])
            self.shortcut = stride == 1 and before == after

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            answer: torch.Tensor = self.layers(image)
            return image + answer if self.shortcut else answer

    torch.manual_seed(0)
    blocks: list[nn.Module] = unit(3, 32, 3, 2)
    before = 32
    for expand, after, count, stride in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for index in range(count):
            blocks.append(InvertedResidual(before, after, stride if index == 0 else 1, expand))
            before = after
    blocks += [*unit(before, 1280, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000)]
    return settled(nn.Sequential(*blocks), (1, 3, 224, 224))


def small_vit(width: int = 192, depth: int = 6, heads: int = 3) -> Any:
    import torch
    from torch import nn

    class SmallViT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, width, 16, 16)
            self.places = nn.Parameter(0.02 * torch.randn(1, 196, width))
            self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
            self.norm = nn.LayerNorm(width)
            self.head = nn.Linear(width, 1000)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            tokens = self.patches(image).flatten(2).transpose(1, 2) + self.places
            for block in self.blocks:
                tokens = block(tokens)
            answer: torch.Tensor = self.head(self.norm(tokens).mean(1))
            return answer

    class Block(nn.Module):
        def __init__(self, width: int, heads: int) -> None:
            super().__init__()
            self.heads = heads
            self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
            self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.think = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            batch, count, width = tokens.shape
            parts = self.mix(self.before(tokens)).reshape(batch, count, 3, self.heads, width // self.heads)
            query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
            weights = (query @ key.transpose(-1, -2) * (width // self.heads) ** -0.5).softmax(-1)
            tokens = tokens + self.out((weights @ value).transpose(1, 2).reshape(batch, count, width))
            return tokens + self.think(self.after(tokens))

    torch.manual_seed(0)
    return SmallViT().eval()


def settled(module: Any, shape: tuple[int, ...]) -> Any:
    """The module with the statistics of its batch norms taken from noise: untouched ones let activations explode or vanish
    over fifty layers."""
    import torch

    module.train()
    with torch.no_grad():
        for _ in range(10):
            module(torch.rand(4, *shape[1:]))
    return module.eval()


IMAGE_224: Final = (TensorSpec("image", "float32", (1, 3, 224, 224)),)
YUNET: Final = "yunet/yunet_n_dynamic.onnx"

NETWORKS: Final = (
    Network("UNet", ultrasound, (TensorSpec("image", "float32", (1, 1, 128, 128)),)),
    Network("MobileNetV2-like", ultrasound, IMAGE_224, mobilenet),
    Network("small ViT", ultrasound, IMAGE_224, small_vit),
    Network(
        "UltraFace RFB",
        faces,
        file="ultraface/version-RFB-320_without_postprocessing.onnx",
        offset=127.0,
        scale=1 / 128,
    ),
    Network("YuNet 320", faces, file="yunet/yunet_n_320_320.onnx", scale=1.0),
    Network("YuNet dynamic", faces, file=YUNET, scale=1.0),
    Network("YuNet dynamic, 160x160 given", faces, file=YUNET, shapes={"input": (1, 3, 160, 160)}, scale=1.0),
    Network("lwnet", ultrasound, file="lwnet/wnet_drive_512.onnx"),
)
