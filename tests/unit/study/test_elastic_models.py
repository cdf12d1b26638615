"""The models of a study that are cut out of one elastic network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from edges_task import Edges
from levels_task import ARCH, LeveledEdges
from made_up_study import ONE_TRIAL, new_store
from mixed_blocks import MixerTask

from edgedeploy.compress import training
from edgedeploy.compress.model import Further
from edgedeploy.errors import OutOfTime, SpecError, Unsupported
from edgedeploy.files import read_json
from edgedeploy.records.elastic import NO_ELASTIC, Elastic
from edgedeploy.records.shrink import Shrink
from edgedeploy.records.variant import Scalar, Variant
from edgedeploy.search.rungs import NO_RUNGS, Rungs
from edgedeploy.spec.study import parse_spec
from edgedeploy.study.account import Account
from edgedeploy.study.elastic import is_whole
from edgedeploy.study.modeller import Modeller
from edgedeploy.study.preflight import _check_training
from edgedeploy.study.store import Store

RUNGS = Rungs.of((0, 1))
NETWORK = Elastic(2, (0.02, 0.5, 0.75), ("bytes",))


def cut(width: float, epochs: int | None = 0, elastic: Elastic = NETWORK) -> Variant:
    arch = tuple(sorted(ARCH.items()))
    return Variant("none", "float32", width, arch, 1, allocation="bytes", recovery_epochs=epochs, elastic=elastic)


class Counting(LeveledEdges):
    """Counts the epochs of training."""

    def __init__(self) -> None:
        self.epochs = 0

    def batches(self, seed: int, batch_size: int, **arch: Scalar) -> Iterator[tuple[Any, Any]]:
        self.epochs += 1
        return super().batches(seed, batch_size, **arch)


def modeller(
    root: Path,
    *,
    rungs: Rungs = RUNGS,
    task: LeveledEdges | MixerTask | None = None,
    out_of_time: Callable[[], bool] = lambda: False,
    told: list[str] | None = None,
) -> Modeller:
    store = Store(root) if root.exists() else new_store(root, [])
    heard = told if told is not None else []
    return Modeller(
        task or LeveledEdges(),
        {},
        store,
        Account(store),
        lambda what, state: heard.append(what),
        lambda kind, text: heard.append(text),
        out_of_time=out_of_time,
        rungs=rungs,
    )


@pytest.fixture(scope="module", autouse=True)
def told_between_epochs_alone() -> Iterator[None]:
    """On a busy machine an epoch takes longer than a training stays silent, and would be counted twice."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "TELL_EVERY_S", math.inf)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, dict[float, Path], list[str]]:
    """Both widths on the lowest rung, and the wider one a rung further up."""
    root, told = tmp_path_factory.mktemp("elastic") / "out", list[str]()
    models = modeller(root, told=told)
    found = {width: models.reference(cut(width)).path.parent for width in (0.5, 0.75)}
    found[1.0] = models.reference(cut(0.75, 1)).path.parent
    return Store(root), found, told


def weights(folder: Path, name: str = "weights.pt") -> Mapping[str, torch.Tensor]:
    return dict(torch.load(folder / name, weights_only=True))


