"""Calibration and recovery across three sites, beside pooled calibration; what secure sums cost."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.clinic_kit.asked import Asked
from benchmarks.clinic_kit.secure_sites import SITES, Material, material
from benchmarks.shared.rows import Row
from edgedeploy.federated.calibration import calibration_app, int8_from_ranges, merge_sites
from edgedeploy.federated.grid import LocalGrid
from edgedeploy.federated.histograms import Histograms, Range, _exposed, merged, observe
from edgedeploy.federated.secure_sum import SumSettings, secure_sum, sum_app
from edgedeploy.targets.onnxruntime import OnnxRuntimeTarget

RANGE_BAR: Final = 0.05
DICE_BAR: Final = 0.002
COST_REPEATS: Final = 5


@lru_cache(maxsize=1)
def _observed(held: Material) -> dict[str, Histograms]:
    """Of each site, over its own calibration cases."""
    return {site: observe(held.reference.path, map(held.feed, held.calibration[site])) for site in SITES}


@lru_cache(maxsize=1)
def _secure(held: Material) -> Any:
    sites = _observed(held)
    first = sites[SITES[0]]
    apps = {number: calibration_app(lambda site=site: sites[site]) for number, site in enumerate(SITES, start=1)}
    return merge_sites(LocalGrid(apps), first.model, first.tensors)


def _coarse(held: Material) -> dict[str, Range]:
    """The ranges of the first sum alone."""
    return replace(_secure(held), ends=None).ranges()


def _pooled_cases(held: Material) -> list[Any]:
    return [case for site in SITES for case in held.calibration[site]]


def _exact(held: Material) -> dict[str, Range]:
    """The least and the largest value of each tensor over the cases of all sites, zero inside, as if they were pooled."""
    session, sizes, inputs = _exposed(held.reference.path, 1)
    names = [name for name in sizes if name not in inputs]
    low, high = dict.fromkeys(sizes, 0.0), dict.fromkeys(sizes, 0.0)
    for case in _pooled_cases(held):
        feed = held.feed(case)
        for name, values in [*feed.items(), *zip(names, session.run(names, feed), strict=True)]:
            low[name] = min(low[name], float(values.min()))
            high[name] = max(high[name], float(values.max()))
    return {name: (low[name], high[name]) for name in sizes}


def _ratios(found: Mapping[str, Range], exact: Mapping[str, Range]) -> list[float]:
    """Of each end that is not zero, found over exact."""
    ends = ((found[name][end], exact[name][end]) for name in exact for end in (0, 1))
    return [one / other for one, other in ends if abs(other) > 2.0**-14]


def ranges_within_pooled(asked: Asked) -> Row:
    """Ranges from the secure sum of three sites' histograms, beside the exact ones of the pooled cases."""
    held = material(asked.seed)
    exact = _exact(held)
    together = _ratios(_secure(held).ranges(), exact)
    alone = {site: _ratios(_observed(held)[site].ranges(), exact) for site in SITES}
    coarse = _ratios(_coarse(held), exact)
    worst = max(abs(ratio - 1) for ratio in (*together, *coarse))
    others = ", ".join(f"{site} {_furthest(ratios):.3f}" for site, ratios in alone.items())
    found = (
        f"{len(together)} ends of {len(exact)} tensors, {len(_pooled_cases(held))} {held.data} cases: by the first sum "
        f"{_spread(coarse)} of the pooled ranges, by the second {_spread(together)}; one site's alone, at the furthest: "
        f"{others}"
    )
    return Row("ranges of three sites by a secure sum", found, f"within {RANGE_BAR:.0%} of pooled", worst <= RANGE_BAR)


def _spread(ratios: Sequence[float]) -> str:
    return f"{statistics.median(ratios):.4f} ({min(ratios):.4f} to {max(ratios):.4f})"


def _furthest(ratios: Sequence[float]) -> float:
    return max(ratios, key=lambda ratio: abs(ratio - 1))


