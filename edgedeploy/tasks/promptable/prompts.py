"""Structures of a label map, and the boxes and points that ask for one of them.

A prompt is a float32 array of two rows (x, y, point, first, second): x and y are shares of the image's width and height,
x to the right and y down; 1 stands at what the row is, a point, the first (upper left) corner of a box or its second one. A
row of zeros is empty.
"""

from __future__ import annotations

from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from edgedeploy.tasks.segmentation.metrics import Labels, Mask

Prompt = npt.NDArray[np.float32]
PromptKind = Literal["box", "point"]

PROMPT_KINDS: Final[tuple[PromptKind, ...]] = get_args(PromptKind)
PROMPT_SHAPE: Final = (2, 5)
JITTER: Final = 0.1
"""How far a side of a box may be from its structure's, as a share of the structure's size: nobody draws exactly."""


def structures(labels: Labels, least_share: float) -> list[Mask]:
    """The connected parts of every class that have at least ``least_share`` of the pixels, class by class, from the top
    down."""
    from scipy.ndimage import label

    found = []
    for value in np.unique(labels[labels > 0]):
        parts, count = label(labels == value)
        found += [parts == number for number in range(1, count + 1)]
    return [mask for mask in found if np.count_nonzero(mask) >= least_share * labels.size]


def box_prompt(mask: Mask, rng: np.random.Generator) -> Prompt:
    """The box around ``mask`` (H, W, not empty), each side moved by up to ``JITTER``."""
    ends = []
    for axis in (1, 0):
        covered = np.flatnonzero(mask.any(axis=1 - axis))
        low, high = float(covered[0]), float(covered[-1] + 1)
        moved = np.array([low, high]) + rng.uniform(-JITTER, JITTER, 2) * (high - low)
        ends.append(np.clip(moved / mask.shape[axis], 0.0, 1.0))
    (left, right), (top, bottom) = ends
    return np.array([[left, top, 0, 1, 0], [right, bottom, 0, 0, 1]], np.float32)


def point_prompt(mask: Mask, rng: np.random.Generator | None = None) -> Prompt:
    """A point in ``mask`` (H, W, not empty): any of its pixels, or without ``rng`` one farthest from its edge."""
    from scipy.ndimage import distance_transform_edt

    if rng is None:
        depth = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
        row, column = np.unravel_index(int(np.argmax(depth)), mask.shape)
    else:
        rows, columns = np.nonzero(mask)
        place = rng.integers(len(rows))
        row, column = rows[place], columns[place]
    height, width = mask.shape
    return np.array([[(column + 0.5) / width, (row + 0.5) / height, 1, 0, 0], [0] * 5], np.float32)


def corners(prompt: Prompt, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom pixel of a prompt on an image of ``size`` (H, W); a point is a box of 3 x 3 pixels."""
    scale = np.array([size[1], size[0]])
    first, second = prompt[0, :2] * scale, prompt[1, :2] * scale
    if prompt[0, 2]:
        first, second = first - 1, first + 1
    (left, top), (right, bottom) = (np.clip(place, 0, scale - 1).astype(int) for place in (first, second))
    return int(left), int(top), int(right), int(bottom)


def drawn(
    labels: Any, each: int, rng: np.random.Generator, least_share: float
) -> tuple[list[int], list[Prompt], list[Mask]]:
    """``each`` prompts for every label map (N, H, W) that has a structure: which maps these are, and the prompts and masks
    in order. Boxes and points are equally likely."""
    kept, prompts, masks = [], list[Prompt](), list[Mask]()
    for index, one in enumerate(labels):
        there = structures(one, least_share)
        if not there:
            continue
        kept.append(index)
        for _ in range(each):
            mask = there[rng.integers(len(there))]
            masks.append(mask)
            prompts.append(box_prompt(mask, rng) if rng.random() < 0.5 else point_prompt(mask, rng))
    return kept, prompts, masks
