"""A study of a small vision transformer that loses heads, features, blocks, rank and tokens, or gives way to a student."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import small_transformers
from made_up_study import measure_table

import edgedeploy
from edgedeploy.errors import SpecError
from edgedeploy.records.measurement import Measurement
from edgedeploy.study.store import Store

pytestmark = [pytest.mark.beside, pytest.mark.slow]

TRIES = (
    "heads = 0.5\nmlp = 0.5",
    'target = "openvino"\nrank = 0.5\ndepth = 0.5\ntokens = 0.6',
    'student = "cnn"',
)
STUDY = """
[study]
name = "blobs"
targets = ["onnxruntime", "openvino"]

[task]
kind = "python"
object = "small_transformers.py:make_task"
options = {{ depth = 2, cases = 96 }}

[[boards]]
name = "here"
kind = "local"

[space]
{space}

[[objectives]]
metric = "size_bytes"

[[objectives]]
metric = "right"

[budget]
trials = 5
recovered_baseline = false

""" + measure_table(warmup=2)
SPACE = """heads = [1.0, 0.5]
mlp = [1.0, 0.5]
depth = [1.0, 0.5]
rank = [1.0, 0.5]
tokens = [1.0, 0.6]
student = ["none", "cnn"]
"""


def study(folder: Path, space: str, tries: tuple[str, ...] = ()) -> Path:
    shutil.copy(small_transformers.__file__, folder)
    path = folder / "study.toml"
    path.write_text(STUDY.format(space=space) + "".join(f"\n[[try]]\n{one}\n" for one in tries))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("transformer")
    told = edgedeploy.RunOptions(out=place / "out", board="here", confirm=False)
    edgedeploy.load_study(study(place, SPACE, TRIES)).run(told).report()
    return place / "out"


def measured(folder: Path) -> dict[str, Measurement]:
    """By target, precision and what was left out."""
    return {
        " ".join(filter(None, (item.variant.target, item.variant.precision, item.variant.shrink.label))): item
        for item in Store(folder).measurements()
        if item.valid
    }


def test_every_choice_is_built_and_measured_on_its_runtime(folder: Path) -> None:
    assert {
        "onnxruntime float32",
        "openvino float32",
        "onnxruntime float32 heads=0.5 mlp=0.5",
        "openvino float32 depth=0.5 rank=0.5 tokens=0.6",
        "onnxruntime float32 student=cnn",
    } <= {*measured(folder)}


def test_what_was_left_out_is_no_longer_in_the_artifact(folder: Path) -> None:
    sizes = {name: item.artifact.size_bytes for name, item in measured(folder).items()}
    whole = sizes["onnxruntime float32"]
    assert sizes["onnxruntime float32 heads=0.5 mlp=0.5"] < 0.7 * whole
    assert sizes["onnxruntime float32 student=cnn"] < 0.2 * whole
    assert sizes["openvino float32 depth=0.5 rank=0.5 tokens=0.6"] < 0.6 * sizes["openvino float32"]


def test_the_report_shows_what_was_left_out(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    for text in ("heads=0.5 mlp=0.5", "depth=0.5 rank=0.5 tokens=0.6", "student=cnn"):
        assert text in page


def test_a_resumed_study_measures_nothing_again(folder: Path) -> None:
    before = {item.digest: item.created_utc for item in Store(folder).measurements()}
    told = edgedeploy.RunOptions(out=folder, board="here", confirm=False, resume=True)
    edgedeploy.load_study(folder.parent / "study.toml").run(told)
    assert {item.digest: item.created_utc for item in Store(folder).measurements()} == before


@pytest.mark.parametrize(
    ("space", "found"),
    [
        ("heads = [1.0, 1.5]", "expected shares above 0 to 1, but got 1.5"),
        ("tokens = [1.0, 0.4]", "expected shares from 0.5 to 1, but got 0.4"),
        ('student = ["none", "other"]', "has no student 'other'"),
        ('rank = [1.0, 0.5]\nwidth = [0.5]\nallocation = ["compute"]', "a width spread by sensitivity"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_trained(tmp_path: Path, space: str, found: str) -> None:
    with pytest.raises(SpecError, match=found):
        edgedeploy.load_study(study(tmp_path, space)).run(edgedeploy.RunOptions(out=tmp_path / "out", board="here"))
    assert not (tmp_path / "out" / "baseline").exists()


def test_a_network_without_heads_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    file = study(tmp_path, "heads = [1.0, 0.5]")
    module = tmp_path / "small_transformers.py"
    module.write_text(module.read_text().replace("return vit(str(sizes.pop", "return small_cnn() or vit(str(sizes.pop"))
    with pytest.raises(SpecError, match="no layer of the network is softmax self-attention"):
        edgedeploy.load_study(file).run(edgedeploy.RunOptions(out=tmp_path / "out", board="here"))
    assert not (tmp_path / "out" / "baseline").exists()


@pytest.mark.parametrize(
    ("student", "found"),
    [
        ("torch.nn.Linear(3, 4)", r"one inference of student 'cnn': .*: RuntimeError"),
        ("torch.nn.Flatten()", "student 'cnn' answers .*, the task's network"),
        ("7", "student 'cnn' of task 'blobs': it is a int"),
    ],
)
def test_a_student_that_does_not_answer_as_the_network_is_told(tmp_path: Path, student: str, found: str) -> None:
    file = study(tmp_path, 'student = ["none", "cnn"]')
    module = tmp_path / "small_transformers.py"
    module.write_text(module.read_text().replace('"cnn": small_cnn}', f'"cnn": lambda **arch: {student}}}'))
    with pytest.raises(SpecError, match=found):
        edgedeploy.load_study(file).run(edgedeploy.RunOptions(out=tmp_path / "out", board="here"))
    assert not (tmp_path / "out" / "baseline").exists()
