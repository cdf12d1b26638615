"""Slices of a made-up body in HU: ellipses of organs, as the Shepp-Logan phantom has them, drawn anew for each case.

A slice is a chest or a belly: a ring of fat, muscle, a spine, then lungs and heart, or liver, spleen, kidneys and gas.
Lesions of low contrast lie in them, vessels of high contrast, and a faint texture over all tissue, so that a network
which smooths everything loses something. Values are typical ones of textbooks; no slice is anybody's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Slice = npt.NDArray[np.float32]
"""(side, side) in HU."""

Seed = int | tuple[int, ...]

AIR_HU: Final = -1000.0
FAT_HU: Final = -100.0
MUSCLE_HU: Final = 55.0
TEXTURE_HU: Final = 6.0
"""Standard deviation of the texture of tissue."""

LUNG_BELOW_HU: Final = -300.0
"""What is thinner than this has no texture of tissue."""


@dataclass(frozen=True)
class Ellipse:
    """Centre and half axes as shares of the slice's half side, the angle of the first axis in radians, and the value
    that it gives what lies inside."""

    x: float
    y: float
    a: float
    b: float
    angle: float
    hu: float


def phantom(side: int, seed: Seed) -> Slice:
    """A slice of ``side`` pixels that ``seed`` decides. All of the body lies within the circle that touches the
    sides."""
    rng = np.random.default_rng(seed)
    body = Ellipse(0, 0, rng.uniform(0.74, 0.92), rng.uniform(0.52, 0.68), 0, FAT_HU)
    fat = rng.uniform(0.04, 0.1)
    inner = Ellipse(0, 0, body.a - fat, body.b - fat, 0, MUSCLE_HU + rng.uniform(-10, 10))
    organs = _chest(rng, inner) if rng.random() < 0.4 else _belly(rng, inner)
    image = np.full((side, side), AIR_HU, np.float32)
    for part in (body, inner, *organs, *_spine(rng, inner), *_details(rng, inner)):
        _draw(image, part)
    return _textured(image, rng)


def _draw(image: Slice, part: Ellipse) -> None:
    """In place; a pixel that the edge crosses is mixed by how far inside it lies."""
    side = len(image)
    places = (np.arange(side, dtype=np.float32) + 0.5) * 2 / side - 1
    dx, dy = places[None, :] - np.float32(part.x), places[:, None] - np.float32(part.y)
    cosine, sine = np.float32(np.cos(part.angle)), np.float32(np.sin(part.angle))
    u, v = (dx * cosine + dy * sine) / np.float32(part.a), (dy * cosine - dx * sine) / np.float32(part.b)
    radius = np.sqrt(u * u + v * v)
    steepness = np.float32(min(part.a, part.b) * side / 2)
    share = np.clip((1 - radius) * steepness + np.float32(0.5), 0, 1)
    image += share * (np.float32(part.hu) - image)


def _chest(rng: np.random.Generator, inner: Ellipse) -> list[Ellipse]:
    lung_hu = rng.uniform(-880, -780)
    lungs = [
        Ellipse(sign * 0.46 * inner.a, -0.05, 0.4 * inner.a, rng.uniform(0.6, 0.75) * inner.b, sign * 0.15, lung_hu)
        for sign in (-1, 1)
    ]
    heart = Ellipse(
        0.14, -0.05 - 0.1 * inner.b, 0.34 * inner.a, 0.36 * inner.b, rng.uniform(0, 0.8), rng.uniform(40, 160)
    )
    return [*lungs, heart, Ellipse(heart.x, heart.y, 0.15, 0.1, rng.uniform(0, 3), heart.hu + rng.uniform(20, 150))]


def _belly(rng: np.random.Generator, inner: Ellipse) -> list[Ellipse]:
    ground = Ellipse(0, -0.06, 0.82 * inner.a, 0.78 * inner.b, 0, rng.uniform(-110, -80))
    liver = Ellipse(
        -0.36 * inner.a, -0.08, 0.46 * inner.a, 0.58 * inner.b, rng.uniform(-0.5, 0.2), rng.uniform(50, 120)
    )
    spleen = Ellipse(0.56 * inner.a, 0.02, 0.2 * inner.a, 0.34 * inner.b, rng.uniform(-0.6, 0.6), rng.uniform(45, 130))
    kidneys = [
        Ellipse(sign * 0.42 * inner.a, 0.42 * inner.b, 0.15 * inner.a, 0.2 * inner.b, 0, rng.uniform(35, 190))
        for sign in (-1, 1)
    ]
    gas = Ellipse(rng.uniform(0.05, 0.3), -0.45 * inner.b, rng.uniform(0.04, 0.12), rng.uniform(0.03, 0.08), 0, -900.0)
    bowel = Ellipse(gas.x, gas.y + 0.06, 0.2, 0.14, rng.uniform(0, 3), rng.uniform(10, 60))
    return [ground, liver, spleen, *kidneys, bowel, gas]


def _spine(rng: np.random.Generator, inner: Ellipse) -> list[Ellipse]:
    y, marrow = 0.62 * inner.b, rng.uniform(150, 300)
    outer = Ellipse(0, y, 0.14, 0.12, 0, rng.uniform(500, 1100))
    ribs = [
        Ellipse(sign * 0.93 * inner.a * np.cos(turn), 0.93 * inner.b * np.sin(turn), 0.06, 0.022, turn + 1.57, 700.0)
        for sign, turn in ((-1, rng.uniform(-0.7, 0.5)), (1, rng.uniform(-0.5, 0.7)))
    ]
    return [outer, Ellipse(0, y, 0.11, 0.09, 0, marrow), Ellipse(0, y + 0.15, 0.05, 0.045, 0, 30.0), *ribs]


def _details(rng: np.random.Generator, inner: Ellipse) -> list[Ellipse]:
    """Lesions and vessels, anywhere in the inner half."""

    def anywhere(a: float, hu: float) -> Ellipse:
        turn, far = rng.uniform(0, 2 * np.pi), np.sqrt(rng.uniform(0, 1)) * 0.75
        x, y = far * inner.a * np.cos(turn), far * inner.b * np.sin(turn)
        return Ellipse(x, y, a, a * rng.uniform(0.6, 1), rng.uniform(0, np.pi), hu)

    lesions = [anywhere(rng.uniform(0.03, 0.09), rng.uniform(0, 110)) for _ in range(rng.integers(3, 8))]
    vessels = [anywhere(rng.uniform(0.012, 0.035), rng.uniform(130, 320)) for _ in range(rng.integers(5, 12))]
    return lesions + vessels


def _textured(image: Slice, rng: np.random.Generator) -> Slice:
    from scipy.ndimage import gaussian_filter

    grain = gaussian_filter(rng.normal(size=image.shape), 1.0)
    grain *= TEXTURE_HU / grain.std()
    return np.asarray(np.where(image > LUNG_BELOW_HU, image + grain, image), np.float32)