def equal(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_one_training_gives_every_width_and_higher_rungs_go_on_from_it(
    made: tuple[Store, dict[float, Path], list[str]],
) -> None:
    store, folders, told = made
    network = store.model_folder(cut(0.5).elastic_digest)
    assert is_whole(network)
    facts = read_json(network / "training.json")
    assert (facts["epochs"], facts["widths"]) == (2, 2)
    assert [what for what in dict.fromkeys(told) if what.startswith("elastic")] == ["elastic wide 16"]
    assert told.count("elastic wide 16") == 2, "one training of two epochs"
    for width in (0.5, 0.75):
        assert equal(weights(folders[width]), weights(network, f"{width}-bytes.pt"))
        assert not (folders[width] / "training.json").exists(), "nothing trains on a rung of no epochs"
    assert read_json(folders[1.0] / "training.json")["epochs"] == 1
    assert not equal(weights(folders[1.0]), weights(folders[0.75]))
    assert sorted(item.get("widths", 0) for item in store.model_trainings()) == [0, 2]


def test_it_is_another_model_than_what_is_pruned_from_the_baseline(
    made: tuple[Store, dict[float, Path], list[str]],
) -> None:
    store, folders, _ = made
    pruned = modeller(store.root).reference(cut(0.5, elastic=NO_ELASTIC)).path.parent
    ours, theirs = weights(folders[0.5]), weights(pruned)
    assert {name: value.shape for name, value in ours.items()} == {name: value.shape for name, value in theirs.items()}
    assert not equal(ours, theirs)


def test_without_rungs_the_recovery_of_the_recipe_starts_from_the_cut(
    made: tuple[Store, dict[float, Path], list[str]],
) -> None:
    store, _, _ = made
    models, variant = modeller(store.root, rungs=NO_RUNGS), cut(0.5, None)
    start = store.model_folder(variant.elastic_digest) / "0.5-bytes.pt"
    assert models._further(variant) == Further(models.task.recovery_recipe.epochs, start)  # type: ignore[attr-defined]


def test_a_width_that_cannot_be_cut_says_why_and_harms_no_other(
    made: tuple[Store, dict[float, Path], list[str]],
) -> None:
    store, _, _ = made
    task = Counting()
    for _ in range(2):
        with pytest.raises(Unsupported, match=r"the least channels of every layer \(8 or more\) cost"):
            modeller(store.root, task=task).reference(cut(0.02))
    assert task.epochs == 0, "why is kept"


def test_a_pair_of_width_and_depth_goes_the_way_of_any_cut(tmp_path: Path) -> None:
    task, elastic = MixerTask(cases=32), Elastic(1, (0.5,), ("bytes",), (0.5,))
    arch, shrink = (("kind", "joint"),), Shrink(depth=0.5)
    low, high = (
        Variant(
            *("none", "float32", 0.5, arch, 1),
            **{"allocation": "bytes", "recovery_epochs": epochs, "elastic": elastic, "shrink": shrink},
        )
        for epochs in (0, 1)
    )
    models = modeller(tmp_path / "out", task=task)
    lower, higher = (models.reference(variant).path.parent for variant in (low, high))
    network = Store(tmp_path / "out").model_folder(low.elastic_digest)
    assert {path.name for path in network.glob("*.pt")} == {"0.5-bytes.pt", "depth0.5.pt", "0.5-bytes-depth0.5.pt"}
    assert equal(weights(lower), weights(network, "0.5-bytes-depth0.5.pt"))
    before, after = weights(lower), weights(higher)
    assert {name: value.shape for name, value in before.items()} == {name: value.shape for name, value in after.items()}
    assert not equal(before, after)
    (higher / "reference.onnx").write_bytes(b"other")
    told: list[str] = []
    again = modeller(tmp_path / "out", task=task, told=told).reference(high).path.parent
    assert equal(weights(again), after), "its whole weights are read, not trained again"
    assert not any(text.startswith("width 0.5") for text in told)


def test_a_damaged_cut_is_made_anew(tmp_path: Path) -> None:
    told: list[str] = []
    modeller(tmp_path / "out").reference(cut(0.5))
    network = Store(tmp_path / "out").model_folder(cut(0.5).elastic_digest)
    (network / "0.75-bytes.pt").write_bytes(b"other")
    models = modeller(tmp_path / "out", told=told)
    models.reference(cut(0.75))
    assert is_whole(network)
    assert [text for text in told if "0.75-bytes.pt" in text and "trained anew" in text]


def test_a_training_that_is_cut_off_is_continued(tmp_path: Path) -> None:
    asked = iter([False] * 6 + [True] * 1000)
    trained = modeller(tmp_path / "out")
    assert trained.baseline_model is not None
    with pytest.raises(OutOfTime, match="elastic wide 16"):
        modeller(tmp_path / "out", out_of_time=lambda: next(asked)).reference(cut(0.5))
    checkpoint = Store(tmp_path / "out").checkpoint(cut(0.5).elastic_digest)
    assert checkpoint.is_file()
    told: list[str] = []
    modeller(tmp_path / "out", told=told).reference(cut(0.5))
    assert not checkpoint.exists()
    assert told.count("elastic wide 16") == 1, "the second epoch of two"


def test_a_task_without_training_members_is_refused_before_anything_starts() -> None:
    text = ONE_TRIAL.replace("[space]", "[recovery]\nelastic_epochs = 2\n[space]", 1)
    spec, source = parse_spec(text, Path("study.toml"))
    with pytest.raises(SpecError, match=r"recovery\.elastic_epochs.*task 'edges' has no batches, loss"):
        _check_training(spec, source, Edges(), [])


def test_other_widths_are_another_network() -> None:
    other = replace(NETWORK, widths=(0.5,))
    assert cut(0.5, elastic=other).model_digest != cut(0.5).model_digest
    assert cut(0.5, elastic=other).elastic_digest != cut(0.5).elastic_digest
