"""A bare ONNX file as a task: what is taken in, what is refused and why, and what its metrics mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image
from small_onnx import convolutional

from edgedeploy.errors import DataError, EdgeDeployError, MeasurementError, SpecError, Unsupported
from edgedeploy.interfaces.task import ReadyMade, Task, Trainable
from edgedeploy.reference.take_in import take_in
from edgedeploy.tasks.load import load_task
from edgedeploy.tasks.onnx.inputs import ArraySource
from edgedeploy.tasks.onnx.task import OnnxTask

MODELS = [
    ("ultraface/version-RFB-320_without_postprocessing.onnx", {}),
    ("ultraface/version-slim-320_without_postprocessing.onnx", {}),
    ("yunet/yunet_n_320_320.onnx", {}),
    ("yunet/yunet_n_dynamic.onnx", {"input": [1, 3, 320, 320]}),
    ("lwnet/wnet_drive_512.onnx", {}),
]


def arrays(path: Path, count: int, seed: int, **other: Any) -> str:
    rng = np.random.default_rng(seed)
    np.savez(path, **{"image": rng.standard_normal((count, 1, 3, 16, 16)).astype(np.float32), **other})
    return path.name


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    """Sources beside a model, as the options of a study name them."""
    convolutional(tmp_path / "model.onnx")
    return {
        split: arrays(tmp_path / f"{split}.npz", 5, seed)
        for seed, split in enumerate(("calibration", "selection", "confirmation"))
    }


def load(folder: Path, options: dict[str, Any]) -> OnnxTask:
    task = load_task({"kind": "onnx", "model": "model.onnx", "options": options}, folder)
    assert isinstance(task, OnnxTask)
    return task


def test_it_is_a_task_without_training(tmp_path: Path, options: dict[str, Any]) -> None:
    task = load(tmp_path, options)
    assert isinstance(task, Task)
    assert isinstance(task, ReadyMade)
    assert not isinstance(task, Trainable)
    assert [len(task.cases(split)) for split in ("train", "calibration", "selection", "confirmation")] == [0, 5, 5, 5]
    with pytest.raises(SpecError, match="neither trained nor pruned"):
        task.build()


def test_metrics_are_agreement_with_the_reference(tmp_path: Path, options: dict[str, Any]) -> None:
    task = load(tmp_path, options)
    case = task.cases("selection")[0]
    own = {name: np.asarray(value) for name, value in task._expected(case).items()}
    assert task.evaluate(own, case) == {"reference_rel_l2": 0.0, "reference_max_abs": 0.0}
    found = task.evaluate({"out": own["out"] * 1.1}, case)
    assert found["reference_rel_l2"] == pytest.approx(0.1, rel=1e-5)
    assert found["reference_max_abs"] == pytest.approx(0.1 * float(np.abs(own["out"]).max()), rel=1e-5)
    assert set(found) == set(task.metrics)
    assert all("not accuracy" in info.text for info in task.metrics.values())
    with pytest.raises(MeasurementError, match="NaN"):
        task.evaluate({"out": own["out"] * np.nan}, case)


def test_rows_are_read_one_at_a_time(tmp_path: Path, options: dict[str, Any]) -> None:
    task = load(tmp_path, options)
    stored = np.load(tmp_path / "selection.npz")["image"]
    for index, case in enumerate(task.cases("selection")):
        assert np.array_equal(task.inputs(case)["image"], stored[index])
    np.savez_compressed(tmp_path / "packed.npz", image=stored[:, 0])
    packed = ArraySource(tmp_path / "packed.npz", task.taken.inputs)
    assert np.array_equal(packed.load(3)["image"], stored[3])


def test_images_are_prepared_as_stated(tmp_path: Path, options: dict[str, Any]) -> None:
    for split, shade in (("calibration", 10), ("selection", 20), ("confirmation", 30)):
        (tmp_path / "img" / split).mkdir(parents=True)
        Image.new("RGB", (40, 30), (shade, 2 * shade, 250)).save(tmp_path / "img" / split / "a.png")
        options[split] = f"img/{split}"
    with pytest.raises(SpecError, match="preprocessing: it is missing"):
        load(tmp_path, options)
    options["preprocessing"] = {"colour": "bgr", "mean": [100.0, 0.0, 0.0], "std": 2.0}
    task = load(tmp_path, options)
    image = task.inputs(task.cases("selection")[0])["image"]
    assert image.shape == (1, 3, 16, 16)
    assert image[0, :, 5, 5] == pytest.approx([75.0, 20.0, 10.0])


def deep_images(folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Two pictures of 12 bits a split, in files of 16; those of one split differ by one of 4096 shades."""
    for number, split in enumerate(("calibration", "selection", "confirmation")):
        (folder / split).mkdir()
        for index in range(2):
            shades = np.linspace(0, 4000, 256).astype(np.uint16).reshape(16, 16) + np.uint16(20 * number)
            shades[0, 0] += index
            Image.fromarray(shades).save(folder / split / f"{index}.png")
    sources = {split: split for split in ("calibration", "selection", "confirmation")}
    return {**options, **sources, "preprocessing": {"colour": "rgb", "mean": 0.0, "std": 255.0}}


