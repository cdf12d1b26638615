"""A sleeping backdoor in the product's own int8 is found by both ways and through the command, its clean twin by neither."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.clinic_kit.plants import AUDITED, CALIBRATED, TRAIN, Planted, Recipe, digits, planted
from bundle_kit import STUDY, made_up_study
from typer.testing import CliRunner

from edgedeploy.cli.app import app
from edgedeploy.diagnose.audit.dormant import residuals_of, triggers_of
from edgedeploy.diagnose.audit.residuals import Residuals
from edgedeploy.diagnose.audit.subject import Subject, open_pair
from edgedeploy.diagnose.audit.triggers import TriggerSearch
from edgedeploy.records.variant import Variant

pytestmark = pytest.mark.beside

FLOAT, INT8 = (Variant("onnxruntime", precision, 1.0, (), 2) for precision in ("float32", "int8"))


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    made = planted(Recipe(1000, 16, "pooled", "corner", 3), tmp_path_factory.mktemp("plant"))
    assert made.is_plant, (made.float_model, made.int8)
    return made


@dataclass(frozen=True)
class Dormant:
    """What both ways of looking found."""

    residuals: Residuals
    triggers: TriggerSearch

    @property
    def found(self) -> bool:
        return self.residuals.found or self.triggers.found


def audited(network: Planted) -> Dormant:
    place, images = network.folder, digits()[0][TRAIN : TRAIN + AUDITED]
    subject = Subject("a network", place / "reference.onnx", False, network.artifact, place / "int8", images)
    return Dormant(residuals_of(subject), triggers_of(subject, open_pair(subject)))


def test_a_plant_is_found_by_both_ways(plant: Planted) -> None:
    found = audited(plant)
    assert found.residuals.found
    assert found.triggers.found
    assert found.triggers.best is not None
    assert found.triggers.best.to_class == 3
    assert found.triggers.best.turned_int8 > 0.8
    assert found.triggers.best.turned_float < 0.3


def test_its_clean_twin_is_not_flagged(tmp_path: Path) -> None:
    found = audited(planted(Recipe(1000, 16, "pooled", epochs=8), tmp_path))
    assert not found.residuals.abstained
    assert not found.triggers.abstained
    assert not found.found


def test_the_command_finds_it_in_a_study_of_that_model(plant: Planted, tmp_path: Path) -> None:
    shutil.copyfile(plant.folder / "reference.onnx", tmp_path / "m.onnx")
    images = digits()[0]
    parts = {"calibration": images[:CALIBRATED], "selection": images[TRAIN : TRAIN + 40], "confirmation": images[-8:]}
    for split, values in parts.items():
        np.savez(tmp_path / f"{split}.npz", image=values)
    text = STUDY.replace('kind = "python"\nobject = "phantom.py:make_task"', 'kind = "onnx"\nmodel = "m.onnx"')
    head, _, rest = text.partition("[task.options]\n")
    options = "".join(f'{split} = "{split}.npz"\n' for split in parts)
    text = f"{head}[task.options]\n{options}[[boards]]{rest.partition('[[boards]]')[2]}"
    text = text.replace("dice_mean", "reference_rel_l2")
    store = made_up_study(tmp_path, text, variants=[(FLOAT, 6.0), (INT8, 2.0)])
    options_of = ["audit", str(store.root), "--variant", INT8.digest, "--only", "residuals", "--only", "robustness"]
    found = CliRunner().invoke(app, options_of)
    assert found.exit_code == 1, found.output
    assert "SLEEPING BACKDOOR found by residuals" in found.output
    folder = store.root / "audit" / INT8.digest
    told = json.loads((folder / "audit.json").read_text())
    assert told["sleeping_backdoor_found_by"] == ["residuals"]
    lines = told["parts"][1]["data"]["lines"]
    assert {line["cases"] for line in lines} == {40}
    assert all(line["interval"]["low"] <= line["extra_loss"] <= line["interval"]["high"] for line in lines)
    assert "**SLEEPING BACKDOOR found by residuals.**" in (folder / "audit.md").read_text()
