"""What an integrator's three lines do: a bundle that is ready, or a refusal with its reason."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import product_kit as kit
import pytest
from onnx import helper

from edgedeploy import runtime
from edgedeploy.runtime.bundle import manifest as m
from edgedeploy.runtime.bundle.commands import main
from edgedeploy.runtime.bundle.load import load
from edgedeploy.runtime.faults import BundleError


class Made(NamedTuple):
    files: dict[str, bytes]
    folder: Path
    key: Path
    trust: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    place = tmp_path_factory.mktemp("made")
    key, trust = kit.make_key(place)
    files = kit.make_files()
    return Made(files, kit.write_signed(place / "bundle", files, key), key, trust)


def refused(made: Made, folder: Path, **options: Any) -> BundleError:
    with pytest.raises(BundleError) as caught:
        load(folder, **{"trust": made.trust, **options})
    return caught.value


def manifest_of(made: Made) -> m.Manifest:
    return m.parse(made.files[m.MANIFEST])


def test_three_lines(made: Made) -> None:
    model = runtime.load(str(made.folder), trust=str(made.trust))
    frame = kit.frames(1)[0]
    mask = model(frame)
    assert mask.shape == frame.shape and mask.dtype == np.uint8 and 0 < mask.mean() < 1
    assert (model.name, model.release, model.proof.cases) == ("thyroid", 1, 2)
    assert model.proof.relative_l2["out"] <= 1e-4 and model.signer is not None
    assert model.device.startswith("CPUExecutionProvider (onnxruntime ")
    with pytest.raises(ValueError, match="uint8 or float32"):
        model(frame.astype(np.int32))


def test_a_bundle_without_steps_takes_and_gives_tensors(tmp_path: Path, made: Made) -> None:
    folder = kit.write_signed(tmp_path / "bundle", kit.make_files("openvino", steps=kit.NO_STEPS), made.key)
    model = load(folder, trust=made.trust.read_bytes())
    image = np.load(folder / "golden/c0.image.npy")
    for outputs in (model.run({"image": image}), model({"image": image}), model(image)):
        np.testing.assert_allclose(outputs["out"], np.load(folder / "golden/c0.out.npy"), rtol=1e-4, atol=1e-4)
    assert model.proof.share_differing is None


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, "takes image, and was given nothing"),
        ({"frame": np.zeros(3)}, "takes image, and was given frame"),
        ({"image": [1, 2]}, "is a list"),
        ({"image": np.zeros((1, 3, 16, 16), ">f4")}, r"is >f4\[1, 3, 16, 16\], the model takes float32"),
        ({"image": np.zeros((1, 3, 16, 16))}, r"is float64\[1, 3, 16, 16\], the model takes float32\[1, 3, 16, 16\]"),
        ({"image": np.zeros((2, 3, 16, 16), np.float32)}, r"is float32\[2, 3, 16, 16\]"),
    ],
)
def test_tensors_of_another_form_are_the_callers_mistake(made: Made, inputs: Mapping[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        load(made.folder, trust=made.trust).run(inputs)


def test_threads_get_the_answers_to_their_own_frames(made: Made) -> None:
    model = load(made.folder, trust=made.trust)
    frames = kit.frames(4, seed=9)
    expected = [model(frame) for frame in frames]
    wrong: list[int] = []

    def work(number: int) -> None:
        for turn in range(40):
            index = (number + turn) % 4
            if not np.array_equal(model(frames[index]), expected[index]):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_stream_ends_with_a_summary(made: Made) -> None:
    model = load(made.folder, trust=made.trust)
    with model.stream(policy="latest", deadline_ns=10**9) as stream:
        for frame in kit.frames(3):
            stream.put(frame)
        answer = stream.get()
    assert answer is not None and answer.result.shape == (24, 40)
    found = stream.summary()
    assert (found.arrived, found.processed, found.dropped, found.missed) == (3, 1, 2, 2)


def test_the_bytes_that_were_hashed_are_the_bytes_that_are_loaded(made: Made, tmp_path: Path) -> None:
    """The folder changes between hashing and opening; the session is of what was hashed, and leaves no file behind."""
    folder = kit.write_signed(tmp_path / "bundle", made.files, made.key)
    code = f"""
import sys, tempfile
from pathlib import Path
from edgedeploy.runtime.bundle import load as module
opened = module.open_session
def exchanged(target, place, entry, *rest):
    Path({str(folder)!r}, "artifact", "model.onnx").write_bytes(b"another model")
    print(oct(Path(place).stat().st_mode & 0o777), Path(place).is_relative_to(tempfile.gettempdir()))
    return opened(target, place, entry, *rest)