def test_sixteen_bit_images_are_neither_white_nor_black(tmp_path: Path, options: dict[str, Any]) -> None:
    options = deep_images(tmp_path, options)
    task = load(tmp_path, options)
    assert "0 to 4095 (12 bits)" in task.notes[0]
    first, second = (task.inputs(case)["image"] for case in task.cases("selection"))
    assert first[0, 0, 15, 15] == pytest.approx(4020 / 4095, abs=1e-6)
    assert len(np.unique(first[0, 0])) == 256
    assert not np.array_equal(first, second)
    options["preprocessing"]["value_range"] = [0, 65535]
    assert load(tmp_path, options).inputs(task.cases("selection")[0])["image"].max() == pytest.approx(4020 / 65535)
    options["preprocessing"] |= {"value_range": "raw", "mean": 2000.0, "std": 1.0}
    assert load(tmp_path, options).inputs(task.cases("selection")[0])["image"].max() == 2020


def test_pages_and_orientation_of_images_count_in_a_bare_model(tmp_path: Path, options: dict[str, Any]) -> None:
    options = deep_images(tmp_path, options)
    pages = [Image.fromarray(np.full((16, 16), shade, np.uint8)) for shade in (1, 2)]
    pages[0].save(tmp_path / "selection" / "two.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match="it has 2 pages"):
        load(tmp_path, options)
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = np.arange(256, dtype=np.uint8).reshape(16, 16)
    (tmp_path / "selection" / "two.tif").unlink()
    Image.fromarray(np.ascontiguousarray(np.rot90(upright))).save(tmp_path / "selection" / "side.png", exif=exif)
    task = load(tmp_path, options)
    case = next(case for case in task.cases("selection") if case.id.endswith("side.png"))
    assert task.inputs(case)["image"][0, 0] * 255 == pytest.approx(upright, abs=1e-4)


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"preprocessing": {"colour": "rgb", "mean": 0, "std": 1, "value_range": [9, 1]}}, SpecError, "value_range"),
        ({"selection": ""}, SpecError, "task.options.selection"),
        ({"selections": "x.npz"}, SpecError, "Did you mean 'selection'"),
        ({"selection": "absent.npz"}, DataError, "no folder and no .npz"),
        ({"selection": "calibration.npz"}, DataError, "are equal"),
        ({"shapes": [1, 3]}, SpecError, "task.options.shapes"),
        ({"shapes": {"picture": [1, 3, 16, 16]}}, SpecError, "no such input"),
        ({"shapes": {"image": [1, 3, 32, 32]}}, SpecError, r"the model has \[1, 3, 16, 16\]"),
        ({"preprocessing": {"colour": "rgb"}}, SpecError, "not colour, mean and std"),
        ({"preprocessing": {"colour": "rgb", "mean": 0, "std": 0}}, SpecError, "preprocessing.std"),
        ({"preprocessing": {"colour": "hsv", "mean": 0, "std": 1}}, SpecError, "Known: rgb, bgr, grey"),
    ],
)
def test_a_wrong_option_is_named(
    change: dict[str, Any], error: type[EdgeDeployError], told: str, tmp_path: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(error, match=told):
        load(tmp_path, options | change)


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.zeros((5, 1, 3, 8, 8), np.float32), r"\(5, 1, 3, 8, 8\)"),
        (np.zeros((5, 1, 3, 16, 16)), "float64"),
        (np.zeros((0, 1, 3, 16, 16), np.float32), "image 0"),
        (np.full((5, 1, 3, 16, 16), np.nan, np.float32), "NaN"),
        (np.array([None, 1], object), "Python objects"),
    ],
    ids=["shape", "type", "none", "nan", "objects"],
)
def test_arrays_that_do_not_fit_are_named(array: Any, told: str, tmp_path: Path, options: dict[str, Any]) -> None:
    np.savez(tmp_path / "selection.npz", image=array)
    with pytest.raises(DataError, match=told):
        load(tmp_path, options)


