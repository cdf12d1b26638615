"""The JSON files of trtexec: recorded ones of an A100 (TensorRT 8.4), and damaged ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgedeploy.errors import MeasurementError, Unstable
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.reference.parity import check_executed
from edgedeploy.targets.tensorrt.trtexec.exports import (
    Times,
    executed,
    join,
    read_layers,
    read_outputs,
    read_profile,
    read_times,
)


@pytest.fixture(scope="module")
def recorded(shared: Path) -> Path:
    return shared / "recorded" / "trtexec_json"


def text_of(recorded: Path, name: str) -> str:
    return (recorded / name).read_text(encoding="utf-8")


@pytest.mark.shared
def test_recorded_times(recorded: Path) -> None:
    """Its first 40 queries are the warm-up (200 ms), which this release exported too; the summary is of the others."""
    text = text_of(recorded, "a100_resnet_fp16.times.first40.json")
    rows = json.loads(text)
    times = read_times(text, warmup_ms=0)
    assert times.compute_ms == tuple(row["computeMs"] for row in rows)
    assert times.median_ms == pytest.approx(0.84384, abs=1e-3)
    assert times.cov_percent == pytest.approx(np.std(times.compute_ms) / np.mean(times.compute_ms) * 100)
    summary = json.loads(text_of(recorded, "a100_resnet_fp16.profile.metadata.json"))["performance_summary"]
    assert times.median_ms == pytest.approx(summary["GPU Compute Time"][3], rel=0.03)
    assert times.percentile_ms(90) is None, "40 queries are too few to state it"
    with pytest.raises(MeasurementError, match="all 40 queries"):
        read_times(text, warmup_ms=200)


@pytest.mark.shared
@pytest.mark.parametrize(("model", "ran"), [("fp16", {"float16": 21}), ("qat", {"int8": 21})])
def test_recorded_layers_and_their_times(recorded: Path, model: str, ran: dict[str, int]) -> None:
    profile = read_profile(text_of(recorded, f"a100_resnet_{model}.profile.json"))
    layers = join(read_layers(text_of(recorded, f"a100_resnet_{model}.layerinfo.json")), profile)
    assert sum(layer.share_percent or 0 for layer in layers) == pytest.approx(100, abs=0.01)
    assert {layer.name for layer in layers} >= set(profile)
    assert executed(layers) == ran, "20 convolutions and the classifier of a ResNet-18"
    check_executed(next(iter(ran)), executed(layers))
    first = next(layer for layer in layers if layer.kind == "Convolution")
    wanted = {"fp16": ("Conv_0 + Relu_1", 0.111616), "qat": ("conv1.weight + QuantizeLinear_7 + Conv_9", 0.201728)}
    assert (first.name, first.median_ms) == wanted[model]


@pytest.mark.shared
def test_every_recorded_file_is_refused_by_the_readers_of_the_others(recorded: Path) -> None:
    readers = {
        "times": lambda text: read_times(text, warmup_ms=0),
        "profile": read_profile,
        "layerinfo": read_layers,
        "outputs": lambda text: read_outputs(text, (TensorSpec("191", "float32", (32, 1000)),)),
    }
    names = [path.name for path in recorded.iterdir()]
    assert len(names) == 7
    for name in names:
        kind = name.split(".")[1] if "metadata" not in name else "metadata"
        for reader, read in readers.items():
            if reader != kind:
                with pytest.raises(MeasurementError):
                    read(text_of(recorded, name))


def row(start: float, spent: float, **changes: Any) -> dict[str, Any]:
    times = {"startComputeMs": start, "endComputeMs": start + spent, "computeMs": spent, "latencyMs": spent}
    return {**times, **changes}


def test_warm_up_queries_are_left_out() -> None:
    rows = [row(0, 9.0), row(100, 8.0), row(200, 2.0), row(203, 2.1)]
    assert read_times(json.dumps(rows), warmup_ms=200).compute_ms == (2.0, 2.1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        "[1]",
        json.dumps([row(0, 2.0)])[:-9],
        json.dumps([row(0, 2.0, computeMs=-1)]),
        json.dumps([row(0, 2.0, computeMs="2.0")]),
        json.dumps([row(0, 2.0, computeMs=True)]),
        json.dumps([row(0, 2.0, computeMs=0)]),
        json.dumps([row(0, 2.0, computeMs=5.0, latencyMs=5.0)]),
        json.dumps([row(0, 2.0, latencyMs=1.0)]),
        '[{"startComputeMs": 0, "endComputeMs": nan, "computeMs": nan, "latencyMs": nan}]',
        '[{"startComputeMs": 0, "endComputeMs": 1e999, "computeMs": 1e999, "latencyMs": 1e999}]',
    ],
)
def test_damaged_times_are_refused(text: str) -> None:
    with pytest.raises(MeasurementError):
        read_times(text, warmup_ms=0)


def test_scatter_above_the_limit_is_unstable() -> None:
    steady = Times((2.0, 2.04) * 50, (2.0, 2.04) * 50)
    shaky = Times((2.0, 2.2) * 50, (2.0, 2.2) * 50)
    steady.require_stable()
    with pytest.raises(Unstable, match=r"4\.76 %"):
        shaky.require_stable()


def test_percentiles_need_their_queries() -> None:
    series = tuple(2.0 + index / 1e4 for index in range(662))
    assert Times(series, series).percentile_ms(99) == pytest.approx(2.0 + 0.99 * 661 / 1e4, abs=1e-4)
    assert Times(series[:661], series[:661]).percentile_ms(99) is None
    assert Times(series[:64], series[:64]).percentile_ms(90) is not None


def test_a_layer_that_only_the_profile_knows_keeps_its_time() -> None:
    layers = read_layers(json.dumps({"Layers": [{"Name": "a", "LayerType": "Reformat"}], "Bindings": []}))
    joined = join(layers, {"a": (1.0, 40.0), "b": (2.0, 60.0)})
    assert [(layer.name, layer.median_ms) for layer in joined] == [("a", 1.0), ("b", 2.0)]


def test_layer_lists_of_engines_without_details_are_refused() -> None:
    with pytest.raises(MeasurementError, match="detailed"):
        read_layers(json.dumps({"Layers": ["conv1", "conv2"], "Bindings": []}))


def test_profile_whose_shares_do_not_add_up_is_refused() -> None:
    rows = [{"count": 3}, {"name": "a", "timeMs": 1, "averageMs": 1, "percentage": 40.0}]
    with pytest.raises(MeasurementError, match="40 %"):
        read_profile(json.dumps(rows))


SPEC = (TensorSpec("y", "float32", (1, 2, 2)),)


def exported(**changes: Any) -> str:
    return json.dumps([{"name": "y", "dimensions": "1x2x2", "values": [1, 2.5, 3, 4], **changes}])


def test_outputs() -> None:
    found = read_outputs(exported(), SPEC)
    assert found["y"].dtype == np.float32
    np.testing.assert_array_equal(found["y"], [[[1, 2.5], [3, 4]]])


@pytest.mark.parametrize(
    "text",
    [
        exported(name="z"),
        exported(dimensions="1x4"),
        exported(dimensions="1x-1x2"),
        exported(values=[1, 2, 3]),
        exported().replace("2.5", "nan"),
        exported().replace("2.5", "-inf"),
        exported()[:-4],
    ],
)
def test_damaged_outputs_are_refused(text: str) -> None:
    with pytest.raises(MeasurementError):
        read_outputs(text, SPEC)
