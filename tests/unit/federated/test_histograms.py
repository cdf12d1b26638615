"""Histograms of activations: what they count, what ranges they give, how they add, and what a file of them may be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from small_onnx import convolutional

from edgedeploy.errors import DataError
from edgedeploy.federated import histograms
from edgedeploy.federated.histograms import WIDTH, Histograms, bins_of, counted, merged, observe, read_histograms


def feeds(count: int, seed: int, scale: float = 1.0) -> Iterator[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield {"image": (scale * rng.standard_normal((1, 3, 16, 16))).astype(np.float32)}


def exact_ranges(model: Path, cases: list[dict[str, np.ndarray]]) -> dict[str, tuple[float, float]]:
    graph = onnx.load(str(model))
    names = [name for node in graph.graph.node for name in node.output]
    graph.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name != "out")
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    values = [dict(zip(["image", *names], [case["image"], *session.run(names, case)], strict=True)) for case in cases]
    return {n: (min(v[n].min() for v in values), max(v[n].max() for v in values)) for n in ["image", *names]}


def test_every_value_lies_in_the_bin_of_its_magnitude_and_sign() -> None:
    rng = np.random.default_rng(1)
    magnitudes = 2.0 ** rng.uniform(histograms.LOWEST, histograms.HIGHEST - 1e-3, 20_000)
    signs = rng.choice([-1.0, 1.0], magnitudes.size)
    places = bins_of(signs * magnitudes)
    assert np.array_equal(places >= histograms.BINS, signs < 0)
    upper = histograms.edges()[places % histograms.BINS]
    slack = 1 + 1e-5  # logarithms are of float32
    assert np.all(magnitudes < upper * slack)
    assert np.all(magnitudes * WIDTH * slack >= upper)


def test_zeros_and_what_is_too_small_have_a_bin() -> None:
    counts = counted(np.array([0.0, -0.0, 1e-9, -1e-9]), "x")
    assert counts[0, 0] == 3
    assert counts[1, 0] == 1
    assert counts.sum() == 4


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2.0**histograms.HIGHEST])
def test_what_no_bin_is_wide_enough_for_is_refused(value: float) -> None:
    with pytest.raises(DataError, match="'x'"):
        counted(np.array([1.0, value]), "x")


def test_ranges_are_never_narrower_than_the_exact_ones_and_wider_by_a_bin_at_most(tmp_path: Path) -> None:
    model = convolutional(tmp_path / "m.onnx")
    cases = list(feeds(4, 0))
    found = observe(model, cases).ranges()
    exact = exact_ranges(model, cases)
    assert set(found) == set(exact)
    smallest = 2.0**histograms.LOWEST
    for name, (low, high) in exact.items():
        assert high * (1 - 1e-6) <= found[name][1] <= max(high * WIDTH * (1 + 1e-5), smallest)
        if low < 0:
            assert low * WIDTH * (1 + 1e-5) <= found[name][0] <= low * (1 - 1e-6) or -low < smallest
        else:
            assert found[name][0] == 0.0
    assert found["r1"][0] == 0.0, "a Relu's output has no negative side"


def test_histograms_of_sites_add_up_to_those_of_all_cases(tmp_path: Path) -> None:
    model = convolutional(tmp_path / "m.onnx")
    first, second = observe(model, feeds(2, 1)), observe(model, feeds(3, 2, 4.0))
    both = observe(model, [*feeds(2, 1), *feeds(3, 2, 4.0)])
    added = merged([first, second])
    assert np.array_equal(added.counts, both.counts)
    assert np.array_equal(added.extremes, both.extremes)
    assert added.cases == both.cases == 5
    assert added.ranges() == both.ranges()
    assert not np.array_equal(added.presence, first.presence)


def test_outputs_are_taken_in_groups_that_fit_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = convolutional(tmp_path / "m.onnx")
    whole = observe(model, feeds(1, 3))
    monkeypatch.setattr(histograms, "MOST_OUTPUT_BYTES", 8 * 16 * 16 * 4 + 1)
    assert np.array_equal(observe(model, feeds(1, 3)).counts, whole.counts)
    assert len(list(histograms._groups(whole.tensors, dict.fromkeys(whole.tensors, 8192)))) == len(whole.tensors)


def test_a_percentile_cuts_both_tails_alike(tmp_path: Path) -> None:
    values = np.concatenate([np.full(9_000, 0.5), np.full(980, -0.5), np.full(10, 100.0), np.full(10, -200.0)])
    one = Histograms(("x",), counted(values, "x")[None], np.zeros((1, 2)), 1, "m")
    assert one.ranges()["x"][1] > 100
    low, high = one.ranges(percentile=99.7)["x"]
    assert 0.5 <= high <= 0.5 * WIDTH
    assert -0.5 * WIDTH <= low <= -0.5
    assert one.ranges(percentile=99.9)["x"][1] > 100, "the bin in which the cut falls stays"


def test_other_networks_are_not_added(tmp_path: Path) -> None:
    one = Histograms(("x",), np.ones((1, 2, histograms.BINS), np.int64), np.zeros((1, 2)), 1, "a")
    with pytest.raises(DataError, match="two networks"):
        merged([one, replace(one, model="b")])
    with pytest.raises(DataError, match="there are none"):
        merged([])


def test_a_site_without_cases_and_unknown_tensors_are_told(tmp_path: Path) -> None:
    model = convolutional(tmp_path / "m.onnx")
    with pytest.raises(DataError, match="no calibration cases"):
        observe(model, [])
    with pytest.raises(DataError, match="'nowhere'"):
        observe(model, feeds(1, 0), tensors=["nowhere"])


def test_a_file_of_histograms_is_read_back_and_others_are_refused(tmp_path: Path) -> None:
    kept = observe(convolutional(tmp_path / "m.onnx"), feeds(2, 0))
    path = tmp_path / "site.npz"
    kept.save(path)
    back = read_histograms(path)
    assert (back.tensors, back.cases, back.model) == (kept.tensors, kept.cases, kept.model)
    assert np.array_equal(back.counts, kept.counts)
    bad = {
        "negative": replace(kept, counts=-kept.counts),
        "tensors too few": replace(kept, tensors=kept.tensors[1:]),
        "no cases": replace(kept, cases=0),
        "twice": replace(kept, tensors=(kept.tensors[0],) * len(kept.tensors)),
        "no magnitudes": replace(kept, extremes=kept.extremes * np.nan),
    }
    for name, wrong in bad.items():
        wrong.save(tmp_path / f"{name}.npz")
        with pytest.raises(DataError, match="read histograms"):
            read_histograms(tmp_path / f"{name}.npz")
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DataError):
        read_histograms(path)
    with pytest.raises(DataError):
        read_histograms(tmp_path / "absent.npz")
