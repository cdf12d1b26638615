"""Networks that cannot be made, and points of the user's own beside what the task decides."""

from __future__ import annotations

from pathlib import Path

import pytest
from board_kit import squares_study

import edgedeploy
from edgedeploy.errors import SpecError
from edgedeploy.study.store import Store

pytestmark = pytest.mark.beside

SMALL = (
    ("kernel = [3, 5]", "kernel = [3]"),
    ("width = [1.0, 0.5]", 'width = [1.0, 0.5]\nallocation = ["uniform", "bytes"]'),
    ("queries = 64", "queries = 16"),
)
ASKED = '\n[[try]]\nwidth = 0.5\nallocation = "bytes"\n'


def test_a_network_that_cannot_be_made_costs_one_trial(tmp_path: Path) -> None:
    study = squares_study(tmp_path, *SMALL, ("trials = 6", "trials = 30"))
    study.write_text(study.read_text() + ASKED)
    options = edgedeploy.RunOptions(out=tmp_path / "out", board="here", confirm=False)
    edgedeploy.load_study(study).run(options)
    store = Store(tmp_path / "out")
    (failure,) = store.failures()
    assert (failure.kind, failure.phase) == ("Unsupported", "network")
    assert failure.variant.allocation == "bytes"
    assert {item.variant.target for item in store.measurements()} == {"onnxruntime", "openvino"}, "all else was tried"


def test_widths_that_leave_one_network_are_one(tmp_path: Path) -> None:
    """Of 8 and 16 channels .6 and .5 keep 4 and 8: the same network had been trained and measured under both names."""
    study = squares_study(
        tmp_path, SMALL[0], ("width = [1.0, 0.5]", "width = [1.0, 0.6, 0.5]"), SMALL[2], ("trials = 6", "trials = 40")
    )
    edgedeploy.load_study(study).run(edgedeploy.RunOptions(out=tmp_path / "out", board="here", confirm=False))
    store = Store(tmp_path / "out")
    assert {item.variant.width for item in store.measurements()} == {1.0, 0.5}
    assert {item.variant.target for item in store.measurements()} == {"onnxruntime", "openvino"}


@pytest.mark.parametrize(("kernel", "taken"), [(3, True), (5, False)])
def test_a_point_may_leave_out_what_the_baseline_has(kernel: int, taken: bool, tmp_path: Path) -> None:
    study = squares_study(tmp_path, *SMALL[1:])
    rule = f'\n[[only]]\nparameter = "allocation"\nwhen = {{ kernel = {kernel} }}\n'
    study.write_text(study.read_text() + rule + ASKED)
    loaded = edgedeploy.load_study(study)
    if taken:
        tried = loaded.plan(board="here").tried
        assert tried is not None and any("-bytes" in label for label in tried.seeds)
    else:
        with pytest.raises(SpecError, match="try number 1, allocation: allocation matters only with kernel = 5"):
            loaded.plan(board="here")
