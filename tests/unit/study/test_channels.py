"""What an allocated width leaves is known before anything is trained, and equal channels are one network."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from levels_task import ARCH, LeveledEdges
from made_up_study import new_store
from mixed_blocks import MixerTask

from edgedeploy.compress import shaped
from edgedeploy.interfaces.task import Task
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.records.shrink import Shrink
from edgedeploy.records.variant import Variant
from edgedeploy.reference.export import Reference
from edgedeploy.search.rungs import Rungs
from edgedeploy.study import modeller as modeller_module
from edgedeploy.study.account import Account
from edgedeploy.study.modeller import Modeller


@pytest.fixture(autouse=True)
def _no_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """STAND-IN for the export, which takes a second a model: these tests look at weights alone."""

    def export(model: object, specs: tuple[TensorSpec, ...], path: Path, **more: object) -> Reference:
        path.write_bytes(b"no network")
        return Reference(path, hashlib.sha256(b"no network").hexdigest(), specs, (), 17, 1, 1)

    monkeypatch.setattr(modeller_module, "export_reference", export)


def modeller(root: Path, task: Task) -> Modeller:
    store, rungs = new_store(root, []), Rungs.of((0, 1))
    return Modeller(task, {}, store, Account(store), lambda what, state: None, lambda kind, text: None, rungs=rungs)


def at(width: float, allocation: str) -> Variant:
    return Variant("none", "float32", width, tuple(sorted(ARCH.items())), 1, allocation=allocation, recovery_epochs=0)


def made(models: Modeller, variant: Variant) -> dict[str, torch.Tensor]:
    return dict(torch.load(models.reference(variant).path.with_name("weights.pt"), weights_only=True))


def test_what_is_not_made_yet_is_held_against_what_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weighed: list[Any] = []
    weigh = shaped.gate_gradients
    models = modeller(tmp_path / "out", LeveledEdges())
    half, near, wide = at(0.5, "bytes"), at(0.502, "bytes"), at(0.75, "bytes")
    assert models.channels(half) == (), "there is no baseline yet: none is trained for this"
    made(models, half)
    monkeypatch.setattr(shaped, "gate_gradients", lambda *given: (weighed.append(given), weigh(*given))[1])
    before = torch.random.get_rng_state()
    found = [models.channels(variant) for variant in (half, near, wide, at(0.5, "compute"))]
    assert found[0] == found[1] and len({found[0], *found[2:]}) == 3 and all(found)
    assert len(weighed) == 1, "the layers are weighed once for all widths of an architecture"
    assert torch.equal(before, torch.random.get_rng_state())
    one, other = made(models, half), made(models, near)
    assert list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)
    trained = replace(near, precision="int8", training="qat")
    assert models.channels(trained) == found[0], "as its float model has them"


def test_what_cannot_be_cut_so_has_none(tmp_path: Path) -> None:
    models = modeller(tmp_path / "out", LeveledEdges())
    made(models, at(0.5, "bytes"))
    assert models.channels(at(0.01, "bytes")) == ()
    assert models.channels(at(0.5, "time")) == (), "of which there are no times"


def test_layers_of_lost_blocks_count_alike_made_or_not(tmp_path: Path) -> None:
    models = modeller(tmp_path / "out", MixerTask(cases=32))
    half = replace(at(0.5, "bytes"), arch=(("kind", "joint"),), shrink=Shrink(depth=0.5))
    before = models.baseline_model and models.channels(half)
    made(models, half)
    assert before and models.channels(half) == before
