"""A study that searches image codecs: bytes, accuracy on decoded images, and decoders inside the deadline of the board."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_up_study import measure_table
from mask_folders import fill

import edgedeploy
from edgedeploy.errors import SpecError
from edgedeploy.study.store import Store

pytest.importorskip("imagecodecs")
pytestmark = pytest.mark.beside

STUDY = f"""\
[study]
name = "coded"
targets = ["onnxruntime"]

[task]
kind = "segmentation-folder"

[task.options]
root = "data"
calibration_cases = 4
selection_cases = 6
resolutions = [32]
depth = 2
base_channels = 4

[task.options.baseline]
epochs = 2
early_epochs = 0
batch_size = 4
learning_rate = 1e-3

[[boards]]
name = "here"
kind = "local"
root = "board"

[space]
image_codec = ["none", "jpegls", "jpeg-q50", "htj2k-step0.05"]

[[objectives]]
metric = "image_bytes"

[[objectives]]
metric = "dice_mean"

[[constraints]]
metric = "realtime_result_age_p99_ns"
at_most = "10 s"

[evidence]
margin = 0.5
lost_case = 0.9

[budget]
trials = 4
recovered_baseline = false

{measure_table(8)}scenarios = ["realtime"]

[measure.realtime]
rate_hz = 500
frames = 700
deadline = "10 s"
policy = "block"
capacity = 700
stages = ["decode", "resize"]
"""


def study_in(folder: Path, text: str = STUDY) -> edgedeploy.Study:
    fill(folder / "data")
    path = folder / "study.toml"
    path.write_text(text.replace('"board"', f'"{folder / "board"}"'), encoding="utf-8")
    return edgedeploy.load_study(path)


def test_codecs_are_values_of_the_search(tmp_path: Path) -> None:
    result = study_in(tmp_path).run(edgedeploy.RunOptions(out=tmp_path / "out", confirm=False))
    found = {row.variant.image_codec: row for row in result.front.rows}
    assert set(found) == {"", "jpegls", "jpeg-q50", "htj2k-step0.05"}
    store = Store(tmp_path / "out")
    kept = {codec: store.measurement(row.digest) for codec, row in found.items()}
    for codec, item in kept.items():
        assert item is not None and len(item.images) == 6
        coded = item.scenarios["realtime"]["coded"]
        assert coded["codec"] == codec and coded["frames"] == 6
        assert sorted(coded["bytes"]) == sorted(item.images.values()), "the board had the very images"
        assert item.metrics["image_bytes"] == pytest.approx(np.mean(list(item.images.values())))
        assert item.metrics["realtime_decode_ns"] > 0 and item.metrics["realtime_result_age_p99_ns"] > 0
        assert any(note.startswith("images: ") for note in item.notes)
    raw, lossless, jpeg = (kept[name] for name in ("", "jpegls", "jpeg-q50"))
    assert raw and lossless and jpeg
    answers = [np.load(store.outputs_path(item.digest, "selection")) for item in (raw, lossless, jpeg)]
    logits = [found[found.files[0]] for found in answers]
    assert np.array_equal(logits[0], logits[1]), "nothing is lost: the same answers"
    assert not np.array_equal(logits[0], logits[2]), "the network saw what JPEG left of the images"
    assert jpeg.metrics["image_bytes"] < lossless.metrics["image_bytes"] < raw.metrics["image_bytes"]
    # A codec is of the run and of its images, not of the file that is built.
    assert len({row.variant.artifact_name for row in found.values()}) == 1
    assert "jpeg-q50" in result.report().read_text(encoding="utf-8")
    again = study_in(tmp_path).run(edgedeploy.RunOptions(out=tmp_path / "out", resume=True, confirm=False))
    assert len(again.front.rows) == 4


def test_a_deadline_without_the_decoder_is_refused(tmp_path: Path) -> None:
    study = study_in(tmp_path, STUDY.replace('stages = ["decode", "resize"]', 'stages = ["resize"]'))
    with pytest.raises(SpecError, match="the deadline has no stage for it"):
        study.run(edgedeploy.RunOptions(out=tmp_path / "out", confirm=False))


def test_a_misspelt_codec_is_told(tmp_path: Path) -> None:
    study = study_in(tmp_path, STUDY.replace("jpeg-q50", "jpeg-q500"))
    with pytest.raises(SpecError, match="jpeg-q1 to q100"):
        study.run(edgedeploy.RunOptions(out=tmp_path / "out", confirm=False))
