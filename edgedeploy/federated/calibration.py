"""Calibration over sites whose images stay where they are: one set of ranges from the secure sum of their histograms.

Each site sends arrays that are masked (:mod:`edgedeploy.federated.secure_sum`): how many cases it observed, the share of
values in each bin weighed by its cases, and a plane of zeros and ones that says which bins hold anything. Shares alone would
lose the tails, which are less than a step of the sum and set the ranges; the plane brings them exactly. What the coordinator
learns is the sums: of the plane, how many sites reached each bin.

Ranges read from these sums are never narrower than the range over all cases of all sites, and wider by at most
2^(1/16) = 4.4 % at each end. A second sum refines them: the coordinator tells the outermost occupied bin of each end, and
each site marks in which 64th of that bin its own extreme lies, if it lies there. They are then wider by at most
2^(1/1024) = 0.07 %.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from edgedeploy.errors import DataError
from edgedeploy.federated.histograms import (
    BINS,
    LOWEST,
    PER_OCTAVE,
    Floats,
    Histograms,
    Range,
    edges,
    extreme_bins,
    ranges_of,
)
from edgedeploy.federated.secure_sum import NoAggregate, Summed, SumSettings, secure_sum, sum_app
from edgedeploy.files import write_json
from edgedeploy.interfaces.target import BuildRequest
from edgedeploy.records.artifact import Artifact
from edgedeploy.reference.export import describe
from edgedeploy.targets.onnxruntime import OnnxRuntimeTarget

if TYPE_CHECKING:
    from flwr.clientapp import ClientApp
    from flwr.serverapp.grid import Grid

MOST_SITE_CASES: Final = 4096
"""Of one site: its shares are sent as parts of so many cases, so that no site's number of cases need be known to scale
them. A share is rounded by at most 8e-6 of one case."""

PARTS: Final = 64
"""Of a bin, in the second sum."""

CHECK_WORDS: Final = 8
"""Words of 16 bits that say which network was observed: sums over different ones would be numbers of nothing."""

FORM: Final = "edgedeploy.ranges/1"


@dataclass(frozen=True, eq=False)
class MergedHistograms:
    """The sum over ``sites`` sites: ``shares`` (tensors, 2, BINS) are values in each bin, in values of one case;
    ``presence`` (tensors, 2, BINS) is how many sites have any there. ``ends`` (tensors, 2) are upper bounds of the largest
    magnitudes on each side, of the second sum; None without it. ``dropped`` says why sites are missing, by node."""

    tensors: tuple[str, ...]
    shares: Floats
    presence: npt.NDArray[np.int64]
    cases: int
    sites: int
    model: str
    dropped: Mapping[int, str]
    ends: Floats | None = None

    def ranges(self, percentile: float = 100.0) -> dict[str, Range]:
        """See :func:`edgedeploy.federated.histograms.ranges_of`; at 100 by :attr:`ends`, where they are."""
        coarse = ranges_of(self.tensors, np.maximum(self.shares, 0.0), self.presence > 0, percentile)
        if self.ends is None or percentile < 100:
            return coarse
        fine = zip(self.tensors, self.ends, strict=True)
        return {name: (-float(low) if coarse[name][0] else 0.0, float(high)) for name, (high, low) in fine}


def planes(site: Histograms) -> list[npt.NDArray[Any]]:
    """What a site sends: check words (8,), cases (1,), shares and presence (tensors, 2, BINS), all from 0 to 1. Raises
    ``DataError`` for more cases than :data:`MOST_SITE_CASES`."""
    if site.cases > MOST_SITE_CASES:
        found = f"{site.cases} cases; ranges settle within hundreds"
        raise DataError("calibration of a site", found, f"Observe at most {MOST_SITE_CASES}")
    part = site.cases / MOST_SITE_CASES
    totals = np.maximum(site.totals, 1)[:, None, None]
    shares = site.counts / totals * part
    return [_words(site.model, site.tensors), np.array([part]), shares, site.presence.astype(np.float64)]


def calibration_app(observe: Callable[[], Histograms]) -> ClientApp:
    """A site's app: ``observe`` is asked for the site's histograms, once, when the coordinator asks for the first sum."""
    kept: list[Histograms] = []

    def answer(asked: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        if not kept:
            kept.append(observe())
        return refined_planes(kept[0], asked[0]) if asked else planes(kept[0])

    return sum_app(answer, SumSettings.clip)


def refined_planes(site: Histograms, outermost: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """What a site answers to ``outermost``, the bins (tensors, 2) of the merged extremes: check words (8,) and a plane
    (tensors, 2, PARTS) of zeros and ones. Raises ``DataError`` for bins of another shape."""
    wanted = np.asarray(outermost)
    if wanted.shape != site.extremes.shape:
        found = f"bins of shape {wanted.shape} for {len(site.tensors)} tensors"
        raise DataError("the second sum of a calibration", found, "Give every site the same reference file")
    own = extreme_bins(site.counts)
    bottom = LOWEST + (wanted - 1) / PER_OCTAVE
    with np.errstate(divide="ignore"):
        part = np.floor((np.log2(site.extremes) - bottom) * PER_OCTAVE * PARTS)
    marked = np.clip(part, 0, PARTS - 1)[..., None] == np.arange(PARTS)
    there = (own == wanted) & (own > 0)  # bin 0 has no lower edge to count from
    return [_words(site.model, site.tensors), (marked & there[..., None]).astype(np.float64)]


def merge_sites(
    grid: Grid, model: str, tensors: Sequence[str], settings: SumSettings | None = None, *, refine: bool = True
) -> MergedHistograms:
    """The secure sum over the sites on ``grid``, each a :func:`calibration_app`. ``model`` is the SHA-256 of the reference
    and ``tensors`` what each site observes. ``refine`` asks for the second sum.

    Raises ``DataError`` where a site observed another network, and what
    :func:`edgedeploy.federated.secure_sum.secure_sum` raises.
    """
    chosen = settings or SumSettings()
    words, plane = _words(model, tensors), (len(tensors), 2, BINS)
    summed = _checked(secure_sum(grid, chosen), words, [(1,), plane, plane])
    _, part, shares, presence = summed.arrays
    present = _sound(part, shares, presence, summed)
    ends = _refined(grid, chosen, words, present, summed) if refine else None
    cases = round(float(part[0]) * MOST_SITE_CASES)
    most = shares * MOST_SITE_CASES
    return MergedHistograms(tuple(tensors), most, present, cases, summed.sites, model, summed.dropped, ends)


def _sound(part: Floats, shares: Floats, presence: Floats, summed: Summed) -> npt.NDArray[np.int64]:
    """How many sites reached each bin. Raises ``DataError`` where the sums are none of histograms: a site that sends less
    than nothing would take away what others saw, and make ranges narrower. What is hidden in a sum that is one is not found.
    """
    present = np.rint(presence).astype(np.int64)
    slack = (2 * BINS + 2) * summed.sites * summed.step
    counted = shares.sum(axis=(1, 2))
    known = present.any(axis=(1, 2))
    faults = {
        "counts of sites that are none": (np.abs(presence - present) > slack).any() or (present < 0).any(),
        "more sites in a bin than there are": (present > summed.sites).any(),
        "shares below zero": (shares < -slack).any(),
        "shares in bins that no site reached": (shares[present == 0] > slack).any(),
        "shares that are not those of the cases": (np.abs(counted - float(part[0])) > slack)[known].any(),
        "no cases": float(part[0]) < 0.5 / MOST_SITE_CASES,
    }
    fault = next((words for words, found in faults.items() if found), "")
    if fault:
        found = f"the sums have {fault}: a site sent what is no histogram"
        raise DataError("merge the sites' histograms", found, "Ask the sites: which one it is cannot be seen here")
    return present


def _refined(
    grid: Grid, settings: SumSettings, words: Floats, presence: npt.NDArray[np.int64], first: Summed
) -> Floats:
    """Upper bounds (tensors, 2) of the largest magnitudes. Raises ``NoAggregate`` where other sites answered than before:
    those that went may hold the extremes."""
    outermost = extreme_bins(presence)
    summed = _checked(secure_sum(grid, settings, [outermost]), words, [(*outermost.shape, PARTS)])
    if (summed.sites, {*summed.dropped}) != (first.sites, {*first.dropped}):
        found = f"{summed.sites} sites answered, and {first.sites} the first; missing now: {sorted(summed.dropped)}"
        raise NoAggregate("the second sum of a calibration", found, "Run it again, or without the second sum")
    marked = np.rint(summed.arrays[1]) > 0
    last = PARTS - 1 - np.argmax(marked[..., ::-1], axis=-1)
    fine = 2.0 ** (LOWEST + (outermost - 1 + (last + 1) / PARTS) / PER_OCTAVE)
    coarse = edges()[np.maximum(outermost, 0)]
    return np.asarray(np.where(marked.any(axis=-1), fine, coarse))


def _checked(summed: Summed, words: Floats, shapes: Sequence[tuple[int, ...]]) -> Summed:
    """``summed``, of sites that observed the same network."""
    if [array.shape for array in summed.arrays] != [(CHECK_WORDS,), *shapes] or not _same(summed, words):
        found = "a site observed another network, or other tensors of it"
        raise DataError("merge the sites' histograms", found, "Give every site the same reference file")
    return summed


def _same(summed: Summed, words: Floats) -> bool:
    return bool(np.allclose(summed.arrays[0], summed.sites * words, rtol=0, atol=2 * summed.sites * summed.step))


def _words(model: str, tensors: Sequence[str]) -> Floats:
    digest = hashlib.sha256(json.dumps([model, *tensors]).encode()).digest()
    return np.frombuffer(digest[: 2 * CHECK_WORDS], ">u2") / float(1 << 16)


def int8_from_ranges(request: BuildRequest, ranges: Mapping[str, Range], folder: Path) -> Artifact:
    """An int8 artifact for ONNX Runtime in ``folder``, its activations quantized by ``ranges``. The request's calibration
    cases are not read. Raises what :meth:`OnnxRuntimeTarget.build_from_ranges` raises."""
    return OnnxRuntimeTarget().build_from_ranges(request, ranges, folder)


def int8_file(reference: Path, ranges: Mapping[str, Range], folder: Path) -> Artifact:
    """As :func:`int8_from_ranges`, of a float32 ONNX file by itself."""
    told = describe(reference)
    request = BuildRequest(reference, told.inputs, told.outputs, "int8", lambda: iter(()))
    return int8_from_ranges(request, ranges, folder)


def write_ranges(path: Path, ranges: Mapping[str, Range], merged: MergedHistograms, percentile: float = 100.0) -> None:
    """The ranges as JSON beside what they were made of, whole or not at all."""
    told = {"sites": merged.sites, "cases": merged.cases, "model": merged.model, "percentile": percentile}
    write_json(path, {"form": FORM, **told, "ranges": {name: list(pair) for name, pair in ranges.items()}})
