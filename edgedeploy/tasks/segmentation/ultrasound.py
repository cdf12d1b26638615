"""The embedded task: synthetic B-mode ultrasound with nerve-like and vessel-like structures. Made-up data, and named so.

How an image comes about (after the usual simulation of fully developed speckle: Bamber and Dickinson, "Ultrasonic
B-scanning: a computer simulation", 1980): a map of echogenicity with tissue layers, structures and distractors; complex
Gaussian scatterers of that strength; a point-spread function that widens with depth; the envelope; attenuation, shadows
and a mis-set time-gain compensation; log compression to 8 bits.

It is made to be hard rather than pretty: nerves are about as bright as the muscle around them and differ by texture and
rim, vessels have look-alikes (dark fat lobules without wall or enhancement), shadows cut structures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from edgedeploy.interfaces.task import SPLITS, Case, Split, TrainRecipe
from edgedeploy.tasks.options import SegmentationOptions, at_least
from edgedeploy.tasks.segmentation.augment import Augmentation
from edgedeploy.tasks.segmentation.base import CASES_IN_MEMORY, SegmentationTask
from edgedeploy.tasks.segmentation.metrics import Labels

Map = npt.NDArray[np.float64]

CLASSES: Final = {"nerve": 1, "vessel": 2}
DYNAMIC_RANGE_DB: Final = 55.0
SMALLEST_IMAGE_PX: Final = 32
SPLIT_OFFSET: Final = {"train": 0, "calibration": 1, "selection": 2, "confirmation": 3}


@dataclass(frozen=True)
class UltrasoundOptions(SegmentationOptions):
    """Synthetic images: how large and how many.

    - ``image_size``: the size that cases are drawn and scored at, in pixels.
    - ``train_cases``, ``calibration_cases``, ``selection_cases``, ``confirmation_cases``: how many cases the split has.
    """

    image_size: int = 128
    train_cases: int = 160
    calibration_cases: int = 32
    selection_cases: int = 40
    confirmation_cases: int = 40
    baseline: TrainRecipe = field(
        default_factory=lambda: TrainRecipe(epochs=36, batch_size=8, learning_rate=3e-3, bfloat16=True)
    )
    recovery: TrainRecipe = field(
        default_factory=lambda: TrainRecipe(
            epochs=8, batch_size=8, learning_rate=1e-2, warmup_epochs=0.5, bfloat16=True, distill_weight=0.3
        )
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        cases = {f"{split}_cases": 1 for split in SPLITS}
        at_least(self, image_size=SMALLEST_IMAGE_PX, **{**cases, "train_cases": 2})


class SyntheticUltrasound(SegmentationTask):
    """Every case is decided by the task's seed, its split and its number: nothing is stored."""

    augmentation = Augmentation(rotation_deg=8.0, log_scale=0.1, shift=0.08, elastic=0.03, log_gamma=0.3, speckle=0.0)

    def __init__(self, options: UltrasoundOptions | None = None) -> None:
        options = options or UltrasoundOptions()
        super().__init__("synthetic-ultrasound", CLASSES, options)
        self._options = options
        self._drawn = lru_cache(maxsize=CASES_IN_MEMORY)(self._draw)

    def cases(self, split: Split) -> Sequence[Case]:
        count = getattr(self._options, f"{split}_cases")
        return tuple(Case(f"{split}-{number:04d}", split) for number in range(count))

    def group_of(self, case: Case) -> str:
        """Each case is drawn by itself."""
        return case.id

    def load(self, case: Case) -> tuple[Labels, Labels]:
        return self._drawn(case)

    def _draw(self, case: Case) -> tuple[Labels, Labels]:
        number = int(case.id.rpartition("-")[2])
        rng = np.random.default_rng([self._options.seed, SPLIT_OFFSET[case.split], number])
        return draw_bmode(rng, self._options.image_size)


def draw_bmode(rng: np.random.Generator, size: int) -> tuple[Labels, Labels]:
    """One grey image and its label map, both uint8 (size, size)."""
    canvas = _Canvas(rng, size)
    canvas.tissue()
    canvas.distractors()
    for _ in range(rng.integers(1, 3)):
        canvas.vessel()
    for _ in range(rng.integers(1, 3)):
        canvas.nerve()
    return canvas.image(), canvas.labels


