"""Augmentation for images with label maps, on whole batches: geometry for both, intensity for the image alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Augmentation:
    """The largest change of each kind; the change is drawn uniformly up to it. ``elastic`` and ``shift`` are shares of
    half the image's size."""

    rotation_deg: float = 20.0
    log_scale: float = 0.25
    log_aspect: float = 0.1
    shift: float = 0.15
    elastic: float = 0.06
    log_gamma: float = 0.4
    depth_gain: float = 0.3
    speckle: float = 0.15
    flip: bool = True


def augment(images: Any, labels: Any, strength: Augmentation, *, seed: int) -> tuple[Any, Any]:
    """``images`` (N, C, H, W) in 0-1 and ``labels`` (N, H, W), changed alike; decided by ``seed``."""
    import torch
    import torch.nn.functional as F  # noqa: N812

    generator = torch.Generator().manual_seed(seed)
    count, _, height, _ = images.shape

    def symmetric(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator) * 2 - 1

    grid = F.affine_grid(_affine(symmetric, count, strength), list(images.shape), align_corners=False)
    bend = F.interpolate(symmetric(count, 2, 6, 6) * strength.elastic, size=images.shape[-2:], mode="bicubic")
    grid = grid + bend.permute(0, 2, 3, 1)
    images = F.grid_sample(images, grid, align_corners=False).clamp(0, 1)
    labels = F.grid_sample(labels[:, None].float(), grid, mode="nearest", align_corners=False)[:, 0].long()

    images = images ** torch.exp(symmetric(count, 1, 1, 1) * strength.log_gamma)
    depth = torch.linspace(-1, 1, height)[None, None, :, None]
    images = images * (1 + depth * symmetric(count, 1, 1, 1) * strength.depth_gain)
    noise = torch.randn(images.shape, generator=generator) * torch.rand(count, 1, 1, 1, generator=generator)
    return images * (1 + strength.speckle * noise), labels


def _affine(symmetric: Any, count: int, strength: Augmentation) -> Any:
    """Inverse maps (N, 2, 3) of rotation, scale, aspect, left-right flip and shift."""
    import torch

    angle = symmetric(count) * math.radians(strength.rotation_deg)
    scale = torch.exp(symmetric(count) * strength.log_scale)
    aspect = torch.exp(symmetric(count) * strength.log_aspect)
    side = torch.where(symmetric(count) < 0, -1.0, 1.0) if strength.flip else torch.ones(count)
    maps = torch.zeros(count, 2, 3)
    maps[:, 0, 0] = torch.cos(angle) * scale * aspect * side
    maps[:, 0, 1] = -torch.sin(angle) * scale
    maps[:, 1, 0] = torch.sin(angle) * scale * side
    maps[:, 1, 1] = torch.cos(angle) * scale / aspect
    maps[:, :, 2] = symmetric(count, 2) * strength.shift
    return maps
