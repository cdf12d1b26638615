"""A scan of a slice and what is reconstructed of it: parallel beam by scikit-image, with the noise of few photons.

With mu the attenuation in 1/mm and p its integral along a ray, a detector counts N ~ Poisson(photons * exp(-p)) and the
scanner takes p' = -ln(max(N, 1) / photons) (Kak and Slaney, Principles of Computerized Tomographic Imaging, 1988,
chapter 4). Filtered back projection with a Hann window makes the image. Beam hardening, scatter and the noise of
electronics are left out.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edgedeploy.tasks.lowdose.phantoms import AIR_HU, Seed, Slice

WATER_PER_MM: Final = 0.0192
"""Attenuation of water at 70 keV, about the mean energy of a beam of 120 kV (NIST, XCOM: 0.192 / cm)."""

FILTER: Final = "hann"

Sinogram = npt.NDArray[np.float64]
"""(detectors, views): line integrals without unit."""


@dataclass(frozen=True)
class Scanner:
    """``photons`` are those that a ray starts with; ``field_mm`` is the side of the image; ``views`` over half a turn,
    0 for pi / 2 times the image's side in pixels, below which a parallel beam is undersampled (Kak and Slaney, chapter
    5)."""

    photons: float
    field_mm: float = 400.0
    views: int = 0

    def angles_deg(self, side: int) -> npt.NDArray[np.float64]:
        return np.linspace(0.0, 180.0, self.views or math.ceil(math.pi / 2 * side), endpoint=False)


def scanned(image: Slice, scanner: Scanner, seed: Seed) -> tuple[Slice, Slice]:
    """The slice as it is reconstructed from ``scanner.photons``, and from so many that no noise is left; both in HU.

    The second is what the first is held against: it has the same scanner's sharpness, so that a network learns to take
    noise away and not to invent edges.
    """
    integrals = projected(image, scanner)
    return (
        reconstructed(noisy(integrals, scanner.photons, seed), len(image), scanner),
        reconstructed(integrals, len(image), scanner),
    )


def projected(image: Slice, scanner: Scanner) -> Sinogram:
    """Line integrals of a slice (side, side) in HU, all of whose body lies within the circle that touches the sides."""
    from skimage.transform import radon

    attenuation = _per_mm(image).astype(np.float64)
    with _quiet():
        found = radon(attenuation, theta=scanner.angles_deg(len(image)), circle=True)
    return np.asarray(found * scanner.field_mm / len(image), np.float64)


def noisy(integrals: Sinogram, photons: float, seed: Seed) -> Sinogram:
    """Line integrals as they are measured with so many photons a ray."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(photons * np.exp(-integrals))
    return np.asarray(-np.log(np.maximum(counts, 1) / photons), np.float64)


def reconstructed(integrals: Sinogram, side: int, scanner: Scanner) -> Slice:
    """The slice (side, side) in HU. Outside of the scanned circle it is air."""
    from skimage.transform import iradon

    angles = scanner.angles_deg(side)
    per_pixel = iradon(integrals, theta=angles, output_size=side, filter_name=FILTER, circle=True)
    found = per_pixel * side / scanner.field_mm
    return np.asarray(np.maximum((found / WATER_PER_MM - 1.0) * 1000.0, -1024.0), np.float32)


def _per_mm(image: Slice) -> Slice:
    """HU are a thousandth of water's attenuation, with water at 0 and air at -1000."""
    return np.asarray(np.maximum(image - np.float32(AIR_HU), 0) * np.float32(WATER_PER_MM / 1000.0), np.float32)


@contextmanager
def _quiet() -> Iterator[Any]:
    """scikit-image warns of any value outside of the circle, also of rounding."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Radon transform", UserWarning)
        yield
