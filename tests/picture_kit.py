"""Small made-up image data sets, for tests of the kinds of task that need no code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

Pixels = npt.NDArray[np.uint8]


def striped(seed: int, upright: bool, side: int = 24) -> Pixels:
    """Stripes with noise, upright or lying: two classes that a small network can tell apart."""
    rng = np.random.default_rng(seed)
    wave = np.sin(np.arange(side) / 2 + rng.uniform(0, 6))
    stripes = np.tile(wave, (side, 1)) if upright else np.tile(wave[:, None], (1, side))
    return np.asarray(np.clip(127 + 90 * stripes + rng.normal(0, 12, (side, side)), 0, 255), np.uint8)


def save(path: Path, pixels: npt.NDArray[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def two_classes(root: Path, cases: int = 24) -> Path:
    """ROOT/lying and ROOT/upright, ``cases`` images each."""
    for number in range(cases):
        for name in ("lying", "upright"):
            save(root / name / f"{number:03d}.png", striped(2 * number + (name == "upright"), name == "upright"))
    return root


def table_of_patients(root: Path, patients: int = 12, images: int = 4) -> Path:
    """ROOT/images and ROOT/labels.csv: each patient has ``images`` images of one class, every third is upright."""
    lines = ["image,label,group"]
    for patient in range(patients):
        for number in range(images):
            upright, name = patient % 3 == 0, f"images/p{patient}-{number}.png"
            save(root / name, striped(100 * patient + number, upright))
            lines.append(f"{name},{'upright' if upright else 'lying'},patient {patient}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root


def noisy_pairs(root: Path, cases: int = 30, first: int = 0) -> Path:
    for number in range(first, first + cases):
        clean = striped(number, bool(number % 2), side=24 if number % 3 else 30)
        noise = np.random.default_rng(number).normal(0, 40, clean.shape)
        save(root / "target" / f"{number:03d}.png", clean)
        save(root / "input" / f"{number:03d}.png", np.clip(clean + noise, 0, 255).astype(np.uint8))
    return root


def coco_data(root: Path, count: int = 20, **changes: Any) -> Path:
    """Images of 40 x 24 pixels with one or two boxes each; two of them are of one patient."""
    rng = np.random.default_rng(0)
    rows: dict[str, list[dict[str, Any]]] = {
        "categories": [{"id": 7, "name": "stone"}, {"id": 3, "name": "needle"}],
        "images": [],
        "annotations": [],
    }
    for number in range(count):
        pixels = np.repeat(striped(number, True, side=40)[:24, :, None], 3, axis=2)
        name = f"{number:03d}.png"
        save(root / "images" / name, pixels)
        rows["images"].append({"id": number, "file_name": name, "width": 40, "height": 24, "patient": number // 2})
        for _ in range(1 + number % 2):
            left, top = rng.uniform(0, 20), rng.uniform(0, 10)
            entry = {"image_id": number, "category_id": int(rng.choice([3, 7])), "bbox": [left, top, 12.0, 9.0]}
            rows["annotations"].append({"id": len(rows["annotations"]) + 1, "area": 108.0, "iscrowd": 0, **entry})
    for key, change in changes.items():
        change(rows[key])
    (root / "annotations.json").write_text(json.dumps(rows))
    return root


def detector(path: Path, open_shape: bool = False) -> Path:
    """An ONNX file that answers one box of 10 x 10 at (4, 4) whatever it sees."""
    shape: list[Any] = ["batch", 3, "h", "w"] if open_shape else [1, 3, 32, 32]
    constants = {
        "weight": np.zeros((4, 3, 3, 3), np.float32),
        "box": np.array([[[4, 4, 14, 14]]], np.float32),
        "score": np.array([[0.8]], np.float32),
        "ends": np.array([1, 1, 4], np.int64),
        "label": np.array([[1]], np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["image", "weight"], ["seen"]),
        helper.make_node("GlobalAveragePool", ["seen"], ["mean"]),
        helper.make_node("Reshape", ["mean", "ends"], ["row"]),
        helper.make_node("Add", ["row", "box"], ["boxes"]),
        helper.make_node("ReduceMean", ["row"], ["level"], keepdims=0),
        helper.make_node("Add", ["level", "score"], ["scores"]),
        helper.make_node("Cast", ["level"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Add", ["whole", "label"], ["labels"]),
    ]
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, 1, 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 1]),
            helper.make_tensor_value_info("labels", TensorProto.INT64, [1, 1]),
        ],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, path)
    return path


def volume(root: Path, name: str, seed: int, shape: tuple[int, int, int] = (20, 18, 12), **of: Any) -> None:
    """A bright ball in noise, and its label."""
    rng = np.random.default_rng(seed)
    centre = np.array(shape) / 2 + rng.uniform(-2, 2, 3)
    away = np.sqrt(sum((axis - c) ** 2 for axis, c in zip(np.indices(shape), centre, strict=True)))
    label = (away < 4).astype(np.uint8)
    values = (100 * label + rng.normal(0, 10, shape)).astype(np.float32)
    affine = of.get("affine", np.diag([1.0, 1.0, 2.0, 1.0]))
    for folder, data in (("images", of.get("values", values)), ("labels", of.get("label", label))):
        (root / folder).mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(data, affine), root / folder / f"{name}.nii.gz")


def dicom_series(folder: Path, values: Any, affine: Any) -> None:
    """``values`` (X, Y, Z), whole numbers, as slices ``0.dcm`` ... of a CT that lie by ``affine`` (RAS+). From 10 slices on
    their order is not that of the names."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    folder.mkdir(parents=True, exist_ok=True)
    patient = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    along, down = (patient[:3, axis] / np.linalg.norm(patient[:3, axis]) for axis in (0, 1))
    series = generate_uid()
    for place in range(values.shape[2]):
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
        data.PatientName, data.Modality, data.SeriesInstanceUID = "Somebody", "CT", series
        data.ImagePositionPatient = [round(float(v), 6) for v in patient[:3] @ [0, 0, place, 1]]
        data.ImageOrientationPatient = [round(float(v), 6) for v in (*along, *down)]
        data.PixelSpacing = [float(np.linalg.norm(affine[:3, axis])) for axis in (1, 0)]
        data.Rows, data.Columns = values.shape[1], values.shape[0]
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation, data.SamplesPerPixel = 15, 0, 1
        data.PhotometricInterpretation = "MONOCHROME2"
        data.RescaleSlope, data.RescaleIntercept = 1, -1024
        data.PixelData = (values[:, :, place].T + 1024).astype(np.uint16).tobytes()
        data.save_as(folder / f"{place}.dcm", enforce_file_format=True)