def test_the_copy_is_clean_and_the_same(tmp_path: Path) -> None:
    taken = take_in(convolutional(tmp_path / "m.onnx", named=False, opset=11), {})
    model = onnx.ModelProto.FromString(taken.data)
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names) == 7
    assert "Conv:c1" in names
    assert max(entry.version for entry in model.opset_import) == 13
    assert any("operator set 11" in note for note in taken.notes)


def test_open_dimensions_are_named_and_can_be_closed(tmp_path: Path) -> None:
    path = convolutional(tmp_path / "m.onnx", side="size")
    with pytest.raises(Unsupported, match=r"tensor 'image'.*dimension 2 \(size\) is open"):
        take_in(path, {})
    assert take_in(path, {"image": (1, 3, 16, 16)}).outputs[0].shape == (1, 2, 16, 16)


def single(path: Path, operator: str, domain: str = "", *, kind: int = TensorProto.FLOAT, **attributes: Any) -> Path:
    node = helper.make_node(operator, ["image"], ["out"], name="the_node", domain=domain, **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("image", kind, [1, 4])],
        [helper.make_tensor_value_info("out", TensorProto.INT64 if operator == "NonZero" else kind, None)],
    )
    opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    return path


@pytest.mark.parametrize(
    ("operator", "domain", "kind", "told"),
    [
        ("NonZero", "", TensorProto.FLOAT, r"operator NonZero \(the_node\) gives depends on values"),
        ("HoneycombPool", "com.example", TensorProto.FLOAT, "com.example.HoneycombPool of node 'the_node'"),
        ("Identity", "", TensorProto.STRING, "tensor 'image'.*element type"),
    ],
)
def test_what_cannot_be_taken_is_named(operator: str, domain: str, kind: int, told: str, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=told):
        take_in(single(tmp_path / "m.onnx", operator, domain, kind=kind), {})


@pytest.mark.parametrize("data", [b"", b"not a model at all", b"\x08\x08"], ids=["empty", "text", "bare"])
def test_what_is_no_model_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(DataError, match=r"m\.onnx"):
        take_in(tmp_path / "m.onnx", {})


def test_size_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = convolutional(tmp_path / "m.onnx")
    monkeypatch.setattr("edgedeploy.reference.take_in.MAX_MODEL_BYTES", 100)
    with pytest.raises(DataError, match="At most 100"):
        take_in(path, {})


