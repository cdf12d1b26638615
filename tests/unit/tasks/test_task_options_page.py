"""Every option of the task kinds without code is described and stands on the page of all options."""

from __future__ import annotations

from dataclasses import fields

import pytest
import task_options

from edgedeploy.interfaces.task import TrainRecipe
from edgedeploy.tasks.load import KINDS


def test_the_page_is_the_one_that_the_classes_give() -> None:
    found = task_options.PAGE.read_text(encoding="utf-8")
    assert found == task_options.page(), "python scripts/task_options.py --write makes it anew"


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_is_described_and_no_other(kind: str) -> None:
    options = type(task_options.options_of(kind))
    assert set(task_options.described(options)) == {item.name for item in fields(options)}


def test_every_key_of_a_recipe_is_described() -> None:
    assert set(task_options.described(TrainRecipe)) == {item.name for item in fields(TrainRecipe)}


def test_defaults_stand_as_a_study_file_has_them() -> None:
    page = task_options.page()
    kind = page.partition("## `image-to-image`")[0]
    assert "| `resolutions` | `[64, 48]` | Sides of the square" in kind
    assert "[task.options.baseline] # how the baseline is trained.\nepochs = 40\nbatch_size = 16\n" in kind
    assert "| `classes` | `{ nerve = 1, vessel = 2 }` |" in page
