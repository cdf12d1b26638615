"""Calibration and recovery across three sites, beside pooled calibration; what secure sums cost."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx

from benchmarks import ROOT
from benchmarks.clinic_kit.secure_sites import SITES, Material, material
from benchmarks.shared.rows import Asked, Row
from edgedeploy.errors import DataError
from edgedeploy.federated.calibration import calibration_app, int8_from_ranges, merge_sites
from edgedeploy.federated.grid import LocalGrid
from edgedeploy.federated.histograms import Histograms, Range, exposed, merged, observe, observed
from edgedeploy.federated.privacy import Centres, PrivacySettings, ends_of, private_plane, private_ranges
from edgedeploy.federated.secure_sum import Summed, SumSettings, secure_sum, sum_app
from edgedeploy.targets.onnxruntime import OnnxRuntimeTarget
from edgedeploy.tasks.segmentation.ultrasound import SyntheticUltrasound, UltrasoundOptions

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
    session, sizes, inputs = exposed(held.reference.path, 1)
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


EPSILONS: Final = (1.0, 4.0, 8.0)
NOISES: Final = 20
COPIES: Final = (1, 10)


def ranges_under_privacy(asked: Asked) -> Row:
    """How far ranges with differential privacy lie from the pooled ones, for 45 images and for ten times as many."""
    held = material(asked.seed)
    exact = _exact(held)
    observed_units = {
        site: list(observed(held.reference.path, map(held.feed, held.calibration[site]))) for site in SITES
    }
    model = onnx.load(str(held.reference.path))
    ends = ends_of(model, observed_units["A"][0].tensors)
    ends = tuple((name, side) for name, side in ends if abs(exact[name][1 - side]) > 2.0**-14)
    made_up = SyntheticUltrasound(UltrasoundOptions(resolutions=(128,)))
    public = [dict(made_up.inputs(case, **held.arch)) for case in made_up.cases("calibration")[:16]]
    centres = Centres.of(list(observed(held.reference.path, public)), ends)
    truth = np.log2([abs(exact[name][1 - side]) for name, side in ends])
    without = np.abs(centres.log2 + centres.headroom - truth)
    told = [f"made-up images alone {_octaves(without)}"]
    for copies in COPIES:
        units = {site: each * copies for site, each in observed_units.items()}
        count = sum(map(len, units.values()))
        for epsilon in EPSILONS:
            told.append(f"{count} images, epsilon {epsilon:g}: {_private_errors(units, centres, epsilon, truth)}")
    found = f"{len(ends)} ends, delta 1e-5, {NOISES} draws of the noise, {held.data} images; {'; '.join(told)}"
    return Row("ranges with differential privacy of an image, off by (median, worst)", found)


def _private_errors(units: Mapping[str, Sequence[Histograms]], centres: Centres, epsilon: float, truth: Any) -> str:
    """By the sum in the open: the secure sum gives the same whole numbers."""
    settings, errors, refused = PrivacySettings(epsilon), [], 0
    for _ in range(NOISES):
        planes = [private_plane(each, centres, settings)[0] for each in units.values()]
        try:
            summed = Summed((np.sum(planes, axis=0),), len(planes), {}, 1.0)
            ranges = private_ranges(summed, centres, settings, "image").ranges
        except DataError:
            refused += 1
            continue
        errors.append(np.abs(np.log2([abs(ranges[name][1 - side]) for name, side in centres.ends]) - truth))
    lost = f", {refused} of {NOISES} refused" if refused else ""
    return f"{_octaves(np.array(errors)) if errors else 'none'}{lost}"


def _octaves(errors: Any) -> str:
    """Distances in octaves, as ratios."""
    return f"x {2.0 ** float(np.median(errors)):.2f}, x {2.0 ** min(60.0, float(np.max(errors))):.3g}"


def recovery_survives(asked: Asked) -> Row:
    """Rounds over three processes, of which one is killed by SIGKILL in round 2; the server is killed in round 3 and begun
    again. The sites' training is made up (each adds a number): what is shown is what survives, not what is learned."""
    with tempfile.TemporaryDirectory(prefix="edgedeploy-rounds-") as place:
        folder = Path(place)
        (folder / "3.kill-2").touch()
        (folder / "slow").touch()
        command = [sys.executable, str(ROOT / "tests" / "faults" / "federated" / "rounds_server.py"), str(folder), "4"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        while not (folder / "2.in-3").exists() and server.poll() is None:
            time.sleep(0.02)
        server.kill()
        server.communicate()
        (folder / "slow").unlink()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rounds, value, *_ = json.loads(done.stdout)
        first = (folder / "1.log").read_text().split()
    expected = 3 * 14 / 6 + 5 / 3
    whole = rounds == 4 and abs(value - expected) < 1e-9 and first.count("1") == first.count("2") == 1
    found = (
        f"{rounds} rounds, weights {value:.6f} where {expected:.6f} is due; site 1 trained rounds {', '.join(first)} (a "
        f"simulation of training, real processes and SIGKILL)"
    )
    return Row("rounds with a killed site and a killed server", found, "all rounds, none lost", whole)


ROWS = (
    ranges_within_pooled,
    dice_within_pooled,
    secure_sum_cost,
    whole_sums_are_exact,
    ranges_under_privacy,
    recovery_survives,
)