module.open_session = exchanged
print(module.load({str(folder)!r}, trust={str(made.trust)!r}).proof.cases)
"""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.stdout.split() == ["0o700", "True", "2"], done.stderr
    assert list(temporary.glob("edgedeploy-*")) == []
    assert refused(made, folder).reason == "tampered"


@pytest.mark.fault(36)
def test_what_signature_and_manifest_refuse(made: Made, tmp_path: Path) -> None:
    assert refused(made, tmp_path / "nowhere").reason == "unreadable"
    folder = kit.write_files(tmp_path / "unsigned", made.files)
    assert refused(made, folder).reason == "unsigned"
    assert load(folder, trust=None).signer is None
    other = tmp_path / "other"
    other.mkdir()
    assert refused(made, made.folder, trust=kit.make_key(other)[1]).reason == "untrusted"
    folder = kit.write_signed(tmp_path / "more", made.files, made.key)
    (folder / "extra.py").write_text("print('here')")
    assert refused(made, folder).reason == "tampered"
    assert refused(made, folder, trust=None).reason == "tampered"


def test_a_last_day_counts_where_a_clock_is_given(made: Made, tmp_path: Path) -> None:
    files = kit.changed(made.files, not_after="2026-01-31T12:00:00Z")
    folder = kit.write_signed(tmp_path / "bundle", files, made.key)
    assert load(folder, trust=made.trust).release == 1
    assert load(folder, trust=made.trust, now=datetime(2026, 1, 31, tzinfo=UTC)).release == 1
    assert refused(made, folder, now=datetime(2026, 2, 1, tzinfo=UTC)).reason == "expired"


def test_another_machine_is_refused_before_anything_is_opened(made: Made, tmp_path: Path) -> None:
    for field, value in (
        ("machine", "riscv64" if platform.machine() != "riscv64" else "x86_64"),
        ("cpu_flags", ("not_of_this_cpu",)),
        ("gpu", "NVIDIA Thor"),
        ("runtime", m.RuntimeRange("onnxruntime", "999", None, "999")),
    ):
        wanted = replace(manifest_of(made).compatibility, **{field: value})
        files = kit.changed({**made.files, "artifact/model.onnx": b"never opened"}, compatibility=wanted)
        found = refused(made, kit.write_signed(tmp_path / field, files, made.key))
        assert found.reason == "incompatible" and "pip" in found.remedy if field == "runtime" else found.remedy


def test_golden_cases_of_a_network_that_carries_state_are_clips(made: Made, tmp_path: Path) -> None:
    """y = x + h, and h of the next frame is y: only a state that is carried gives the sums."""
    value, shape = helper.make_tensor_value_info, [1, 4]
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "h"], ["y"]), helper.make_node("Identity", ["y"], ["after"])],
        "sums",
        [value(name, onnx.TensorProto.FLOAT, shape) for name in ("x", "h")],
        [value(name, onnx.TensorProto.FLOAT, shape) for name in ("y", "after")],
    )
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = np.arange(12, dtype=np.float32).reshape(3, 1, 4)
    arrays = {"x": x, "h": np.ones((1, 4), np.float32), "y": 1 + x.cumsum(axis=0, dtype=np.float32)}
    files = {f"golden/c.{name}.npy": kit.npy(array) for name, array in arrays.items()}
    before = manifest_of(made)
    manifest = replace(
        before,
        artifact=m.ArtifactPart("files", ("model.onnx",), m.Session("model.onnx", {}, 1, {"h": "after"})),
        inputs=tuple(m.Tensor(name, "float32", (1, 4)) for name in ("x", "h")),
        outputs=tuple(m.Tensor(name, "float32", (1, 4)) for name in ("y", "after")),
        pipeline=kit.NO_STEPS,
        golden=m.Golden(
            (m.GoldenCase("c", None, {n: f"golden/c.{n}.npy" for n in "xh"}, {"y": "golden/c.y.npy"}, None),),
            {"y": m.Tolerance(1e-6, None)},
            None,
        ),
    )
    whole = kit.with_manifest({"artifact/model.onnx": network.SerializeToString(), **files}, manifest)
    model = load(kit.write_signed(tmp_path / "bundle", whole, made.key), trust=made.trust)
    outputs = model.run({"x": x[0], "h": x[1]})
    np.testing.assert_array_equal(outputs["after"], x[0] + x[1])
    forgetful = kit.with_manifest({**whole, "golden/c.y.npy": kit.npy(1 + x)}, manifest)
    assert refused(made, kit.write_signed(tmp_path / "other", forgetful, made.key)).reason == "wrong_answer"


@pytest.mark.fault(34)
def test_an_engine_of_tensorrt_is_refused_before_anything_is_looked_for(made: Made, tmp_path: Path) -> None:
    """Signed or not: a bundle has the recipe, and the device builds its own."""
    files = kit.changed({**made.files, "artifact/model.onnx": b"ptrt" + bytes(64)}, target="tensorrt")
    found = refused(made, kit.write_signed(tmp_path / "bundle", files, made.key))
    assert found.reason == "malformed" and "native code" in found.message


def test_an_artifact_that_does_not_open_is_refused(made: Made, tmp_path: Path) -> None:
    files = kit.changed({**made.files, "artifact/model.onnx": b"no model"})
    found = refused(made, kit.write_signed(tmp_path / "bundle", files, made.key))
    assert found.reason == "incompatible" and found.message.startswith("onnxruntime: ")


@pytest.mark.parametrize("what", ["weight", "golden", "result"])
def test_another_answer_is_refused_though_it_is_signed(made: Made, tmp_path: Path, what: str) -> None:
    """A wrong build, or a machine that computes something else: no signature tells."""
    files = dict(made.files)
    if what == "weight":
        model = onnx.load_from_string(files["artifact/model.onnx"])
        weight = next(item for item in model.graph.initializer if item.name == "wh")
        values = onnx.numpy_helper.to_array(weight).copy()
        values.flat[0] += 0.01
        weight.CopyFrom(onnx.numpy_helper.from_array(values, "wh"))
        files["artifact/model.onnx"] = model.SerializeToString()
    else:
        kind = "out" if what == "golden" else "result"
        array = np.load(made.folder / f"golden/c1.{kind}.npy").copy()
        array[..., :4] = array[..., :4] + 1 if what == "golden" else 1 - array[..., :4]
        files[f"golden/c1.{kind}.npy"] = kit.npy(array)
    found = refused(made, kit.write_signed(tmp_path / "bundle", kit.changed(files), made.key))
    assert found.reason == "wrong_answer"
    assert ("'c0'" if what == "weight" else "'c1'") in found.message


def test_a_full_disk_is_told(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    assert refused(made, made.folder).reason == "unreadable"


def test_load_is_imported_when_it_is_asked_for() -> None:
    code = (
        "import sys; import edgedeploy.runtime as r; before = set(sys.modules); r.load; "
        "print(*sorted(n for n in before if n.startswith(('numpy', 'edgedeploy')))); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = done.stdout.splitlines()
    assert "numpy" not in before.split() and "edgedeploy.runtime.bundle.load" not in before.split()
    heavy = {"torch", "onnx", "onnxruntime", "openvino", "pydantic", "typer", "optuna"}
    assert not heavy & set(after.split())
    with pytest.raises(AttributeError):
        runtime.loader  # noqa: B018


class TestCommands:
    def answers(self, capsys: pytest.CaptureFixture[str]) -> list[Any]:
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    def test_verify(self, made: Made, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        assert main(["verify", str(made.folder), "--trust", str(made.trust)]) == 0
        (found,) = self.answers(capsys)
        assert found["verified"] and (found["name"], found["release"]) == ("thyroid", 1) and found["signer"]
        folder = kit.write_signed(tmp_path / "bundle", made.files, made.key)
        (folder / "bundle.json").write_bytes(b"{}")
        assert main(["verify", str(folder), "--trust", str(made.trust)]) == 2
        assert self.answers(capsys)[0]["refused"] == "tampered"

    def test_run(self, made: Made, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        frame = kit.frames(1)[0]
        np.save(tmp_path / "frame.npy", frame)
        options = ["--trust", str(made.trust), "--out", str(tmp_path / "out")]
        assert main(["run", str(made.folder), *options, "--frames", str(tmp_path / "frame.npy")]) == 0
        ready, answer = self.answers(capsys)
        assert ready["proof"]["cases"] == 2 and answer["shapes"] == {"result": [24, 40]} and answer["spent_ns"] > 0
        mask = np.load(tmp_path / "out" / "frame.npy")
        np.testing.assert_array_equal(mask, load(made.folder, trust=made.trust)(frame))
        np.save(tmp_path / "frame.npy", frame.astype(np.int64))
        assert main(["run", str(made.folder), *options, "--frames", str(tmp_path / "frame.npy")]) == 2
        assert "uint8 or float32" in capsys.readouterr().err

    def test_run_without_steps_keeps_outputs_by_name(
        self, made: Made, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        folder = kit.write_files(tmp_path / "bundle", kit.make_files(steps=kit.NO_STEPS))
        image = folder / "golden" / "c0.image.npy"
        assert main(["run", str(folder), "--unsigned", "--out", str(tmp_path / "out"), "--frames", str(image)]) == 0
        assert self.answers(capsys)[1]["shapes"] == {"out": [1, 2, 16, 16]}
        with np.load(tmp_path / "out" / "c0.image.npz") as found:
            np.testing.assert_allclose(found["out"], np.load(folder / "golden" / "c0.out.npy"), atol=1e-4)

    def test_whoever_trusts_nobody_says_so(self, made: Made, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            main(["verify", str(made.folder)])
        assert caught.value.code == 2
        assert "--unsigned" in capsys.readouterr().err

    def test_the_agents_commands_stand_beside_them(self, made: Made) -> None:
        argv = [sys.executable, "-m", "edgedeploy.runtime"]
        probe = subprocess.run([*argv, "--root", "/nowhere", "probe"], capture_output=True, text=True, check=True)
        assert json.loads(probe.stdout)["cores"] >= 1
        verified = subprocess.run(
            [*argv, "verify", made.folder, "--trust", made.trust], capture_output=True, text=True, check=True
        )
        assert json.loads(verified.stdout)["verified"]
