"""What the one-shot commands take: cases, shapes, boards in a word, and what they hold out to compare on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from edgedeploy import DataError, SpecError, TensorSpec, Unsupported
from edgedeploy.errors import OpenShape
from edgedeploy.reference.take_in import take_in
from edgedeploy.spec.boards import board_of_word
from edgedeploy.study.beginning import known_shapes, open_shape
from edgedeploy.study.oneshot.desk import parse_shapes
from edgedeploy.study.oneshot.model import cases_of, take

SPECS = (TensorSpec("image", "float32", (1, 3, 4, 4)),)
ROW = np.arange(48, dtype=np.float32).reshape(3, 4, 4)


def rows_of(place: Path, images: dict[str, object] | None = None) -> list[np.ndarray]:
    found = cases_of(place, SPECS, images, "--calibration")
    return [load()["image"] for load in {**found.calibration, **found.compared}.values()]


@pytest.mark.parametrize(
    ("shape", "count"), [((1, 3, 4, 4), 1), ((3, 4, 4), 1), ((5, 3, 4, 4), 5), ((5, 1, 3, 4, 4), 5)]
)
def test_an_npy_file_holds_one_case_or_several(shape: tuple[int, ...], count: int, tmp_path: Path) -> None:
    values = np.broadcast_to(ROW, shape) + np.arange(count, dtype=np.float32).reshape(-1, *[1] * (len(shape) - 1))
    np.save(tmp_path / "cases.npy", (values if len(shape) > 3 else values.reshape(shape)).astype(np.float32))
    for place in (tmp_path, tmp_path / "cases.npy"):
        rows = rows_of(place)
        assert [row.shape for row in rows] == [(1, 3, 4, 4)] * count
        assert [row[0, 0, 0, 0] for row in rows] == list(range(count))


def test_a_folder_of_files_is_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    np.save(tmp_path / "b.npy", ROW + 2)
    np.save(tmp_path / "a.npy", ROW + 1)
    np.savez(tmp_path / "c.npz", image=np.stack([ROW + 3, ROW + 4]))
    assert [row[0, 0, 0, 0] for row in rows_of(tmp_path)] == [1, 2, 3, 4]


def test_of_many_cases_some_are_held_out_and_of_few_none(tmp_path: Path) -> None:
    for count, compared in ((7, 7), (8, 2), (64, 16), (200, 15)):
        np.save(tmp_path / "cases.npy", np.stack([ROW + index for index in range(count)]))
        found = cases_of(tmp_path / "cases.npy", SPECS, None, "--calibration")
        assert len(found.compared) == compared
        shared = set(found.compared) & set(found.calibration)
        assert shared == (set(found.compared) if count < 8 else set())
        assert len(found.compared.keys() | found.calibration.keys()) == count


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("a.npy", np.zeros((3, 5), np.float32), r"array a.npy: it is float32 \(3, 5\). Wanted: float32 \(1, 3, 4, 4\)"),
        ("a.npy", ROW.astype(np.float64), "array a.npy: it is float64"),
        ("a.npy", np.full((1, 3, 4, 4), np.nan, np.float32), "case 0 of a.npy: it holds NaN or Inf"),
        ("a.npy", np.array([{}], dtype=object), "array a.npy: it is no .npy of numbers"),
        ("a.npy", np.zeros((0, 3, 4, 4), np.float32), "it holds 0"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(name: str, value: np.ndarray, message: str, tmp_path: Path) -> None:
    np.save(tmp_path / name, value, allow_pickle=True)
    with pytest.raises(DataError, match=message):
        cases_of(tmp_path, SPECS, None, "--calibration")


def test_an_npy_is_no_case_of_a_model_with_two_inputs(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", ROW)
    specs = (*SPECS, TensorSpec("scale", "float32", (1,)))
    with pytest.raises(DataError, match="the model has the inputs image, scale"):
        cases_of(tmp_path, specs, None, "--calibration")


def test_images_need_to_be_told_how_they_become_inputs(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / "red.png")
    with pytest.raises(SpecError, match="--colour rgb --mean 0 --std 255"):
        cases_of(tmp_path, SPECS, None, "--calibration")
    (row,) = rows_of(tmp_path, {"colour": "bgr", "mean": [0.0], "std": [255.0]})
    assert row[0, :, 0, 0].tolist() == [0, 0, 1]
    with pytest.raises(SpecError, match=r"^--mean: got"):
        cases_of(tmp_path, SPECS, {"colour": "bgr", "mean": [0.0, 1.0], "std": [1.0]}, "--calibration")


def test_an_empty_folder_and_a_wrong_path_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--calibration .*: there is no file in it"):
        cases_of(tmp_path, SPECS, None, "--calibration")
    with pytest.raises(DataError, match=r"--inputs .*: there is no such file or folder"):
        cases_of(tmp_path / "absent", SPECS, None, "--inputs")


def test_shapes_are_read_with_commas_or_an_x() -> None:
    assert parse_shapes(["image=1,3,320,320", "mask = 1x320x320"]) == {"image": (1, 3, 320, 320), "mask": (1, 320, 320)}
    for wrong in ("image", "image=", "image=1,-3", "=1,3", "image=1,,3"):
        with pytest.raises(SpecError, match="--shape: got"):
            parse_shapes([wrong])


def test_a_board_is_named_in_a_word() -> None:
    cart = board_of_word("edge@cart-3.lab:2222", "/opt/python")
    assert (cart.kind, cart.host, cart.user, cart.port) == ("ssh", "cart-3.lab", "edge", 2222)
    assert (cart.name, cart.python) == ("edge@cart-3.lab:2222", "/opt/python")
    plain = board_of_word("cart")
    assert (plain.kind, plain.host, plain.user, plain.port) == ("ssh", "cart", None, 22)
    six = board_of_word("edge@[fe80::1]")
    assert six.host == "fe80::1"
    assert board_of_word("local").kind == "local"
    assert board_of_word("emulated").kind == "emulated"
    assert board_of_word("emulated:arm64").machine == "arm64"


@pytest.mark.parametrize("word", ["a b", "", "@host", "-oProxyCommand=x", "user@-host", "emulatd:arm64", "host:99999"])
def test_a_word_that_is_no_board_is_refused(word: str) -> None:
    with pytest.raises(SpecError, match="board "):
        board_of_word(word)


def test_a_wrong_machine_names_the_near_one() -> None:
    with pytest.raises(SpecError, match="Did you mean 'emulated:arm64'"):
        board_of_word("emulated:arm46")


def open_model(path: Path, *sizes: int | str) -> Path:
    """The sum of one input, whose name has blanks: no sentence can be taken apart at them."""
    taken = onnx.helper.make_tensor_value_info("my image = x", onnx.TensorProto.FLOAT, sizes)
    given = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    node = onnx.helper.make_node("ReduceSum", ["my image = x"], ["y"], "sum", keepdims=0)
    graph = onnx.helper.make_graph([node], "g", [taken], [given])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]), path)
    return path


def test_an_open_shape_is_a_value_of_the_error_and_not_read_out_of_its_sentence(tmp_path: Path) -> None:
    batch = open_model(tmp_path / "batch.onnx", "n", 3)
    side = open_model(tmp_path / "side.onnx", "n", "side")
    known, (spec,) = known_shapes(batch, {})
    assert known == {"my image = x": (1, 3)} and spec.shape == (1, 3)
    for read, remedy in ((take_in, "'my image = x' = [1, side]"), (take, "add --shape my image = x=1,side")):
        with pytest.raises(Unsupported) as told:
            read(side, {})
        assert told.value.open_shape == OpenShape("my image = x", (1, "side"))
        assert remedy in told.value.remedy
    assert (asked := open_shape(side, {})) is not None and asked.open_shape is not None
    assert open_shape(side, {"my image = x": (1, 7)}) is None


def test_a_shape_that_does_not_fit_is_told_as_the_option_was_written(tmp_path: Path) -> None:
    side = open_model(tmp_path / "side.onnx", 1, "side")
    with pytest.raises(SpecError, match=r"^--shape my image = x=2,7: the model has \[1, 'side'\]"):
        take(side, {"my image = x": (2, 7)})
    with pytest.raises(SpecError, match=r"^--shape image: the model has no such input"):
        take(side, {"image": (1, 7)})


def test_which_page_and_range_are_asked_for_as_options(tmp_path: Path) -> None:
    images = {"colour": "rgb", "mean": [0.0], "std": [255.0]}
    pages = [Image.new("RGB", (4, 4), shade) for shade in ("red", "blue")]
    pages[0].save(tmp_path / "a.tiff", save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match=r"State which one: --page 1 to 2$"):
        cases_of(tmp_path, SPECS, images, "--calibration")
    (tmp_path / "a.tiff").unlink()
    Image.fromarray(np.full((4, 4), 3.5, np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(DataError, match=r"State --value-range black,white, or 'raw' for the file's own numbers$"):
        cases_of(tmp_path, SPECS, images, "--calibration")
