"""Descriptions of label maps in words. Made up: no report of anybody, and nothing that the mask does not say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from edgedeploy.tasks.segmentation.metrics import Labels

LARGE_SHARE: Final = 0.02
"""Of the image's pixels; a structure that covers more is large."""
LEAST_SHARE: Final = 0.001
"""A part of a class that covers less is not told of."""
COUNTS: Final = ("no", "one", "two", "three", "four", "several")
UNKNOWN: Final = "[UNK]"
WORDS: Final = (
    *("[PAD]", UNKNOWN, *COUNTS, "nerve", "vessel", "a", "small", "large", "on", "the", "left", "right", "in"),
    *("middle", "near", "skin", "deep", "and", "."),
)
"""The vocabulary of all descriptions of synthetic ultrasound."""


def described(labels: Labels, classes: Mapping[str, int]) -> str:
    """How many structures of each class there are; then of each its size, side and depth, from left to right."""
    from scipy.ndimage import center_of_mass, label

    counts, sentences = [], []
    for name, value in classes.items():
        parts, found = label(labels == value)
        masks = [parts == number for number in range(1, found + 1)]
        masks = [mask for mask in masks if mask.mean() >= LEAST_SHARE]
        counts.append(f"{COUNTS[min(len(masks), len(COUNTS) - 1)]} {name}")
        places = sorted((tuple(reversed(center_of_mass(mask))), float(mask.mean())) for mask in masks)
        sentences += [_sentence(name, place, share, labels.shape) for place, share in places]
    return " . ".join([" and ".join(counts), *sentences])


def _sentence(name: str, place: tuple[float, ...], share: float, shape: tuple[int, ...]) -> str:
    x, y = place[0] / shape[1], place[1] / shape[0]
    side = ("on the left", "in the middle", "on the right")[int(np.digitize(x, (1 / 3, 2 / 3)))]
    depth = "near the skin" if y < 0.5 else "deep"
    return f"a {'large' if share > LARGE_SHARE else 'small'} {name} {side} {depth}"