class _Canvas:
    """The echogenicity of one image in the making (linear amplitude, muscle is about 0.3) with its labels."""

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.rng = rng
        self.size = size
        self.y, self.x = np.mgrid[0:size, 0:size] / size
        self.echo: Map = np.full((size, size), 0.3)
        self.gain: Map = np.ones((size, size))
        self.labels: Labels = np.zeros((size, size), np.uint8)

    def tissue(self) -> None:
        """Skin, fat with septa, fascia, striated muscle, all bent by the same slow waves."""
        rng = self.rng
        bend = sum(
            rng.uniform(0.005, 0.02) * np.sin(2 * np.pi * (rng.uniform(0.3, 1.6) * self.x + rng.uniform()))
            for _ in range(3)
        )
        depth = self.y + bend
        fat = rng.uniform(0.1, 0.22)
        self.echo[depth < fat] = 0.14
        angle = rng.uniform(-0.5, 0.5)
        stripes = np.sin(2 * np.pi * (rng.uniform(14, 26) * (depth + angle * self.x * 0.3)) + 2 * self._texture(6))
        self.echo = np.where(depth >= fat, 0.26 + 0.12 * stripes * self._texture(4, 0.3, 1.0), self.echo)
        for level in (0.02, fat, fat + rng.uniform(0.15, 0.3), rng.uniform(0.6, 0.95)):
            self.echo += rng.uniform(0.4, 1.0) * np.exp(-(((depth - level) / rng.uniform(0.006, 0.014)) ** 2))
        self.echo *= self._texture(5, 0.75, 1.3)

    def distractors(self) -> None:
        """Dark lobules without a wall and bright blobs without fascicles: neither is a structure."""
        for _ in range(self.rng.integers(2, 5)):
            inside, _ = self._ellipse(0.025, 0.075, 0.2, 0.95)
            self.echo[inside] *= self.rng.uniform(0.2, 0.5)
        for _ in range(self.rng.integers(2, 5)):
            inside, edge = self._ellipse(0.03, 0.08, 0.2, 0.95)
            self.echo[inside] = self.rng.uniform(0.35, 0.6) * np.clip(edge[inside] * 3, 0.3, 1)

    def vessel(self) -> None:
        """Almost no echo inside, a thin bright wall, more echo behind it."""
        inside, edge = self._ellipse(0.035, 0.09, 0.25, 0.85)
        wall = (np.abs(edge) < 0.12) & ~inside
        self.echo[wall] = np.maximum(self.echo[wall], self.rng.uniform(0.4, 0.8))
        self.echo[inside] = self.rng.uniform(0.02, 0.1)
        self.gain *= 1 + self.rng.uniform(0.1, 0.6) * self._behind(inside)
        self.labels[inside] = CLASSES["vessel"]

    def nerve(self) -> None:
        """A honeycomb: dark fascicles in bright connective tissue, a bright rim that is not closed everywhere."""
        rng = self.rng
        inside, edge = self._ellipse(0.06, 0.13, 0.25, 0.85)
        pitch = rng.uniform(0.024, 0.034)
        u, v = self.x / pitch + 0.3 * self._texture(6), self.y / pitch + 0.3 * self._texture(6)
        cells = (
            np.cos(2 * np.pi * u)
            + np.cos(2 * np.pi * (0.5 * u + 0.866 * v))
            + np.cos(2 * np.pi * (0.5 * u - 0.866 * v))
        )
        bright = rng.uniform(0.4, 0.6)
        self.echo[inside] = (bright * (0.25 + 0.75 * (cells < rng.uniform(0.2, 0.8))))[inside]
        rim = (np.abs(edge) < 0.1) & (self._texture(5, 0.0, 1.0) > rng.uniform(0.2, 0.5))
        self.echo[rim] = np.maximum(self.echo[rim], rng.uniform(0.5, 0.8))
        self.labels[inside] = CLASSES["nerve"]

    def image(self) -> Labels:
        """Speckle, depth-dependent blur, attenuation, shadows, gain error, log compression."""
        rng, size = self.rng, self.size
        noise = rng.standard_normal((2, size, size))
        scatter = (noise[0] + 1j * noise[1]) * np.clip(self.echo, 0.005, None)
        axial = rng.uniform(0.55, 0.8)
        near, far = (_blur(scatter, axial, lateral) for lateral in (rng.uniform(0.7, 1.0), rng.uniform(1.6, 2.3)))
        envelope = np.abs(near * (1 - self.y) + far * self.y)
        loss_db = rng.uniform(0, 14) * self.y + rng.uniform(-5, 5) * np.sin(np.pi * (self.y + rng.uniform()))
        amplitude = envelope * np.sqrt(self.gain) * 10 ** (-loss_db / 20) * self._shadows()
        amplitude += rng.uniform(0.001, 0.004) * np.abs(rng.standard_normal((size, size)))
        level_db = 20 * np.log10(amplitude / np.quantile(amplitude, 0.995) + 1e-6)
        grey = np.clip(1 + level_db / DYNAMIC_RANGE_DB, 0, 1) ** rng.uniform(0.9, 1.3)
        return np.asarray(np.round(255 * grey), np.uint8)

    def _shadows(self) -> Map:
        """Columns that lost their echo below some depth: bone, gas, a probe that does not touch."""
        factor = np.ones((self.size, self.size))
        for _ in range(self.rng.integers(0, 3)):
            centre, width = self.rng.uniform(0, 1), self.rng.uniform(0.02, 0.07)
            start = self.rng.uniform(0.0, 0.6)
            column = np.exp(-(((self.x - centre) / width) ** 4))
            factor *= 1 - self.rng.uniform(0.5, 0.92) * column * (self.y > start)
        return np.asarray(gaussian_filter(factor, 1.0), np.float64)

    def _ellipse(self, small: float, large: float, top: float, bottom: float) -> tuple[npt.NDArray[np.bool_], Map]:
        """A wobbly ellipse away from other structures where room is found: its inside, and the signed distance of its edge
        in units of its radius (negative inside)."""
        rng = self.rng
        for _ in range(20):
            radius_x, radius_y = rng.uniform(small, large, 2)
            cx, cy, angle = rng.uniform(0.12, 0.88), rng.uniform(top, bottom), rng.uniform(0, np.pi)
            dx, dy = self.x - cx, self.y - cy
            u = (dx * np.cos(angle) + dy * np.sin(angle)) / radius_x
            v = (dy * np.cos(angle) - dx * np.sin(angle)) / radius_y
            bearing = np.arctan2(v, u)
            wobble = 0.1 * np.sin(2 * bearing + rng.uniform(0, 6)) + 0.07 * np.sin(3 * bearing + rng.uniform(0, 6))
            edge = np.hypot(u, v) - 1 - wobble
            if not self.labels[edge < 0.25].any():
                break
        return (edge < 0) & (self.labels == 0), edge

    def _behind(self, inside: npt.NDArray[np.bool_]) -> Map:
        below = np.cumsum(inside, axis=0) / max(1, int(inside.sum(axis=0).max()))
        return np.asarray(gaussian_filter(np.where(inside, 0.0, np.clip(below, 0, 1)), (2.0, 1.0)), np.float64)

    def _texture(self, blur_px: float, low: float = -1.0, high: float = 1.0) -> Map:
        """Smooth noise between ``low`` and ``high``."""
        noise = gaussian_filter(self.rng.standard_normal((self.size, self.size)), blur_px)
        unit = (noise - noise.min()) / (np.ptp(noise) + 1e-9)
        return np.asarray(low + (high - low) * unit, np.float64)


def _blur(values: npt.NDArray[np.complex128], axial_px: float, lateral_px: float) -> npt.NDArray[np.complex128]:
    blurred = gaussian_filter1d(gaussian_filter1d(values, axial_px, axis=0), lateral_px, axis=1)
    return np.asarray(blurred, np.complex128)
