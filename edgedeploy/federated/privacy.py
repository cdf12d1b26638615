"""Ranges with differential privacy: what a site sends says little of any one image, or of any one patient.

What is private is a unit: one image, or all images of one patient where patients are known. Two sets of cases are neighbours
when one has one unit more. A site sends one vector of whole numbers: of each end of each tensor, the sum over its units of
log2 of the unit's largest magnitude there less a public centre, and last how many units there are. Each unit's part is
cut to a length of ``reach_octaves`` times the root of the number of ends, so that one unit changes the vector by at most
:func:`sensitivity`. To each number the site adds noise of the discrete Gaussian distribution (Canonne, Kamath & Steinke
2020, arXiv 2004.00010, algorithms 1 to 3, by the system's random numbers, exactly), which is rho-zCDP with
rho = D^2 / (2 sigma^2), and (epsilon, delta)-DP with epsilon = rho + 2 sqrt(rho log(1/delta)) (Bun & Steinke 2016, arXiv
1605.02065). Every site adds all of the noise: its own message is private also from the coordinator, without the secure sum.

Nothing else may leave in this way of calibrating: no histogram, no plane of presence. Centres have to be public: made-up
images, or images that anybody may see. A second calibration of the same images adds its epsilon to that of the first.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edgedeploy.errors import DataError, SpecError
from edgedeploy.federated.histograms import LOWEST, Floats, Histograms, Range
from edgedeploy.federated.secure_sum import Summed

PER_OCTAVE: Final = 64
"""Whole numbers that an octave is sent as."""
CLIP: Final = float(1 << 20)
"""Of the secure sum. Larger numbers are cut to it after the noise, which costs no privacy."""

Ends = tuple[tuple[str, int], ...]
"""A tensor and its side: 0 from zero up, 1 negative."""
RandBelow = Callable[[int], int]
"""A whole number from 0 up, below the argument."""


@dataclass(frozen=True)
class PrivacySettings:
    """``epsilon`` and ``delta`` of one calibration; ``reach_octaves``: how far a unit's extremes may lie from the centres
    (root of the mean square over the ends) before they are drawn nearer."""

    epsilon: float
    delta: float = 1e-5
    reach_octaves: float = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.epsilon < 100 and 0 < self.delta < 1 and 0 < self.reach_octaves <= 64):
            found = f"epsilon {self.epsilon}, delta {self.delta}, reach {self.reach_octaves}"
            raise SpecError(
                "differential privacy", found, "State an epsilon above 0, a delta between 0 and 1, a reach to 64"
            )

    @property
    def rho(self) -> float:
        """Of zero-concentrated differential privacy: the largest that gives ``epsilon`` at ``delta``."""
        spread = math.log(1 / self.delta)
        return (math.sqrt(spread + self.epsilon) - math.sqrt(spread)) ** 2


@dataclass(frozen=True, eq=False)
class Centres:
    """What anybody may know: ``ends`` with the mean ``log2`` of their largest magnitudes over public cases, and by how much
    the largest lies above the mean (``headroom``, octaves); both (ends,)."""

    ends: Ends
    log2: Floats
    headroom: Floats

    @classmethod
    def of(cls, public: Sequence[Histograms], ends: Ends) -> Centres:
        """From the histograms of public cases, one by one."""
        found = np.stack([_logs(case, ends) for case in public])
        return cls(ends, found.mean(axis=0), found.max(axis=0) - found.mean(axis=0))


@dataclass(frozen=True, eq=False)
class PrivateRanges:
    """``ranges`` by tensor, made with differential privacy: ``epsilon`` and ``delta`` of a ``unit``, for each site's message
    by itself. ``units`` is their number as far as the noise tells; ``sigma_octaves`` the noise of each end's mean."""

    ranges: Mapping[str, Range]
    epsilon: float
    delta: float
    unit: str
    units: float
    sigma_octaves: float

    def as_json(self) -> dict[str, Any]:
        told = {"epsilon": self.epsilon, "delta": self.delta, "unit": self.unit, "neighbours": "one unit more or less"}
        return {**told, "units": self.units, "sigma_octaves": self.sigma_octaves, "ranges": dict(self.ranges)}


