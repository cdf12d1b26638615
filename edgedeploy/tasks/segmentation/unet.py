"""A plain U-Net (Ronneberger et al., 2015) that prunes, exports and quantises without special cases.

Convolution, batch norm and ReLU only; skips by concatenation. The two kinds of upsampling share the names of every other
parameter, so that weights are inherited between them by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, get_args

from edgedeploy.errors import SpecError, nearest

Upsampling = Literal["transposed", "resize"]


def build_unet(*, in_channels: int, classes: int, base: int, depth: int, upsampling: str, seed: int) -> Any:
    """A ``torch.nn.Module``: (N, in_channels, H, W) to logits (N, classes, H, W); H and W divisible by 2^depth.

    ``base`` channels at full resolution, doubled at each of ``depth`` steps down, up to eight times ``base``.
    ``upsampling`` is ``"transposed"`` (2x2 transposed convolution) or ``"resize"`` (a 1x1 convolution, then nearest
    neighbour: the result equals that of the reverse order and takes a quarter of the work).
    """
    channels = [base * min(2**level, 8) for level in range(depth + 1)]
    return unet_of(in_channels=in_channels, classes=classes, channels=channels, upsampling=upsampling, seed=seed)


def unet_of(*, in_channels: int, classes: int, channels: Sequence[int], upsampling: str, seed: int) -> Any:
    """As :func:`build_unet`, with the channels of each level, full resolution first."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _unet_class()(in_channels, classes, list(channels), upsampling)


def _unet_class() -> Any:
    """The module class, made on first use: torch is imported when a model is built, not with the package."""
    import torch
    from torch import nn
    from torch.nn import functional as F  # noqa: N812

    def block(before: int, after: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for channels in (before, after):
            layers += [nn.Conv2d(channels, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        return nn.Sequential(*layers)

    def upsample(kind: str, before: int, after: int) -> nn.Module:
        if kind == "transposed":
            return nn.ConvTranspose2d(before, after, 2, stride=2)
        if kind != "resize":
            raise SpecError("upsampling of the U-Net", f"unknown kind {kind!r}", nearest(kind, get_args(Upsampling)))
        return nn.Sequential(nn.Conv2d(before, after, 1), nn.Upsample(scale_factor=2, mode="nearest"))

    class UNet(nn.Module):
        def __init__(self, in_channels: int, classes: int, channels: list[int], upsampling: str) -> None:
            super().__init__()
            pairs = list(pairwise(channels))
            self.down = nn.ModuleList([block(in_channels, channels[0]), *(block(a, b) for a, b in pairs)])
            self.up = nn.ModuleList([upsample(upsampling, deep, shallow) for shallow, deep in pairs])
            self.merge = nn.ModuleList([block(2 * shallow, shallow) for shallow, _ in pairs])
            self.head = nn.Conv2d(channels[0], classes, 1)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            skips = []
            value = image
            for level, stage in enumerate(self.down):
                value = stage(F.max_pool2d(value, 2) if level else value)
                skips.append(value)
            for level in reversed(range(len(self.up))):
                value = self.merge[level](torch.cat([self.up[level](value), skips[level]], dim=1))
            return self.head(value)  # type: ignore[no-any-return]

    return UNet
