"""The one-shot commands on small networks: what they write, what they say, and what they refuse."""

from __future__ import annotations

import contextlib
import hashlib
import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import made_up
import numpy as np
import onnx
import pytest
import torch
from made_up_study import ONE_TRIAL, new_store
from PIL import Image
from quantized_onnx import pairs
from small_onnx import convolutional, transformer_block
from small_task import SmallTask, bench
from typer.testing import CliRunner

import edgedeploy
from edgedeploy.cli.app import app
from edgedeploy.errors import EdgeDeployError, GoalNotMet
from edgedeploy.records.artifact import MANIFEST
from edgedeploy.records.variant import Variant
from edgedeploy.study.oneshot.export import NO_BUNDLE
from edgedeploy.study.oneshot.quantize import NOT_ACCURACY, quantize
from edgedeploy.study.store import Store
from edgedeploy.targets import registry
from edgedeploy.targets.onnxruntime import OnnxRuntimeTarget

pytestmark = pytest.mark.beside

REPO = Path(__file__).resolve().parents[3]

ON_A_BUSY_MACHINE = ONE_TRIAL + "[measure]\nretries = 0\ncold_starts = 0\nmax_background_cores = 64.0\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a model, 12 cases of arrays and 3 of images."""
    convolutional(tmp_path / "m.onnx")
    (tmp_path / "cases").mkdir()
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for index in range(12):
        np.save(tmp_path / "cases" / f"{index:02}.npy", rng.standard_normal((1, 3, 16, 16)).astype(np.float32))
    for index in range(3):
        pixels = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> str:
    done = CliRunner().invoke(app, list(words))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def loaded(folder: Path) -> dict[str, Any]:
    """What the three lines of the README give when they run in that folder."""
    code = (folder / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    assert len(code.strip().splitlines()) == 3
    script = folder.parent / "load.py"
    feed = "import numpy as np\ninputs = {'image': np.zeros((1, 3, 16, 16), np.float32)}\n"
    script.write_text(feed + code)
    with contextlib.chdir(folder):
        return runpy.run_path(str(script))


@pytest.mark.parametrize(("target", "entry"), [("openvino", "model.xml"), ("onnxruntime", "model.onnx")])
def test_quantize_says_what_it_made_and_the_readme_loads_it(target: str, entry: str, place: Path) -> None:
    said = run("quantize", "m.onnx", "--target", target, "--calibration", "cases", "--out", "q")
    folder = place / "q"
    size = sum(file["size_bytes"] for file in json.loads((folder / MANIFEST).read_text())["files"])
    assert "of float ONNX" in said
    assert edgedeploy.Artifact.from_json(json.loads((folder / MANIFEST).read_text())).size_bytes == size
    assert f"{size / 1000:#.3g}" in said
    assert "Compared on 3 cases that the calibration has not seen, run on board local (measured" in said
    assert "Output out: relative L2 0.0" in said
    assert "worst case" in said
    assert "int8 weights for board local" in said
    assert NOT_ACCURACY in said
    assert f"File: q/{entry}" in said
    assert loaded(folder)["outputs"]
    sums = dict(reversed(line.split("  ")) for line in (folder / "SHA256SUMS").read_text().splitlines())
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    assert set(sums) == set(files) - {"SHA256SUMS"}
    assert all(hashlib.sha256(files[name].read_bytes()).hexdigest() == value for name, value in sums.items())
    assert not list(place.glob(".part-*"))


def test_quantize_takes_images_as_a_study_does(place: Path) -> None:
    options = ("--calibration", "images", "--colour", "rgb", "--mean", "0", "--std", "255")
    words = ("quantize", "m.onnx", "--target", "onnxruntime", *options, "--board", "none", "--out", "q", "--json")
    said = json.loads(run(*words))
    assert said["compared_on"].startswith("nothing: no board was asked for")
    assert said["outputs"] == []
    assert said["weight_bits"].startswith("8 bits: no board was asked")
    assert Path(said["file"]).is_file()
    layers = json.loads(run("debug", "q", "--json", "--threshold-db", "0"))["layers"]  # against the float model inside
    assert {layer["layer"] for layer in layers} == {"/block1/conv", "/block2/conv", "/head/conv"}


@pytest.mark.parametrize("precision", ["int8-dynamic", "int4-weights"])
def test_precisions_without_ranges_need_no_calibration(precision: str, place: Path) -> None:
    transformer_block(place / "t.onnx")
    made = quantize("t.onnx", target="onnxruntime", precision=precision, out="q")
    assert made.artifact.precision == precision
    assert made.artifact.size_bytes < made.float_bytes


def test_a_board_whose_sums_saturate_chooses_between_7_and_8_bits(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("desk", "quantize"):
        monkeypatch.setattr(f"edgedeploy.study.oneshot.{module}.sums_int8_exactly", lambda arch, isa: False)
    said = run("quantize", "m.onnx", "--target", "onnxruntime", "--calibration", "cases", "--out", "q")
    assert "int8 weights for board local (" in said
    assert "int8 sums of this processor saturate (16 bits, no VNNI or AMX); the nearer of both is kept" in said
    chosen = 7 if "): 7 bits: " in said else 8
    assert f"): {chosen} bits: int8 sums" in said
    model = onnx.load(place / "q" / "model.onnx")
    found = [onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer if len(tensor.dims) > 1]
    largest = max(np.abs(weights.astype(int)).max() for weights in found if weights.dtype == np.int8)
    assert largest == {7: 64, 8: 127}[chosen]


def test_seven_bits_may_be_asked_for(place: Path) -> None:
    options = ("--calibration", "cases", "--weight-bits", "7", "--board", "none", "--out", "q")
    said = run("quantize", "m.onnx", "--target", "onnxruntime", *options)
    assert "int8 weights 7 bits, as asked for." in said


def test_another_quantizer_may_be_asked_for(place: Path) -> None:
    for name, by_nncf in (("nncf", True), ("onnxruntime", False)):
        options = ("--calibration", "cases", "--quantizer", name, "--board", "none", "--out", name)
        run("quantize", "m.onnx", "--target", "openvino", *options)
        assert ("<nncf>" in (place / name / "model.xml").read_text()) == by_nncf


def test_a_checkpoint_of_a_task_is_quantized_with_its_accuracy(place: Path) -> None:
    shutil.copy(REPO / "docs" / "examples" / "squares.py", place)
    squares = runpy.run_path("squares.py")
    network = squares["make_task"](32).build(kernel=3)
    torch.save({"state_dict": network.state_dict(), "epoch": 3}, "net.pt")
    words = ("--task", "squares.py:make_task", "--checkpoint", "net.pt", "--target", "onnxruntime", "--out", "q")
    said = run("quantize", *words)
    assert "correct of the task on 32 selection cases: " in said
    assert NOT_ACCURACY not in said
    assert "Compared on 4 calibration cases, which its ranges have seen, run on board local" in said
    task = squares["make_task"](32)
    with torch.inference_mode():
        answers = [network(torch.from_numpy(task.inputs(case)["image"])).numpy() for case in task.cases("selection")]
    right = [task.evaluate({"out": a}, c)["correct"] for a, c in zip(answers, task.cases("selection"), strict=True)]
    assert f"selection cases: {np.mean(right):.4g} of the float model" in said
    made = onnx.load(place / "q" / "reference" / "reference.onnx")
    kept = [onnx.numpy_helper.to_array(item) for item in made.graph.initializer]
    first = next(iter(network.state_dict().values())).numpy()
    assert any(value.shape == first.shape and np.allclose(value, first) for value in kept)


def test_measure_runs_the_artifact_beside_its_float_model(place: Path) -> None:
    run("quantize", "m.onnx", "--target", "onnxruntime", "--calibration", "cases", "--board", "none", "--out", "q")
    (place / "study.toml").write_text(ON_A_BUSY_MACHINE)
    words = ["measure", "q", "--study", "study.toml", "--board", "here", "--inputs", "cases", "--queries", "672"]
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code in (0, 4), done.output  # this machine may be too busy for a valid run
    found = json.loads(done.stdout)
    assert found["valid"] == (done.exit_code == 0)
    assert (found["provenance"], found["variant"]["precision"]) == ("measured", "int8")
    median = found["estimates"]["latency_p50_ns"]
    assert 0 < median["low"] <= median["value"] <= median["high"]
    assert found["estimates"]["latency_p99_ns"]["value"] >= median["value"]
    assert found["baseline_p50_ns"]["value"] > 0
    assert found["latency_verdict"]["rounds"] >= 8
    assert 0 < found["parity"]["rel_l2"] < 0.25
    assert found["inputs"] == "12 cases of cases"
    assert found["executed"]["int8"] > 0


def test_a_file_that_is_quantized_already_is_measured_as_it_is(place: Path) -> None:
    pairs(place / "q.onnx")
    (place / "study.toml").write_text(ON_A_BUSY_MACHINE)
    words = ["measure", "q.onnx", "--study", "study.toml", "--board", "here", "--queries", "64", "--json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code in (0, 4), done.output  # this machine may be too busy for a valid run
    found = json.loads(done.stdout)
    assert found["variant"]["precision"] == "as-given"
    assert found["executed"]["int8"] > 0
    assert found["baseline_p50_ns"] is None
    assert any("measured as it is given: it is quantized already" in note for note in found["notes"])


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("quantize absent.onnx --target openvino --calibration cases --out x", 2, "absent.onnx: there is no such file"),
        ("quantize cases --target openvino --calibration cases --out x", 2, "cases: it is a folder"),
        ("quantize junk.onnx --target openvino --calibration cases --out x", 2, "it is no ONNX model"),
        ("quantize net.pt --target openvino --calibration cases --out x", 2, "it is a PyTorch checkpoint"),
        ("quantize m.onnx --target opnvino --calibration cases --out x", 2, "Did you mean 'openvino'"),
        ("quantize m.onnx --target absent --calibration cases --out x", 2, "--target absent: there is no such target"),
        ("quantize m.onnx --target gone --calibration cases --out x", 2, "pip install gone"),
        ("quantize m.onnx --target openvino --precision int7 --calibration cases --out x", 2, "Did you mean 'int8'"),
        ("quantize m.onnx --target litert --precision int4-weights --out x", 2, "It builds: float32"),
        ("quantize m.onnx --target openvino --precision int4 --out x", 2, "It builds: float32"),
        ("quantize m.onnx --target openvino --out x", 2, "Add --calibration"),
        ("quantize m.onnx --target openvino --calibration absent --out x", 2, "--calibration absent: there is no such"),
        ("quantize m.onnx --target openvino --calibration empty --out x", 2, "--calibration empty: there is no file"),
        ("quantize m.onnx --target openvino --calibration wrong.npy --out x", 2, "wrong.npy: it is float32 (3, 5)"),
        ("quantize m.onnx --target openvino --calibration images --out x", 2, "--colour rgb --mean 0 --std 255"),
        (
            "quantize m.onnx --target openvino --calibration images --colour rgb --out x",
            2,
            "--mean, --std is not given",
        ),
        ("quantize m.onnx --target openvino --calibration cases --shape image --out x", 2, "--shape: got 'image'"),
        ("quantize m.onnx --target openvino --calibration cases --calibrator x --out x", 2, "It has: mean-minmax"),
        ("quantize m.onnx --target openvino --calibration cases --quantizer x --out x", 2, "It has: nncf, nncf-minmax"),
        ("quantize m.onnx --target openvino --calibration cases --weight-bits 6 --out x", 2, "7 or 8 bits"),
        ("quantize m.onnx --target openvino --calibration cases --board no:where --out x", 2, "it is no board"),
        ("quantize m.onnx --target openvino --calibration cases --out cases", 2, "--out cases: it exists already"),
        ("quantize --target openvino --out x", 2, "the model: none was named"),
        ("quantize m.onnx --target openvino --task squares.py:make_task --out x", 2, "an ONNX file was given too"),
        ("quantize m.onnx --target openvino --calibration cases --checkpoint net.pt --out x", 2, "has its weights"),
        ("quantize --target openvino --task squares.py:make_task --out x", 2, "Add --checkpoint with a file"),
        ("quantize --target openvino --task squares.py:make_task --checkpoint net.pt --out x", 2, "checkpoint net.pt"),
        ("quantize --target openvino --task nowhere.py:make --out x", 2, "no file at"),
        ("quantize q.onnx --target openvino --calibration cases --out x", 2, "it is quantized already (operator"),
        ("measure q.onnx --board local --precision int8-dynamic", 2, "Leave it out: the file is measured as it is"),
        ("measure q.onnx --board local --target litert", 4, "it builds from float models"),
        ("measure m.onnx", 2, "--board: it is missing"),
        ("measure absent --board local", 2, "there is no such file or folder"),
        ("measure empty --board local", 2, "no manifest"),
        ("measure m.onnx --board local --precision int8", 2, "edgedeploy quantize m.onnx"),
        ("measure m.onnx --board local --inputs wrong.npy", 2, "wrong.npy: it is float32 (3, 5)"),
        ("measure m.onnx --board local --target openvno", 2, "Did you mean 'openvino'"),
        ("measure m.onnx --study absent.toml", 2, "absent.toml: there is no such file"),
        ("measure m.onnx --board nobody@127.0.0.1:9", 3, "127.0.0.1"),
        ("export empty --pick --out x", 2, "it holds no study"),
        ("export empty --out x", 2, "neither was given"),
    ],
)
def test_a_mistake_is_told_and_nothing_is_written(
    words: str, code: int, message: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone(OnnxRuntimeTarget):
        name = "gone"

        def probe(self) -> edgedeploy.Readiness:
            return edgedeploy.Readiness(False, {}, "not installed: gone", "pip install gone")

    plugin = registry.Plugin("gone", "gone:Gone", Gone(), None)
    monkeypatch.setattr("edgedeploy.study.oneshot.desk.find_targets", lambda: (*registry.find_targets(), plugin))
    (place / "empty").mkdir()
    (place / "junk.onnx").write_bytes(b"hello" * 9)
    (place / "net.pt").write_bytes(b"weights")
    pairs(place / "q.onnx")
    shutil.copy(REPO / "docs" / "examples" / "squares.py", place)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    np.save(place / "wrong.npy", np.zeros((3, 5), np.float32))
    before = sorted(place.rglob("*"))
    with pytest.raises(EdgeDeployError) as caught:
        run(*words.split())
    assert message in str(caught.value)
    assert caught.value.exit_code == code
    assert caught.value.remedy or code == 3
    assert sorted(place.rglob("*")) == before


def test_the_command_itself_ends_with_one_line(place: Path) -> None:
    argv = [sys.executable, "-m", "edgedeploy", "quantize", "absent.onnx", "--target", "openvino", "--out", "x"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: ")


# -- export


@pytest.fixture
def study(tmp_path: Path) -> tuple[Store, Variant, Variant]:
    """A study's folder with a float baseline and an int8 variant that is as good and twice as fast: the pick."""
    baseline, small = (made_up.variant(precision=precision) for precision in ("float32", "int8"))
    store = new_store(tmp_path / "runs", [baseline])
    desk = bench(store, SmallTask(tmp_path / "task"))
    for variant, latency_ms in ((baseline, 6.0), (small, 3.0)):
        built, _ = desk.artifact(variant)
        store.keep(made_up.measurement(variant, latency_ms=latency_ms, artifact=built))
    return store, baseline, small


def test_export_copies_the_pick(study: tuple[Store, Variant, Variant], tmp_path: Path) -> None:
    store, _, small = study
    out = tmp_path / "shipped"
    said = run("export", str(store.root), "--pick", "--out", str(out))
    assert f"{small.label}, the pick: of " in " ".join(said.split())
    assert f"File: {out / 'model.onnx'}" in said.replace("\n", "")
    assert NO_BUNDLE in said
    kept = edgedeploy.Measurement.from_json(json.loads((out / "measurement.json").read_text()))
    assert kept.digest == small.digest
    assert loaded(out)["outputs"][0].shape == (1, 2, 16, 16)
    readme = (out / "README.md").read_text()
    assert small.digest in readme
    assert "`latency_p50_ns`" in readme
    with pytest.raises(edgedeploy.SpecError, match="it exists already"):
        run("export", str(store.root), "--pick", "--out", str(out))


@pytest.mark.parametrize("option", ["--pick", "--variant"])
def test_export_copies_a_variant_by_its_digest(
    option: str, study: tuple[Store, Variant, Variant], tmp_path: Path
) -> None:
    store, baseline, _ = study
    words = (str(store.root), option, baseline.digest[:8], "--out", str(tmp_path / "shipped"), "--json")
    said = json.loads(run("export", *words))
    assert (said["variant"], said["picked"]) == (baseline.digest, False)


def test_export_tells_what_cannot_be_copied(study: tuple[Store, Variant, Variant], tmp_path: Path) -> None:
    store, baseline, small = study
    out = tmp_path / "shipped"
    with pytest.raises(edgedeploy.SpecError, match="0 measured variants"):
        run("export", str(store.root), "--variant", "abcdef", "--out", str(out))
    model = store.artifact_folder(small.artifact_name) / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    with pytest.raises(edgedeploy.SpecError, match=r"model.onnx is not the file that was built"):
        run("export", str(store.root), "--pick", "--out", str(out))
    shutil.rmtree(model.parent)
    with pytest.raises(edgedeploy.DataError, match=r"is not in .*artifacts any more"):
        run("export", str(store.root), "--pick", "--out", str(out))
    for path in (store.root / "measurements").iterdir():
        path.unlink()
    with pytest.raises(GoalNotMet, match="the study has none"):
        run("export", str(store.root), "--pick", "--out", str(out))
    assert baseline.digest
    assert not out.exists()
