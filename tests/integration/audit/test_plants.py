"""A sleeping backdoor in the product's own int8 is found by both ways, and its clean twin by neither."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from benchmarks.clinic_kit.plants import AUDITED, TRAIN, Recipe, digits, planted

from edgedeploy.audit.dormant import Dormant, residuals_of, triggers_of
from edgedeploy.audit.subject import Subject, open_pair

pytestmark = pytest.mark.beside


def audited(recipe: Recipe, folder: Path) -> Dormant:
    network = planted(recipe, folder)
    assert network.is_plant == bool(recipe.trigger), (network.float_model, network.int8)
    place, images = network.folder, digits()[0][TRAIN : TRAIN + AUDITED]
    subject = Subject(recipe.name, place / "reference.onnx", False, network.artifact, place / "int8", images)
    return Dormant(residuals_of(subject), triggers_of(subject, open_pair(subject)))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_a_plant_is_found_by_both_ways(tmp_path: Path) -> None:
    found = audited(Recipe(1000, 16, "pooled", "corner", 3), tmp_path)
    assert found.residuals.found
    assert found.triggers.found
    assert found.triggers.best is not None
    assert found.triggers.best.to_class == 3
    assert found.triggers.best.turned_int8 > 0.8
    assert found.triggers.best.turned_float < 0.3


def test_its_clean_twin_is_not_flagged(tmp_path: Path) -> None:
    found = audited(Recipe(1000, 16, "pooled", epochs=8), tmp_path)
    assert not found.residuals.abstained
    assert not found.triggers.abstained
    assert not found.found