def dice_within_pooled(asked: Asked) -> Row:
    """int8 by merged ranges and by pooled calibration, on images that neither saw."""
    held = material(asked.seed)
    cases = _pooled_cases(held)
    with tempfile.TemporaryDirectory(prefix="edgedeploy-sites-") as place:
        folder = Path(place)
        target = OnnxRuntimeTarget()
        built = {
            "pooled": target.build(held.request(cases), folder / "pooled"),
            "merged": int8_from_ranges(held.request(()), _secure(held).ranges(), folder / "merged"),
            "coarse": int8_from_ranges(held.request(()), _coarse(held), folder / "coarse"),
        }
        for site in SITES:
            ranges = _observed(held)[site].ranges()
            built[site] = int8_from_ranges(held.request(()), ranges, folder / site)
        dice = {name: held.dice(artifact, folder / name) for name, artifact in built.items()}
    dice["float"] = held.dice(None, held.folder)
    means = {name: _mean(values) for name, values in dice.items()}
    delta = means["merged"] - means["pooled"]
    each = ", ".join(
        f"{site} {_of_site(held, dice['merged'], site) - _of_site(held, dice['pooled'], site):+.4f}" for site in SITES
    )
    others = ", ".join(f"{site} {means[site] - means['pooled']:+.4f}" for site in SITES)
    found = (
        f"{delta:+.4f} of pooled int8's {means['pooled']:.4f} (float {means['float']:.4f}) on {len(dice['pooled'])} "
        f"{held.data} images; by site {each}; by the first sum alone {means['coarse'] - means['pooled']:+.4f}; by ranges "
        f"of one site alone {others}"
    )
    return Row("Dice of int8 by merged ranges", found, f"within {DICE_BAR} of pooled", abs(delta) <= DICE_BAR)


def _mean(values: Mapping[Any, float]) -> float:
    return float(np.mean(list(values.values())))


def _of_site(held: Material, values: Mapping[Any, float], site: str) -> float:
    return float(np.mean([values[case] for case in held.judged[site] if case in values]))


def secure_sum_cost(asked: Asked) -> Row:
    """What three sites' histograms cost as a secure sum, beside adding them in the open."""
    held = material(asked.seed)
    sites = list(_observed(held).values())
    seen: list[Any] = []
    apps = {number: calibration_app(lambda one=one: one) for number, one in enumerate(sites, start=1)}
    merge_sites(LocalGrid(apps, seen), sites[0].model, sites[0].tensors)
    up_bytes = sum(_size(message) for message in seen if message.metadata.src_node_id in apps)
    secure_s, plain_s = [], []
    for _ in range(COST_REPEATS):
        started = time.process_time()
        merge_sites(LocalGrid(apps), sites[0].model, sites[0].tensors)
        secure_s.append(time.process_time() - started)
        started = time.process_time()
        merged(sites)
        plain_s.append(time.process_time() - started)
    with tempfile.TemporaryDirectory(prefix="edgedeploy-sites-") as place:
        sites[0].save(Path(place) / "one.npz")
        plain_bytes = (Path(place) / "one.npz").stat().st_size
    found = (
        f"{sites[0].counts.size} bins: {statistics.median(secure_s):.2f} s of CPU for three sites and the coordinator "
        f"({min(secure_s):.2f} to {max(secure_s):.2f}), {up_bytes / 3e6:.2f} MB up a site; in the open "
        f"{statistics.median(plain_s) * 1e3:.1f} ms and {plain_bytes / 1e3:.0f} kB"
    )
    return Row("a secure sum of three sites' histograms", found)


def _size(message: Any) -> int:
    from flwr.common.serde import message_to_proto

    return int(message_to_proto(message).ByteSize())


def whole_sums_are_exact(asked: Asked) -> Row:
    """Planes of zeros and ones, and counts up to 2^27, after the sum's rounding."""
    rng = np.random.default_rng(asked.seed)
    wrong = 0
    for sites in (2, 3, 5, 8):
        clip = float(2**27)
        arrays = {n: [rng.integers(0, 2, 20_000), rng.integers(0, 2**27, 20_000)] for n in range(1, sites + 1)}
        apps = {n: sum_app(lambda _, n=n, arrays=arrays: arrays[n], clip) for n in arrays}
        found = secure_sum(LocalGrid(apps), SumSettings(clip=clip))
        wrong += sum(int(np.sum(found.arrays[k] != sum(each[k] for each in arrays.values()))) for k in range(2))
    return Row("whole numbers by a secure sum of 2 to 8 sites", f"{wrong} of 160,000 sums differ", "none", wrong == 0)


ROWS = (ranges_within_pooled, dice_within_pooled, secure_sum_cost, whole_sums_are_exact)
