"""A study of a small vision transformer at several depths, all cut out of one network."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import small_transformers
import torch
from made_up_study import measure_table

import edgedeploy
from edgedeploy.files import read_json
from edgedeploy.records.elastic import Elastic
from edgedeploy.records.measurement import Measurement
from edgedeploy.study.store import Store

pytestmark = [pytest.mark.beside, pytest.mark.slow]

STUDY = (
    """
[study]
name = "blobs"
targets = ["onnxruntime"]

[task]
kind = "python"
object = "small_transformers.py:make_task"
options = { depth = 4, cases = 96 }

[[boards]]
name = "here"
kind = "local"

[recovery]
elastic_epochs = 2

[space]
depth = [1.0, 0.75, 0.5]
recovery_epochs = [0, 1]

[[objectives]]
metric = "size_bytes"

[[objectives]]
metric = "right"

[budget]
trials = 5
recovered_baseline = false

"""
    + measure_table(warmup=2)
    + """
[[try]]
depth = 0.5
recovery_epochs = 0

[[try]]
depth = 0.75
recovery_epochs = 0

[[try]]
depth = 0.5
recovery_epochs = 1
"""
)


def study(folder: Path, text: str = STUDY) -> Path:
    shutil.copy(small_transformers.__file__, folder)
    path = folder / "study.toml"
    path.write_text(text)
    return path


def run(study: Path, trials: int, **further: bool) -> Path:
    told = edgedeploy.RunOptions(out=study.parent / "out", board="here", confirm=False, trials=trials, **further)
    edgedeploy.load_study(study).run(told).report()
    return study.parent / "out"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that was cut off after its first depth, and lost that model before it went on."""
    place = study(tmp_path_factory.mktemp("depths"))
    out = run(place, 2)
    found = measured(out)
    assert {*found} == {(1.0, None), (0.5, 0)}
    (network,) = (out / "models").glob("*/cuts.json")
    made = network.stat().st_ino, network.stat().st_mtime_ns
    shutil.rmtree(out / "models" / found[0.5, 0].variant.model_digest)
    run(place, 5, resume=True)
    assert made == (network.stat().st_ino, network.stat().st_mtime_ns), "the network is trained once"
    assert measured(out)[0.5, 0].created_utc == found[0.5, 0].created_utc
    return out


def measured(folder: Path) -> dict[tuple[float, int | None], Measurement]:
    """By depth and epochs of recovery."""
    return {
        (item.variant.shrink.depth, item.variant.recovery_epochs): item
        for item in Store(folder).measurements()
        if item.valid
    }


def weights(path: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(path, weights_only=True))


def blocks(path: Path) -> set[str]:
    found = (re.match(r"blocks\.(\d+)", name) for name in weights(path))
    return {one[1] for one in found if one}


def test_every_depth_is_cut_out_of_one_network_also_after_a_cut_off_run(folder: Path) -> None:
    found = measured(folder)
    assert {(1.0, None), (0.5, 0), (0.75, 0), (0.5, 1)} <= {*found}
    assert {item.variant.elastic for key, item in found.items() if key[0] < 1.0} == {Elastic(2, (), (), (0.5, 0.75))}
    assert not found[1.0, None].variant.elastic
    (network,) = (folder / "models").glob("*/cuts.json")
    facts = read_json(network.with_name("training.json"))
    assert (facts["epochs"], facts["widths"]) == (2, 2)
    for depth, count in ((0.5, 2), (0.75, 3)):
        model = folder / "models" / found[depth, 0].variant.model_digest / "weights.pt"
        cut = network.with_name(f"depth{depth:g}.pt")
        assert len(blocks(cut)) == count
        assert all(torch.equal(value, weights(cut)[name]) for name, value in weights(model).items())
    assert blocks(network.with_name("depth0.5.pt")) < blocks(network.with_name("depth0.75.pt"))


def test_a_rung_trains_the_cut_further_with_the_blocks_that_it_has(folder: Path) -> None:
    found = measured(folder)
    low, high = (folder / "models" / found[0.5, epochs].variant.model_digest / "weights.pt" for epochs in (0, 1))
    assert blocks(low) == blocks(high)
    assert not all(torch.equal(value, weights(high)[name]) for name, value in weights(low).items())
