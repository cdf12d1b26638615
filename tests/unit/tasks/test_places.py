"""Paths of a study file: relative to it, below a home folder, or of a user whom nobody knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgedeploy.errors import DataError
from edgedeploy.tasks.pictures.entries import data_folder
from edgedeploy.tasks.places import place_of


def test_paths_are_relative_to_the_study_file_and_homes_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert place_of(tmp_path, "a/b.onnx") == tmp_path / "a" / "b.onnx"
    assert place_of(tmp_path, "~/b.onnx") == tmp_path / "home" / "b.onnx"
    assert place_of(tmp_path, "/srv/b.onnx") == Path("/srv/b.onnx")


def test_the_home_of_nobody_is_a_path_that_is_not_found(tmp_path: Path) -> None:
    assert place_of(tmp_path, "~nobody-has-it/b.onnx") == tmp_path / "~nobody-has-it" / "b.onnx"
    with pytest.raises(DataError, match="no folder at"):
        data_folder("~nobody-has-it/images", tmp_path, "images")
