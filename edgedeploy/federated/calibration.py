"""Calibration over sites whose images stay where they are: one set of ranges from the secure sum of their histograms.

Each site sends arrays that are masked (:mod:`edgedeploy.federated.secure_sum`): how many cases it observed, the share of
values in each bin weighed by its cases, and a plane of zeros and ones that says which bins hold anything. Shares alone would
lose the tails, which are less than a step of the sum and set the ranges; the plane brings them exactly. What the coordinator
learns is the sums: of the plane, how many sites reached each bin.

The ranges are those of :func:`edgedeploy.federated.histograms.ranges_of`: never narrower than the range over all
cases of all sites, wider by at most 2^(1/16) = 4.4 % at each end.
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
from edgedeploy.federated.histograms import BINS, Floats, Histograms, Range, ranges_of
from edgedeploy.federated.secure_sum import Summed, SumSettings, secure_sum, sum_app
from edgedeploy.files import write_json
from edgedeploy.interfaces.target import BuildRequest
from edgedeploy.records.artifact import Artifact
from edgedeploy.targets.onnxruntime import OnnxRuntimeTarget

if TYPE_CHECKING:
    from flwr.clientapp import ClientApp
    from flwr.serverapp.grid import Grid

MOST_SITE_CASES: Final = 4096
"""Of one site: its shares are sent as parts of so many cases, so that no site's number of cases need be known to scale
them. A share is rounded by at most 8e-6 of one case."""

CHECK_WORDS: Final = 8
"""Words of 16 bits that say which network was observed: sums over different ones would be numbers of nothing."""

FORM: Final = "edgedeploy.ranges/1"


@dataclass(frozen=True, eq=False)
class MergedHistograms:
    """The sum over ``sites`` sites: ``shares`` (tensors, 2, BINS) are values in each bin, in values of one case;
    ``presence`` (tensors, 2, BINS) is how many sites have any there. ``dropped`` says why sites are missing, by node."""

    tensors: tuple[str, ...]
    shares: Floats
    presence: npt.NDArray[np.int64]
    cases: int
    sites: int
    model: str
    dropped: Mapping[int, str]

    def ranges(self, percentile: float = 100.0) -> dict[str, Range]:
        """See :func:`edgedeploy.federated.histograms.ranges_of`."""
        return ranges_of(self.tensors, np.maximum(self.shares, 0.0), self.presence > 0, percentile)


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
    """A site's app: ``observe`` is asked for the site's histograms when the coordinator asks for the sum."""
    return sum_app(lambda: planes(observe()), SumSettings.clip)


def merge_sites(
    grid: Grid, model: str, tensors: Sequence[str], settings: SumSettings | None = None
) -> MergedHistograms:
    """The secure sum over the sites on ``grid``, each a :func:`calibration_app`. ``model`` is the SHA-256 of the reference
    and ``tensors`` what each site observes.

    Raises ``DataError`` where a site observed another network, and what
    :func:`edgedeploy.federated.secure_sum.secure_sum` raises.
    """
    summed = secure_sum(grid, settings or SumSettings())
    expected = [(CHECK_WORDS,), (1,), (len(tensors), 2, BINS), (len(tensors), 2, BINS)]
    words = _words(model, tensors)
    if [array.shape for array in summed.arrays] != expected or not _same(summed, words):
        found = "a site observed another network, or other tensors of it"
        raise DataError("merge the sites' histograms", found, "Give every site the same reference file")
    _, part, shares, presence = summed.arrays
    cases = round(float(part[0]) * MOST_SITE_CASES)
    return MergedHistograms(
        tuple(tensors),
        shares * MOST_SITE_CASES,
        np.rint(presence).astype(np.int64),
        cases,
        summed.sites,
        model,
        summed.dropped,
    )


def _same(summed: Summed, words: Floats) -> bool:
    return bool(np.allclose(summed.arrays[0], summed.sites * words, rtol=0, atol=2 * summed.sites * summed.step))


def _words(model: str, tensors: Sequence[str]) -> Floats:
    digest = hashlib.sha256(json.dumps([model, *tensors]).encode()).digest()
    return np.frombuffer(digest[: 2 * CHECK_WORDS], ">u2") / float(1 << 16)


def int8_from_ranges(request: BuildRequest, ranges: Mapping[str, Range], folder: Path) -> Artifact:
    """An int8 artifact for ONNX Runtime in ``folder``, its activations quantized by ``ranges``. The request's calibration
    cases are not read. Raises what :meth:`OnnxRuntimeTarget.build_from_ranges` raises."""
    return OnnxRuntimeTarget().build_from_ranges(request, ranges, folder)


def write_ranges(path: Path, ranges: Mapping[str, Range], merged: MergedHistograms, percentile: float = 100.0) -> None:
    """The ranges as JSON beside what they were made of, whole or not at all."""
    told = {"sites": merged.sites, "cases": merged.cases, "model": merged.model, "percentile": percentile}
    write_json(path, {"form": FORM, **told, "ranges": {name: list(pair) for name, pair in ranges.items()}})