def ends_of(model: Any, tensors: Sequence[str]) -> Ends:
    """The ends of ``tensors`` that a range needs: no negative one where the graph says that there is none, and none of what
    only a Relu reads, whose range is that of the Relu's output."""
    positive: set[str] = set()
    readers: dict[str, set[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
        kept = node.op_type in ("MaxPool", "AveragePool", "Concat", "Resize", "Identity", "Upsample")
        if node.op_type in ("Relu", "Sigmoid", "Softmax") or (kept and node.input[0] in positive):
            inputs = node.input if node.op_type == "Concat" else node.input[:1]
            if not kept or all(name in positive for name in inputs):
                positive.update(node.output)
    wanted = [name for name in tensors if readers.get(name) != {"Relu"}]
    return tuple((name, side) for name in wanted for side in (0, 1) if side == 0 or name not in positive)


def sensitivity(ends: int, settings: PrivacySettings) -> float:
    """The largest length (L2) by which one unit changes a site's vector: its cut part, half a step of rounding at each end,
    and its count, which has half that weight: it divides all the others."""
    step = settings.reach_octaves * PER_OCTAVE
    return math.hypot(math.sqrt(ends) * (step + 0.5), _count_weight(ends, settings))


def sigma2(ends: int, settings: PrivacySettings) -> Fraction:
    """Variance parameter of the noise, in steps squared; rounded up."""
    return Fraction(math.ceil(sensitivity(ends, settings) ** 2 / (2 * settings.rho)))


def _count_weight(ends: int, settings: PrivacySettings) -> int:
    return math.ceil(settings.reach_octaves * PER_OCTAVE * math.sqrt(ends) / 2)


def most_units(ends: int, settings: PrivacySettings) -> int:
    """Of one site: with noise of 12 standard deviations on top, their count is below :data:`CLIP`."""
    return max(0, int((CLIP - 12 * math.sqrt(sigma2(ends, settings))) / _count_weight(ends, settings)))


def private_plane(
    units: Sequence[Histograms], centres: Centres, settings: PrivacySettings, rand_below: RandBelow = secrets.randbelow
) -> list[npt.NDArray[np.float64]]:
    """What a site sends: one array (ends + 1,) of whole numbers. ``units`` are the histograms of each image, or of each
    patient (their images :func:`~edgedeploy.federated.histograms.merged`). Raises ``DataError`` for more of them than the
    sum has room for: their count would be cut, and all ranges with it."""
    ends = len(centres.ends)
    if len(units) > (room := most_units(ends, settings)):
        raise DataError("private ranges", f"{len(units)} units", f"Give at most {room}: ranges settle within hundreds")
    total = np.zeros(ends + 1, np.int64)
    for unit in units:
        part = _logs(unit, centres.ends) - centres.log2
        length, most = float(np.linalg.norm(part)), settings.reach_octaves * math.sqrt(ends)
        part = part * min(1.0, most / length) if length > 0 else part
        total += np.append(np.rint(part * PER_OCTAVE).astype(np.int64), _count_weight(ends, settings))
    variance = sigma2(ends, settings)
    noise = np.array([discrete_gaussian(variance, rand_below) for _ in range(ends + 1)])
    return [np.clip((total + noise).astype(np.float64), -CLIP, CLIP)]


def private_ranges(summed: Summed, centres: Centres, settings: PrivacySettings, unit: str) -> PrivateRanges:
    """The ranges of the sum over sites, each a :func:`private_plane`; ``unit`` names what is private: ``"image"`` or
    ``"patient"``. Raises ``DataError`` where the noise hides that there are any units."""
    (found,) = summed.arrays
    if found.shape != (len(centres.ends) + 1,):
        raise DataError("private ranges", f"a sum of shape {found.shape}", "Give every site the same centres")
    units = float(found[-1]) / _count_weight(len(centres.ends), settings)
    if units < 1:
        told = f"{units:.1f} units after noise for epsilon {settings.epsilon}"
        raise DataError("private ranges", told, "Bring more cases, or state a larger epsilon")
    ends = centres.log2 + found[:-1] / PER_OCTAVE / units + centres.headroom
    low, high = dict.fromkeys((name for name, _ in centres.ends), 0.0), {}
    for (name, side), place in zip(centres.ends, ends, strict=True):
        bound = float(2.0 ** min(max(place, LOWEST), 64.0))
        if side:
            low[name] = -bound
        else:
            high[name] = bound
    sigma = math.sqrt(summed.sites * sigma2(len(centres.ends), settings)) / PER_OCTAVE / units
    ranges = {name: (low[name], high[name]) for name in low}
    return PrivateRanges(ranges, settings.epsilon, settings.delta, unit, units, sigma)


def _logs(unit: Histograms, ends: Ends) -> Floats:
    places = {name: place for place, name in enumerate(unit.tensors)}
    found = np.array([unit.extremes[places[name], side] for name, side in ends])
    return np.asarray(np.log2(np.maximum(found, 2.0**LOWEST)))


def discrete_gaussian(variance: Fraction, rand_below: RandBelow = secrets.randbelow) -> int:
    """A whole number x with a chance in proportion to exp(-x^2 / (2 ``variance``)), exactly: algorithm 3."""
    scale = math.isqrt(math.floor(variance)) + 1
    while True:
        drawn = _discrete_laplace(scale, rand_below)
        bias = (abs(drawn) - variance / scale) ** 2 / (2 * variance)
        if _bernoulli_exp(bias, rand_below):
            return drawn


def _discrete_laplace(scale: int, rand_below: RandBelow) -> int:
    """Chances in proportion to exp(-|x| / ``scale``): algorithm 2, for a whole scale."""
    while True:
        fine = rand_below(scale)
        if not _bernoulli_exp(Fraction(fine, scale), rand_below):
            continue
        whole = 0
        while _bernoulli_exp(Fraction(1), rand_below):
            whole += 1
        found = fine + scale * whole
        if rand_below(2):
            if found:
                return -found
            continue
        return found


def _bernoulli_exp(power: Fraction, rand_below: RandBelow) -> bool:
    """True with a chance of exp(-``power``): algorithm 1."""
    while power > 1:
        if not _bernoulli_exp(Fraction(1), rand_below):
            return False
        power -= 1
    number = 1
    while rand_below(power.denominator * number) < power.numerator:
        number += 1
    return number % 2 == 1
