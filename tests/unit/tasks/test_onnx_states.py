"""ONNX models that carry state from frame to frame: a case is a clip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_networks import recurrent_cell

from edgedeploy.errors import EdgeDeployError
from edgedeploy.interfaces.target import BuildRequest
from edgedeploy.interfaces.task import Stateful
from edgedeploy.records.variant import Variant
from edgedeploy.runtime.agent.worker import Cases, Worker
from edgedeploy.runtime.sessions.open import open_session
from edgedeploy.study.account import Account
from edgedeploy.study.store import Store
from edgedeploy.study.workbench import Workbench
from edgedeploy.targets.onnxruntime.target import OnnxRuntimeTarget
from edgedeploy.tasks.load import load_task
from edgedeploy.tasks.onnx.task import OnnxTask

FRAMES = 6


def clips(folder: Path, *, frames: int = FRAMES, short: bool = True) -> dict[str, Any]:
    found: dict[str, Any] = {"states": {"state": "stateN"}, "initial": {"state": 0.5}}
    for seed, split in enumerate(("calibration", "selection", "confirmation")):
        rng = np.random.default_rng(seed)
        shape = (3, frames, 8) if short else (3, frames, 1, 8)
        np.savez(
            folder / f"{split}.npz",
            x=rng.standard_normal(shape).astype(np.float32),
            gain=np.ones((3, frames), np.float32),
        )
        found[split] = f"{split}.npz"
    return found


def load(folder: Path, options: dict[str, Any]) -> OnnxTask:
    recurrent_cell(folder / "m.onnx")
    task = load_task({"kind": "onnx", "model": "m.onnx", "options": options}, folder)
    assert isinstance(task, OnnxTask)
    return task


def by_hand(folder: Path, clip: dict[str, Any], start: float) -> np.ndarray:
    """The recurrence in numpy."""
    import onnx

    held = {item.name: onnx.numpy_helper.to_array(item) for item in onnx.load(str(folder / "m.onnx")).graph.initializer}
    state, rows = np.full((1, 8), start, np.float32), []
    for x, gain in zip(clip["x"], clip["gain"], strict=True):
        state = np.tanh(x @ held["v"] + state @ held["u"])
        rows.append(state * gain @ held["h"])
    return np.stack(rows)


@pytest.mark.parametrize("short", [True, False], ids=["without batch axis", "with batch axis"])
def test_a_case_is_a_clip_and_its_state_is_carried(short: bool, tmp_path: Path) -> None:
    task = load(tmp_path, clips(tmp_path, short=short))
    assert isinstance(task, Stateful)
    case = task.cases("selection")[0]
    feed = task.inputs(case)
    assert (
        {name: value.shape for name, value in feed.items()}
        == {spec.name: spec.shape for spec in task.input_specs()}
        == {"x": (FRAMES, 1, 8), "state": (1, 8), "gain": (FRAMES,)}
    )
    expected = by_hand(tmp_path, feed, 0.5)
    found = task.evaluate({"y": expected}, case)
    assert found["reference_rel_l2"] == pytest.approx(0.0, abs=1e-5)
    reset = np.concatenate(
        [
            by_hand(tmp_path, {name: feed[name][index : index + 1] for name in ("x", "gain")}, 0.5)
            for index in range(FRAMES)
        ]
    )
    worse = task.evaluate({"y": reset}, case)["reference_rel_l2"]
    assert worse is not None
    assert worse > 0.05


def test_board_and_host_run_clips_frame_by_frame(tmp_path: Path) -> None:
    """The study's own inputs, artifact and golden outputs, through a worker's code."""
    task = load(tmp_path, clips(tmp_path))
    store = Store(tmp_path / "out")
    bench = Workbench(task, {"onnxruntime": OnnxRuntimeTarget()}, store, Account(store))
    variant = Variant("onnxruntime", "int8", 1.0, (), 1)
    payload = bench.payload(variant, "selection")
    assert payload.states == {"state": "stateN"}
    (tmp_path / "board" / "inputs").mkdir(parents=True)
    with np.load(payload.inputs) as arrays:
        (tmp_path / "board" / "inputs" / "names.txt").write_text("\n".join(arrays.files))
        for index, name in enumerate(arrays.files):
            np.save(tmp_path / "board" / "inputs" / f"{index}.npy", arrays[name])
    session = open_session("onnxruntime", payload.folder, payload.artifact.entry, dict(payload.artifact.settings), 1)
    worker = Worker(session, Cases(tmp_path / "board" / "inputs"), tmp_path / "board", payload.states)
    assert len(worker.block(3)["block_ns"]) == 3
    assert worker.collect_outputs() == {"cases": 6}
    with np.load(tmp_path / "board" / "outputs.npz") as outputs:
        assert outputs.files == ["y"]
        found = outputs["y"]
    assert found.shape == (6, FRAMES, 1, 4)
    golden = bench.golden_outputs(variant)
    assert [row["y"].shape for row in golden] == [(FRAMES, 1, 4)] * 3
    for index, case in enumerate(task.cases("calibration")):
        exact = by_hand(tmp_path, task.inputs(case), 0.5)
        assert np.allclose(golden[index]["y"], exact, atol=1e-5)
        assert 1e-4 < np.linalg.norm(found[index] - exact) / np.linalg.norm(exact) < 0.1  # int8 with states of its own


def test_calibration_sees_each_frame_with_its_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = load(tmp_path, clips(tmp_path))
    seen: list[BuildRequest] = []

    class Spy(OnnxRuntimeTarget):
        def build(self, request: BuildRequest, folder: Path) -> Any:
            seen.append(request)
            return super().build(request, folder)

    store = Store(tmp_path / "out")
    bench = Workbench(task, {"onnxruntime": Spy()}, store, Account(store))
    bench.artifact(Variant("onnxruntime", "float32", 1.0, (), 1))
    frames = list(seen[0].calibration())
    assert len(frames) == 3 * FRAMES
    assert {name: value.shape for name, value in frames[0].items()} == {"x": (1, 8), "state": (1, 8), "gain": ()}
    assert np.all(frames[0]["state"] == 0.5)
    assert not np.array_equal(frames[1]["state"], frames[0]["state"])
    assert np.all(frames[FRAMES]["state"] == 0.5)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"states": {"stat": "stateN"}}, "states.stat .*Did you mean 'state'"),
        ({"states": {"state": "stateM"}}, "states.state .*Did you mean 'stateN'"),
        ({"states": {"state": "y"}}, r"\[1, 8\] goes in, float32 \[1, 4\] comes out"),
        ({"states": {"state": "stateN", "x": "stateN"}}, "two inputs have one output"),
        ({"states": "stateN"}, "For example { state = "),
        ({"states": {"state": 1}}, "states.state: got 1"),
        ({"initial": {"x": 1}}, "initial.x: it is no state"),
        ({"initial": {"state": [1, 2, 3]}}, r"initial.state: it does not fill \[1, 8\]"),
        ({"selection": "images"}, "there is no .npz file"),
        ({"states": {}}, "initial.state: it is no state"),
    ],
)
def test_a_state_that_does_not_fit_is_named(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(EdgeDeployError, match=told):
        load(tmp_path, clips(tmp_path) | change)


def test_clips_that_do_not_fit_are_named(tmp_path: Path) -> None:
    options = clips(tmp_path)
    np.savez(tmp_path / "selection.npz", x=np.ones((3, 5, 8), np.float32), gain=np.ones((3, 5), np.float32))
    with pytest.raises(EdgeDeployError, match="clips of one length: frames: calibration 6, selection 5"):
        load(tmp_path, options)
    np.savez(tmp_path / "selection.npz", x=np.ones((3, 8), np.float32), gain=np.ones((3, 6), np.float32))
    with pytest.raises(EdgeDeployError, match=r"it is \(3, 8\). Wanted: float32, \(cases, frames, 1, 8\)"):
        load(tmp_path, options)