def with_weights_in(path: Path, location: str) -> Path:
    """The model with its weights in a file of their own, which the file says is at ``location``."""
    model = onnx.load(str(convolutional(path)))
    onnx.save(model, str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    model = onnx.load(str(path), load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())
    return path


def test_weights_beside_the_model_are_taken(tmp_path: Path) -> None:
    plain = take_in(convolutional(tmp_path / "plain.onnx"), {})
    beside = take_in(with_weights_in(tmp_path / "m.onnx", "weights.bin"), {})
    assert beside.data == plain.data
    (tmp_path / "weights.bin").write_bytes((tmp_path / "weights.bin").read_bytes()[:50])
    with pytest.raises(DataError, match="cut short"):
        take_in(tmp_path / "m.onnx", {})


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "link.bin", ""])
def test_weights_outside_the_folder_are_never_read(location: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(1 << 16))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(DataError, match="outside of the model's folder"):
        take_in(with_weights_in(folder / "m.onnx", location), {})


@pytest.mark.shared
@pytest.mark.parametrize(("name", "shapes"), MODELS, ids=[Path(name).stem for name, _ in MODELS])
def test_published_models_are_taken(name: str, shapes: dict[str, Any], shared: Path) -> None:
    """Unnamed nodes, weights among the inputs, operator sets from 9 up, twelve outputs."""
    taken = take_in(shared / "models" / name, shapes)
    model = onnx.ModelProto.FromString(taken.data)
    assert len({node.name for node in model.graph.node}) == len(model.graph.node)
    assert [value.name for value in model.graph.input] == [spec.name for spec in taken.inputs]


@pytest.mark.shared
@pytest.mark.parametrize(("name", "shapes"), MODELS, ids=[Path(name).stem for name, _ in MODELS])
def test_published_models_are_tasks_on_folders_of_images(
    name: str, shapes: dict[str, Any], shared: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"preprocessing": {"colour": "rgb", "mean": 127.0, "std": 128.0}, "shapes": shapes}
    for seed, split in enumerate(("calibration", "selection", "confirmation")):
        (tmp_path / split).mkdir()
        pixels = np.random.default_rng(seed).integers(0, 256, (60, 80, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / split / "a.png")
        options[split] = split
    task = load_task({"kind": "onnx", "model": str(shared / "models" / name), "options": options}, tmp_path)
    assert isinstance(task, OnnxTask)
    case = task.cases("selection")[0]
    assert set(task.evaluate(task._expected(case), case).values()) == {0.0}


@pytest.mark.shared
def test_an_open_published_model_is_refused_by_name(shared: Path) -> None:
    with pytest.raises(Unsupported, match=r"tensor 'input' of yunet_n_dynamic.onnx: dimension 0 \(batch\) is open"):
        take_in(shared / "models" / "yunet" / "yunet_n_dynamic.onnx", {})


def test_a_logarithm_is_judged_on_its_users_cases(tmp_path: Path) -> None:
    """Of made-up inputs it gives NaN alone."""
    nodes = [helper.make_node("Sub", ["image", "five"], ["less"]), helper.make_node("Log", ["less"], ["out"])]
    shape = [1, 3, 16, 16]
    taken = [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)]
    given = [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)]
    five = onnx.numpy_helper.from_array(np.array(5, np.float32), "five")
    graph = helper.make_graph(nodes, "logarithm", taken, given, [five])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        str(tmp_path / "model.onnx"),
    )
    sources = {}
    for seed, split in enumerate(("calibration", "selection", "confirmation")):
        values = np.random.default_rng(seed).uniform(6, 9, (2, *shape)).astype(np.float32)
        np.savez(tmp_path / f"{split}.npz", image=values)
        sources[split] = f"{split}.npz"
    task = load(tmp_path, sources)
    case = task.cases("selection")[0]
    wanted = np.log(task.inputs(case)["image"] - 5)
    assert task.evaluate({"out": wanted}, case)["reference_rel_l2"] == pytest.approx(0, abs=1e-6)
    np.savez(tmp_path / "calibration.npz", image=np.ones((2, *shape), np.float32))
    with pytest.raises(Unsupported, match="NaN or Inf for case calibration/0"):
        load(tmp_path, sources)
