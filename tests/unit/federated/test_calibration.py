"""Calibration over sites: merged ranges against those of all cases together, and the int8 files that come of both."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from small_onnx import convolutional

from edgedeploy.errors import BuildError, DataError, Unsupported
from edgedeploy.federated.calibration import (
    MOST_SITE_CASES,
    calibration_app,
    int8_from_ranges,
    merge_sites,
    planes,
    write_ranges,
)
from edgedeploy.federated.grid import LocalGrid
from edgedeploy.federated.histograms import BINS, WIDTH, Histograms, merged, observe
from edgedeploy.federated.secure_sum import NoAggregate, SumSettings, step_of, sum_app
from edgedeploy.files import read_json
from edgedeploy.interfaces.target import BuildRequest
from edgedeploy.reference.export import describe
from edgedeploy.targets.onnxruntime import OnnxRuntimeTarget

SCALES = {1: 0.5, 2: 1.0, 3: 3.0}
"""Images of the third site are brighter: its tails set the ranges."""


def cases_of(site: int, count: int = 3) -> list[dict[str, Any]]:
    rng = np.random.default_rng(site)
    return [{"image": (SCALES[site] * rng.standard_normal((1, 3, 16, 16))).astype(np.float32)} for _ in range(count)]


def pooled() -> list[dict[str, Any]]:
    return [case for site in SCALES for case in cases_of(site)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convolutional(tmp_path_factory.mktemp("model") / "m.onnx")


@pytest.fixture(scope="module")
def sites(model: Path) -> dict[int, Histograms]:
    return {site: observe(model, cases_of(site)) for site in SCALES}


def merge(sites: dict[int, Histograms], model: Histograms | None = None, *, refine: bool = False) -> Any:
    grid = LocalGrid({site: calibration_app(lambda site=site: sites[site]) for site in sites})
    first = model or next(iter(sites.values()))
    return merge_sites(grid, first.model, first.tensors, refine=refine)


def request_of(model: Path, cases: list[dict[str, Any]] | None) -> BuildRequest:
    reference = describe(model)

    def calibration() -> Any:
        assert cases is not None, "no case may be read"
        return iter(cases)

    return BuildRequest(model, reference.inputs, reference.outputs, "int8", calibration)


def scales_of(folder: Path) -> list[float]:
    """Scales of the activations, in the order of the file."""
    graph = onnx.load(str(folder / "model.onnx")).graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    quantized = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    return [float(constants[node.input[1]]) for node in quantized if node.input[0] not in constants]


def test_the_secure_sum_gives_the_ranges_of_the_plain_one(sites: dict[int, Histograms]) -> None:
    secure, plain = merge(sites), merged(list(sites.values()))
    assert secure.ranges() == plain.ranges()
    assert (secure.cases, secure.sites) == (9, 3)
    presence = sum(site.presence.astype(int) for site in sites.values())
    assert np.array_equal(secure.presence, presence)
    assert np.abs(secure.shares - plain.counts / (plain.totals / 9)[:, None, None]).max() < 3 * 2**-29 * MOST_SITE_CASES
    assert secure.ranges(99.0) == plain.ranges(99.0)


def test_the_plane_of_presence_brings_tails_that_are_less_than_a_step_of_the_sum() -> None:
    """One value of a tensor of 64 million: its share vanishes among the steps, and it sets the range."""
    counts = np.zeros((1, 2, BINS), np.int64)
    counts[0, 0, 100] = 2**26
    plain = Histograms(("x",), counts, np.zeros((1, 2)), 1, "m")
    tail = replace(plain, counts=counts + np.eye(1, 2 * BINS, 300, dtype=np.int64).reshape(1, 2, BINS))
    found = merge({1: plain, 2: plain, 3: tail})
    assert planes(tail)[2][0, 0, 300] < step_of(1.0, 3) / 100
    assert found.presence[0, 0, 300] == 1
    assert found.ranges() == tail.ranges() != plain.ranges()


def test_one_sites_ranges_are_not_those_of_all(sites: dict[int, Histograms]) -> None:
    everyone, alone = merge(sites).ranges(), sites[1].ranges()
    assert everyone["image"][1] > 3 * alone["image"][1]


def test_int8_by_merged_ranges_is_within_a_bin_of_int8_by_pooled_calibration(
    model: Path, sites: dict[int, Histograms], tmp_path: Path
) -> None:
    OnnxRuntimeTarget().build(request_of(model, pooled()), tmp_path / "pooled")
    int8_from_ranges(request_of(model, None), merge(sites).ranges(), tmp_path / "merged")
    by_pooled, by_merged = scales_of(tmp_path / "pooled"), scales_of(tmp_path / "merged")
    assert len(by_pooled) == len(by_merged) > 0
    ratios = np.array(by_merged) / np.array(by_pooled)
    assert np.all(ratios >= 1 - 1e-6)
    assert np.all(ratios <= WIDTH * (1 + 1e-5))
    assert ratios.max() > 1.001, "they are not read from the same cases"


def test_a_second_sum_brings_the_ranges_within_a_tenth_of_a_percent(sites: dict[int, Histograms]) -> None:
    found, extremes = merge(sites, refine=True), merged(list(sites.values())).extremes
    for (name, (low, high)), (most, least) in zip(found.ranges().items(), extremes, strict=True):
        assert most * (1 - 1e-6) <= high <= max(most * 2 ** (1 / 1024) * (1 + 1e-6), 2.0**-14), name
        assert least * (1 - 1e-6) <= -low <= least * 2 ** (1 / 1024) * (1 + 1e-6), name
    assert found.ranges(99.0) == merge(sites).ranges(99.0)


def test_a_second_sum_of_other_sites_is_no_refinement(sites: dict[int, Histograms]) -> None:
    """The third site, whose tails set the ranges, goes between the two sums."""
    answered = []
    apps: dict[int, Any] = {site: calibration_app(lambda site=site: sites[site]) for site in sites}
    inner = apps[3]

    def going(message: Any, context: Any) -> Any:
        answered.append(message)
        if len(answered) > 4:
            raise ConnectionError("gone")
        return inner(message, context)

    grid = LocalGrid({**apps, 3: going})
    with pytest.raises(NoAggregate, match="2 sites answered, and 3 the first"):
        merge_sites(grid, sites[1].model, sites[1].tensors)


def test_the_ranges_that_are_given_are_those_in_the_file(model: Path, tmp_path: Path) -> None:
    ranges = observe(model, cases_of(1)).ranges()
    wide = {name: (4 * low, 4 * high) for name, (low, high) in ranges.items()}
    for name, given in (("once", ranges), ("four", wide)):
        int8_from_ranges(request_of(model, None), given, tmp_path / name)
    ratios = np.array(scales_of(tmp_path / "four")) / np.array(scales_of(tmp_path / "once"))
    assert np.allclose(ratios, 4)


def test_ranges_that_are_missing_or_of_another_precision_are_told(model: Path, tmp_path: Path) -> None:
    ranges = observe(model, cases_of(1)).ranges()
    with pytest.raises(BuildError):
        int8_from_ranges(request_of(model, None), {"image": ranges["image"]}, tmp_path / "few")
    assert not (tmp_path / "few" / "model.onnx").exists()
    with pytest.raises(Unsupported, match="float32 from given ranges"):
        int8_from_ranges(replace(request_of(model, None), precision="float32"), ranges, tmp_path / "float")


def test_a_site_with_another_network_is_found(sites: dict[int, Histograms], tmp_path: Path, model: Path) -> None:
    other = replace(sites[2], model="0" * 64)
    with pytest.raises(DataError, match="another network"):
        merge({**sites, 2: other}, sites[1])


def test_a_site_of_too_many_cases_is_told(sites: dict[int, Histograms]) -> None:
    with pytest.raises(DataError, match="4097 cases"):
        planes(replace(sites[1], cases=MOST_SITE_CASES + 1))


def test_ranges_are_written_with_what_they_were_made_of(sites: dict[int, Histograms], tmp_path: Path) -> None:
    found = merge(sites)
    write_ranges(tmp_path / "ranges.json", found.ranges(), found)
    kept = read_json(tmp_path / "ranges.json")
    assert (kept["sites"], kept["cases"]) == (3, 9)
    assert {name: tuple(pair) for name, pair in kept["ranges"].items()} == found.ranges()


def lying(site: Histograms, plane: int, change: Any) -> Any:
    """The app of a site that sends something else in place of one of its arrays."""

    def answer(asked: Any) -> list[Any]:
        sent = planes(site)
        sent[plane] = change(sent[plane])
        return sent

    return sum_app(answer, SumSettings.clip)


@pytest.mark.parametrize(
    ("plane", "change", "said"),
    [
        (3, lambda presence: -presence, "counts of sites that are none"),
        (2, lambda shares: -shares, "shares below zero"),
        (2, lambda shares: shares * 0.5, "not those of the cases"),
        (1, lambda part: -3 * part, "not those of the cases"),
        (3, lambda presence: presence * 0.5, "counts of sites that are none"),
    ],
)
def test_a_site_that_takes_away_what_others_saw_is_told(
    sites: dict[int, Histograms], plane: int, change: Any, said: str
) -> None:
    apps = {1: calibration_app(lambda: sites[1]), 2: lying(sites[3], plane, change)}
    with pytest.raises(DataError, match=said):
        merge_sites(LocalGrid(apps), sites[1].model, sites[1].tensors, refine=False)
